package delivery

import (
	"container/list"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// A notification that handlers fail again and again blocks its instance's queue for a day, so it is better
// to keep it and let the sender go on. But broken handlers fail every notification, and keeping all of those
// would empty the queues. Two signs tell poison from an outage:
//
//   - a handler that failed it has since taken another one, and fails it again; or
//   - it has been failing for so long (`dead_letter_after`) that waiting is worse, whatever the cause. As
//     long as the block delivers nothing, each further one has to wait twice as long.

const (
	// failuresApart is the minimum time between two failures. GREEN-API pauses for 60 s. Anything that
	// repeats sooner, such as a proxy in front, repeats the same failure.
	failuresApart = 45 * time.Second

	maxDeadLetters = 10_000 // failing notifications
	maxTakers      = 10_000 // handlers that took something; their addresses may come and go
	maxDoublings   = 20
)

// deadLetters counts failures, for the last maxDeadLetters notifications that failed.
type deadLetters struct {
	mu     sync.Mutex
	of     map[outcome.Digest]*list.Element
	oldest list.List // of *deadLetter

	taken     uint64            // number of notifications that handlers have taken
	takers    map[string]uint64 // by handler, the value of taken when it last took one
	doublings int               // of dead_letter_after, since a handler last took something
}

// deadLetter is one failing notification.
type deadLetter struct {
	key    outcome.Digest
	failed map[string]uint64 // by handler, the value of taken when it last failed this one

	failures int           // by handlers that take others
	at       time.Duration // of the last failure counted

	row         int           // consecutive failures during which the handlers that failed it took nothing
	rowSince    uint64        // the value of taken at the first failure in the row
	first, last time.Duration // failure in the row
}

// A failedRound is what handlers made of a notification between its receipt and its answer.
type failedRound struct {
	by       []string // the known handlers that failed it
	answered bool     // one of them answered badly or not at all; false if all were misrouted
}

// add records the result of one attempt.
func (f *failedRound) add(got Answer) {
	switch got.Result {
	case HandlerError, RefusedByIt, BrokenOff, TimedOut:
		f.answered = true
	case Misrouted:
	default:
		return
	}
	if got.Handler != "" && !slices.Contains(f.by, got.Handler) {
		f.by = append(f.by, got.Handler)
	}
}

// deadLetterLimits are `dead_letter` and `dead_letter_after`.
type deadLetterLimits struct {
	failures int
	after    time.Duration // 0 for never
}

// A ruling says whether a notification is a dead letter.
type ruling struct {
	failures int
	dead     bool
	doubled  bool // by dead_letter_after, which is twice as long for the next one
}

// fail counts a failed round and rules whether it makes a dead letter. now may count from any point.
func (d *deadLetters) fail(key outcome.Digest, round failedRound, limits deadLetterLimits, now time.Duration) (found ruling) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.entry(key)
	proven := c.failures == 0 // the first failure proves nothing about the handlers yet
	for _, handler := range round.by {
		if before, again := c.failed[handler]; again && d.takers[handler] > before {
			proven = true
		}
	}
	if len(round.by) > 0 && proven && (c.failures == 0 || now-c.at >= failuresApart) {
		c.failures++
		c.at = now
	}
	for _, handler := range round.by {
		c.failed[handler] = d.taken
	}
	if round.answered {
		d.addToRow(c, now)
	}
	found.failures = max(c.failures, c.row)
	switch {
	case c.failures >= limits.failures:
		found.dead = true
	case c.row >= limits.failures && limits.after > 0 && c.last-c.first >= d.patience(limits.after):
		found.dead, found.doubled = true, true
		d.doublings = min(d.doublings+1, maxDoublings)
	}
	return found
}

// addToRow counts a consecutive failure. It starts a new row if one of the handlers that failed it has
// taken something since the first failure in this one.
func (d *deadLetters) addToRow(c *deadLetter, now time.Duration) {
	tookSome := false
	for handler := range c.failed {
		tookSome = tookSome || d.takers[handler] > c.rowSince
	}
	switch {
	case c.row == 0 || tookSome:
		c.row, c.rowSince, c.first, c.last = 1, d.taken, now, now
	case now-c.last >= failuresApart:
		c.row++
		c.last = now
	}
}

// patience returns how long the next notification has to fail if nothing shows that it is itself at fault.
func (d *deadLetters) patience(after time.Duration) time.Duration {
	for range d.doublings {
		if after > 365*24*time.Hour {
			break
		}
		after *= 2
	}
	return after
}

// entry returns the record of a notification and makes it the most recent.
func (d *deadLetters) entry(key outcome.Digest) *deadLetter {
	if at, known := d.of[key]; known {
		d.oldest.MoveToBack(at)
		return at.Value.(*deadLetter)
	}
	if d.of == nil {
		d.of = make(map[outcome.Digest]*list.Element)
	}
	if d.oldest.Len() == maxDeadLetters {
		d.remove(d.oldest.Front())
	}
	c := &deadLetter{key: key, failed: make(map[string]uint64)}
	d.of[key] = d.oldest.PushBack(c)
	return c
}

// took records that a handler took a notification. handler is "" if unknown.
func (d *deadLetters) took(handler string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.taken++
	d.doublings = 0
	if handler == "" {
		return
	}
	if d.takers == nil {
		d.takers = make(map[string]uint64)
	}
	d.takers[handler] = d.taken
	if len(d.takers) > maxTakers { // drop the half that took something least recently
		last := slices.Sorted(maps.Values(d.takers))
		maps.DeleteFunc(d.takers, func(_ string, at uint64) bool { return at < last[len(last)/2] })
	}
}

// forget removes a notification that was delivered or kept.
func (d *deadLetters) forget(key outcome.Digest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at, known := d.of[key]; known {
		d.remove(at)
	}
}

// takeBack undoes a ruling whose dead letter could not be kept.
func (d *deadLetters) takeBack(found ruling) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if found.doubled {
		d.doublings = max(0, d.doublings-1)
	}
}

func (d *deadLetters) remove(at *list.Element) {
	delete(d.of, d.oldest.Remove(at).(*deadLetter).key)
}
