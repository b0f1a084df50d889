package delivery

import (
	"context"
	"slices"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// A Try is one notification's delivery. The loop of attempts records the result of each attempt; the
// selection policy reads it and records which upstream it chose.
//
// It belongs to the notification's goroutine. While it stands in line, the fleet's lock guards it.
type Try struct {
	fleet      *Fleet
	limits     *Limits
	hooks      *Hooks
	Case       *outcome.Case
	lastChance bool        // ask handlers once, and keep the notification if that fails
	round      bool        // from the queue, which makes another one
	failed     failedRound // what handlers have made of it so far
	results    []Result    // of the trail's answers

	holds   bool // its instance's sender waits for the verdict
	slow    bool // an attempt took so long that a warning was due
	settled bool // the verdict is known; guarded by the lock of the standing

	shown    map[string]shown // by upstream, for those that were asked and did not take it
	opinions int              // second opinions left
	last     Answer           // returned if no other handler knows better

	chosen place // by the running attempt
	end    outcome.Verdict

	// Used in line and afterwards.
	seats    []Seat // the upstreams at the last choice
	room     [manySeats]Seat
	inLine   bool
	called   chan struct{} // has room for the only call that can come
	promised place         // a place held for it

	// Results of the last choice.
	policy  bool      // one of our policies is choosing
	left    int       // upstreams that may still be asked, now or later
	away    int       // how many of them cannot be reached
	full    int       // how many of them are full
	retryAt time.Time // when the first one that asked for time may be asked; zero if none did
}

// place is a place at an upstream.
type place struct {
	upstream string // "" for no place
	limit    int    // the upstream's max_requests; 0 for none
}

// shown is what an upstream has shown for one notification.
type shown struct {
	state upstreamState
	until time.Time // not to be asked before then
}

type upstreamState int

const (
	unreached  upstreamState = iota + 1 // no connection
	saidLater                           // "not now"
	brokeItOff                          // may be asked again if no other is left
	spent                               // has answered, and would give the same answer again
)

type tryKey struct{}

// TryOf returns the try that a request belongs to, nil if it did not come through green_api.
func TryOf(ctx context.Context) *Try {
	t, _ := ctx.Value(tryKey{}).(*Try)
	return t
}

// WithTry returns a context in which TryOf finds t. A nil t hides the one in ctx.
func WithTry(ctx context.Context, t *Try) context.Context {
	return context.WithValue(ctx, tryKey{}, t)
}

// mark records the state of an upstream.
func (t *Try) mark(upstream string, state upstreamState, until time.Time) {
	if t.shown == nil {
		t.shown = make(map[string]shown)
	}
	t.shown[upstream] = shown{state, until}
}

func (f *Fleet) try(c *outcome.Case, limits *Limits, hooks *Hooks) *Try {
	return &Try{
		fleet: f, Case: c, limits: limits, hooks: hooks,
		opinions: limits.SecondOpinion,
		last:     Answer{Result: NotNow, Err: ErrNoneAvailable},
	}
}

// deadline returns when the sender must have its answer, or a round must end. A last attempt gets its full time
// however long the body took to arrive.
func (t *Try) deadline(now time.Time) time.Time {
	if t.round {
		return now.Add(t.limits.Timeout)
	}
	end := t.Case.Started.Add(t.limits.Timeout)
	if last := now.Add(t.limits.LastAttempt); t.lastChance && last.Before(end) {
		return last
	}
	return end
}

// attempt asks one handler, until the deadline at the latest, and records the result.
func (t *Try) attempt(deadline time.Time, w Way) (got Answer) {
	began := time.Now()
	if end := began.Add(t.limits.AttemptTimeout); end.Before(deadline) {
		deadline = end
	}
	t.policy = false // until the policy is called
	slow := t.fleet.warnAfter(t.limits.WarnAfter, t)
	got = w.Attempt(deadline, t)
	if !t.fleet.noWarning(slow) { // first: reporting may take a while
		t.slow = true
	}
	if t.chosen.upstream != "" {
		got.Handler = t.chosen.upstream
	}
	got.Ended = time.Now()
	t.done(&got, got.Ended.Sub(began))
	if got.Result != NoneFree {
		t.note(got)
		t.hooks.Attempted(t.Case, got)
	}
	return got
}

// note adds an attempt to the trail.
func (t *Try) note(got Answer) {
	t.failed.add(got)
	trail := &t.Case.Trail
	trail.Attempts++
	if got.Handler != "" {
		trail.Handler = got.Handler
	}
	if got.Result == Taken {
		return
	}
	if t.holds {
		t.fleet.standing.fail(t.Case, got, t.fleet.Clock.Now().wall)
	}
	said := outcome.Attempt{Handler: got.Handler, Status: got.Status, Text: got.Text, Times: 1}
	if got.Err != nil {
		said.Error = got.Err.Error()
	}
	// Attempts that ended alike are one line, or else those of a handler that is gone would push out the one
	// answer that matters.
	for i, before := range trail.Answers {
		if before.Handler == said.Handler && before.Status == said.Status && t.results[i] == got.Result {
			said.Times += before.Times
			trail.Answers, t.results = slices.Delete(trail.Answers, i, i+1), slices.Delete(t.results, i, i+1)
			break
		}
	}
	const most = 10
	if len(trail.Answers) == most {
		trail.Answers, t.results = slices.Delete(trail.Answers, 0, 1), slices.Delete(t.results, 0, 1)
	}
	trail.Answers, t.results = append(trail.Answers, said), append(t.results, got.Result)
}

// asked returns the upstream of the running attempt, "" if unknown.
func (t *Try) asked() string {
	t.fleet.mu.Lock()
	defer t.fleet.mu.Unlock()
	return t.chosen.upstream
}

// settle records the verdict, and whether the instance stands still. end is nil if the delivery crashed.
func (t *Try) settle(end *outcome.Verdict) {
	s := &t.fleet.standing
	if t.slow { // the warning may come only now
		s.mu.Lock()
		t.settled = true
		s.mu.Unlock()
	}
	if !s.concerns(end) {
		return
	}
	now := t.fleet.Clock.Now()
	var since time.Time
	if end != nil && end.Outcome == outcome.Failed {
		since = t.hooks.Failing.since(keyOf(t.Case.Digest()), now)
	}
	s.end(t.Case, end, since, now.wall)
}
