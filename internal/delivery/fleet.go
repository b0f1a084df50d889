package delivery

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// A Fleet is the handlers of a block, across reloads: how many of each handler's places are taken, which
// notifications wait for one, what was delivered and what failed. A notification that waits outlives the
// config that it came to.
type Fleet struct {
	exiting <-chan struct{} // closed when the process is about to end: notifications that only wait end, too
	Clock   Clock           // of what takes minutes to days

	// The lock guards busy, shunned and line, and of each Try in line, or just called out of it, inLine,
	// promised, shown and seats. While it is free:
	//
	//   - busy[u] is how many tries have u chosen or promised, so no upstream has more than its limit.
	//   - A try stands in line once or not at all. It has a promise only after it was called out of the line,
	//     and gives it back when it chooses again or ends: a promise is never lost.
	//   - called has room for one value and one is sent only to a try in line, which leaves the line by that:
	//     whoever holds the lock never waits.
	mu      sync.Mutex
	busy    map[string]int       // places that are taken, by upstream
	shunned map[string]time.Time // upstreams that let an attempt time out, and until when
	line    line

	flights     flights
	deadLetters deadLetters
	duplicates  duplicates
}

// NewFleet returns a fleet of which nothing is known yet. When exiting is closed, no
// notification waits any longer.
func NewFleet(exiting <-chan struct{}) *Fleet {
	return &Fleet{exiting: exiting, busy: make(map[string]int), shunned: make(map[string]time.Time)}
}

// Waits reports how many notifications stand in line.
func (f *Fleet) Waits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.line)
}

// IsUnheard reports whether the sender of a notification on its way has hung up.
func (f *Fleet) IsUnheard() bool { return f.flights.isUnheard() }

func (f *Fleet) isExiting() bool {
	select {
	case <-f.exiting:
		return true
	default:
		return false
	}
}

// A Seat is an upstream as a policy sees it.
type Seat struct {
	At       int    // its number in the pool
	Address  string // its name
	Limit    int    // max_requests; 0 for none
	Requests int    // that it has, of this fleet or of others
	Healthy  bool
}

// Full reports whether the upstream has as many requests as it may have.
func (s Seat) Full() bool { return s.Limit > 0 && s.Requests >= s.Limit }

// manySeats is how many upstreams a pool may have until choosing needs more memory.
const manySeats = 10

// Choose has a policy choose among the upstreams that may be asked now, takes a place there and returns its
// number in the pool. If there is none it returns -1, and the notification stands in line. seats appends the
// upstreams as they are now, in the order of the pool; pick returns the index of one of the open upstreams,
// -1 if it wants none.
//
// Places are counted here: reverse_proxy counts a request when it is on its way, so that several
// could get the last place.
func (t *Try) Choose(seats func(to []Seat) []Seat, pick func(open []Seat) int) int {
	f := t.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	t.policy = true
	t.stepOut()
	f.leave(t.chosen, false) // of a proxy that tries again by itself
	held := t.promised
	t.chosen, t.promised = place{}, place{}
	f.free(held)

	if t.seats == nil {
		t.seats = t.room[:0]
	}
	t.seats = seats(t.seats[:0])
	for i := range t.seats {
		t.seats[i].Requests = max(t.seats[i].Requests, f.busy[t.seats[i].Address])
	}
	chosen := -1
	open, lastResort := t.open()
	for _, open := range [][]Seat{f.notShunned(open), open, lastResort} {
		if chosen < 0 && len(open) > 0 {
			if i := pick(open); i >= 0 {
				chosen = open[i].At
			}
		}
	}
	if chosen >= 0 {
		t.chosen = place{t.seats[chosen].Address, t.seats[chosen].Limit}
		f.take(t.chosen)
	}
	if held.upstream != t.chosen.upstream { // then it is the next one's
		f.take(held)
		f.leave(held, false)
	}
	if chosen < 0 {
		f.line.join(t)
	}
	return chosen
}

// open are the upstreams that may be asked now: not the full ones, nor those that have answered
// for good or asked for time. One that broke off is the last resort, if no other is left.
func (t *Try) open() (open, lastResort []Seat) {
	t.left, t.away, t.full, t.retryAt = len(t.seats), 0, 0, time.Time{}
	if t.shown == nil && !slices.ContainsFunc(t.seats, Seat.Full) {
		return t.seats, nil
	}
	now := time.Now()
	others := 0 // that are there, and have not broken off
	for _, s := range t.seats {
		was := t.shown[s.Address]
		switch {
		case was.state == spent:
			t.left--
			continue
		case was.state == unreached, was.state == 0 && !s.Healthy:
			t.away++
		case was.state == brokeItOff:
		default:
			others++
		}
		switch {
		case was.until.After(now):
			if t.retryAt.IsZero() || was.until.Before(t.retryAt) {
				t.retryAt = was.until
			}
		case s.Full():
			t.full++
		case was.state == brokeItOff:
			lastResort = append(lastResort, s)
		default:
			open = append(open, s)
		}
	}
	if others > 0 {
		lastResort = nil
	}
	return open, lastResort
}

