package delivery

import (
	"context"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// A Try is one notification's way through the handlers. The loop of attempts notes what became of each
// attempt; the selection policy reads that, and notes which upstream it chose.
//
// It belongs to the goroutine of its notification; while it stands in line, to the fleet's lock.
type Try struct {
	fleet      *Fleet
	limits     *Limits
	hooks      *Hooks
	Case       *outcome.Case
	lastChance bool        // handlers are asked once, and it is kept if that fails
	failed     failedRound // what the handlers made of it so far

	shown    map[string]shown // by upstreams that were asked and did not take it
	opinions int              // second ones that may still be asked for
	last     Answer           // what is told if no other handler knows better

	chosen place // of the attempt that runs

	// While and after it stood in line.
	seats    []Seat // the upstreams at the last choice
	room     [manySeats]Seat
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

type tryKey struct{}

// TryOf returns the try that a request belongs to, nil if it did not come through green_api.
func TryOf(ctx context.Context) *Try {
	t, _ := ctx.Value(tryKey{}).(*Try)
	return t
}

// WithTry returns a context in which TryOf finds t; nil hides one.
func WithTry(ctx context.Context, t *Try) context.Context {
	return context.WithValue(ctx, tryKey{}, t)
}

// mark notes what an upstream has shown.
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

// deadline is when the sender must have its answer. A last attempt has its time however long the body was
// in coming.
func (t *Try) deadline(now time.Time) time.Time {
	end := t.Case.Started.Add(t.limits.Timeout)
	if last := now.Add(t.limits.LastAttempt); t.lastChance && last.Before(end) {
		return last
	}
	return end
}

// attempt asks one handler, until deadline at the latest, and writes down what became of it.
func (t *Try) attempt(ctx context.Context, deadline time.Time, w Way) (got Answer) {
	if end := time.Now().Add(t.limits.AttemptTimeout); end.Before(deadline) {
		deadline = end
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	t.policy = false // until it is asked
	slow := time.AfterFunc(t.limits.WarnAfter, func() { t.hooks.Slow(t.Case, t.asked()) })
	got = w.Attempt(ctx, t)
	slow.Stop() // before it is reported, which may take its time
	if t.chosen.upstream != "" {
		got.Handler = t.chosen.upstream
	}
	t.done(got.Result)
	if got.Result != NoneFree {
		t.note(got)
		t.hooks.Attempted(t.Case, got)
	}
	return got
}

// note writes an attempt into the trail.
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
	const most = 10
	if len(trail.Answers) == most {
		trail.Answers = append(trail.Answers[:0], trail.Answers[1:]...)
	}
	said := outcome.Attempt{Handler: got.Handler, Status: got.Status, Text: got.Text}
	if got.Err != nil {
		said.Error = got.Err.Error()
	}
	trail.Answers = append(trail.Answers, said)
}

// asked is the upstream of the attempt that runs, "" if it is not known.
func (t *Try) asked() string {
	t.fleet.mu.Lock()
	defer t.fleet.mu.Unlock()
	return t.chosen.upstream
}
