package delivery

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// A fake is a pool without a proxy.
type fake []Seat

func fakePool(n, limit int) fake {
	f := make(fake, n)
	for i := range f {
		f[i] = Seat{At: i, Address: fmt.Sprintf("handler-%d:8080", i), Limit: limit, Healthy: true}
	}
	return f
}

func (f fake) seats(to []Seat) []Seat { return append(to, f...) }

// only is a policy that wants one upstream and no other.
func (f fake) only(at int) (seats func([]Seat) []Seat, pick func([]Seat) int) {
	return f.seats, func(open []Seat) int {
		return slices.IndexFunc(open, func(s Seat) bool { return s.At == at })
	}
}

// TestPromiseHandedOn: whoever is called for a free place and then chooses another one leaves it to the next in
// line.
func TestPromiseHandedOn(t *testing.T) {
	f, p := NewFleet(nil), fakePool(2, 1)
	asking := func(second int64) *Try {
		return &Try{fleet: f, limits: new(Limits), Case: &outcome.Case{Started: time.Unix(second, 0)}}
	}
	x, y, a, b := asking(1), asking(2), asking(3), asking(4)
	if x.Choose(p.only(0)) < 0 || y.Choose(p.only(1)) < 0 || a.Choose(p.only(0)) >= 0 {
		t.Fatal("the places are not as they should be")
	}
	x.done(&Answer{Result: Taken, Ended: time.Now()}, 0) // calls a, the only one in line
	y.done(&Answer{Result: Taken, Ended: time.Now()}, 0)
	if a.promised.upstream != p[0].Address {
		t.Fatalf("promised %q", a.promised.upstream)
	}
	if b.Choose(p[:1].only(0)) >= 0 {
		t.Fatal("has got a promised place")
	}
	if a.Choose(p.only(1)) < 0 {
		t.Fatal("the other place is free")
	}
	if !b.wait(time.Hour, time.Now().Add(time.Second)) || b.Choose(p[:1].only(0)) < 0 {
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
	f, p := NewFleet(nil), fakePool(1, 1)
	asking := func(second int64) *Try {
		return &Try{fleet: f, limits: new(Limits), Case: &outcome.Case{Started: time.Unix(second, 0)}}
	}
	x, a, b := asking(1), asking(2), asking(3)
	if x.Choose(p.only(0)) < 0 || a.Choose(p.only(0)) >= 0 || b.Choose(p.only(0)) >= 0 {
		t.Fatal("the places are not as they should be")
	}
	a.close()
	if len(f.line) != 1 {
		t.Errorf("%d in line, want 1", len(f.line))
	}
	x.done(&Answer{Result: Taken, Ended: time.Now()}, 0)
	if !b.wait(time.Hour, time.Now().Add(time.Second)) || b.Choose(p.only(0)) < 0 {
		t.Error("the next in line has not got the place")
	}
	b.close()
	if len(f.busy) != 0 || len(f.line) != 0 {
		t.Errorf("left: %v busy, %d in line", f.busy, len(f.line))
	}
}

// TestLineWakes: when handlers are back, those that waited for them do not wait for their timers.
func TestLineWakes(t *testing.T) {
	f := NewFleet(nil)
	p := fakePool(1, 0)
	var waiting []*Try
	for i := range 20 {
		a := &Try{fleet: f, limits: new(Limits), Case: &outcome.Case{Started: time.Unix(int64(i), 0)}}
		a.mark(p[0].Address, unreached, time.Now().Add(time.Hour))
		if a.Choose(p.only(0)) >= 0 {
			t.Fatal("chose an upstream that is away")
		}
		waiting = append(waiting, a)
	}
	one := &Try{fleet: f, limits: new(Limits), Case: new(outcome.Case)}
	if one.Choose(p.only(0)) < 0 {
		t.Fatal("chose none")
	}
	one.done(&Answer{Result: Taken, Ended: time.Now()}, 0)
	for i, a := range waiting { // each calls two others
		if !a.wait(time.Hour, time.Now().Add(5*time.Second)) {
			t.Fatalf("%d. was not called", i)
		}
		if a.Choose(p.only(0)) < 0 {
			t.Fatalf("%d. has no place", i)
		}
		a.done(&Answer{Result: Taken, Ended: time.Now()}, 0)
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
	long, short := time.Now().Add(-DefaultLimits().GraceAfterFault-time.Second), time.Now().Add(-time.Second)
	for _, test := range []struct {
		name  string
		a     Try
		last  Result
		since time.Time
		want  bool
	}{
		{"all have answered", Try{policy: true}, HandlerError, time.Time{}, true},
		{"no upstream at all", Try{policy: true}, NotNow, long, false},
		{"others are away", Try{policy: true, left: 2, away: 2}, HandlerError, time.Time{}, false},
		{"others are away for a second", Try{policy: true, left: 2, away: 2}, Misrouted, short, false},
		{"others are away for long", Try{policy: true, left: 2, away: 2}, TimedOut, long, true},
		{"another is busy for long", Try{policy: true, left: 2, away: 1}, HandlerError, long, false},
		{"all are away for long", Try{policy: true, left: 2, away: 2}, NotNow, long, false},
		{"broke off, all are away for long", Try{policy: true, left: 2, away: 2}, BrokenOff, long, false},
		{"asked for too much time", Try{policy: true, left: 2, retryAt: deadline.Add(1)}, NotNow, short, true},
		{"asked for too much time, another is full", Try{policy: true, left: 2, full: 1, retryAt: deadline.Add(1)}, NotNow, short, false},
	} {
		limits := DefaultLimits()
		test.a.limits, test.a.last.Result = &limits, test.last
		if got := test.a.hopeless(test.since, deadline); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
}
