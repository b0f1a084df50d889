package delivery

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// deadLetterStep is one thing that happens, and when.
type deadLetterStep struct {
	at      time.Duration
	took    string // a handler that takes another one
	by      string // handlers that fail it, a letter each
	others  bool   // misrouted, all of them
	dead    bool
	counted int
}

// TestDeadLetterRules has the two rules, failure by failure.
func TestDeadLetterRules(t *testing.T) {
	const m, h = time.Minute, time.Hour
	for _, test := range []struct {
		name  string
		steps []deadLetterStep
	}{
		{"one handler takes others", []deadLetterStep{
			{by: "a", counted: 1}, {took: "a"}, {at: m, by: "a", counted: 2}, {took: "a"}, {at: 2 * m, by: "a", counted: 3, dead: true},
		}},
		{"another one does", []deadLetterStep{
			{by: "a", counted: 1}, {took: "b"}, {at: m, by: "a", counted: 2}, {took: "b"}, {at: 2 * m, by: "a", counted: 3}, {took: "b"}, {at: 59 * m, by: "a", counted: 4},
		}},
		{"one of two that fail it does", []deadLetterStep{
			{by: "ab", counted: 1}, {took: "b"}, {at: m, by: "ab", counted: 2}, {took: "a"}, {at: 2 * m, by: "ab", counted: 3, dead: true},
		}},
		{"one took another before it failed it for the first time", []deadLetterStep{
			{by: "a", counted: 1}, {took: "b"}, {at: m, by: "b", counted: 1}, {took: "a"}, {at: 2 * m, by: "b", counted: 1}, {at: 3 * m, by: "a", counted: 2},
		}},
		{"it took another before the failure before", []deadLetterStep{
			{by: "a", counted: 1},
			{took: "a"},
			{at: 20 * time.Second, by: "a", counted: 1},
			{at: m, by: "a", counted: 1},
			{at: 2 * m, by: "a", counted: 2},
			{at: 3 * m, by: "a", counted: 3},
			{at: 4 * m, by: "a", counted: 4},
		}},
		{"too soon", []deadLetterStep{
			{by: "a", counted: 1},
			{took: "a"},
			{at: time.Second, by: "a", counted: 1},
			{took: "a"},
			{at: 44 * time.Second, by: "a", counted: 1},
			{took: "a"},
			{at: 45 * time.Second, by: "a", counted: 2},
			{took: "a"},
			{at: 89 * time.Second, by: "a", counted: 2},
			{took: "a"},
			{at: 90 * time.Second, by: "a", counted: 3, dead: true},
		}},
		{"misrouted", []deadLetterStep{
			{by: "a", others: true, counted: 1},
			{took: "a"},
			{at: m, by: "a", others: true, counted: 2},
			{at: 2 * h, by: "a", others: true, counted: 2},
			{took: "a"},
			{at: 3 * h, by: "a", others: true, counted: 3, dead: true},
		}},
		{"after an hour", []deadLetterStep{
			{by: "a", counted: 1}, {at: 30 * m, by: "a", counted: 2}, {at: h - 1, by: "a", counted: 3}, {at: h + 45*time.Second, by: "a", counted: 4, dead: true},
		}},
		{"after an hour, but too seldom", []deadLetterStep{
			{by: "a", counted: 1}, {at: h, by: "a", counted: 2}, {at: h + time.Second, by: "a", counted: 2}, {at: h + m, by: "a", counted: 3, dead: true},
		}},
		{"after an hour, of an unknown handler", []deadLetterStep{
			{counted: 1}, {took: ""}, {at: m, counted: 2}, {took: ""}, {at: 2 * m, counted: 3}, {at: h, counted: 4, dead: true},
		}},
		{"a handler that failed it took another: the hour begins again", []deadLetterStep{
			{by: "a", counted: 1},
			{at: 30 * m, by: "b", counted: 2},
			{took: "b"},
			{at: h, by: "a", counted: 1},
			{at: 90 * m, by: "a", counted: 2},
			{at: 2*h - 1, by: "a", counted: 3},
			{at: 2*h + m, by: "a", counted: 4, dead: true},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var d deadLetters
			for i, step := range test.steps {
				if step.counted == 0 {
					d.took(step.took)
					continue
				}
				round := failedRound{answered: !step.others}
				for _, handler := range step.by {
					round.by = append(round.by, string(handler))
				}
				got := d.fail(sha256.Sum256([]byte("a body")), round, deadLetterLimits{3, h}, step.at)
				if got.dead != step.dead || got.failures != step.counted {
					t.Errorf("%d: %+v, want dead %t, %d", i, got, step.dead, step.counted)
				}
			}
		})
	}
}

