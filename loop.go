package greenapi

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// A way brings a notification to a handler.
type way interface {
	// attempt asks one handler, until ctx is over at the latest, and does not panic. Where a policy of
	// ours chooses the handler, it does so through the asking, which it finds by askingOf.
	attempt(ctx context.Context, a *asking) answer
}

// limits say how long and how often a notification is tried.
type limits struct {
	timeout         time.Duration // from its receipt to the answer
	attemptTimeout  time.Duration // for the answer of one handler
	secondOpinion   int           // other handlers to ask after one that refused it or broke off
	deadLetter      int           // failures after which it is kept; 0 for never
	deadLetterAfter time.Duration // with nothing else taken; 0 for never
	deduplicate     time.Duration // how long a delivered one is remembered; 0 for not at all

	// The handlers are those of the block alone, so that what one took or failed says something of it.
	ownHandlers bool

	// The pause before the same handlers are asked again doubles from the first to the longest.
	firstPause   time.Duration
	longestPause time.Duration

	// How long a notification that one handler could not process waits for others that cannot be
	// reached: one that is being restarted is back by then.
	graceAfterFault time.Duration

	warnAfter   time.Duration // how long it waits for a handler before the operator hears of it
	lastAttempt time.Duration // for one that will not have a second chance
	shunFor     time.Duration // an upstream that let an attempt time out is asked only if no other can be
}

// defaultLimits are those that no option of a block changes.
func defaultLimits() limits {
	return limits{
		firstPause: 50 * time.Millisecond, longestPause: time.Second, graceAfterFault: 5 * time.Second,
		warnAfter: 5 * time.Second, lastAttempt: 10 * time.Second, shunFor: 5 * time.Second,
	}
}

// hooks are what delivery reports, and to whom it hands what it cannot deliver.
type hooks struct {
	attempted func(*outcome.Case, answer)            // a handler was asked
	slow      func(c *outcome.Case, upstream string) // an attempt takes long; "" if its handler is not known
	waits     func(*outcome.Case)                    // it has waited long for a handler

	// keep puts a notification into the quarantine and returns how it ended. It is called before the
	// flight lands, so that a sender that has joined hears the same end.
	keep func(*outcome.Case, *outcome.Verdict) *outcome.Verdict

	times *failureTimes // of the quarantine that keep puts into
}

// failures are the verdicts on what was not taken. Each is an answer that makes the sender keep
// the notification.
var failures = map[result]outcome.Verdict{
	notNow:       {Reason: reason.NotNow, Status: http.StatusServiceUnavailable},
	brokenOff:    {Reason: reason.BrokenOff, Status: http.StatusBadGateway},
	timedOut:     {Reason: reason.AttemptTimeout, Status: http.StatusGatewayTimeout},
	handlerError: {Reason: reason.HandlerError, Status: http.StatusBadGateway},
	misrouted:    {Reason: reason.Misrouted, Status: http.StatusBadGateway},
	refusedByIt:  {Reason: reason.HandlerRefused, Status: http.StatusBadGateway},
	nobody:       {Reason: reason.NoHandler, Status: http.StatusBadGateway},
}

// why is the reason of what was not taken.
func (r result) why() reason.Reason { return failures[r].Reason }

// deliver gives a notification to a handler, and says how that ended. One whose sender gave up while it
// is on its way is not given a second time when it comes again: it joins the first, or is told of its
// good end. ctx is over when the sender has hung up, which does not cut the delivery short.
func (f *handlerFleet) deliver(ctx context.Context, c *outcome.Case, w way, limits *limits, hooks *hooks) (end *outcome.Verdict) {
	now := f.clock.now()
	duplicate := &outcome.Verdict{Outcome: outcome.Dropped, Reason: reason.Duplicate, Status: http.StatusOK, Level: zap.DebugLevel}
	mine, other, ended := f.flights.board(ctx, c.Via, c.Body, now.up)
	if ended {
		return duplicate
	}
	if other != nil {
		return other.join(c)
	}
	defer func() { f.flights.land(mine, ctx, c, end, f.clock.now().up) }()
	var key eventKey
	deduplicate := false
	if limits.deduplicate > 0 {
		key, deduplicate = eventKeyOf(c)
	}
	if deduplicate && f.duplicates.has(key, c.Started) { // only now: it may have landed just before
		return duplicate
	}

	a := f.asking(c, limits, hooks)
	a.lastChance = hooks.times.behind(c.Body, c.N.Instance, c.Sent(), now)
	got := a.ask(ctx, w)
	if got.result != taken {
		return a.giveUp(failure(got))
	}
	f.deadLetters.took(got.handler)
	f.deadLetters.forget(c.Body)
	hooks.times.delivered(c.Body, c.N.Instance)
	if deduplicate {
		f.duplicates.add(key, time.Now(), limits.deduplicate)
	}
	return delivered()
}

