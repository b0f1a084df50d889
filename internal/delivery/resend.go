package delivery

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// This file remembers notifications that may come again: those in flight and those that were delivered.
// (Failed ones are in deadletter.go and retention.go.) GREEN-API re-sends the very same bytes. Only the
// duplicates that it creates itself may differ.

// flights holds the notifications on their way to a handler, and those that ended well after their sender
// had hung up.
type flights struct {
	mu      sync.Mutex
	of      map[outcome.Digest]*flight
	unheard unheard
}

type flight struct {
	digest outcome.Digest
	sender context.Context // the request's; ends when the sender hangs up
	via    string          // webhook or HTTP API
	done   chan struct{}   // nil if nobody has joined

	// Set before done is closed.
	end      *outcome.Verdict
	handler  string
	attempts int
}

// board registers a notification. If an earlier delivery of it ended well after its sender gave up, ended
// is true, once. If it is already in flight and that sender has given up, or it arrives both by webhook and
// from the HTTP API because its instance is being switched, board returns the other flight. While the first
// sender is still waiting, the same bytes are a notification of their own, which flies untracked: board
// returns nothing. now may count from any point.
func (f *flights) board(sender context.Context, via string, digest outcome.Digest, now time.Duration) (mine, other *flight, ended bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if running := f.of[digest]; running != nil {
		if running.sender.Err() != nil || running.via != via {
			running.sender = sender // the one who joins is now waiting
			if running.done == nil {
				running.done = make(chan struct{})
			}
			return nil, running, false
		}
		return nil, nil, false
	}
	if f.unheard.tell(digest, now, sender.Err() == nil) {
		return nil, nil, true
	}
	if f.of == nil {
		f.of = make(map[outcome.Digest]*flight)
	}
	mine = &flight{digest: digest, sender: sender, via: via}
	f.of[digest] = mine
	return mine, nil, false
}

// land ends a flight. mine is nil if it was not tracked; end is nil if the delivery crashed.
func (f *flights) land(mine *flight, sender context.Context, c *outcome.Case, end *outcome.Verdict, now time.Duration) {
	f.mu.Lock()
	if mine != nil {
		delete(f.of, mine.digest)
		sender = mine.sender // the last one to join
	}
	if end != nil && endsWell(end.Outcome) && sender.Err() != nil {
		f.unheard.add(c.Digest(), now)
	}
	f.mu.Unlock()
	if mine == nil || mine.done == nil { // from now on, nobody can join
		return
	}
	mine.end, mine.handler, mine.attempts = end, c.Handler, c.Attempts
	close(mine.done)
}

// endsWell reports whether the sender need not send the notification again.
func endsWell(end outcome.Outcome) bool {
	return end == outcome.Delivered || end == outcome.Quarantined || end == outcome.Queued
}

// isUnheard reports whether a notification is in flight whose sender has hung up.
func (f *flights) isUnheard() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, flight := range f.of {
		if flight.sender.Err() != nil {
			return true
		}
	}
	return false
}

// unheard holds notifications that were delivered or kept when nobody was waiting for the answer any more.
// Their sender still has to learn that, and sends them once more.
type unheard struct {
	until  map[outcome.Digest]time.Duration
	oldest []outcome.Digest // in the order they ended; may include some already told
}

const (
	unheardFor = 10 * time.Minute
	maxUnheard = 10_000
)

func (u *unheard) add(key outcome.Digest, now time.Duration) {
	u.forget(now, maxUnheard-1)
	if u.until == nil {
		u.until = make(map[outcome.Digest]time.Duration)
	}
	u.until[key] = now + unheardFor
	u.oldest = append(u.oldest, key)
}

// forget drops expired entries, and the oldest while there are more than most.
func (u *unheard) forget(now time.Duration, most int) {
	for len(u.oldest) > 0 && (len(u.oldest) > most || u.until[u.oldest[0]] <= now) {
		delete(u.until, u.oldest[0])
		u.oldest = u.oldest[1:]
	}
}

// tell reports whether to tell the sender of a body that it ended well. That happens once, if the sender is
// still listening.
func (u *unheard) tell(key outcome.Digest, now time.Duration, listens bool) bool {
	u.forget(now, maxUnheard)
	if len(u.until) == 0 {
		return false
	}
	until, known := u.until[key]
	if listens {
		delete(u.until, key)
	}
	return known && now < until
}

// join waits for another delivery of the same notification and adopts its verdict. The other one started
// earlier, so its time runs out earlier, too.
func (f *flight) join(c *outcome.Case) *outcome.Verdict {
	<-f.done
	if f.end == nil {
		return &outcome.Verdict{Outcome: outcome.Failed, Reason: reason.NotNow, Status: http.StatusServiceUnavailable, Level: zap.ErrorLevel, Err: errCrashed}
	}
	c.Handler, c.Attempts = f.handler, f.attempts
	end := *f.end
	end.Fields = append([]zap.Field{zap.Bool("joined", true)}, end.Fields...)
	return &end
}

var errCrashed = errors.New("the delivery that it joined has crashed")

// duplicates remembers delivered notifications.
type duplicates struct {
	most int // how many to remember

	mu     sync.Mutex
	until  map[eventKey]time.Time
	oldest []eventKey // in the order of delivery
}

// maxDuplicates keeps the memory below about 100 MB.
const maxDuplicates = 1_000_000

// eventKey identifies a notification by its content, without what may differ in a duplicate.
type eventKey [16]byte

// eventKeyOf returns the key that a notification shares with its duplicates, and false if it has none.
func eventKeyOf(c *outcome.Case) (key eventKey, has bool) {
	if c.N.Type == "" { // not a notification, but passed on all the same
		sum := c.Digest()
		return eventKey(sum[:len(key)]), true
	}
	return c.N.Content()
}

func (d *duplicates) has(key eventKey, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.until[key].After(now)
}

func (d *duplicates) add(key eventKey, now time.Time, keep time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.oldest) > 0 && (len(d.oldest) >= d.most || !d.until[d.oldest[0]].After(now)) {
		delete(d.until, d.oldest[0])
		d.oldest = d.oldest[1:]
	}
	if d.until == nil {
		d.until = make(map[eventKey]time.Time)
	}
	if _, known := d.until[key]; !known {
		d.oldest = append(d.oldest, key)
	}
	d.until[key] = now.Add(keep)
}
