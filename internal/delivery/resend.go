package delivery

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// What is remembered of notifications that may come again: those on their way, and those that were
// delivered. (Those that failed are in deadletter.go and retention.go.) GREEN-API sends the very same bytes again; only the duplicates
// that it makes itself may differ.

// flights are the notifications on their way to a handler, and those that ended well after their
// sender had hung up.
type flights struct {
	mu      sync.Mutex
	of      map[uint64]*flight // by a hash of the body
	unheard unheard
}

type flight struct {
	hash   uint64
	body   []byte
	sender context.Context // of the request; over when the sender has hung up
	via    string          // the way it came
	done   chan struct{}

	// When done is closed.
	end      *outcome.Verdict
	handler  string
	attempts int
}

// board enters a notification. If its sender gave up before it ended well, ended is true, once. If it
// is on a flight already although its sender has given up, or because an instance is just being
// switched between webhook and HTTP API and it comes both ways, board returns that other flight.
// While the sender waits, the same bytes are another notification, which flies unseen: nothing is
// returned then. now counts from any point.
func (f *flights) board(sender context.Context, via string, body []byte, now time.Duration) (mine, other *flight, ended bool) {
	hash := xxhash.Sum64(body)
	f.mu.Lock()
	defer f.mu.Unlock()
	if running := f.of[hash]; running != nil {
		if (running.sender.Err() != nil || running.via != via) && bytes.Equal(running.body, body) {
			running.sender = sender // who joins waits for it
			return nil, running, false
		}
		return nil, nil, false
	}
	if f.unheard.tell(body, now, sender.Err() == nil) {
		return nil, nil, true
	}
	if f.of == nil {
		f.of = make(map[uint64]*flight)
	}
	mine = &flight{hash: hash, body: body, sender: sender, via: via, done: make(chan struct{})}
	f.of[hash] = mine
	return mine, nil, false
}

// land ends a flight, which is nil if it was not seen. end is nil if it crashed.
func (f *flights) land(mine *flight, sender context.Context, c *outcome.Case, end *outcome.Verdict, now time.Duration) {
	f.mu.Lock()
	if mine != nil {
		delete(f.of, mine.hash)
		sender = mine.sender // who joined last
	}
	if end != nil && (end.Outcome == outcome.Delivered || end.Outcome == outcome.Quarantined) && sender.Err() != nil {
		f.unheard.add(c.Body, now)
	}
	f.mu.Unlock()
	if mine == nil {
		return
	}
	mine.end, mine.handler, mine.attempts = end, c.Handler, c.Attempts
	close(mine.done)
}

// isUnheard reports whether the sender of a notification on its way has hung up.
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

// unheard are notifications that were delivered or kept when nobody waited for the answer any longer.
// The sender has to be told: it sends them again, once more.
type unheard struct {
	until  map[[sha256.Size]byte]time.Duration
	oldest [][sha256.Size]byte // in the order of their end; some may be told of
}

const (
	unheardFor = 10 * time.Minute
	maxUnheard = 10_000
)

func (u *unheard) add(body []byte, now time.Duration) {
	u.forget(now, maxUnheard-1)
	if u.until == nil {
		u.until = make(map[[sha256.Size]byte]time.Duration)
	}
	key := sha256.Sum256(body)
	u.until[key] = now + unheardFor
	u.oldest = append(u.oldest, key)
}

// forget takes out what is over, and what is more than most.
func (u *unheard) forget(now time.Duration, most int) {
	for len(u.oldest) > 0 && (len(u.oldest) > most || u.until[u.oldest[0]] <= now) {
		delete(u.until, u.oldest[0])
		u.oldest = u.oldest[1:]
	}
}

// tell reports whether the sender of a body is to be told that it ended well. It is told once, if it
// still listens.
func (u *unheard) tell(body []byte, now time.Duration, listens bool) bool {
	u.forget(now, maxUnheard)
	if len(u.until) == 0 {
		return false
	}
	key := sha256.Sum256(body)
	until, known := u.until[key]
	if listens {
		delete(u.until, key)
	}
	return known && now < until
}

// join waits for the end of another's flight and takes it as its own. That one began earlier, so
// its time is over earlier.
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

// duplicates remembers what was delivered.
type duplicates struct {
	mu     sync.Mutex
	until  map[eventKey]time.Time
	oldest []eventKey // in the order of delivery
}

// maxDuplicates keeps the memory below about 100 MB.
const maxDuplicates = 1_000_000

// eventKey stands for a notification: its content without what may differ in a duplicate.
type eventKey [16]byte

// eventKeyOf returns the key by which duplicates of a notification are found; false if it has none.
func eventKeyOf(c *outcome.Case) (key eventKey, has bool) {
	if c.N.Type == "" { // it is no notification, but passed on all the same
		sum := sha256.Sum256(c.Body)
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
	for len(d.oldest) > 0 && (len(d.oldest) >= maxDuplicates || !d.until[d.oldest[0]].After(now)) {
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
