package greenapi

import (
	"bytes"
	"container/list"
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.uber.org/zap"
)

// What is remembered of notifications that may come again: those on their way, those that failed,
// and those that were delivered. GREEN-API sends the very same bytes again; only the duplicates
// that it makes itself may differ.

// flights are the notifications on their way to a handler.
type flights struct {
	mu sync.Mutex
	of map[uint64]*flight // by a hash of the body
}

type flight struct {
	hash   uint64
	body   []byte
	sender context.Context // of the request; over when the sender has hung up
	via    string          // the way it came
	done   chan struct{}

	// When done is closed.
	end      *verdict
	handler  string
	attempts int
}

// board enters a notification, or returns the flight that it is on already although its sender has
// given up, or because an instance is just being switched between webhook and HTTP API and it comes
// both ways. While the sender waits, the same bytes are another notification.
func (f *flights) board(sender context.Context, via string, body []byte) (mine, other *flight) {
	hash := xxhash.Sum64(body)
	f.mu.Lock()
	defer f.mu.Unlock()
	if running := f.of[hash]; running != nil {
		if (running.sender.Err() != nil || running.via != via) && bytes.Equal(running.body, body) {
			running.sender = sender // who joins waits for it
			return nil, running
		}
		return nil, nil // this one flies unseen
	}
	if f.of == nil {
		f.of = make(map[uint64]*flight)
	}
	mine = &flight{hash: hash, body: body, sender: sender, via: via, done: make(chan struct{})}
	f.of[hash] = mine
	return mine, nil
}

// land ends a flight. end is nil if it crashed.
func (f *flights) land(mine *flight, v *visit, end *verdict) {
	if mine == nil {
		return
	}
	f.mu.Lock()
	delete(f.of, mine.hash)
	f.mu.Unlock()
	mine.end, mine.handler, mine.attempts = end, v.handler, v.attempts
	close(mine.done)
}

// join waits for the end of another's flight and takes it as its own. That one began earlier, so
// its time is over earlier.
func (f *flight) join(v *visit) *verdict {
	<-f.done
	if f.end == nil {
		return &verdict{outcome: failed, reason: reasonNotNow, status: http.StatusServiceUnavailable, level: zap.ErrorLevel, err: errCrashed}
	}
	v.handler, v.attempts = f.handler, f.attempts
	end := *f.end
	end.fields = append([]zap.Field{zap.Bool("joined", true)}, end.fields...)
	return &end
}

var errCrashed = errors.New("the delivery that it joined has crashed")

// deadLetters counts the failures of notifications, of the last maxDeadLetters that failed.
type deadLetters struct {
	mu     sync.Mutex
	of     map[[sha256.Size]byte]*list.Element
	oldest list.List // of *deadLetterCount
}

const maxDeadLetters = 10_000

type deadLetterCount struct {
	key      [sha256.Size]byte
	failures int
	taken    uint64
	at       time.Time
}

// count adds a failure and returns how many there are. One does not count if the handlers have
// taken nothing since the last: it may be theirs. Nor does one that comes sooner than the sender's
// pause: a short outage is no fault of the notification.
func (d *deadLetters) count(body []byte, taken uint64, pause time.Duration, now time.Time) int {
	key := sha256.Sum256(body)
	d.mu.Lock()
	defer d.mu.Unlock()
	if at, known := d.of[key]; known {
		d.oldest.MoveToBack(at)
		c := at.Value.(*deadLetterCount)
		if taken > c.taken && now.Sub(c.at) >= pause {
			c.failures++
			c.taken, c.at = taken, now
		}
		return c.failures
	}
	if d.of == nil {
		d.of = make(map[[sha256.Size]byte]*list.Element)
	}
	if d.oldest.Len() == maxDeadLetters {
		d.remove(d.oldest.Front())
	}
	d.of[key] = d.oldest.PushBack(&deadLetterCount{key, 1, taken, now})
	return 1
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

func (d *deadLetters) remove(at *list.Element) {
	delete(d.of, d.oldest.Remove(at).(*deadLetterCount).key)
}

// duplicates remembers what was delivered.
type duplicates struct {
	mu     sync.Mutex
	until  map[eventKey]time.Time
	oldest []eventKey // in the order of delivery
}

// maxDuplicates keeps the memory below about 100 MB.
const maxDuplicates = 1_000_000

// eventKey stands for an event: what is the same in all notifications of it.
type eventKey [16]byte

func (v *visit) eventKey() (key eventKey) {
	event := []byte(v.n.Event())
	if len(event) == 0 { // without idMessage only the body tells
		event = v.body
	}
	sum := sha256.Sum256(event)
	copy(key[:], sum[:])
	return key
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
