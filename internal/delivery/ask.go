package delivery

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// ask is the loop of attempts. It asks handlers until one takes the notification, asking any other is
// pointless, or time runs out.
func (t *Try) ask(w Way) Answer {
	deadline := t.deadline(time.Now())
	defer t.close()

	patience := waiting{try: t, pause: t.limits.FirstPause, deadline: deadline}
	if !patience.timeLeft() { // its body was slow to arrive
		return Answer{Result: NotNow, Err: errTooLate}
	}
	for {
		got := t.attempt(deadline, w)
		if final := t.learn(got, patience.pause); final {
			return got
		}
		switch {
		case t.lastChance && t.Case.Attempts > 0:
			if !t.policy || !errors.Is(got.Err, ErrNotConnected) {
				return t.last
			}
			t.mark(got.Handler, spent, time.Now()) // try each other handler once until one can be reached
		case !t.policy || got.Result == NoneFree: // otherwise ask another handler at once
			if t.round && (!t.policy || t.full == 0) { // only for a place is it worth waiting
				return t.last
			}
			if t.hopeless(patience.since, deadline) {
				return t.last
			}
			patience.wait()
		}
		if t.fleet.isExiting() || !patience.timeLeft() {
			return t.last
		}
	}
}

var errTooLate = errors.New("the notification was so long in coming that no handler could be asked in time")

// rules says what an answer means for the rest of the delivery. docs/delivery.md shows the same table; a
// test compares them.
//
// An attempt leaves its upstream in one of four states (upstreamState). The loop then asks another upstream
// that may be asked now. If there is none, hopeless decides whether waiting makes sense.
var rules = [...]rule{
	Taken:        {final: true, next: "done"},
	Nobody:       {final: true, next: "given up"},
	NoneFree:     {next: "wait for a place, or until one may be asked again"},
	NotNow:       {marks: saidLater, pauses: true, next: "the others, then the same again after a growing pause or its `Retry-After`"},
	HandlerError: {marks: spent, once: true, next: "each other handler once"},
	Misrouted:    {marks: spent, once: true, next: "each other handler once"},
	RefusedByIt:  {marks: spent, once: true, opinion: true, next: "as many others as `second_opinion` says"},
	BrokenOff:    {marks: brokeItOff, pauses: true, opinion: true, next: "as many others as `second_opinion` says; itself if there is no other"},
	TimedOut:     {marks: spent, opinion: true, next: "as many others as `second_opinion` says"},
}

// A rule says what follows an answer.
type rule struct {
	final   bool          // no other handler would answer differently
	marks   upstreamState // state of the upstream that answered; for NotNow, unreached if it could not be connected to
	pauses  bool          // it is asked again only after a pause
	once    bool          // final if this upstream has already given a final answer, or if no upstream is known: the same one was asked again
	opinion bool          // uses up a second opinion; final if none is left
	next    string        // for the docs
}

// learn records what an attempt has shown: which handlers to ask again, and when. It reports whether the
// answer is final, because asking any other handler is pointless.
func (t *Try) learn(got Answer, pause time.Duration) (final bool) {
	r := rules[got.Result]
	if r.final || got.Result == NoneFree {
		return r.final
	}
	if t.round && got.Result == TimedOut { // no second handler may begin what the first one is still doing
		return true
	}
	if r.once && (t.shown[got.Handler].state == spent || !t.policy && got.Handler == "") {
		return true
	}
	if r.opinion {
		if t.opinions--; t.opinions < 0 {
			return true
		}
	}
	now := time.Now()
	state, until := r.marks, now
	switch {
	case got.Result == NotNow:
		until = now.Add(max(pause, got.RetryAfter))
		if errors.Is(got.Err, ErrNotConnected) {
			state = unreached
		}
	case r.pauses:
		until = now.Add(pause)
	}
	t.mark(got.Handler, state, until)
	if got.Result == NotNow && !t.policy {
		t.retryAt = now.Add(got.RetryAfter)
	}
	if got.Result != NotNow || t.last.Result == NotNow { // any other answer says more than "not now"
		t.last = got
	}
	return false
}

// hopeless reports whether waiting is pointless when no handler can be asked right now:
//
//	all that could be asked later want more time than is left     yes
//	the last answer was "not now", or a handler broke off         no
//	every handler has given a final answer                        yes
//	the others cannot be reached                                  after GraceAfterFault
//	the others are full or asked for time                         no
func (t *Try) hopeless(waitingSince, deadline time.Time) bool {
	last := t.last.Result
	if !t.policy { // nothing is known about other handlers
		return last == TimedOut || t.retryAt.After(deadline)
	}
	switch {
	case t.full == 0 && t.retryAt.After(deadline):
		return true
	case last == NotNow, last == BrokenOff:
		return false
	case t.left == 0: // all have answered
		return true
	}
	return t.left == t.away && !waitingSince.IsZero() && time.Since(waitingSince) > t.limits.GraceAfterFault
}

