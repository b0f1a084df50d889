package greenapi

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/proxy"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
	"github.com/greenapi-community/caddy-green-api/notification"
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
			h.reporter.Waits(c)
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

// wayOf is the way to the handlers, which get the notification with its id.
func (h *Handler) wayOf(v *visit, next caddyhttp.Handler) delivery.Way {
	v.way = proxy.Way{Proxy: h.choice, Next: next, Log: h.logger}
	v.way.Base, v.way.Body = v.r, v.Body
	v.r.Header[idHeader] = []string{idOf(v.Body)}
	return &v.way
}

// Header fields that green_api adds to the requests that handlers get. Those of a sender do not reach a
// handler.
const (
	// replayHeader marks a notification that a handler gets from the quarantine, with the entry's id.
	replayHeader = "X-Green-Api-Replay"

	// idHeader has the notification's id, by which a handler finds out that it had it before.
	idHeader = "X-Green-Api-Id"
)

// idOf returns the id of a notification: the first half of the SHA-256 of its body, in hex. So it is the
// same for each attempt, re-send and replay, through any edge of any version, and of whoever the
// notification tells it says nothing. A body names its instance, so those of two instances differ.
func idOf(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:sha256.Size/2])
}

// withoutOwn takes our fields out of a sender's header, and a Connection that names one: a proxy would
// not hand that on.
func withoutOwn(header http.Header) {
	header.Del(replayHeader)
	header.Del(idHeader)
	if slices.ContainsFunc(header["Connection"], namesOwn) {
		header.Del("Connection")
	}
}

func namesOwn(connection string) bool {
	for name := range strings.SplitSeq(connection, ",") {
		if name = strings.TrimSpace(name); strings.EqualFold(name, replayHeader) || strings.EqualFold(name, idHeader) {
			return true
		}
	}
	return false
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

// tellSlow lets the operator know of a handler that takes long to answer: the instances whose
// notifications it has wait for it, and nothing fails that would be reported.
func (h *Handler) tellSlow(c *outcome.Case, handler string, now time.Time) {
	if !h.fleet.slow.Failed(handler, now) {
		return
	}
	fields := append(tell.NotificationFields(c), zap.Duration("after", h.limits.WarnAfter))
	if handler != "" { // without a policy of ours it is not known yet
		fields = append(fields, zap.String("handler", handler))
	}
	h.app.logger.Warn("handler is slow to answer, and the sender waits for it", fields...)
}

// watchHandler lets the operator know when a handler begins to fail, and when it is well again. A handler
// that refuses a notification may be well.
func (h *Handler) watchHandler(got delivery.Answer, now time.Time) {
	if got.Handler == "" {
		return
	}
	switch got.Result {
	case delivery.Taken:
		if h.fleet.failing.Took(got.Handler) {
			h.app.logger.Info("handler takes notifications again", zap.String("handler", got.Handler))
			h.app.operator.desk.Tell(outcome.Note{
				Reason: reason.Recovered, At: now, Trouble: h.troubleOf(got.Handler),
				More: "Handler " + got.Handler + " takes notifications again.",
			})
		}
	case delivery.NotNow, delivery.BrokenOff, delivery.TimedOut, delivery.HandlerError, delivery.Misrouted:
		if !h.fleet.failing.Failed(got.Handler, now) {
			return
		}
		fields := []zap.Field{zap.String("handler", got.Handler), zap.String("reason", string(got.Result.Why()))}
		if got.Status != 0 {
			fields = append(fields, zap.Int("handler_status", got.Status))
		}
		if got.Err != nil {
			fields = append(fields, zap.Error(got.Err))
		}
		h.app.logger.Warn("handler fails, others are asked if there are any", fields...)
		h.app.operator.desk.Tell(outcome.Note{
			Reason: reason.HandlerFails, Kind: notification.KindNone, Level: zapcore.WarnLevel, At: now,
			More: "Handler " + got.Handler + ": " + string(got.Result.Why()) + ".", Trouble: h.troubleOf(got.Handler),
		})
	}
}

// troubleOf is the trouble of a handler that fails. Each block finds out by itself.
func (h *Handler) troubleOf(handler string) string { return "handler " + h.Name + " " + handler }

// A notification that waits over a reload goes on through the newest block of its block's name. A
// name alone says little: it may be given to another block, with other handlers. So a block takes a
// notification over only if it would have let it in.

// takesOver reports whether the block would have let in a notification that came to another one of its
// name. Where no token of the sender is kept, its instance decides.
func (h *Handler) takesOver(c *outcome.Case) bool {
	if c.Via == viaHTTPAPI || c.Header.Get(replayHeader) != "" {
		return h.isFor(c.N.Instance)
	}
	return h.Auth.admits(c.Header, c.N.Instance)
}

// proxyFor is the proxy for a notification that came to this block: that of the newest config if it takes
// the notification over, as the upstreams of an older one may be gone and its health checks are over; nil
// if the rest of the route delivers.
func (h *Handler) proxyFor(c *outcome.Case) caddyhttp.MiddlewareHandler {
	if newest := h.fleet.newest.Load(); newest != nil && newest != h && newest.proxy != nil && newest.takesOver(c) {
		return newest.proxy
	}
	return h.proxy
}

// warnOfOther warns if the block has nothing in common with the one of its name that ran before.
func (h *Handler) warnOfOther(before *Handler) {
	if before == nil || before == h || h.resembles(before) {
		return
	}
	h.app.logger.Warn("a green_api block has the name that another one had before, and none of its tokens and instances", zap.String("name", h.Name))
}

// resembles reports whether some sender of the block before is let in still.
func (h *Handler) resembles(before *Handler) bool {
	for _, c := range before.Receive {
		if h.isFor(notification.SameInstance(c.Instance)) {
			return true
		}
	}
	if before.Auth.Off || before.Auth.ReportOnly {
		return true // nothing is known of who sends
	}
	for instance, token := range before.Auth.set.Load().Headers {
		header := http.Header{"Authorization": {token}}
		if h.Auth.admits(header, instance) || instance == "" && h.Auth.set.Load().Find(header) != nil {
			return true
		}
	}
	return false
}
