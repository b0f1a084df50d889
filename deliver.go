package greenapi

import (
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/proxy"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
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
)

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

// limits are the options as delivery takes them.
func (d *Deliver) limits() delivery.Limits {
	limits := delivery.DefaultLimits()
	limits.Timeout, limits.AttemptTimeout = time.Duration(d.Timeout), time.Duration(d.AttemptTimeout)
	limits.SecondOpinion, limits.Deduplicate = *d.SecondOpinion, time.Duration(d.Deduplicate)
	if d.DeadLetter != deadLetterOff {
		limits.DeadLetter = int(d.DeadLetter)
	}
	if d.DeadLetterAfter != deadLetterAfterOff {
		limits.DeadLetterAfter = time.Duration(d.DeadLetterAfter)
	}
	return limits
}

// provisionDelivery sets up what delivery is told by this block, and tells it.
func (h *Handler) provisionDelivery() {
	h.limits = h.Deliver.limits()
	h.limits.OwnHandlers = h.proxy != nil
	h.choice = h.proxyFor
	h.hooks = delivery.Hooks{
		Attempted: func(c *outcome.Case, got delivery.Answer) {
			h.survive(func() {
				h.countAttempt(got.Result)
				h.watchHandler(got, time.Now())
			})
		},
		Slow: func(c *outcome.Case, upstream string) { h.survive(func() { h.tellSlow(c, upstream, time.Now()) }) },
		Waits: func(c *outcome.Case) {
			h.logger.Warn("notification waits for a handler", append(tell.NotificationFields(c), tell.AttemptFields(c)...)...)
			h.reporter.Alert(c, reason.NotNow, zap.WarnLevel)
		},
		Keep:    h.keep,
		Failing: h.app.shared.times,
	}
}

// deliver gives the notification to a handler, and says how that ended.
func (h *Handler) deliver(v *visit, next caddyhttp.Handler) *outcome.Verdict {
	defer v.way.Close()
	return h.fleet.Deliver(v.r.Context(), &v.Case, h.wayOf(v, next), &h.limits, &h.hooks)
}

// wayOf is the way to the handlers.
func (h *Handler) wayOf(v *visit, next caddyhttp.Handler) delivery.Way {
	v.way = proxy.Way{Proxy: h.choice, Next: next, Log: h.logger}
	v.way.Base, v.way.Body = v.r, v.Body
	return &v.way
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

// countAttempt counts an attempt to deliver.
func (h *Handler) countAttempt(got delivery.Result) {
	switch got {
	case delivery.NoneFree:
	case delivery.Taken:
		h.reporter.Attempted("taken")
	default:
		h.reporter.Attempted(string(got.Why()))
	}
}
