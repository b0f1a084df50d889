package greenapi

import (
	"crypto/sha256"
	"hash/maphash"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/greenapi-community/caddy-green-api/notification"
)

// driftRule is one demand of a schema. All of it is out of closed lists.
type driftRule struct {
	Kind    string `json:"kind"`    // TYPE, TYPE.MESSAGE, or TYPE.other for a message type without a schema
	Pointer string `json:"pointer"` // with * for array indexes and names that no schema knows
	Keyword string `json:"keyword"`
}

// rulesOf are the rules that a notification breaks, each once.
func rulesOf(schemas *notification.Schemas, n *notification.Notification, faults []notification.Fault) []driftRule {
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
	var rules []driftRule
	known := make(map[driftRule]bool)
	for _, f := range faults {
		rule := driftRule{kind, schemas.Shape(f.Pointer), f.Keyword}
		if !known[rule] {
			known[rule] = true
			rules = append(rules, rule)
		}
	}
	return rules
}

// blockDrift is what the drift guard of one block knows, across reloads.
type blockDrift struct {
	mu    sync.Mutex
	seen  lastInstances // of admitted notifications
	desks map[[sha256.Size]byte]*driftDesk
}

// driftDesk is what the guard of one block has learned about one set of schemas. It is forgotten
// when no config has them any more, and at the end of the process.
type driftDesk struct {
	*blockDrift
	schemas [sha256.Size]byte
	holders int

	recalling sync.Mutex
	recalled  bool // what the quarantine keeps of types is counted

	rules tallies[driftRule]
	types tallies[string] // that no schema knows
	came  cameBodies
}

func (b *blockDrift) hold(schemas [sha256.Size]byte) *driftDesk {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.desks[schemas]
	if d == nil {
		if b.desks == nil {
			b.desks = make(map[[sha256.Size]byte]*driftDesk)
		}
		d = &driftDesk{blockDrift: b, schemas: schemas}
		b.desks[schemas] = d
	}
	d.holders++
	return d
}

func (d *driftDesk) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.holders--; d.holders == 0 {
		delete(d.desks, d.schemas)
	}
}

// recallOnce has what the quarantine keeps counted, unless that was done. recall reports whether it could.
func (d *driftDesk) recallOnce(recall func() bool) {
	d.recalling.Lock()
	defer d.recalling.Unlock()
	if !d.recalled {
		d.recalled = recall()
	}
}

// saw notes that an instance is among those that there are.
func (d *driftDesk) saw(instance string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen.add(instance, now)
}

// isResent reports whether a body was counted before. What no handler takes comes again and again.
func (d *driftDesk) isResent(body []byte) bool {
	sum := maphash.Bytes(bodySeed, body)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.came.before(sum)
}

// cameBodies knows the last bodies that were counted, by their hashes.
type cameBodies struct{ newer, older map[uint64]bool }

// maxCame is how many of them it knows at least. Of each instance one is on its way at a time.
const maxCame = 4096

var bodySeed = maphash.MakeSeed()

// before notes a hash, and reports whether it was known.
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

// addRules counts the rules that a notification breaks, and returns those that turn by it. named
// are instances that there are, whether they send or not.
func (d *driftDesk) addRules(rules []driftRule, instance string, now time.Time, named []string) (turned []driftRule) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, rule := range rules {
		if d.rules.add(rule, instance, now, d.everyone(now, named)) {
			turned = append(turned, rule)
		}
	}
	return turned
}

// holds reports whether any rule that a notification breaks is still in force. more says that it may break
// others than these.
func (d *driftDesk) holds(schemas *notification.Schemas, n *notification.Notification, faults []notification.Fault, more bool) bool {
	if more { // the one that holds may be among the rest
		return true
	}
	rules := rulesOf(schemas, n, faults)
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(rules, func(rule driftRule) bool { return !d.rules.turned(rule) })
}

// addType counts a type that no schema knows, and reports whether it is learned by that.
func (d *driftDesk) addType(typ, instance string, now time.Time, named []string) bool {
	if !isLearnable(typ) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.types.add(typ, instance, now, d.everyone(now, named))
}

// countType counts a type as of a time that is over.
func (d *driftDesk) countType(typ, instance string, at time.Time) {
	if !isLearnable(typ) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.types.count(typ, instance, at)
}

// isLearnable reports whether the vendor could have named a type so. It bounds what is remembered.
func isLearnable(typ string) bool { return len(typ) <= 64 && utf8.ValidString(typ) }

// learned reports whether a type is passed on although no schema knows it.
func (d *driftDesk) learned(typ string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.types.turned(typ)
}

// everyone returns the instances that there are, or nil if they are driftInstances or more.
func (d *driftDesk) everyone(now time.Time, named []string) func() []string {
	return func() []string {
		all := append(d.seen.since(now.Add(-seenWindow)), named...)
		slices.Sort(all)
		if all = slices.Compact(all); len(all) >= driftInstances {
			return nil
		}
		return all
	}
}

// driftState is what /green_api/status shows of the guard.
type driftState struct {
	Name string `json:"name"` // of the block
	driftRule
	Since time.Time `json:"since"`
}

// newTypeState is what /green_api/status shows of a type that was learned.
type newTypeState struct {
	Name  string    `json:"name"` // of the block
	Type  string    `json:"type"`
	Since time.Time `json:"since"`
}

// turned are the rules that are not held against notifications any longer, and the types that are
// passed on, of the block of this name.
func (d *driftDesk) turned(name string) (rules []driftState, types []newTypeState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for rule, since := range d.rules.allTurned() {
		rules = append(rules, driftState{name, rule, since})
	}
	for typ, since := range d.types.allTurned() {
		types = append(types, newTypeState{name, typ, since})
	}
	slices.SortFunc(rules, func(a, b driftState) int { return a.Since.Compare(b.Since) })
	slices.SortFunc(types, func(a, b newTypeState) int { return a.Since.Compare(b.Since) })
	return rules, types
}
