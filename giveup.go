package greenapi

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// DeadLetter is a number of failures; in JSON a number above 0, or "off".
type DeadLetter int

const deadLetterOff DeadLetter = -1

// MarshalJSON writes "off" or a number.
func (d DeadLetter) MarshalJSON() ([]byte, error) {
	if d == deadLetterOff {
		return []byte(`"off"`), nil
	}
	return strconv.AppendInt(nil, int64(d), 10), nil
}

// UnmarshalJSON reads "off" or a number above 0.
func (d *DeadLetter) UnmarshalJSON(text []byte) error {
	if string(text) == `"off"` {
		*d = deadLetterOff
		return nil
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 1 {
		return fmt.Errorf("dead_letter: invalid value %s; want a number of failures above 0, or off", text)
	}
	*d = DeadLetter(n)
	return nil
}

// DeadLetterAfter is a duration; in JSON one above 0, or "off".
type DeadLetterAfter caddy.Duration

const deadLetterAfterOff DeadLetterAfter = -1

// MarshalJSON writes "off" or nanoseconds.
func (d DeadLetterAfter) MarshalJSON() ([]byte, error) {
	if d == deadLetterAfterOff {
		return []byte(`"off"`), nil
	}
	return strconv.AppendInt(nil, int64(d), 10), nil
}

// UnmarshalJSON reads "off" or a duration above 0.
func (d *DeadLetterAfter) UnmarshalJSON(text []byte) error {
	if string(text) == `"off"` {
		*d = deadLetterAfterOff
		return nil
	}
	if err := (*caddy.Duration)(d).UnmarshalJSON(text); err != nil || *d <= 0 {
		return fmt.Errorf("dead_letter_after: invalid value %s; want a duration above 0s, such as \"1h\", or off", text)
	}
	return nil
}

// add notes what became of one attempt.
func (f *failedRound) add(got answer) {
	switch got.result {
	case handlerError, refusedByIt, brokenOff, timedOut:
		f.answered = true
	case misrouted:
	default:
		return
	}
	if got.handler != "" && !slices.Contains(f.by, got.handler) {
		f.by = append(f.by, got.handler)
	}
}

// giveUp says what becomes of a notification that no handler took: it stays with the sender, unless it
// is a dead letter, or the sender is about to delete it. Then it is kept, and the sender goes on to the
// next.
func (h *Handler) giveUp(v *visit, failure *outcome.Verdict) *outcome.Verdict {
	now := h.fleet.clock.now()
	found := h.findDeadLetter(v, now.up)
	if found.failures > 0 {
		failure.Fields = append(failure.Fields, zap.Int("failures", found.failures))
	}
	expires := h.failedAgain(v, now) || v.lastChance
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
	if kept = h.keep(&v.Case, kept); kept.Outcome != outcome.Quarantined { // the failure stands
		h.fleet.deadLetters.takeBack(found)
		failure.Fields = append(failure.Fields, zap.NamedError("quarantine_error", kept.Err))
		return failure
	}
	h.fleet.deadLetters.forget(v.Body)
	h.failuresOver(v)
	return kept
}

// findDeadLetter counts the failure of a notification.
func (h *Handler) findDeadLetter(v *visit, now time.Duration) (found ruling) {
	round := v.failed
	if h.proxy == nil {
		round.by = nil // an upstream in the rest of the route may be of several fleets
	}
	if h.Deliver.DeadLetter == deadLetterOff || len(round.by) == 0 && !round.answered {
		return found
	}
	limits := deadLetterLimits{failures: int(h.Deliver.DeadLetter)}
	if h.Deliver.DeadLetterAfter != deadLetterAfterOff {
		limits.after = time.Duration(h.Deliver.DeadLetterAfter)
	}
	return h.fleet.deadLetters.fail(v.Body, round, limits, now)
}

// The methods below take the notification to what is remembered beside the quarantine.

// behind reports whether a notification stands behind one that its instance is about to lose, and
// is about to be lost itself.
func (h *Handler) behind(v *visit, now instant) bool {
	return h.app.shared.times.behind(v.Body, v.N.Instance, v.Sent(), now)
}

// failedAgain notes a failure, and reports whether GREEN-API is about to delete the notification.
func (h *Handler) failedAgain(v *visit, now instant) bool {
	return h.app.shared.times.fail(bodyKey(v.Body), instanceKey(v.N.Instance), v.Sent(), now)
}

// failuresOver is for a notification that was kept.
func (h *Handler) failuresOver(v *visit) {
	times := h.app.shared.times
	if !times.empty() {
		times.forget(bodyKey(v.Body))
	}
}

// deliveredAgain is for one that a handler took.
func (h *Handler) deliveredAgain(v *visit) {
	times := h.app.shared.times
	if !times.empty() {
		times.forget(bodyKey(v.Body), instanceKey(v.N.Instance))
	}
}

// deadline is when the sender must have its answer. A last attempt has its time however long the body was
// in coming.
func (v *visit) deadline(timeout time.Duration, now time.Time) time.Time {
	end := v.Started.Add(timeout)
	if last := now.Add(lastAttempt); v.lastChance && last.Before(end) {
		return last
	}
	return end
}
