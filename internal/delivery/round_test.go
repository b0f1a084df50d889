package delivery

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// TestRound has what a round of the queue does differently: it waits for nothing but a free place, and it lets no
// second handler begin what another one is still doing.
func TestRound(t *testing.T) {
	for _, test := range []struct {
		name     string
		handlers [][]string
		blind    bool
		reason   reason.Reason // "" if it was delivered
		asked    []int
		took     time.Duration
		after    time.Duration // Retry-After of the last answer
	}{
		{"taken", [][]string{{"204"}}, false, "", []int{1}, 0, 0},
		{"taken after a minute", [][]string{{"slow"}}, false, "", []int{1}, 10 * time.Second, 0},
		{"not now: another one", [][]string{{"503"}, {"200"}}, false, "", []int{1, 1}, 0, 0},
		{"not now: all of them", [][]string{{"503"}, {"503 Retry-After: 90"}}, false, "not_now", []int{1, 1}, 0, 90 * time.Second},
		{"not reachable", [][]string{{"down"}, {"down"}}, false, "not_now", []int{0, 0}, 0, 0},
		{"broken off: a second opinion", [][]string{{"break"}, {"200"}}, false, "", []int{1, 1}, 0, 0},
		{"broken off: a single handler", [][]string{{"break", "200"}}, false, "broken_off", []int{1}, 0, 0},
		{"timed out: nobody else", [][]string{{"hang"}, {"200"}}, false, "attempt_timeout", []int{1, 0}, time.Minute, 0},
		{"another 5xx: each other one once", [][]string{{"500"}, {"500"}}, false, "handler_error", []int{1, 1}, 0, 0},
		{"another 5xx, and one is not reachable", [][]string{{"500"}, {"down"}}, false, "handler_error", []int{1, 0}, 0, 0},
		{"refused: a second opinion", [][]string{{"422"}, {"422"}, {"200"}}, false, "handler_refused", []int{1, 1, 0}, 0, 0},
		{"another policy: not now", [][]string{{"503", "200"}}, true, "not_now", []int{1}, 0, 0},
		{"another policy: error", [][]string{{"500", "200"}}, true, "handler_error", []int{1}, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, limits, c := newScript(test.handlers...), usual(), caseOf("one")
				s.blind = test.blind
				c.Started = c.Started.Add(-time.Hour) // it has been in the queue
				began := time.Now()
				end, last := NewFleet(nil).Round(c, s, limits, new(told).hooks())
				if end.Reason != test.reason || (end.Outcome == outcome.Delivered) != (test.reason == "") {
					t.Errorf("%s %q, want %q", end.Outcome, end.Reason, test.reason)
				}
				if took := time.Since(began); took != test.took || last.RetryAfter != test.after {
					t.Errorf("took %s, Retry-After %s; want %s, %s", took, last.RetryAfter, test.took, test.after)
				}
				for i, n := range s.asked {
					if n != test.asked[i] {
						t.Errorf("handler %d was asked %d times, want %d", i, n, test.asked[i])
					}
				}
			})
		})
	}
}

// TestRoundWaitsForPlace: a round whose handlers are all full stands in line.
func TestRoundWaitsForPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := NewFleet(nil), newScript([]string{"slow"})
		s.handlers = fakePool(1, 1)
		for range 3 {
			go f.Round(caseOf("one"), s, usual(), new(told).hooks())
		}
		time.Sleep(25 * time.Second)
		synctest.Wait()
		if s.asked[0] != 3 {
			t.Errorf("asked %d times after 25 s, want 3", s.asked[0])
		}
		time.Sleep(time.Minute)
	})
}

// TestRoundDeadLetter: what fails often enough while its handler takes others is kept; "not now" counts for nothing.
func TestRoundDeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, to, limits := NewFleet(nil), new(told), usual()
		round := func(body string, steps ...string) *outcome.Verdict {
			end, _ := f.Round(caseOf(body), newScript(steps), limits, to.hooks())
			return end
		}
		for i, want := range []outcome.Outcome{outcome.Failed, outcome.Failed, outcome.Quarantined} {
			round("another", "200")
			for range 3 {
				if end := round("poison", "503"); end.Outcome != outcome.Failed {
					t.Fatalf("not now: %s", end.Outcome)
				}
			}
			if end := round("poison", "500"); end.Outcome != want || want == outcome.Quarantined && end.Reason != reason.Undeliverable {
				t.Errorf("failure %d: %s %s, want %s", i+1, end.Outcome, end.Reason, want)
			}
			time.Sleep(time.Minute)
		}
		if len(to.kept) != 1 {
			t.Error(to.kept)
		}
	})
}

// TestAccept: a notification that comes again is not stored twice.
func TestAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, limits, puts := NewFleet(nil), usual(), 0
		put := func() *outcome.Verdict {
			puts++
			time.Sleep(time.Second)
			return &outcome.Verdict{Outcome: outcome.Queued, Status: http.StatusOK}
		}
		accept := func(ctx context.Context, body string) *outcome.Verdict {
			return f.Accept(ctx, caseOf(body), limits, put)
		}

		gone, hangUp := context.WithCancel(t.Context())
		joined := make(chan *outcome.Verdict)
		go accept(gone, "one")
		time.Sleep(time.Millisecond)
		hangUp()
		go func() { joined <- accept(t.Context(), "one") }()
		if end := <-joined; end.Outcome != outcome.Queued || puts != 1 {
			t.Errorf("joined: %s, stored %d times", end.Outcome, puts)
		}
		if end := accept(gone, "two"); end.Outcome != outcome.Queued { // nobody heard it
			t.Error(end.Outcome)
		}
		if end := accept(t.Context(), "two"); end.Reason != reason.Duplicate || puts != 2 {
			t.Errorf("sent again: %s %s, stored %d times", end.Outcome, end.Reason, puts)
		}
		if end := accept(t.Context(), "two"); end.Outcome != outcome.Queued || puts != 3 {
			t.Errorf("one like it: %s, stored %d times", end.Outcome, puts)
		}
		limits.Deduplicate = time.Hour
		same := func() *outcome.Verdict {
			c := caseOf("no notification") // which is recognized by its bytes
			c.N = new(notification.Notification)
			return f.Accept(t.Context(), c, limits, put)
		}
		same()
		if end := same(); end.Reason != reason.Duplicate || puts != 4 {
			t.Errorf("deduplicate: %s %s, stored %d times", end.Outcome, end.Reason, puts)
		}
	})
}