// replay gives a notification from the quarantine to a handler, and says how that ended. It neither
// joins another one nor counts as a failure.
func (f *handlerFleet) replay(ctx context.Context, c *outcome.Case, w way, limits *limits, hooks *hooks) *outcome.Verdict {
	got := f.asking(c, limits, hooks).ask(ctx, w)
	if got.result != taken {
		return failure(got)
	}
	f.deadLetters.took(got.handler)
	return delivered()
}

func delivered() *outcome.Verdict {
	return &outcome.Verdict{Outcome: outcome.Delivered, Status: http.StatusOK, Level: zap.InfoLevel}
}

// failure is the verdict on what no handler took.
func failure(got answer) *outcome.Verdict {
	end := failures[got.result]
	end.Outcome, end.Level, end.Err = outcome.Failed, zap.ErrorLevel, got.err
	if got.status != 0 {
		end.Fields = append(end.Fields, zap.Int("handler_status", got.status))
	}
	return &end
}

func (f *handlerFleet) asking(c *outcome.Case, limits *limits, hooks *hooks) *asking {
	return &asking{
		fleet: f, c: c, limits: limits, hooks: hooks,
		opinions: limits.secondOpinion,
		last:     answer{result: notNow, err: errNoneAvailable},
	}
}

// ask is the loop of attempts: it asks handlers until one takes the notification, or there is no
// use in asking any other, or the time is over.
func (a *asking) ask(ctx context.Context, w way) answer {
	deadline := a.deadline(time.Now())
	defer a.close()
	ctx = withAsking(context.WithoutCancel(ctx), a)

	patience := waiting{asking: a, pause: a.limits.firstPause, deadline: deadline}
	if !patience.timeLeft() { // its body was long in coming
		return answer{result: notNow, err: errTooLate}
	}
	for {
		got := a.attempt(ctx, deadline, w)
		if final := a.learn(got, patience.pause); final {
			return got
		}
		switch {
		case a.lastChance && a.c.Attempts > 0:
			if !a.policy || !errors.Is(got.err, errNotConnected) {
				return a.last
			}
			a.mark(got.handler, spent, time.Now()) // each other handler once, until one is reached
		case !a.policy || got.result == noneFree: // else with another handler
			if a.hopeless(patience.since, deadline) {
				return a.last
			}
			patience.wait()
		}
		if a.fleet.isExiting() || !patience.timeLeft() {
			return a.last
		}
	}
}

// deadline is when the sender must have its answer. A last attempt has its time however long the body was
// in coming.
func (a *asking) deadline(now time.Time) time.Time {
	end := a.c.Started.Add(a.limits.timeout)
	if last := now.Add(a.limits.lastAttempt); a.lastChance && last.Before(end) {
		return last
	}
	return end
}

