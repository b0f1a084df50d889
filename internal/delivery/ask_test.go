package delivery

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// A script is a Way whose handlers do what is written for each: a status, with Retry-After if that stands
// behind it, "down", "break", "hang" or "slow". The last step of a handler is repeated. The first handler
// that may be asked is.
type script struct {
	handlers fake
	steps    [][]string
	blind    bool // asks the first handler, by no policy of ours

	mu    sync.Mutex
	asked []int // how often each handler was reached
	order []string
}

func newScript(steps ...[]string) *script {
	return &script{handlers: fakePool(len(steps), 0), steps: steps, asked: make([]int, len(steps))}
}

func (s *script) Attempt(deadline time.Time, t *Try) Answer {
	at := 0
	if !s.blind {
		at = t.Choose(s.handlers.seats, func([]Seat) int { return 0 })
	}
	if at < 0 {
		return Answer{Result: NoneFree, Err: ErrNoneAvailable}
	}
	s.mu.Lock()
	step := s.steps[at][min(s.asked[at], len(s.steps[at])-1)]
	if step != "down" {
		s.asked[at]++
		s.order = append(s.order, string(t.Case.Body))
	}
	s.mu.Unlock()
	status, after, _ := strings.Cut(step, " Retry-After: ")
	switch status {
	case "down":
		return Answer{Result: NotNow, Err: fmt.Errorf("%w: refused", ErrNotConnected)}
	case "break":
		return Answer{Result: BrokenOff, Err: errors.New("EOF")}
	case "slow":
		time.Sleep(10 * time.Second)
		return Answer{Result: Taken, Status: http.StatusOK}
	case "hang":
		time.Sleep(time.Until(deadline))
		return Answer{Result: TimedOut, Err: ErrTimedOut}
	}
	code, _ := strconv.Atoi(status)
	return Answer{Result: ByStatus(code), Status: code, RetryAfter: RetryAfter(http.Header{"Retry-After": {after}})}
}

// told is what delivery reported.
type told struct {
	mu    sync.Mutex
	slow  int
	waits int
	kept  []reason.Reason
}

func (to *told) count(n *int) {
	to.mu.Lock()
	defer to.mu.Unlock()
	*n++
}

// numbers returns how often the operator heard of a slow handler and of one that waits.
func (to *told) numbers() [2]int {
	to.mu.Lock()
	defer to.mu.Unlock()
	return [2]int{to.slow, to.waits}
}

func (to *told) hooks() *Hooks {
	return &Hooks{
		Attempted: func(*outcome.Case, Answer) {},
		Slow:      func(*outcome.Case, string) { to.count(&to.slow) },
		Waits:     func(*outcome.Case) { to.count(&to.waits) },
		Keep: func(_ *outcome.Case, end *outcome.Verdict) *outcome.Verdict {
			to.mu.Lock()
			defer to.mu.Unlock()
			to.kept = append(to.kept, end.Reason)
			return end
		},
		Failing: NewFailureTimes(),
	}
}

// usual are the limits that a block has without options.
func usual() *Limits {
	limits := DefaultLimits()
	limits.Timeout, limits.AttemptTimeout = 170*time.Second, time.Minute
	limits.SecondOpinion, limits.DeadLetter, limits.DeadLetterAfter = 1, 3, time.Hour
	limits.OwnHandlers = true
	return &limits
}

func caseOf(body string) *outcome.Case {
	return &outcome.Case{Body: []byte(body), Started: time.Now(), N: &notification.Notification{Type: "incomingMessageReceived", Instance: "1101000001"}}
}

