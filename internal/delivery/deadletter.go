package delivery

import (
	"container/list"
	"crypto/sha256"
	"maps"
	"slices"
	"sync"
	"time"
)

// A notification that handlers fail again and again stops its instance's queue for a day, so that it
// had better be kept and the sender go on. But handlers that are out of order fail every notification,
// and whoever keeps those empties the queues. Two signs tell poison from an outage:
//
//   - a handler that failed it has taken another one since, and fails it again; or
//   - it has failed for so long (`dead_letter_after`) that waiting is worse, whatever the cause. As long
//     as the block delivers nothing, each further one has to wait twice as long.

const (
	// failuresApart is how far apart two failures are at least. GREEN-API pauses for 60 s; whoever
	// repeats sooner, as a proxy in front, repeats the same failure.
	failuresApart = 45 * time.Second

	maxDeadLetters = 10_000 // notifications that fail
	maxTakers      = 10_000 // handlers that took something; addresses may come and go
	maxDoublings   = 20
)

// deadLetters counts the failures of notifications, of the last maxDeadLetters that failed.
type deadLetters struct {
	mu     sync.Mutex
	of     map[[sha256.Size]byte]*list.Element
	oldest list.List // of *deadLetter

	taken     uint64            // notifications that handlers took
	takers    map[string]uint64 // by handler, the number of the last one it took
	doublings int               // of dead_letter_after, since a handler took something
}

// deadLetter is one notification that fails.
type deadLetter struct {
	key    [sha256.Size]byte
	failed map[string]uint64 // by handler, how many had been taken when it last failed this one

	failures int           // by handlers that take others
	at       time.Duration // of the last failure that was counted

	row         int           // failures with nothing taken in between by the handlers that failed it
	rowSince    uint64        // how many had been taken at the first of them
	first, last time.Duration // of them
}

// A failedRound is what the handlers made of a notification from its receipt to its answer.
type failedRound struct {
	by       []string // the known handlers that failed it
	answered bool     // one of them answered badly or not at all; false if they were all misrouted
}

// add notes what became of one attempt.
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
	doubled  bool // by dead_letter_after, which the next one has to wait for twice as long
}

// fail counts a failed round and finds out whether it makes a dead letter. now counts from any point.
func (d *deadLetters) fail(body []byte, round failedRound, limits deadLetterLimits, now time.Duration) (found ruling) {
	key := sha256.Sum256(body)
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.entry(key)
	proven := c.failures == 0 // the first one says nothing of the handlers yet
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

// addToRow counts a failure in a row, and begins another row if one of the handlers that failed it has
// taken something since the first of this one.
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

// patience is how long the next notification has to fail without a sign that it is at fault itself.
func (d *deadLetters) patience(after time.Duration) time.Duration {
	for range d.doublings {
		if after > 365*24*time.Hour {
			break
		}
		after *= 2
	}
	return after
}

// entry returns what is known of a notification, as the one that failed last.
func (d *deadLetters) entry(key [sha256.Size]byte) *deadLetter {
	if at, known := d.of[key]; known {
		d.oldest.MoveToBack(at)
		return at.Value.(*deadLetter)
	}
	if d.of == nil {
		d.of = make(map[[sha256.Size]byte]*list.Element)
	}
	if d.oldest.Len() == maxDeadLetters {
		d.remove(d.oldest.Front())
	}
	c := &deadLetter{key: key, failed: make(map[string]uint64)}
	d.of[key] = d.oldest.PushBack(c)
	return c
}

// took notes that a handler took a notification; "" stands for one that is not known.
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
	if len(d.takers) > maxTakers { // those that took the least lately go
		last := slices.Sorted(maps.Values(d.takers))
		maps.DeleteFunc(d.takers, func(_ string, at uint64) bool { return at < last[len(last)/2] })
	}
}

// forget takes a notification out that was delivered or kept.
func (d *deadLetters) forget(body []byte) {
	d.mu.Lock()
	none := len(d.of) == 0
	d.mu.Unlock()
	if none {
		return
	}
	key := sha256.Sum256(body) // nobody waits for it
	d.mu.Lock()
	defer d.mu.Unlock()
	if at, known := d.of[key]; known {
		d.remove(at)
	}
}

// takeBack is for a dead letter that could not be kept.
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
