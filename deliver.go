package greenapi

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

const (
	defaultTimeout        = 170 * time.Second
	defaultAttemptTimeout = 60 * time.Second
	defaultSecondOpinion  = 1
	defaultDeadLetter     = 3

	defaultDeadLetterAfter = time.Hour

	// senderTimeout is how long GREEN-API waits for an answer (GREEN-API release notes 5.44.24.11;
	// "Working with incoming webhooks", read 2026-07).
	senderTimeout = 180 * time.Second

	// The pause before the same handlers are asked again doubles from the first to the longest.
	firstPause   = 50 * time.Millisecond
	longestPause = time.Second

	// graceAfterFault is how long a notification that one handler could not process waits for
	// others that cannot be reached: one that is being restarted is back by then.
	graceAfterFault = 5 * time.Second
)

// warnAfter is how long a notification waits for a handler before the operator hears of it.
var warnAfter = 5 * time.Second // shorter in tests

// Deliver says how a notification gets to a handler.
//
// The handlers are asked one after the other. Any complete 2xx is delivered, and answered 200. The
// sender hanging up does not cut that short, nor does a config reload: the handler may have done
// half of its work.
type Deliver struct {
	// Longest time from receipt to answer. Below the 180 seconds that GREEN-API waits.
	// Default: 170s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Longest time for one handler's answer. Default: 60s, or `timeout` if that is less.
	AttemptTimeout caddy.Duration `json:"attempt_timeout,omitempty"`

	// How many other handlers are asked after one that refused the body (a 4xx), or took it and then
	// broke off or let the time run out; it may be the body that does it. A handler without others
	// that broke off is asked again itself. Default: 1.
	SecondOpinion *int `json:"second_opinion,omitempty"`

	// After how many failures a notification goes into the quarantine, and the sender on to the
	// next. A failure counts if a handler was asked (`handler_refused`, `handler_error`, `broken_off`,
	// `attempt_timeout`, `misrouted`) that has taken another notification since it last failed this
	// one, 45 seconds after the one before at the earliest. `"off"`: never, nor after
	// `dead_letter_after`. Default: 3.
	DeadLetter DeadLetter `json:"dead_letter,omitempty"`

	// After how long a notification goes into the quarantine that has failed as often as `dead_letter`
	// says, but for `misrouted`, while the handlers that failed it took nothing. It doubles with each
	// one until a handler takes something again. `"off"`: never. Default: 1h.
	DeadLetterAfter DeadLetterAfter `json:"dead_letter_after,omitempty"`

	// How long a delivered notification is remembered: when it comes again in that time with the same
	// content, but for its timestamp, it is answered 200 and not delivered. Not so
	// incomingMessageStatus, which comes once for each reader without saying which. At most the last
	// 1,000,000 are, and no restart survives.
	// Default: 0, none is.
	Deduplicate caddy.Duration `json:"deduplicate,omitempty"`
}

