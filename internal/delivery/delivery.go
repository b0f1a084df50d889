// Package delivery delivers notifications to handlers: it asks one handler after another until one takes
// the notification, waits for free places, lets re-sends join a delivery in flight, and detects what will
// never be delivered. It does not know Caddy: a Way makes each attempt.
package delivery

import (
	"context"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// A Way carries a notification to a handler.
type Way interface {
	// Attempt asks one handler. It ends at the deadline at the latest, whatever the sender does meanwhile, and
	// does not panic. If one of our policies chooses the handler, it does so with Try.Choose; a way that makes
	// a request hands it the try with WithTry.
	Attempt(deadline time.Time, t *Try) Answer
}

// Limits set how long and how often handlers are asked to take a notification.
type Limits struct {
	Timeout         time.Duration // from receipt to the answer
	AttemptTimeout  time.Duration // for one handler's answer
	SecondOpinion   int           // how many other handlers to ask after one refused it or broke off
	DeadLetter      int           // failures after which it is kept; 0 for never
	DeadLetterAfter time.Duration // time after which it is kept if handlers take nothing else; 0 for never
	Deduplicate     time.Duration // how long a delivered one is remembered; 0 for not at all

	// The handlers belong to this block alone, so what they took and failed is evidence about a
	// notification.
	OwnHandlers bool

	// The pause before the same handlers are asked again doubles from FirstPause to LongestPause.
	FirstPause   time.Duration
	LongestPause time.Duration

	// GraceAfterFault is how long a notification that one handler could not process waits for others that
	// cannot be reached. A handler that is restarting is back by then.
	GraceAfterFault time.Duration

	WarnAfter   time.Duration // how long it waits for a handler before the operator is told
	LastAttempt time.Duration // timeout for one that will get no second chance
	ShunFor     time.Duration // how long an upstream whose attempt timed out is asked only if no other can be
}

// DefaultLimits returns the limits that no option of a block sets.
func DefaultLimits() Limits {
	return Limits{
		FirstPause: 50 * time.Millisecond, LongestPause: time.Second, GraceAfterFault: 5 * time.Second,
		WarnAfter: 5 * time.Second, LastAttempt: 10 * time.Second, ShunFor: 5 * time.Second,
	}
}

// Hooks connect delivery with the rest of the edge: what it reports, and where it puts notifications that
// it cannot deliver.
type Hooks struct {
	Attempted func(*outcome.Case, Answer)            // one handler was asked
	Slow      func(c *outcome.Case, upstream string) // an attempt is taking long; upstream is "" if unknown
	Waits     func(*outcome.Case)                    // it has waited long for a handler

	// Keep quarantines a notification and returns the final verdict. It is called before the flight lands,
	// so that a sender that has joined gets the same verdict.
	Keep func(*outcome.Case, *outcome.Verdict) *outcome.Verdict

	Failing *FailureTimes // belongs to the quarantine that Keep writes to
}

// failures are the verdicts for undelivered notifications. Each has a status that makes the sender keep the
// notification.
var failures = map[Result]outcome.Verdict{
	NotNow:       {Reason: reason.NotNow, Status: http.StatusServiceUnavailable},
	BrokenOff:    {Reason: reason.BrokenOff, Status: http.StatusBadGateway},
	TimedOut:     {Reason: reason.AttemptTimeout, Status: http.StatusGatewayTimeout},
	HandlerError: {Reason: reason.HandlerError, Status: http.StatusBadGateway},
	Misrouted:    {Reason: reason.Misrouted, Status: http.StatusBadGateway},
	RefusedByIt:  {Reason: reason.HandlerRefused, Status: http.StatusBadGateway},
	Nobody:       {Reason: reason.NoHandler, Status: http.StatusBadGateway},
}

// Why returns the reason for a result other than Taken.
func (r Result) Why() reason.Reason { return failures[r].Reason }

// Deliver delivers a notification and returns the verdict. If the sender gave up on an earlier delivery and
// sends the same notification again, it is not delivered twice: it joins the delivery in flight, or gets
// the result if that has ended well. ctx ends when the sender hangs up, which does not cut the delivery
// short.
func (f *Fleet) Deliver(ctx context.Context, c *outcome.Case, w Way, limits *Limits, hooks *Hooks) (end *outcome.Verdict) {
	a, end := f.arrive(ctx, c, limits)
	if end != nil {
		return end
	}
	t := f.try(c, limits, hooks)
	defer func() {
		f.depart(ctx, a, c, end)
		t.settle(end)
	}()

	now := f.Clock.Now()
	t.holds = true
	f.standing.begin(c, now.wall)
	t.lastChance = hooks.Failing.behind(keyOf(c.Digest()), c.N.Instance, c.Sent(), now)
	got := t.ask(w)
	if got.Result != Taken {
		return t.giveUp(t.failure(got))
	}
	hooks.Failing.delivered(keyOf(c.Digest()), c.N.Instance)
	return t.taken(got)
}

// Accept lets put store a notification that is delivered later, and returns its verdict. A re-send is not stored
// twice: it gets the verdict of the earlier one.
func (f *Fleet) Accept(ctx context.Context, c *outcome.Case, limits *Limits, put func() *outcome.Verdict) (end *outcome.Verdict) {
	a, end := f.arrive(ctx, c, limits)
	if end != nil {
		return end
	}
	defer func() {
		f.depart(ctx, a, c, end)
		if f.standing.concerns(end) {
			f.standing.end(c, end, time.Time{}, f.Clock.Now().wall)
		}
	}()
	return put()
}

// An arrival is a notification that is no re-send.
type arrival struct {
	mine *flight // nil if it flies untracked

	// For Limits.Deduplicate.
	key      eventKey
	remember time.Duration // 0 for not at all
}

// arrive returns the verdict on a notification that was delivered or stored before, or is being delivered. Otherwise
// the caller sees to it, and calls depart in the end.
func (f *Fleet) arrive(ctx context.Context, c *outcome.Case, limits *Limits) (a arrival, end *outcome.Verdict) {
	mine, other, ended := f.flights.board(ctx, c.Via, c.Digest(), f.Clock.Now().up)
	if ended {
		return a, duplicate()
	}
	if other != nil {
		return a, other.join(c)
	}
	a.mine = mine
	if limits.Deduplicate > 0 {
		if key, has := eventKeyOf(c); has {
			a.key, a.remember = key, limits.Deduplicate
		}
	}
	if a.remember > 0 && f.duplicates.has(a.key, c.Started) { // checked only now, as the flight may have landed just before board
		end = duplicate()
		f.flights.land(mine, ctx, c, end, f.Clock.Now().up)
		return a, end
	}
	return a, nil
}

// depart ends what arrive began. end is nil if the delivery crashed.
func (f *Fleet) depart(ctx context.Context, a arrival, c *outcome.Case, end *outcome.Verdict) {
	if a.remember > 0 && end != nil && (end.Outcome == outcome.Delivered || end.Outcome == outcome.Queued) {
		f.duplicates.add(a.key, time.Now(), a.remember)
	}
	f.flights.land(a.mine, ctx, c, end, f.Clock.Now().up)
}

func duplicate() *outcome.Verdict {
	return &outcome.Verdict{Outcome: outcome.Dropped, Reason: reason.Duplicate, Status: http.StatusOK, Level: zap.DebugLevel}
}

// Round asks handlers to take a notification from the queue, and returns the verdict and the last answer. It does not
// wait for handlers that cannot be reached or say "not now": the queue makes another round later. A notification that
// fails too often is kept; GREEN-API's 24 hours do not matter.
func (f *Fleet) Round(c *outcome.Case, w Way, limits *Limits, hooks *Hooks) (end *outcome.Verdict, last Answer) {
	t := f.try(c, limits, hooks)
	t.round = true
	got := t.ask(w)
	if got.Result != Taken {
		return t.giveUpRound(t.failure(got)), got
	}
	return t.taken(got), got
}

// Replay delivers a notification from the quarantine and returns the verdict. It neither joins another
// delivery nor counts as a failure.
func (f *Fleet) Replay(c *outcome.Case, w Way, limits *Limits, hooks *Hooks) *outcome.Verdict {
	t := f.try(c, limits, hooks)
	got := t.ask(w)
	if got.Result != Taken {
		return t.failure(got)
	}
	f.deadLetters.took(got.Handler)
	return t.delivered()
}

// taken returns the verdict for a notification that a handler took.
func (t *Try) taken(got Answer) *outcome.Verdict {
	t.fleet.deadLetters.took(got.Handler)
	t.fleet.deadLetters.forget(t.Case.Digest())
	return t.delivered()
}

func (t *Try) delivered() *outcome.Verdict {
	t.end = outcome.Verdict{Outcome: outcome.Delivered, Status: http.StatusOK, Level: zap.InfoLevel}
	return &t.end
}

// failure returns the verdict for a notification that no handler took.
func (t *Try) failure(got Answer) *outcome.Verdict {
	if got.Handler != "" {
		t.Case.Handler = got.Handler // handler_status is that one's
	}
	end := failures[got.Result]
	end.Outcome, end.Level, end.Err = outcome.Failed, zap.ErrorLevel, got.Err
	if got.Status != 0 {
		end.Fields = append(end.Fields, zap.Int("handler_status", got.Status))
	}
	return &end
}