// TestDeadLetterDoubles: each further one has to wait twice as long, until a handler takes something.
func TestDeadLetterDoubles(t *testing.T) {
	var d deadLetters
	limits := deadLetterLimits{2, time.Hour}
	fails := func(body string, at time.Duration) ruling {
		return d.fail(sha256.Sum256([]byte(body)), failedRound{by: []string{"a"}, answered: true}, limits, at)
	}
	for _, body := range []string{"A", "B", "C"} {
		fails(body, 0)
	}
	for i, step := range []struct {
		body string
		at   time.Duration
		dead bool
	}{{"A", 1, true}, {"B", 1, false}, {"C", 1, false}, {"B", 2, true}, {"C", 3, false}, {"C", 4, true}} {
		if got := fails(step.body, step.at*time.Hour); got.dead != step.dead {
			t.Errorf("%d: %+v", i, got)
		} else if step.body == "B" && got.dead { // but it could not be kept
			d.takeBack(got)
			if got := fails("B", 2*time.Hour); !got.dead {
				t.Errorf("%d, again: %+v", i, got)
			}
		}
	}
	d.took("b")
	fails("D", 10*time.Hour)
	if got := fails("D", 11*time.Hour); !got.dead {
		t.Errorf("after a delivery: %+v", got)
	}
}

// TestDeadLettersBounded: however many different bodies fail, and handlers take something, the memory
// for them is bounded.
func TestDeadLettersBounded(t *testing.T) {
	var d deadLetters
	body := make([]byte, 8)
	round := failedRound{by: []string{"a"}, answered: true}
	for i := range 3 * maxDeadLetters {
		binary.BigEndian.PutUint64(body, uint64(i))
		d.fail(sha256.Sum256(body), round, deadLetterLimits{3, time.Hour}, 0)
		d.took(fmt.Sprint("handler ", i))
	}
	if len(d.of) != maxDeadLetters || d.oldest.Len() != maxDeadLetters || len(d.takers) > maxTakers {
		t.Errorf("%d and %d remembered, of %d handlers", len(d.of), d.oldest.Len(), len(d.takers))
	}
	d.took("a")
	if got := d.fail(sha256.Sum256(body), round, deadLetterLimits{3, time.Hour}, time.Hour); got.failures != 2 {
		t.Errorf("the last one: %d failures", got.failures)
	}
}

// TestDeadLetterAfter: with a single instance, nothing is ever taken in between. Poison is kept after a
// time, and if it was an outage, not much is.
func TestDeadLetterAfter(t *testing.T) {
	for _, test := range []struct {
		name, step string
		options    func(*Limits)
		minutes    int
		kept       []int // after so many minutes
	}{
		{"default", "500", nil, 450, []int{60, 185, 430}}, // an hour, two more, four more
		{"refused", "422", nil, 70, []int{60}},
		{"broken off", "break", nil, 70, []int{60}},
		{"sooner", "500", func(l *Limits) { l.DeadLetterAfter = 15 * time.Minute }, 60, []int{15, 50}},
		{"more often", "500", func(l *Limits) { l.DeadLetter, l.DeadLetterAfter = 9, 10*time.Minute }, 70, []int{40}},
		{"not now", "503", nil, 70, nil},
		{"misrouted", "404", nil, 70, nil},
		{"off", "500", func(l *Limits) { l.DeadLetterAfter = 0 }, 70, nil},
		{"dead letters off", "500", func(l *Limits) { l.DeadLetter, l.DeadLetterAfter = 0, 10*time.Minute }, 70, nil},
	} {
		for _, behind := range []bool{false, true} { // the rest of the route delivers
			synctest.Test(t, func(t *testing.T) {
				f, to, limits, s := NewFleet(nil), new(told), usual(), newScript([]string{test.step})
				limits.Timeout, limits.SecondOpinion = 5*time.Second, 0
				limits.OwnHandlers, s.blind = !behind, behind
				if test.options != nil {
					test.options(limits)
				}
				hooks := to.hooks()
				var kept []int
				for minute := 0; minute < test.minutes; minute += 5 {
					end := f.Deliver(t.Context(), caseOf(fmt.Sprint("N", len(kept))), s, limits, hooks)
					if end.Outcome == outcome.Quarantined {
						kept = append(kept, minute)
					}
					f.Clock.Skip(5 * time.Minute)
				}
				if !slices.Equal(kept, test.kept) {
					t.Errorf("%s, behind the block %t: kept after %v minutes, want %v", test.name, behind, kept, test.kept)
				}
				for _, why := range to.kept {
					if why != reason.Undeliverable {
						t.Errorf("%s: kept as %s", test.name, why)
					}
				}
			})
		}
	}
}
