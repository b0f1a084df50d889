package watch

import (
	"crypto/sha256"
	"hash/maphash"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/greenapi-community/caddy-green-api/notification"
)

// A Rule is one requirement of a schema. All its texts come from closed lists.
type Rule struct {
	Kind    string `json:"kind"`    // TYPE, TYPE.MESSAGE, or TYPE.other for a message type without a schema
	Pointer string `json:"pointer"` // with * for array indexes and for names that no schema knows
	Keyword string `json:"keyword"`
}

// RulesOf returns the rules that a notification violates, each once.
func RulesOf(schemas *notification.Schemas, n *notification.Notification, faults []notification.Fault) []Rule {
	kind := notification.KindOther
	if schemas.KnownType(n.Type) {
		kind = n.Type
	}
	switch {
	case n.Message == "":
	case schemas.KnownMessage(n.Message):
		kind += "." + n.Message
	default:
		kind += "." + notification.KindOther
	}
	var rules []Rule
	known := make(map[Rule]bool)
	for _, f := range faults {
		rule := Rule{kind, schemas.Shape(f.Pointer), f.Keyword}
		if !known[rule] {
			known[rule] = true
			rules = append(rules, rule)
		}
	}
	return rules
}

// Drifts is what the drift guard of one block knows, across reloads. The zero value is ready to use.
type Drifts struct {
	mu   sync.Mutex
	seen lastInstances // of admitted notifications
	sets map[[sha256.Size]byte]*Drift
}

// A Drift is what the guard of one block has learned about one set of schemas. It is forgotten when no
// config uses these schemas any more, and when the process ends.
type Drift struct {
	of      *Drifts // the block
	schemas [sha256.Size]byte
	holders int
	seed    maphash.Seed // of the hashes in came

	recalling sync.Mutex
	recalled  bool // the types in the quarantine have been counted

	rules tallies[Rule]
	types tallies[string] // unknown to every schema
	came  cameBodies
}

// Hold returns what is known about a set of schemas, until Release.
func (b *Drifts) Hold(schemas [sha256.Size]byte) *Drift {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.sets[schemas]
	if d == nil {
		if b.sets == nil {
			b.sets = make(map[[sha256.Size]byte]*Drift)
		}
		d = &Drift{of: b, schemas: schemas, seed: maphash.MakeSeed()}
		b.sets[schemas] = d
	}
	d.holders++
	return d
}

// Release releases what Hold returned.
func (d *Drift) Release() {
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	if d.holders--; d.holders == 0 {
		delete(d.of.sets, d.schemas)
	}
}

// RecallOnce calls recall, which counts what is in the quarantine, until it has once reported success.
func (d *Drift) RecallOnce(recall func() bool) {
	d.recalling.Lock()
	defer d.recalling.Unlock()
	if !d.recalled {
		d.recalled = recall()
	}
}

// Saw records that an instance exists.
func (d *Drift) Saw(instance string, now time.Time) {
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	d.of.seen.add(instance, now)
}

// IsResent records a body and reports whether it came before: a notification that no handler takes is sent
// again and again.
func (d *Drift) IsResent(body []byte) bool {
	sum := maphash.Bytes(d.seed, body)
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	return d.came.before(sum)
}

// cameBodies remembers the hashes of the last bodies that were counted.
type cameBodies struct{ newer, older map[uint64]bool }

// maxCame is how many bodies are remembered at least. Each instance sends one at a time.
const maxCame = 4096

// before records a hash and reports whether it was known.
func (c *cameBodies) before(sum uint64) bool {
	if c.newer[sum] {
		return true
	}
	known := c.older[sum]
	if c.newer == nil || len(c.newer) >= maxCame {
		c.newer, c.older = make(map[uint64]bool), c.newer
	}
	c.newer[sum] = true
	return known
}

// AddRules counts the rules that a notification violates and returns those that are no longer enforced from
// now on. The instances in named exist, whether they send or not.
func (d *Drift) AddRules(rules []Rule, instance string, now time.Time, named []string) (turned []Rule) {
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	for _, rule := range rules {
		if d.rules.add(rule, instance, now, d.everyone(now, named)) {
			turned = append(turned, rule)
		}
	}
	return turned
}

// Holds reports whether any rule that a notification violates is still enforced. more means that it may
// violate further rules.
func (d *Drift) Holds(schemas *notification.Schemas, n *notification.Notification, faults []notification.Fault, more bool) bool {
	if more { // one of the others may still be enforced
		return true
	}
	rules := RulesOf(schemas, n, faults)
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	return slices.ContainsFunc(rules, func(rule Rule) bool { return !d.rules.turned(rule) })
}

// AddType counts a type that no schema knows and reports whether it is now learned.
func (d *Drift) AddType(typ, instance string, now time.Time, named []string) bool {
	if !isLearnable(typ) {
		return false
	}
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	return d.types.add(typ, instance, now, d.everyone(now, named))
}

// CountType counts an earlier notification of a type.
func (d *Drift) CountType(typ, instance string, at time.Time) {
	if !isLearnable(typ) {
		return
	}
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	d.types.count(typ, instance, at)
}

// isLearnable reports whether the vendor could have given a type this name. It limits what is remembered.
func isLearnable(typ string) bool { return len(typ) <= 64 && utf8.ValidString(typ) }

// Learned reports whether a type is passed on although no schema knows it.
func (d *Drift) Learned(typ string) bool {
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	return d.types.turned(typ)
}

// everyone returns a function that returns the existing instances, nil if there are at least
// DriftInstances.
func (d *Drift) everyone(now time.Time, named []string) func() []string {
	return func() []string {
		all := append(d.of.seen.since(now.Add(-seenWindow)), named...)
		slices.Sort(all)
		if all = slices.Compact(all); len(all) >= DriftInstances {
			return nil
		}
		return all
	}
}

// A RuleState is what /green_api/status shows of a rule that is no longer enforced.
type RuleState struct {
	Name string `json:"name"` // of the block
	Rule
	Since time.Time `json:"since"`
}

// A TypeState is what /green_api/status shows of a learned type.
type TypeState struct {
	Name  string    `json:"name"` // of the block
	Type  string    `json:"type"`
	Since time.Time `json:"since"`
}

// Turned returns the rules that are no longer enforced and the types that are passed on. name is the
// block's.
func (d *Drift) Turned(name string) (rules []RuleState, types []TypeState) {
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	for rule, since := range d.rules.allTurned() {
		rules = append(rules, RuleState{name, rule, since})
	}
	for typ, since := range d.types.allTurned() {
		types = append(types, TypeState{name, typ, since})
	}
	slices.SortFunc(rules, func(a, b RuleState) int { return a.Since.Compare(b.Since) })
	slices.SortFunc(types, func(a, b TypeState) int { return a.Since.Compare(b.Since) })
	return rules, types
}
