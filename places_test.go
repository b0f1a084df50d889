package greenapi

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// A fake is a pool without a proxy.
type fake []seat

func fakePool(n, limit int) fake {
	f := make(fake, n)
	for i := range f {
		f[i] = seat{at: i, address: fmt.Sprintf("handler-%d:8080", i), limit: limit, healthy: true}
	}
	return f
}

func (f fake) seats(to []seat) []seat { return append(to, f...) }

// only is a policy that wants one upstream and no other.
func (f fake) only(at int) (seats func([]seat) []seat, pick func([]seat) int) {
	return f.seats, func(open []seat) int {
		return slices.IndexFunc(open, func(s seat) bool { return s.at == at })
	}
}

// TestPromiseHandedOn: whoever is called for a free place and then chooses another one leaves it to the next in
// line.
func TestPromiseHandedOn(t *testing.T) {
	f, p := newHandlerFleet(nil), fakePool(2, 1)
	asking := func(second int64) *asking {
		return &asking{fleet: f, limits: new(limits), c: &outcome.Case{Started: time.Unix(second, 0)}}
	}
	x, y, a, b := asking(1), asking(2), asking(3), asking(4)
	if x.choose(p.only(0)) < 0 || y.choose(p.only(1)) < 0 || a.choose(p.only(0)) >= 0 {
		t.Fatal("the places are not as they should be")
	}
	x.done(taken) // calls a, the only one in line
	y.done(taken)
	if a.promised.upstream != p[0].address {
		t.Fatalf("promised %q", a.promised.upstream)
	}
	if b.choose(p[:1].only(0)) >= 0 {
		t.Fatal("has got a promised place")
	}
	if a.choose(p.only(1)) < 0 {
		t.Fatal("the other place is free")
	}
	if !b.wait(time.Hour, time.Now().Add(time.Second)) || b.choose(p[:1].only(0)) < 0 {
		t.Error("the next in line has not got the place")
	}
	for _, a := range []interface{ close() }{x, y, a, b} {
		a.close()
	}
	if len(f.busy) != 0 || len(f.line) != 0 {
		t.Errorf("left: %v busy, %d in line", f.busy, len(f.line))
	}
}

// TestGivenUpInLine: what has given up is in line no longer, and no place is kept for it.
func TestGivenUpInLine(t *testing.T) {
	f, p := newHandlerFleet(nil), fakePool(1, 1)
	asking := func(second int64) *asking {
		return &asking{fleet: f, limits: new(limits), c: &outcome.Case{Started: time.Unix(second, 0)}}
	}
	x, a, b := asking(1), asking(2), asking(3)
	if x.choose(p.only(0)) < 0 || a.choose(p.only(0)) >= 0 || b.choose(p.only(0)) >= 0 {
		t.Fatal("the places are not as they should be")
	}
	a.close()
	if len(f.line) != 1 {
		t.Errorf("%d in line, want 1", len(f.line))
	}
	x.done(taken)
	if !b.wait(time.Hour, time.Now().Add(time.Second)) || b.choose(p.only(0)) < 0 {
		t.Error("the next in line has not got the place")
	}
	b.close()
	if len(f.busy) != 0 || len(f.line) != 0 {
		t.Errorf("left: %v busy, %d in line", f.busy, len(f.line))
	}
}

// TestLineWakes: when handlers are back, those that waited for them do not wait for their timers.
func TestLineWakes(t *testing.T) {
	f := newHandlerFleet(nil)
	p := fakePool(1, 0)
	var waiting []*asking
	for i := range 20 {
		a := &asking{fleet: f, limits: new(limits), c: &outcome.Case{Started: time.Unix(int64(i), 0)}}
		a.mark(p[0].address, unreached, time.Now().Add(time.Hour))
		if a.choose(p.only(0)) >= 0 {
			t.Fatal("chose an upstream that is away")
		}
		waiting = append(waiting, a)
	}
	one := &asking{fleet: f, limits: new(limits), c: new(outcome.Case)}
	if one.choose(p.only(0)) < 0 {
		t.Fatal("chose none")
	}
	one.done(taken)
	for i, a := range waiting { // each calls two others
		if !a.wait(time.Hour, time.Now().Add(5*time.Second)) {
			t.Fatalf("%d. was not called", i)
		}
		if a.choose(p.only(0)) < 0 {
			t.Fatalf("%d. has no place", i)
		}
		a.done(taken)
		a.close()
	}
	if len(f.line) != 0 || len(f.busy) != 0 {
		t.Errorf("left: %d in line, %v busy", len(f.line), f.busy)
	}
}

// TestLoopHopeless: a notification that one handler could not process waits a while for others that
// cannot be reached.
func TestLoopHopeless(t *testing.T) {
	deadline := time.Now().Add(time.Minute)
	long, short := time.Now().Add(-defaultLimits().graceAfterFault-time.Second), time.Now().Add(-time.Second)
	for _, test := range []struct {
		name  string
		a     asking
		last  result
		since time.Time
		want  bool
	}{
		{"all have answered", asking{policy: true}, handlerError, time.Time{}, true},
		{"no upstream at all", asking{policy: true}, notNow, long, false},
		{"others are away", asking{policy: true, left: 2, away: 2}, handlerError, time.Time{}, false},
		{"others are away for a second", asking{policy: true, left: 2, away: 2}, misrouted, short, false},
		{"others are away for long", asking{policy: true, left: 2, away: 2}, timedOut, long, true},
		{"another is busy for long", asking{policy: true, left: 2, away: 1}, handlerError, long, false},
		{"all are away for long", asking{policy: true, left: 2, away: 2}, notNow, long, false},
		{"broke off, all are away for long", asking{policy: true, left: 2, away: 2}, brokenOff, long, false},
		{"asked for too much time", asking{policy: true, left: 2, retryAt: deadline.Add(1)}, notNow, short, true},
		{"asked for too much time, another is full", asking{policy: true, left: 2, full: 1, retryAt: deadline.Add(1)}, notNow, short, false},
	} {
		limits := defaultLimits()
		test.a.limits, test.a.last.result = &limits, test.last
		if got := test.a.hopeless(test.since, deadline); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
}