// waiting is one notification's wait for a handler.
type waiting struct {
	try      *Try
	since    time.Time // zero before the first wait
	pause    time.Duration
	deadline time.Time
	warned   bool
}

// wait waits for a free place or until handlers may be asked again. It ends when Caddy exits.
func (w *waiting) wait() {
	t := w.try
	if w.since.IsZero() {
		w.since = time.Now()
	}
	pause := w.pause + rand.N(w.pause/4) //nolint:gosec // spread them out
	if !t.policy {                       // without a policy, nothing else skips a handler that asked for time
		pause = max(pause, time.Until(t.retryAt))
	}
	if !t.wait(pause, w.deadline) {
		w.pause = min(2*w.pause, t.limits.LongestPause)
	}
	if !w.warned && time.Since(w.since) > t.limits.WarnAfter {
		w.warned = true
		if t.holds {
			t.fleet.standing.wait(t.Case, time.Since(w.since), t.fleet.Clock.Now().wall)
		}
		t.hooks.Waits(t.Case)
	}
}

// timeLeft reports whether there is enough time for another attempt. With too little, it would look as if
// the handler had been too slow.
func (w *waiting) timeLeft() bool {
	least := min(time.Second, w.try.limits.AttemptTimeout/4)
	return time.Until(w.deadline) > least
}

// giveUp decides what becomes of a notification that no handler took. It stays with the sender, unless it
// is a dead letter or the sender is about to delete it: then it is kept, and the sender goes on to the
// next.
func (t *Try) giveUp(failure *outcome.Verdict) *outcome.Verdict {
	f, c := t.fleet, t.Case
	now := f.Clock.Now()
	found := t.findDeadLetter(now.up)
	if found.failures > 0 {
		failure.Fields = append(failure.Fields, zap.Int("failures", found.failures))
	}
	expires := t.hooks.Failing.fail(keyOf(c.Digest()), instanceKey(c.N.Instance), c.Sent(), now)
	if t.lastChance && (c.Attempts > 0 || !f.isExiting()) { // an exiting process may only have let it wait
		expires = true
	}
	var kept *outcome.Verdict
	switch {
	case found.dead:
		kept = outcome.ToQuarantine(reason.Undeliverable)
	case expires:
		kept = outcome.ToQuarantine(reason.Retention)
	default:
		return failure
	}
	kept = t.keep(kept, failure, found)
	if kept.Outcome == outcome.Quarantined {
		t.hooks.Failing.kept(keyOf(c.Digest()))
	}
	return kept
}

// giveUpRound is giveUp for a round of the queue.
func (t *Try) giveUpRound(failure *outcome.Verdict) *outcome.Verdict {
	found := t.findDeadLetter(t.fleet.Clock.Now().up)
	if found.failures > 0 {
		failure.Fields = append(failure.Fields, zap.Int("failures", found.failures))
	}
	if !found.dead {
		return failure
	}
	return t.keep(outcome.ToQuarantine(reason.Undeliverable), failure, found)
}

// keep quarantines a notification. If that fails, the failure stands.
func (t *Try) keep(kept, failure *outcome.Verdict, found ruling) *outcome.Verdict {
	kept.Fields = append(slices.Clone(failure.Fields), zap.String("found", string(failure.Reason)))
	if kept = t.hooks.Keep(t.Case, kept); kept.Outcome != outcome.Quarantined {
		t.fleet.deadLetters.takeBack(found)
		failure.Fields = append(failure.Fields, zap.NamedError("quarantine_error", kept.Err))
		return failure
	}
	t.fleet.deadLetters.forget(t.Case.Digest())
	return kept
}

// findDeadLetter counts a failure of the notification and returns whether it is a dead letter.
func (t *Try) findDeadLetter(now time.Duration) (found ruling) {
	round := t.failed
	if !t.limits.OwnHandlers {
		round.by = nil // an upstream in the rest of the route may belong to several fleets
	}
	if t.limits.DeadLetter == 0 || len(round.by) == 0 && !round.answered {
		return found
	}
	return t.fleet.deadLetters.fail(t.Case.Digest(), round, deadLetterLimits{t.limits.DeadLetter, t.limits.DeadLetterAfter}, now)
}