// TestLoop has the table of what handlers may do, row by row.
func TestLoop(t *testing.T) {
	second := func(n int) func(*Limits) { return func(l *Limits) { l.SecondOpinion = n } }
	for _, test := range []struct {
		name     string
		handlers [][]string
		options  func(*Limits)
		status   int
		reason   reason.Reason
		asked    []int // how often each handler is; -1 for more than once
	}{
		{"not now: another one", [][]string{{"503"}, {"200"}}, nil, 200, "", []int{1, 1}},
		{"not now, each status", [][]string{{"408"}, {"425"}, {"429"}, {"502"}, {"503"}, {"504"}, {"204"}}, nil, 200, "", []int{1, 1, 1, 1, 1, 1, 1}},
		{"not now: the same one later", [][]string{{"503", "429", "200"}}, nil, 200, "", []int{3}},
		{"not now: to the end", [][]string{{"503"}, {"429"}}, nil, 503, "not_now", []int{-1, -1}},
		{"not reachable: another one", [][]string{{"down"}, {"200"}}, nil, 200, "", []int{0, 1}},
		{"not reachable: to the end", [][]string{{"down"}, {"down"}}, nil, 503, "not_now", []int{0, 0}},
		{"broken off: a second opinion", [][]string{{"break"}, {"200"}, {"200"}}, nil, 200, "", []int{1, 1, 0}},
		{"broken off: the second opinion too", [][]string{{"break"}, {"break"}, {"200"}}, nil, 502, "broken_off", []int{1, 1, 0}},
		{"broken off: two more opinions", [][]string{{"break"}, {"break"}, {"200"}}, second(2), 200, "", []int{1, 1, 1}},
		{"broken off: no second opinion", [][]string{{"break"}, {"200"}}, second(0), 502, "broken_off", []int{1, 0}},
		{"broken off: the others are busy", [][]string{{"break"}, {"503", "503", "200"}}, nil, 200, "", []int{1, 3}},
		{"broken off: the others are not there", [][]string{{"break", "200"}, {"down"}}, nil, 200, "", []int{2, 0}},
		{"broken off: a single handler is asked again", [][]string{{"break", "200"}}, nil, 200, "", []int{2}},
		{"broken off: a single handler, to the end", [][]string{{"break"}}, nil, 502, "broken_off", []int{2}},
		{"timed out: a second opinion", [][]string{{"hang"}, {"200"}}, nil, 200, "", []int{1, 1}},
		{"timed out: the second opinion too", [][]string{{"hang"}, {"hang"}, {"200"}}, nil, 504, "attempt_timeout", []int{1, 1, 0}},
		{"timed out: a single handler is not asked again", [][]string{{"hang", "200"}}, nil, 504, "attempt_timeout", []int{1}},
		{"timed out: no second opinion", [][]string{{"hang"}, {"200"}}, second(0), 504, "attempt_timeout", []int{1, 0}},
		{"timed out: timeout, while others are left", [][]string{{"hang"}, {"200"}}, func(l *Limits) { l.Timeout = time.Minute }, 504, "attempt_timeout", []int{1, 0}},
		{"another 5xx: each other one once", [][]string{{"500"}, {"501"}, {"507"}, {"200"}}, nil, 200, "", []int{1, 1, 1, 1}},
		{"another 5xx: all of them", [][]string{{"500"}, {"500"}, {"500"}}, nil, 502, "handler_error", []int{1, 1, 1}},
		{"another 5xx: one is busy", [][]string{{"500"}, {"503", "503", "200"}}, nil, 200, "", []int{1, 3}},
		{"another 5xx: a single handler", [][]string{{"500"}}, nil, 502, "handler_error", []int{1}},
		{"misrouted: each other one once", [][]string{{"301"}, {"401"}, {"403"}, {"404"}, {"405"}, {"200"}}, nil, 200, "", []int{1, 1, 1, 1, 1, 1}},
		{"misrouted: all of them", [][]string{{"404"}, {"404"}}, nil, 502, "misrouted", []int{1, 1}},
		{"refused: a second opinion", [][]string{{"422"}, {"200"}, {"200"}}, nil, 200, "", []int{1, 1, 0}},
		{"refused: the second opinion too", [][]string{{"422"}, {"400"}, {"200"}}, nil, 502, "handler_refused", []int{1, 1, 0}},
		{"refused: two more opinions", [][]string{{"422"}, {"400"}, {"200"}}, second(2), 200, "", []int{1, 1, 1}},
		{"refused: no second opinion", [][]string{{"422"}, {"200"}}, second(0), 502, "handler_refused", []int{1, 0}},
		{"refused: after it was broken off", [][]string{{"break"}, {"422"}, {"200"}}, nil, 502, "handler_refused", []int{1, 1, 0}},
		{"refused: the second opinion is another error", [][]string{{"422"}, {"500"}, {"200"}}, nil, 200, "", []int{1, 1, 1}},
		{"refused: the second one is busy", [][]string{{"422"}, {"503", "200"}}, nil, 200, "", []int{1, 2}},
		{"refused: a single handler", [][]string{{"422"}}, nil, 502, "handler_refused", []int{1}},
		{"all of it", [][]string{{"503"}, {"down"}, {"500"}, {"404"}, {"break"}, {"202"}}, nil, 200, "", []int{1, 0, 1, 1, 1, 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, limits, to, c := newScript(test.handlers...), usual(), new(told), caseOf("one")
				if test.options != nil {
					test.options(limits)
				}
				end := NewFleet(nil).Deliver(t.Context(), c, s, limits, to.hooks())
				if end.Status != test.status || end.Reason != test.reason {
					t.Errorf("%d %q, want %d %q", end.Status, end.Reason, test.status, test.reason)
				}
				if took := time.Since(c.Started); took > limits.Timeout {
					t.Errorf("took %s", took)
				}
				for i, n := range s.asked {
					if n != test.asked[i] && (test.asked[i] >= 0 || n < 2) {
						t.Errorf("handler %d was asked %d times, want %d", i, n, test.asked[i])
					}
				}
			})
		})
	}
}