func (d *Deliver) provision(caddy.Context) error {
	if d.Timeout == 0 {
		d.Timeout = caddy.Duration(defaultTimeout)
	}
	timeout := time.Duration(d.Timeout)
	if timeout < 0 || timeout >= senderTimeout {
		return fmt.Errorf("timeout: %s is out of range; want more than 0s and less than %s, after which the sender gives up", timeout, senderTimeout)
	}
	if d.AttemptTimeout == 0 {
		d.AttemptTimeout = caddy.Duration(min(defaultAttemptTimeout, timeout))
	}
	attempt := time.Duration(d.AttemptTimeout)
	if attempt < 0 || attempt > timeout {
		return fmt.Errorf("attempt_timeout: %s is out of range; want more than 0s and at most the timeout of %s", attempt, timeout)
	}
	if d.SecondOpinion == nil {
		opinions := defaultSecondOpinion
		d.SecondOpinion = &opinions
	}
	if *d.SecondOpinion < 0 {
		return fmt.Errorf("second_opinion: %d is out of range; want a number of other handlers to ask, 0 for none", *d.SecondOpinion)
	}
	if d.DeadLetter == 0 {
		d.DeadLetter = defaultDeadLetter
	}
	if d.DeadLetterAfter == 0 {
		d.DeadLetterAfter = DeadLetterAfter(defaultDeadLetterAfter)
	}
	if d.Deduplicate < 0 {
		return fmt.Errorf("deduplicate: %s is out of range; want a duration above 0s, or off", time.Duration(d.Deduplicate))
	}
	return nil
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

// deliver gives the notification to a handler, and says how that ended. One whose sender
// gave up while it is on its way is not given a second time when it comes again: it joins the first,
// or is told of its good end.
func (h *Handler) deliver(v *visit, next caddyhttp.Handler) (end *outcome.Verdict) {
	now := h.fleet.clock.now()
	duplicate := &outcome.Verdict{Outcome: outcome.Dropped, Reason: reason.Duplicate, Status: http.StatusOK, Level: zap.DebugLevel}
	mine, other, ended := h.fleet.flights.board(v.r.Context(), v.Via, v.Body, now.up)
	if ended {
		return duplicate
	}
	if other != nil {
		return other.join(v)
	}
	defer func() { h.fleet.flights.land(mine, v, end, h.fleet.clock.now().up) }()
	key, deduplicate := h.eventKey(v)
	if deduplicate && h.fleet.duplicates.has(key, v.Started) { // only now: it may have landed just before
		return duplicate
	}

	v.lastChance = h.behind(v, now)
	got := h.ask(v, next)
	if got.result != taken {
		return h.giveUp(v, failure(got))
	}
	h.fleet.deadLetters.took(got.handler)
	h.fleet.deadLetters.forget(v.Body)
	h.deliveredAgain(v)
	if deduplicate {
		h.fleet.duplicates.add(key, time.Now(), time.Duration(h.Deliver.Deduplicate))
	}
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

// ask is the loop of attempts: it asks handlers until one takes the notification, or there is no
// use in asking any other, or the time is over.
func (h *Handler) ask(v *visit, next caddyhttp.Handler) answer {
	deadline := v.deadline(time.Duration(h.Deliver.Timeout), time.Now())
	a := &asking{
		fleet: h.fleet, started: v.Started, body: v.Body,
		opinions: *h.Deliver.SecondOpinion,
		last:     answer{result: notNow, err: errNoneAvailable},
	}
	defer a.close()
	v.onward.came, v.onward.body = v.r, v.Body
	defer v.onward.close()
	ctx := context.WithValue(context.WithoutCancel(v.r.Context()), askingKey{}, a)

	patience := waiting{handler: h, pause: firstPause, deadline: deadline}
	if !patience.timeLeft() { // its body was long in coming
		return answer{result: notNow, err: errTooLate}
	}
	for {
		got := h.attempt(ctx, deadline, v, a, next)
		if final := a.learn(got, patience.pause); final {
			return got
		}
		switch {
		case v.lastChance && v.Attempts > 0:
			if !a.policy || !errors.Is(got.err, errNotConnected) {
				return a.last
			}
			a.mark(got.handler, spent, time.Now()) // each other handler once, until one is reached
		case !a.policy || got.result == noneFree: // else with another handler
			if a.hopeless(patience.since, deadline) {
				return a.last
			}
			patience.wait(v, a)
		}
		if isExiting() || !patience.timeLeft() {
			return a.last
		}
	}
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
	return a.left == a.away && !waitingSince.IsZero() && time.Since(waitingSince) > graceAfterFault
}

// waiting is how a notification waits for a handler.
type waiting struct {
	handler  *Handler
	since    time.Time // zero before the first wait
	pause    time.Duration
	deadline time.Time
	warned   bool
}

// wait waits for a free place or until handlers may be asked again, no longer than Caddy runs.
func (w *waiting) wait(v *visit, a *asking) {
	if w.since.IsZero() {
		w.since = time.Now()
	}
	pause := w.pause + rand.N(w.pause/4) //nolint:gosec // not all at once
	if !a.policy {                       // a policy does not choose who asked for time
		pause = max(pause, time.Until(a.retryAt))
	}
	if !a.wait(pause, w.deadline) {
		w.pause = min(2*w.pause, longestPause)
	}
	if !w.warned && time.Since(w.since) > warnAfter {
		w.warned = true
		w.handler.logger.Warn("notification waits for a handler", append(notificationFields(&v.Case), attemptFields(&v.Case)...)...)
		w.handler.alert(&v.Case, reason.NotNow, &outcome.Verdict{Level: zap.WarnLevel})
	}
}

// timeLeft reports whether there is time for another attempt. One that has none would look as if the
// handler took too long.
func (w *waiting) timeLeft() bool {
	least := min(time.Second, time.Duration(w.handler.Deliver.AttemptTimeout)/4)
	return time.Until(w.deadline) > least
}

// unmarshalCaddyfile sets up delivery from Caddyfile tokens. Syntax:
//
//	deliver {
//	    timeout           <duration>
//	    attempt_timeout   <duration>
//	    second_opinion    <handlers>
//	    dead_letter       <failures>|off
//	    dead_letter_after <duration>|off
//	    deduplicate       <duration>|off
//	}
func (d *Deliver) unmarshalCaddyfile(disp *caddyfile.Dispenser) error {
	if err := noArgs(disp); err != nil {
		return err
	}
	return eachOption(disp, "deliver", []option{
		{name: "timeout", parse: func() error { return durationArg(disp, &d.Timeout) }},
		{name: "attempt_timeout", parse: func() error { return durationArg(disp, &d.AttemptTimeout) }},
		{name: "second_opinion", parse: func() error {
			d.SecondOpinion = new(int)
			return numberArg(disp, d.SecondOpinion, 0, "a number of other handlers to ask, such as 1, or 0 for none")
		}},
		{name: "dead_letter", parse: func() error {
			if offInstead(disp) {
				d.DeadLetter = deadLetterOff
				return nil
			}
			return numberArg(disp, (*int)(&d.DeadLetter), 1, "a number of failures above 0, such as 3, or off")
		}},
		{name: "dead_letter_after", parse: func() error {
			if offInstead(disp) {
				d.DeadLetterAfter = deadLetterAfterOff
				return nil
			}
			return durationArg(disp, (*caddy.Duration)(&d.DeadLetterAfter))
		}},
		{name: "deduplicate", parse: func() error {
			if offInstead(disp) {
				return nil
			}
			return durationArg(disp, &d.Deduplicate)
		}},
	})
}
