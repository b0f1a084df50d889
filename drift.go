package greenapi

import (
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/judge"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/watch"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// DriftGuard says whether schemas give way when the vendor seems to have changed a format, and
// types that are new are learned.
type DriftGuard struct {
	// Holds every rule against every notification and learns no type, whatever happens.
	// Default: false.
	Off bool `json:"off,omitempty"`
}

// watchDrift counts what is wrong with an admitted notification, once however often it is sent again, and
// tells the operator when the guard gives way.
func (h *Handler) watchDrift(v *visit, said *outcome.Verdict) {
	if h.Validate.drift == nil || !v.Admitted {
		return
	}
	var watch func(*visit, *outcome.Verdict)
	switch {
	case said.Reason == reason.Schema:
		watch = h.watchRules
	case said.Reason == reason.UnknownType && h.Validate.UnknownType == judge.Quarantine:
		watch = h.watchType
	default:
		return
	}
	if !h.Validate.drift.IsResent(v.Body) {
		watch(v, said)
	}
}

func (h *Handler) watchRules(v *visit, said *outcome.Verdict) {
	rules := watch.RulesOf(h.Validate.rules.Schemas, v.N, said.Faults)
	for _, rule := range h.Validate.drift.AddRules(rules, v.N.Instance, v.Started, h.namedInstances()) {
		h.logger.Error("format changed: a rule of a schema is no longer held against notifications, replay what it has kept", zap.String("name", h.Name),
			zap.String("type", rule.Kind), zap.String("pointer", rule.Pointer), zap.String("keyword", rule.Keyword))
		h.app.operator.desk.Tell(outcome.Note{
			Reason: reason.FormatChanged, Kind: v.Kind, Level: zap.ErrorLevel, Instance: v.N.Instance, At: time.Now(),
			More: "The rule " + rule.Pointer + " " + rule.Keyword + " of " + rule.Kind + " is no longer held against notifications of block " + h.Name + ". " +
				"Replay what it has kept: caddy green-api quarantine replay --reason schema --recheck.",
		})
	}
}

// watchType does not name the type: anything may stand there.
func (h *Handler) watchType(v *visit, _ *outcome.Verdict) {
	drift := h.Validate.drift
	drift.RecallOnce(func() bool { return h.recallTypes(drift, v.Started) })
	if !drift.AddType(v.N.Type, v.N.Instance, v.Started, h.namedInstances()) {
		return
	}
	h.logger.Warn("new type: a type of notification that no schema knows is passed on from now on, replay what was kept",
		zap.String("name", h.Name), zap.String("type", v.Kind), zap.String("instance", v.N.Instance))
	h.app.operator.desk.Tell(outcome.Note{
		Reason: reason.NewType, Kind: v.Kind, Level: zap.WarnLevel, Instance: v.N.Instance, At: time.Now(),
		More: "It is passed on to the handlers of block " + h.Name + " from now on. GET /green_api/status names it. " +
			"Replay what was kept: caddy green-api quarantine replay --reason unknown_type --recheck.",
	})
}

// maxRecalled is how many entries of the quarantine are looked at for types that came before.
const maxRecalled = 100_000

// recallTypes counts the entries of unknown types in the quarantine: a type that comes seldom may have come
// before Caddy was started. It reports whether the quarantine could be opened.
func (h *Handler) recallTypes(drift *watch.Drift, now time.Time) bool {
	// An error is told when this notification is kept, too.
	store, release, err := h.app.openQuarantine()
	if err != nil {
		return false
	}
	defer release()
	_ = store.EachSince(now.Add(-watch.RareWindow), reason.UnknownType, maxRecalled, func(e quarantine.Entry) {
		if e.Name == h.Name && !e.Unadmitted && !e.Received.After(now) {
			drift.CountType(e.Type, e.Instance, e.Received)
		}
	})
	return true
}

// namedInstances returns instances that the config names, at most watch.DriftInstances of them.
func (h *Handler) namedInstances() (ids []string) {
	for id := range h.Auth.set.Load().Own {
		if ids = append(ids, id); len(ids) == watch.DriftInstances {
			return ids
		}
	}
	for _, c := range h.Receive {
		if ids = append(ids, notification.SameInstance(c.Instance)); len(ids) == watch.DriftInstances {
			return ids
		}
	}
	return ids
}