// attempt asks one handler, until deadline at the latest, and writes down what became of it.
func (a *asking) attempt(ctx context.Context, deadline time.Time, w way) (got answer) {
	if end := time.Now().Add(a.limits.attemptTimeout); end.Before(deadline) {
		deadline = end
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	a.policy = false // until it is asked
	slow := time.AfterFunc(a.limits.warnAfter, func() { a.hooks.slow(a.c, a.asked()) })
	defer slow.Stop()
	got = w.attempt(ctx, a)
	if a.chosen.upstream != "" {
		got.handler = a.chosen.upstream
	}
	a.done(got.result)
	if got.result != noneFree {
		a.note(got)
		a.hooks.attempted(a.c, got)
	}
	return got
}

// note writes an attempt into the trail.
func (a *asking) note(got answer) {
	a.failed.add(got)
	trail := &a.c.Trail
	trail.Attempts++
	if got.handler != "" {
		trail.Handler = got.handler
	}
	if got.result == taken {
		return
	}
	const most = 10
	if len(trail.Answers) == most {
		trail.Answers = append(trail.Answers[:0], trail.Answers[1:]...)
	}
	said := outcome.Attempt{Handler: got.handler, Status: got.status, Text: got.text}
	if got.err != nil {
		said.Error = got.err.Error()
	}
	trail.Answers = append(trail.Answers, said)
}

var errTooLate = errors.New("the notification was so long in coming that no handler could be asked in time")

// learn writes down what an attempt has shown: whom to ask again, and not before when. It tells
// whether the answer is final, because there is no use in asking any other handler.
func (a *asking) learn(got answer, pause time.Duration) (final bool) {
	now := time.Now()
	switch got.result {
	case taken, nobody: // no other handler would say otherwise
		return true

	case notNow: // other handlers first, then the same again at a growing interval
		state := saidLater
		if errors.Is(got.err, errNotConnected) {
			state = unreached
		}
		a.mark(got.handler, state, now.Add(max(pause, got.retryAfter)))
		if a.last.result == notNow {
			a.last = got
		}
		if !a.policy {
			a.retryAt = now.Add(got.retryAfter)
		}

	case handlerError, misrouted: // each other handler once
		if a.shown[got.handler].state == spent || !a.policy && got.handler == "" {
			return true // no policy of ours: the same one was asked again
		}
		a.mark(got.handler, spent, now)
		a.last = got

	case refusedByIt: // a second opinion: it may be the handler
		if a.shown[got.handler].state == spent || !a.policy && got.handler == "" {
			return true
		}
		if a.opinions--; a.opinions < 0 {
			return true
		}
		a.mark(got.handler, spent, now)
		a.last = got

	case brokenOff, timedOut: // a second opinion
		if a.opinions--; a.opinions < 0 {
			return true
		}
		state := spent // it may still be at work
		if got.result == brokenOff {
			state = brokeItOff
		}
		a.mark(got.handler, state, now.Add(pause))
		a.last = got
	}
	return false
}

// hopeless tells whether waiting is of no use, when there is nobody to ask now.
func (a *asking) hopeless(waitingSince, deadline time.Time) bool {
	last := a.last.result
	if !a.policy { // nothing is known of other handlers
		return last == timedOut || a.retryAt.After(deadline)
	}
	switch {
	case a.full == 0 && a.retryAt.After(deadline):
		return true
	case last == notNow, last == brokenOff:
		return false
	case a.left == 0: // all have answered
		return true
	}
	return a.left == a.away && !waitingSince.IsZero() && time.Since(waitingSince) > a.limits.graceAfterFault
}

// waiting is how a notification waits for a handler.
type waiting struct {
	asking   *asking
	since    time.Time // zero before the first wait
	pause    time.Duration
	deadline time.Time
	warned   bool
}

// wait waits for a free place or until handlers may be asked again, no longer than Caddy runs.
func (w *waiting) wait() {
	a := w.asking
	if w.since.IsZero() {
		w.since = time.Now()
	}
	pause := w.pause + rand.N(w.pause/4) //nolint:gosec // not all at once
	if !a.policy {                       // a policy does not choose who asked for time
		pause = max(pause, time.Until(a.retryAt))
	}
	if !a.wait(pause, w.deadline) {
		w.pause = min(2*w.pause, a.limits.longestPause)
	}
	if !w.warned && time.Since(w.since) > a.limits.warnAfter {
		w.warned = true
		a.hooks.waits(a.c)
	}
}

// timeLeft reports whether there is time for another attempt. One that has none would look as if the
// handler took too long.
func (w *waiting) timeLeft() bool {
	least := min(time.Second, w.asking.limits.attemptTimeout/4)
	return time.Until(w.deadline) > least
}

// giveUp says what becomes of a notification that no handler took: it stays with the sender, unless it
// is a dead letter, or the sender is about to delete it. Then it is kept, and the sender goes on to the
// next.
func (a *asking) giveUp(failure *outcome.Verdict) *outcome.Verdict {
	f, c := a.fleet, a.c
	now := f.clock.now()
	found := a.findDeadLetter(now.up)
	if found.failures > 0 {
		failure.Fields = append(failure.Fields, zap.Int("failures", found.failures))
	}
	expires := a.hooks.times.fail(bodyKey(c.Body), instanceKey(c.N.Instance), c.Sent(), now) || a.lastChance
	var kept *outcome.Verdict
	switch {
	case found.dead:
		kept = outcome.ToQuarantine(reason.Undeliverable)
	case expires:
		kept = outcome.ToQuarantine(reason.Retention)
	default:
		return failure
	}
	kept.Fields = append(slices.Clone(failure.Fields), zap.String("found", string(failure.Reason)))
	if kept = a.hooks.keep(c, kept); kept.Outcome != outcome.Quarantined { // the failure stands
		f.deadLetters.takeBack(found)
		failure.Fields = append(failure.Fields, zap.NamedError("quarantine_error", kept.Err))
		return failure
	}
	f.deadLetters.forget(c.Body)
	a.hooks.times.kept(c.Body)
	return kept
}

// findDeadLetter counts the failure of a notification.
func (a *asking) findDeadLetter(now time.Duration) (found ruling) {
	round := a.failed
	if !a.limits.ownHandlers {
		round.by = nil // an upstream in the rest of the route may be of several fleets
	}
	if a.limits.deadLetter == 0 || len(round.by) == 0 && !round.answered {
		return found
	}
	return a.fleet.deadLetters.fail(a.c.Body, round, deadLetterLimits{a.limits.deadLetter, a.limits.deadLetterAfter}, now)
}