// TestRetryAfterKept: a handler that asks for time gets it, but no notification waits for what comes too late.
func TestRetryAfterKept(t *testing.T) {
	for _, test := range []struct {
		step   string
		status int
		least  time.Duration
		most   time.Duration
	}{
		{"503 Retry-After: 100", 200, 100 * time.Second, 102 * time.Second},
		{"503 Retry-After: 3600", 503, 0, time.Second},
	} {
		for _, blind := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				s, began := newScript([]string{test.step, "200"}), time.Now()
				s.blind = blind
				end := NewFleet(nil).Deliver(t.Context(), caseOf("one"), s, usual(), new(told).hooks())
				if took := time.Since(began); end.Status != test.status || took < test.least || took > test.most {
					t.Errorf("%s, without a policy %t: %d after %s", test.step, blind, end.Status, took)
				}
			})
		}
	}
}

// TestOperatorHears: the operator hears once of a notification that waits, and of each handler that is long in
// answering.
func TestOperatorHears(t *testing.T) {
	for step, want := range map[string][2]int{"503": {0, 1}, "down": {0, 1}, "slow": {1, 0}, "200": {0, 0}} {
		synctest.Test(t, func(t *testing.T) {
			to := new(told)
			NewFleet(nil).Deliver(t.Context(), caseOf("one"), newScript([]string{step}), usual(), to.hooks())
			if got := to.numbers(); got != want {
				t.Errorf("%s: told %v, want %v", step, got, want)
			}
		})
	}
}

// TestSlowReport: a handler is not slow to answer when it takes long to report what it said.
func TestSlowReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := new(told)
		hooks := to.hooks()
		hooks.Attempted = func(*outcome.Case, Answer) { time.Sleep(usual().WarnAfter + time.Second) }
		NewFleet(nil).Deliver(t.Context(), caseOf("one"), newScript([]string{"200"}), usual(), hooks)
		if to.numbers()[0] != 0 {
			t.Error("the operator hears of a slow handler")
		}
	})
}

// TestShuns: a handler that let an attempt time out is left alone for a while if there is another.
func TestShuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := NewFleet(nil), newScript([]string{"hang"}, []string{"200"})
		for i, asked := range []int{1, 1, 1, 2} {
			if i == 3 {
				time.Sleep(usual().ShunFor + time.Second)
			}
			if end := f.Deliver(t.Context(), caseOf(fmt.Sprint(i)), s, usual(), new(told).hooks()); end.Status != 200 {
				t.Errorf("status %d", end.Status)
			}
			if s.asked[0] != asked {
				t.Errorf("%d: the hung handler was asked %d times, want %d", i, s.asked[0], asked)
			}
		}
	})
}

// TestInOrder: a handler never has more than its places, and notifications get them in the order in which they
// came.
func TestInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := NewFleet(nil), newScript([]string{"slow"})
		s.handlers = fakePool(1, 1)
		const n = 15
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				if end := f.Deliver(t.Context(), caseOf(fmt.Sprintf("%02d", i)), s, usual(), new(told).hooks()); end.Status != 200 {
					t.Errorf("%d: status %d", i, end.Status)
				}
			})
			synctest.Wait()
			time.Sleep(time.Millisecond)
		}
		if f.Waits() != n-1 {
			t.Errorf("%d wait", f.Waits())
		}
		all.Wait()
		for i, body := range s.order {
			if body != fmt.Sprintf("%02d", i) {
				t.Errorf("%d. was %s", i, body)
			}
		}
		if len(f.line) != 0 || len(f.busy) != 0 {
			t.Errorf("left: %d in line, %v busy", len(f.line), f.busy)
		}
	})
}