// wants reports whether a try that stands in line would ask the upstream if it had a place there.
func (t *Try) wants(upstream string, now time.Time) bool {
	if !slices.ContainsFunc(t.seats, func(s Seat) bool { return s.Address == upstream }) {
		return false
	}
	was := t.shown[upstream]
	return was.state == unreached || was.state != spent && was.state != brokeItOff && !was.until.After(now)
}

// done ends an attempt: its place is free.
func (t *Try) done(got Result) {
	t.fleet.mu.Lock()
	defer t.fleet.mu.Unlock()
	if got != NoneFree {
		t.stepOut() // if the policy was not come to
	}
	if got == TimedOut && t.chosen.upstream != "" {
		t.fleet.shunned[t.chosen.upstream] = time.Now().Add(t.limits.ShunFor)
	}
	t.fleet.leave(t.chosen, got == Taken)
	t.chosen = place{}
}

// wait stands in line until a place is free, but no longer than the pause and the deadline. A long
// line asks more rarely, at most 500 times a second together. It reports whether a place is free.
func (t *Try) wait(pause time.Duration, deadline time.Time) bool {
	t.fleet.mu.Lock()
	pause = max(pause, time.Duration(len(t.fleet.line))*2*time.Millisecond)
	t.fleet.mu.Unlock()
	timer := time.NewTimer(min(pause, time.Until(deadline)))
	defer timer.Stop()
	select {
	case <-t.called:
		return true
	case <-timer.C: // its turn is kept until it has chosen
	case <-t.fleet.exiting:
	}
	return false
}

// stepOut leaves the line. A call that came at this very moment has left a promise. The fleet is
// locked.
func (t *Try) stepOut() {
	t.fleet.line.quit(t)
	select {
	case <-t.called:
	default:
	}
}

// close gives back what is held.
func (t *Try) close() {
	t.fleet.mu.Lock()
	defer t.fleet.mu.Unlock()
	t.stepOut()
	t.fleet.leave(t.chosen, false)
	t.fleet.leave(t.promised, false)
	t.chosen, t.promised = place{}, place{}
}

// The methods below want the fleet locked.

func (f *Fleet) take(p place) {
	if p.upstream != "" {
		f.busy[p.upstream]++
	}
}

func (f *Fleet) free(p place) {
	if p.upstream == "" {
		return
	}
	if f.busy[p.upstream]--; f.busy[p.upstream] == 0 {
		delete(f.busy, p.upstream)
	}
}

// leave frees a place and calls tries that wait for it. A place at an upstream that was full goes to the
// first in line. An upstream that took a notification is there again for tries that could not reach it:
// two are called, and each of the two calls two more.
func (f *Fleet) leave(p place, took bool) {
	wasFull := p.limit > 0 && f.busy[p.upstream] >= p.limit
	f.free(p)
	calls := 0
	if wasFull {
		calls = 1
	} else if took {
		calls = 2
	}
	if calls == 0 || len(f.line) == 0 {
		return
	}
	now := time.Now()
	for at := 0; at < len(f.line) && calls > 0; {
		t := f.line[at]
		if !t.wants(p.upstream, now) {
			at++
			continue
		}
		f.line.quit(t)
		delete(t.shown, p.upstream)
		t.promised = p
		f.take(p)
		t.called <- struct{}{}
		calls--
	}
}

// notShunned are the upstreams that did not let an attempt time out.
func (f *Fleet) notShunned(open []Seat) []Seat {
	if len(f.shunned) == 0 {
		return open
	}
	now := time.Now()
	maps.DeleteFunc(f.shunned, func(_ string, until time.Time) bool { return now.After(until) })
	return slices.DeleteFunc(slices.Clone(open), func(s Seat) bool {
		_, shunned := f.shunned[s.Address]
		return shunned
	})
}

// line are the tries that wait for a place, in the order of arrival.
type line []*Try

func (l *line) join(t *Try) {
	at, _ := slices.BinarySearchFunc(*l, t, func(x, y *Try) int { return x.Case.Started.Compare(y.Case.Started) })
	*l = slices.Insert(*l, at, t)
	t.inLine = true
	if t.called == nil {
		t.called = make(chan struct{}, 1)
	}
}

func (l *line) quit(t *Try) {
	if !t.inLine {
		return
	}
	t.inLine = false
	at := slices.Index(*l, t)
	*l = slices.Delete(*l, at, at+1)
}
