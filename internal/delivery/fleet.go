package delivery

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// A Fleet is what is known of a block's handlers across reloads: how many places each has taken, which
// notifications wait for one, what was delivered and what failed. A waiting notification outlives the
// config that received it.
type Fleet struct {
	exiting <-chan struct{} // closed when the process is about to exit, which ends every wait
	Clock   Clock           // measures spans of minutes to days

	// mu guards busy, shunned, figures and line. It also guards inLine, promised, shown and seats of each Try that is in
	// line or has just been called out of it. While mu is free:
	//
	//   - busy[u] is the number of tries that have chosen or been promised u, so no upstream exceeds its limit.
	//   - A try is in line at most once. It gets a promise only when it is called out of the line, and gives it
	//     back when it chooses again or ends, so a promise is never lost.
	//   - called holds one value, and is sent to only for a try in line, which that takes out of the line. So
	//     the send never blocks while mu is held.
	mu      sync.Mutex
	busy    map[string]int       // taken places, by upstream
	shunned map[string]time.Time // upstreams whose attempt timed out, and until when they are avoided
	figures map[string]*figures  // by upstream
	line    line

	flights     flights
	deadLetters deadLetters
	duplicates  duplicates
	standing    standing
	warnings    sync.Pool // of *warning
}

// NewFleet returns an empty fleet. Once exiting is closed, no notification waits any longer.
func NewFleet(exiting <-chan struct{}) *Fleet {
	return &Fleet{
		exiting: exiting, busy: make(map[string]int), shunned: make(map[string]time.Time), figures: make(map[string]*figures),
		duplicates: duplicates{most: maxDuplicates},
	}
}

// Waits returns how many notifications stand in line.
func (f *Fleet) Waits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.line)
}

// IsUnheard reports whether a notification is in flight whose sender has hung up.
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
	At       int    // index in the pool
	Address  string // its name
	Limit    int    // max_requests; 0 for none
	Requests int    // in flight, from this fleet or others
	Healthy  bool
}

// Full reports whether the upstream has as many requests as it may have.
func (s Seat) Full() bool { return s.Limit > 0 && s.Requests >= s.Limit }

// manySeats is the pool size up to which choosing does not allocate.
const manySeats = 10

// Choose lets a policy choose among the upstreams that may be asked now, takes a place there and returns
// its index in the pool. If none may be asked, Choose returns -1 and the notification stands in line. seats
// appends the current upstreams in the pool's order. pick returns an index into the open upstreams, or -1
// if it wants none.
//
// Places are counted here because reverse_proxy counts a request only once it is on its way, so several
// could get the last place.
func (t *Try) Choose(seats func(to []Seat) []Seat, pick func(open []Seat) int) int {
	f := t.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	t.policy = true
	t.stepOut()
	f.leave(t.chosen, false) // left over if a proxy retries by itself
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
	if held.upstream != t.chosen.upstream { // pass the promised place on to the next in line
		f.take(held)
		f.leave(held, false)
	}
	if chosen < 0 {
		f.line.join(t)
	}
	return chosen
}

// open returns the upstreams that may be asked now: not those that are full, have given a final answer or
// asked for time. Those that broke off are the last resort, returned if no other is left.
func (t *Try) open() (open, lastResort []Seat) {
	t.left, t.away, t.full, t.retryAt = len(t.seats), 0, 0, time.Time{}
	if t.shown == nil && !slices.ContainsFunc(t.seats, Seat.Full) {
		return t.seats, nil
	}
	now := time.Now()
	others := 0 // reachable, and did not break off
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

// wants reports whether a try in line would ask the upstream if it had a place there.
func (t *Try) wants(upstream string, now time.Time) bool {
	if !slices.ContainsFunc(t.seats, func(s Seat) bool { return s.Address == upstream }) {
		return false
	}
	was := t.shown[upstream]
	return was.state == unreached || was.state != spent && was.state != brokeItOff && !was.until.After(now)
}

// done ends an attempt, counts it and frees its place.
func (t *Try) done(got *Answer, took time.Duration) {
	t.fleet.mu.Lock()
	defer t.fleet.mu.Unlock()
	if got.Result != NoneFree {
		t.stepOut() // the policy may not have been reached
		if t.chosen.upstream != "" {
			t.fleet.count(t.chosen.upstream, got, took)
		}
	}
	if got.Result == TimedOut && t.chosen.upstream != "" {
		t.fleet.shunned[t.chosen.upstream] = got.Ended.Add(t.limits.ShunFor)
	}
	t.fleet.leave(t.chosen, got.Result == Taken)
	t.chosen = place{}
}

// wait stands in line until a place is free, but no longer than the pause or the deadline. The longer the
// line, the less often each try asks: at most 500 times a second in total. It reports whether a place is
// free.
func (t *Try) wait(pause time.Duration, deadline time.Time) bool {
	t.fleet.mu.Lock()
	pause = max(pause, time.Duration(len(t.fleet.line))*2*time.Millisecond)
	t.fleet.mu.Unlock()
	timer := time.NewTimer(min(pause, time.Until(deadline)))
	defer timer.Stop()
	select {
	case <-t.called:
		return true
	case <-timer.C: // it stays in line until it has chosen
	case <-t.fleet.exiting:
	}
	return false
}

// stepOut leaves the line. If the try has been called at this very moment, it keeps the promise that came
// with the call. The caller holds the lock.
func (t *Try) stepOut() {
	t.fleet.line.quit(t)
	select {
	case <-t.called:
	default:
	}
}

// close gives back every place it holds.
func (t *Try) close() {
	t.fleet.mu.Lock()
	defer t.fleet.mu.Unlock()
	t.stepOut()
	t.fleet.leave(t.chosen, false)
	t.fleet.leave(t.promised, false)
	t.chosen, t.promised = place{}, place{}
}

// The caller of the functions below holds the lock.

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

// leave frees a place and calls waiting tries. If the upstream was full, the first in line gets the place.
// If it has just taken a notification, it is back for tries that could not reach it: two of them are
// called, and each of those calls two more.
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

// notShunned returns the open upstreams that have not recently let an attempt time out.
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

// line holds the tries that wait for a place, in order of arrival.
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
