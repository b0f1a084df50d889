package greenapi

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// A handlerFleet is the handlers of a block, across reloads: how many of each handler's places are
// taken, which notifications wait for one, what was delivered and what failed. A notification that
// waits outlives the config that it came to.
type handlerFleet struct {
	exiting <-chan struct{} // closed when the process is about to end: notifications that only wait end, too
	clock   clock

	mu      sync.Mutex
	busy    map[string]int       // places that are taken, by upstream
	shunned map[string]time.Time // upstreams that let an attempt time out, and until when
	line    line

	flights     flights
	deadLetters deadLetters
	duplicates  duplicates
}

// newHandlerFleet returns a fleet of which nothing is known yet. When exiting is closed, no
// notification waits any longer.
func newHandlerFleet(exiting <-chan struct{}) *handlerFleet {
	return &handlerFleet{exiting: exiting, busy: make(map[string]int), shunned: make(map[string]time.Time)}
}

// waits reports how many notifications stand in line.
func (f *handlerFleet) waits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.line)
}

// isUnheard reports whether the sender of a notification on its way has hung up.
func (f *handlerFleet) isUnheard() bool { return f.flights.isUnheard() }

func (f *handlerFleet) isExiting() bool {
	select {
	case <-f.exiting:
		return true
	default:
		return false
	}
}

// An asking is one notification's way through the handlers. The loop of attempts writes down what
// became of each; the selection policy reads that, and writes down whom it chose.
//
// It belongs to the goroutine of its notification; while it stands in line, to the fleet's lock.
type asking struct {
	fleet      *handlerFleet
	limits     *limits
	hooks      *hooks
	c          *outcome.Case
	lastChance bool        // it is asked about once, and kept if that fails
	failed     failedRound // what the handlers made of it so far

	shown    map[string]shown // by upstreams that were asked and did not take it
	opinions int              // second ones that may still be asked for
	last     answer           // what is told if no other handler knows better

	chosen place // of the attempt that runs

	// While and after it stood in line.
	seats    []seat // the upstreams at the last choice
	room     [manySeats]seat
	inLine   bool
	called   chan struct{} // has room for the one call that can come
	promised place         // held for it

	// Of the last choice.
	policy  bool      // a policy of ours chooses at all
	left    int       // upstreams that may still be asked, now or later
	away    int       // those among them that cannot be reached
	full    int       // those among them that have no free place
	retryAt time.Time // when the first that wants time may be asked; zero if none does
}

// place is a place at an upstream.
type place struct {
	upstream string // "" for none
	limit    int    // the upstream's max_requests; 0 for none
}

// shown is what an upstream has shown to one notification.
type shown struct {
	state upstreamState
	until time.Time // not to be asked before
}

type upstreamState int

const (
	unreached  upstreamState = iota + 1 // no connection
	saidLater                           // "not now"
	brokeItOff                          // may be asked again if no other is left
	spent                               // answered, and would answer the same
)

type askingKey struct{}

// askingOf returns the asking that a request belongs to, nil if it did not come through green_api.
func askingOf(ctx context.Context) *asking {
	a, _ := ctx.Value(askingKey{}).(*asking)
	return a
}

// withAsking is a context in which askingOf finds a; nil hides one.
func withAsking(ctx context.Context, a *asking) context.Context {
	return context.WithValue(ctx, askingKey{}, a)
}

// mark writes down what an upstream has shown.
func (a *asking) mark(upstream string, state upstreamState, until time.Time) {
	if a.shown == nil {
		a.shown = make(map[string]shown)
	}
	a.shown[upstream] = shown{state, until}
}

// A seat is an upstream as a policy sees it.
type seat struct {
	at       int    // its place in the pool
	address  string // its name
	limit    int    // max_requests; 0 for none
	requests int    // that it has, of this fleet or of others
	healthy  bool
}

func (s seat) full() bool { return s.limit > 0 && s.requests >= s.limit }

// manySeats is how many upstreams a pool may have until choosing needs more memory.
const manySeats = 10

// choose has a policy choose among the upstreams that may be asked now, takes a place there and returns its
// number in the pool. If there is none it returns -1, and the notification stands in line. seats appends the
// upstreams as they are now, in the order of the pool; pick returns the index of one of the open upstreams,
// -1 if it wants none.
//
// Places are counted here: reverse_proxy counts a request when it is on its way, so that several
// could get the last place.
func (a *asking) choose(seats func(to []seat) []seat, pick func(open []seat) int) int {
	f := a.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	a.policy = true
	a.stepOut()
	f.leave(a.chosen, false) // of a proxy that tries again by itself
	held := a.promised
	a.chosen, a.promised = place{}, place{}
	f.free(held)

	if a.seats == nil {
		a.seats = a.room[:0]
	}
	a.seats = seats(a.seats[:0])
	for i := range a.seats {
		a.seats[i].requests = max(a.seats[i].requests, f.busy[a.seats[i].address])
	}
	chosen := -1
	open, lastResort := a.open()
	for _, open := range [][]seat{f.notShunned(open), open, lastResort} {
		if chosen < 0 && len(open) > 0 {
			if i := pick(open); i >= 0 {
				chosen = open[i].at
			}
		}
	}
	if chosen >= 0 {
		a.chosen = place{a.seats[chosen].address, a.seats[chosen].limit}
		f.take(a.chosen)
	}
	if held.upstream != a.chosen.upstream { // then it is the next one's
		f.take(held)
		f.leave(held, false)
	}
	if chosen < 0 {
		f.line.join(a)
	}
	return chosen
}

