package greenapi

import (
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/notification"
)

const reasonFormatChanged = "format_changed"

// The vendor may change a format for everybody overnight. A rule of a schema that so many
// notifications of so many instances break within an hour is no longer held against any.
const (
	driftBreaks    = 20
	driftInstances = 3
	driftWindow    = time.Hour
	maxDriftRules  = 1000
)

// DriftGuard says whether schemas give way when the vendor seems to have changed a format.
type DriftGuard struct {
	// Holds every rule against every notification, whatever happens. Default: false.
	Off bool `json:"off,omitempty"`
}

// driftRule is one demand of a schema.
type driftRule struct {
	Kind    string `json:"kind"`    // TYPE or TYPE.MESSAGE
	Pointer string `json:"pointer"` // with * for any index of an array
	Keyword string `json:"keyword"`
}

// driftRecord is how often a rule was broken.
type driftRecord struct {
	times     []time.Time          // the last driftBreaks
	instances map[string]time.Time // up to driftInstances, and when they last broke it
	turned    time.Time            // zero while it is in force
}

// driftDesk counts broken rules, over config reloads. A rule that has turned is in force again when
// the process is.
type driftDesk struct {
	mu    sync.Mutex
	rules map[driftRule]*driftRecord
}

var arrayIndex = regexp.MustCompile(`/[0-9]+(/|$)`)

func ruleOf(n *notification.Notification, f notification.Fault) driftRule {
	kind := n.Type
	if n.Message != "" {
		kind += "." + n.Message
	}
	pointer := f.Pointer
	for arrayIndex.MatchString(pointer) { // neighbours share a slash
		pointer = arrayIndex.ReplaceAllString(pointer, "/*$1")
	}
	return driftRule{clip(kind), clip(pointer), f.Keyword}
}

// holds returns the faults whose rules are still in force.
func (d *driftDesk) holds(n *notification.Notification, faults []notification.Fault) []notification.Fault {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.rules) == 0 {
		return faults
	}
	return slices.DeleteFunc(slices.Clone(faults), func(f notification.Fault) bool {
		r := d.rules[ruleOf(n, f)]
		return r != nil && !r.turned.IsZero()
	})
}

// add counts the broken rules of a notification and returns those that turn by it.
func (d *driftDesk) add(n *notification.Notification, faults []notification.Fault, now time.Time) (turned []driftRule) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range faults {
		rule := ruleOf(n, f)
		r := d.rules[rule]
		if r == nil {
			if len(d.rules) >= maxDriftRules {
				d.forget(now)
			}
			if len(d.rules) >= maxDriftRules {
				continue
			}
			if d.rules == nil {
				d.rules = make(map[driftRule]*driftRecord)
			}
			r = &driftRecord{instances: make(map[string]time.Time)}
			d.rules[rule] = r
		}
		if r.breaks(n.Instance, now) {
			r.turned = now
			turned = append(turned, rule)
		}
	}
	return turned
}

// forget makes room: rules that were not broken for long are none that a change of format breaks.
func (d *driftDesk) forget(now time.Time) {
	maps.DeleteFunc(d.rules, func(_ driftRule, r *driftRecord) bool {
		return r.turned.IsZero() && now.Sub(r.times[len(r.times)-1]) > driftWindow
	})
}

// breaks adds one and tells whether the rule turns by it.
func (r *driftRecord) breaks(instance string, now time.Time) bool {
	if !r.turned.IsZero() {
		return false
	}
	if len(r.times) == driftBreaks {
		r.times = append(r.times[:0], r.times[1:]...)
	}
	r.times = append(r.times, now)
	for other, last := range r.instances {
		if now.Sub(last) > driftWindow {
			delete(r.instances, other)
		}
	}
	if _, known := r.instances[instance]; known || len(r.instances) < driftInstances {
		r.instances[instance] = now
	}
	return len(r.times) == driftBreaks && now.Sub(r.times[0]) <= driftWindow && len(r.instances) >= driftInstances
}

// turned are the rules that are not held against notifications any longer.
func (d *driftDesk) turned() (rules []driftRule) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for rule, r := range d.rules {
		if !r.turned.IsZero() {
			rules = append(rules, rule)
		}
	}
	return rules
}

// watchDrift counts the faults of a notification, and tells when a rule turns.
func (h *Handler) watchDrift(v *visit, faults []notification.Fault) {
	if h.Validate.drift == nil || len(faults) == 0 || !v.admitted {
		return
	}
	for _, rule := range h.Validate.drift.add(v.n, faults, v.started) {
		h.logger.Error("format changed: a rule of a schema is no longer held against notifications, replay what it has kept",
			zap.String("type", rule.Kind), zap.String("pointer", rule.Pointer), zap.String("keyword", rule.Keyword))
		h.app.operator.alerts.tell(note{
			reason: reasonFormatChanged, typ: h.typeLabel(v), level: zap.ErrorLevel, instance: v.n.Instance, at: time.Now(),
			more: "The rule " + rule.Pointer + " " + rule.Keyword + " of " + rule.Kind + " is no longer held against notifications. " +
				"Replay what it has kept: caddy green-api quarantine replay --reason schema --recheck.",
		})
	}
}
