// Package delivery brings notifications to handlers: it asks one handler after the other until one takes the
// notification, waits for free places, joins what is sent again, and finds out what will never be
// delivered. It knows no Caddy: a Way makes each attempt.
package delivery

import (
	"context"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// A Way brings a notification to a handler.
type Way interface {
	// Attempt asks one handler, until ctx is over at the latest, and does not panic. Where a policy of
	// ours chooses the handler, it does so by Try.Choose; it finds the try by TryOf.
	Attempt(ctx context.Context, t *Try) Answer
}

// Limits say how long and how often handlers are asked to take a notification.
type Limits struct {
	Timeout         time.Duration // from its receipt to the answer
	AttemptTimeout  time.Duration // for the answer of one handler
	SecondOpinion   int           // other handlers to ask after one that refused it or broke off
	DeadLetter      int           // failures after which it is kept; 0 for never
	DeadLetterAfter time.Duration // with nothing else taken; 0 for never
	Deduplicate     time.Duration // how long a delivered one is remembered; 0 for not at all

	// The handlers are those of the block alone, so that what one took or failed says something of it.
	OwnHandlers bool

	// The pause before the same handlers are asked again doubles from the first to the longest.
	FirstPause   time.Duration
	LongestPause time.Duration

	// How long a notification that one handler could not process waits for others that cannot be
	// reached: one that is being restarted is back by then.
	GraceAfterFault time.Duration

	WarnAfter   time.Duration // how long it waits for a handler before the operator hears of it
	LastAttempt time.Duration // for one that will not have a second chance
	ShunFor     time.Duration // an upstream that let an attempt time out is asked only if no other can be
}

// DefaultLimits returns the limits that no option of a block changes.
func DefaultLimits() Limits {
	return Limits{
		FirstPause: 50 * time.Millisecond, LongestPause: time.Second, GraceAfterFault: 5 * time.Second,
		WarnAfter: 5 * time.Second, LastAttempt: 10 * time.Second, ShunFor: 5 * time.Second,
	}
}

// Hooks connect delivery with the rest of the edge: what it reports, and where notifications go that it
// cannot deliver.
type Hooks struct {
	Attempted func(*outcome.Case, Answer)            // a handler was asked
	Slow      func(c *outcome.Case, upstream string) // an attempt takes long; "" if its handler is not known
	Waits     func(*outcome.Case)                    // it has waited long for a handler

	// Keep puts a notification into the quarantine and returns how it ended. It is called before the
	// flight lands, so that a sender that has joined hears the same end.
	Keep func(*outcome.Case, *outcome.Verdict) *outcome.Verdict

	Failing *FailureTimes // of the quarantine that Keep puts into
}

// failures are the verdicts on what was not taken. Each is an answer that makes the sender keep
// the notification.
var failures = map[Result]outcome.Verdict{
	NotNow:       {Reason: reason.NotNow, Status: http.StatusServiceUnavailable},
	BrokenOff:    {Reason: reason.BrokenOff, Status: http.StatusBadGateway},
	TimedOut:     {Reason: reason.AttemptTimeout, Status: http.StatusGatewayTimeout},
	HandlerError: {Reason: reason.HandlerError, Status: http.StatusBadGateway},
	Misrouted:    {Reason: reason.Misrouted, Status: http.StatusBadGateway},
	RefusedByIt:  {Reason: reason.HandlerRefused, Status: http.StatusBadGateway},
	Nobody:       {Reason: reason.NoHandler, Status: http.StatusBadGateway},
}

// Why is the reason of what was not taken.
func (r Result) Why() reason.Reason { return failures[r].Reason }

// Deliver gives a notification to a handler, and says how that ended. One whose sender gave up while it
// is on its way is not given a second time when it comes again: it joins the first, or is told of its
// good end. ctx is over when the sender has hung up, which does not cut the delivery short.
func (f *Fleet) Deliver(ctx context.Context, c *outcome.Case, w Way, limits *Limits, hooks *Hooks) (end *outcome.Verdict) {
	now := f.Clock.Now()
	duplicate := &outcome.Verdict{Outcome: outcome.Dropped, Reason: reason.Duplicate, Status: http.StatusOK, Level: zap.DebugLevel}
	mine, other, ended := f.flights.board(ctx, c.Via, c.Body, now.up)
	if ended {
		return duplicate
	}
	if other != nil {
		return other.join(c)
	}
	defer func() { f.flights.land(mine, ctx, c, end, f.Clock.Now().up) }()
	var key eventKey
	deduplicate := false
	if limits.Deduplicate > 0 {
		key, deduplicate = eventKeyOf(c)
	}
	if deduplicate && f.duplicates.has(key, c.Started) { // only now: it may have landed just before
		return duplicate
	}

	t := f.try(c, limits, hooks)
	t.lastChance = hooks.Failing.behind(c.Body, c.N.Instance, c.Sent(), now)
	got := t.ask(ctx, w)
	if got.Result != Taken {
		return t.giveUp(failure(got))
	}
	f.deadLetters.took(got.Handler)
	f.deadLetters.forget(c.Body)
	hooks.Failing.delivered(c.Body, c.N.Instance)
	if deduplicate {
		f.duplicates.add(key, time.Now(), limits.Deduplicate)
	}
	return delivered()
}

// Replay gives a notification from the quarantine to a handler, and says how that ended. It neither
// joins another one nor counts as a failure.
func (f *Fleet) Replay(ctx context.Context, c *outcome.Case, w Way, limits *Limits, hooks *Hooks) *outcome.Verdict {
	got := f.try(c, limits, hooks).ask(ctx, w)
	if got.Result != Taken {
		return failure(got)
	}
	f.deadLetters.took(got.Handler)
	return delivered()
}

func delivered() *outcome.Verdict {
	return &outcome.Verdict{Outcome: outcome.Delivered, Status: http.StatusOK, Level: zap.InfoLevel}
}

// failure is the verdict on what no handler took.
func failure(got Answer) *outcome.Verdict {
	end := failures[got.Result]
	end.Outcome, end.Level, end.Err = outcome.Failed, zap.ErrorLevel, got.Err
	if got.Status != 0 {
		end.Fields = append(end.Fields, zap.Int("handler_status", got.Status))
	}
	return &end
}