// open are the upstreams that may be asked now: not the full ones, nor those that have answered
// for good or asked for time. One that broke off is the last resort, if no other is left.
func (a *asking) open() (open, lastResort []seat) {
	a.left, a.away, a.full, a.retryAt = len(a.seats), 0, 0, time.Time{}
	if a.shown == nil && !slices.ContainsFunc(a.seats, seat.full) {
		return a.seats, nil
	}
	now := time.Now()
	others := 0 // that are there, and have not broken off
	for _, s := range a.seats {
		was := a.shown[s.address]
		switch {
		case was.state == spent:
			a.left--
			continue
		case was.state == unreached, was.state == 0 && !s.healthy:
			a.away++
		case was.state == brokeItOff:
		default:
			others++
		}
		switch {
		case was.until.After(now):
			if a.retryAt.IsZero() || was.until.Before(a.retryAt) {
				a.retryAt = was.until
			}
		case s.full():
			a.full++
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

// wants tells whether a, standing in line, would ask the upstream if it had a place there.
func (a *asking) wants(upstream string, now time.Time) bool {
	if !slices.ContainsFunc(a.seats, func(s seat) bool { return s.address == upstream }) {
		return false
	}
	was := a.shown[upstream]
	return was.state == unreached || was.state != spent && was.state != brokeItOff && !was.until.After(now)
}

// done ends an attempt: its place is free.
func (a *asking) done(got result) {
	a.fleet.mu.Lock()
	defer a.fleet.mu.Unlock()
	if got != noneFree {
		a.stepOut() // if the policy was not come to
	}
	if got == timedOut && a.chosen.upstream != "" {
		a.fleet.shunned[a.chosen.upstream] = time.Now().Add(a.limits.shunFor)
	}
	a.fleet.leave(a.chosen, got == taken)
	a.chosen = place{}
}

// asked is the upstream of the attempt that runs, "" if it is not known.
func (a *asking) asked() string {
	a.fleet.mu.Lock()
	defer a.fleet.mu.Unlock()
	return a.chosen.upstream
}

// wait stands in line until a place is free, but no longer than the pause and the deadline. A long
// line asks more rarely, at most 500 times a second together. It tells whether a place is free.
func (a *asking) wait(pause time.Duration, deadline time.Time) bool {
	a.fleet.mu.Lock()
	pause = max(pause, time.Duration(len(a.fleet.line))*2*time.Millisecond)
	a.fleet.mu.Unlock()
	timer := time.NewTimer(min(pause, time.Until(deadline)))
	defer timer.Stop()
	select {
	case <-a.called:
		return true
	case <-timer.C: // its turn is kept until it has chosen
	case <-a.fleet.exiting:
	}
	return false
}

// stepOut leaves the line. A call that came at this very moment has left a promise. The fleet is
// locked.
func (a *asking) stepOut() {
	a.fleet.line.quit(a)
	select {
	case <-a.called:
	default:
	}
}

// close gives back what is held.
func (a *asking) close() {
	a.fleet.mu.Lock()
	defer a.fleet.mu.Unlock()
	a.stepOut()
	a.fleet.leave(a.chosen, false)
	a.fleet.leave(a.promised, false)
	a.chosen, a.promised = place{}, place{}
}

// The methods below want the fleet locked.

func (f *handlerFleet) take(p place) {
	if p.upstream != "" {
		f.busy[p.upstream]++
	}
}

func (f *handlerFleet) free(p place) {
	if p.upstream == "" {
		return
	}
	if f.busy[p.upstream]--; f.busy[p.upstream] == 0 {
		delete(f.busy, p.upstream)
	}
}

// leave frees a place and calls who waits for it. A place at an upstream that was full goes to the
// first in line. One that took a notification is there again for those that could not reach it: it
// calls two, each of whom calls two.
func (f *handlerFleet) leave(p place, took bool) {
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
		a := f.line[at]
		if !a.wants(p.upstream, now) {
			at++
			continue
		}
		f.line.quit(a)
		delete(a.shown, p.upstream)
		a.promised = p
		f.take(p)
		a.called <- struct{}{}
		calls--
	}
}

// notShunned are the upstreams that did not let an attempt time out.
func (f *handlerFleet) notShunned(open []seat) []seat {
	if len(f.shunned) == 0 {
		return open
	}
	now := time.Now()
	maps.DeleteFunc(f.shunned, func(_ string, until time.Time) bool { return now.After(until) })
	return slices.DeleteFunc(slices.Clone(open), func(s seat) bool {
		_, shunned := f.shunned[s.address]
		return shunned
	})
}

// line is who waits for a place, in the order of arrival.
type line []*asking

func (l *line) join(a *asking) {
	at, _ := slices.BinarySearchFunc(*l, a, func(x, y *asking) int { return x.c.Started.Compare(y.c.Started) })
	*l = slices.Insert(*l, at, a)
	a.inLine = true
	if a.called == nil {
		a.called = make(chan struct{}, 1)
	}
}

func (l *line) quit(a *asking) {
	if !a.inLine {
		return
	}
	a.inLine = false
	at := slices.Index(*l, a)
	*l = slices.Delete(*l, at, at+1)
}