// TestExiting: when the process is about to end, what only waits is answered at once, and no further handler is
// asked.
func TestExiting(t *testing.T) {
	for _, test := range []struct {
		name   string
		steps  [][]string
		limit  int
		status int
		asked  int // handlers reached, in all
	}{
		{"waits for a handler", [][]string{{"down"}}, 0, 503, 0},
		{"is at work", [][]string{{"slow"}}, 0, 200, 1},
		{"another one is left", [][]string{{"hang"}, {"200"}}, 0, 504, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			exiting := make(chan struct{})
			s, began := newScript(test.steps...), time.Now()
			time.AfterFunc(5*time.Second, func() { close(exiting) })
			end := NewFleet(exiting).Deliver(t.Context(), caseOf("one"), s, usual(), new(told).hooks())
			asked := 0
			for _, n := range s.asked {
				asked += n
			}
			if end.Status != test.status || asked != test.asked {
				t.Errorf("%s: status %d, %d asked", test.name, end.Status, asked)
			}
			if took := time.Since(began); test.asked == 0 && took > 6*time.Second {
				t.Errorf("%s: took %s", test.name, took)
			}
		})
	}
}

// TestExitingKeepsNone: a notification for which no handler was asked before the process ends is not kept, even
// if it stands behind a head that is about to be lost: it comes again.
func TestExitingKeepsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exiting := make(chan struct{})
		f, to, sent := NewFleet(exiting), new(told), time.Now()
		hooks := to.hooks()
		hooks.Failing.fail(keyOf(sha256.Sum256([]byte("head"))), instanceKey("1101000001"), sent, f.Clock.Now())
		f.Clock.Skip(23*time.Hour + 10*time.Minute)
		hooks.Failing.fail(keyOf(sha256.Sum256([]byte("head"))), instanceKey("1101000001"), sent, f.Clock.Now())

		full := newScript([]string{"slow"})
		full.handlers = fakePool(1, 1)
		var other sync.WaitGroup
		defer other.Wait()
		other.Go(func() { f.Deliver(t.Context(), caseOf("another"), full, usual(), new(told).hooks()) })
		synctest.Wait()
		time.AfterFunc(time.Second, func() { close(exiting) })
		c := caseOf("behind")
		c.N.Timestamp = sent.Unix()
		end := f.Deliver(t.Context(), c, full, usual(), hooks)
		if c.Attempts != 0 || end.Outcome != outcome.Failed || len(to.kept) > 0 {
			t.Errorf("%s after %d attempts, kept for %v", end.Outcome, c.Attempts, to.kept)
		}
	})
}

// TestTrail: of many attempts that ended alike one line is left, so that the answer that decided is seen, and the
// handler that is named is the one that gave it.
func TestTrail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c, limits := newScript([]string{"down"}, []string{"503", "break", "hang"}), caseOf("one"), usual()
		limits.SecondOpinion = 2
		end := NewFleet(nil).Deliver(t.Context(), c, s, limits, new(told).hooks())
		gone, hangs := s.handlers.seats(nil)[0].Address, s.handlers.seats(nil)[1].Address
		if end.Reason != reason.AttemptTimeout || c.Handler != hangs {
			t.Errorf("%s by %s", end.Reason, c.Handler)
		}
		got := c.Tried()
		slices.Sort(got)
		want := []string{gone + ": handler could not be connected to: refused", hangs + ": 503", hangs + ": EOF", hangs + ": " + ErrTimedOut.Error()}
		if len(got) != len(want) || !strings.HasPrefix(got[0], want[0]+" (") || !strings.HasSuffix(got[0], " times)") || !slices.Equal(got[1:], want[1:]) {
			t.Errorf("tried %q", got)
		}
		n := 0
		for _, a := range c.Answers {
			n += a.Times
		}
		if n != c.Attempts {
			t.Errorf("%d of %d attempts", n, c.Attempts)
		}
	})
}

// TestTrailBounded: of however many handlers, ten lines are left, those of the last.
func TestTrailBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var steps [][]string
		for i := range 15 {
			steps = append(steps, []string{fmt.Sprint(505 + i)})
		}
		s, c := newScript(steps...), caseOf("one")
		NewFleet(nil).Deliver(t.Context(), c, s, usual(), new(told).hooks())
		if len(c.Answers) != 10 || c.Attempts != 15 {
			t.Fatalf("%d lines of %d attempts", len(c.Answers), c.Attempts)
		}
		if last := c.Answers[9]; last.Handler != c.Handler {
			t.Errorf("the last is %+v, and %s decided", last, c.Handler)
		}
	})
}
