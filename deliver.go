package greenapi

import (
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

// Deliver controls how a notification is delivered to a handler.
//
// The handlers are asked one after another. Any complete 2xx counts as delivered and is answered 200. If
// the sender hangs up or the config is reloaded, the delivery goes on: the handler may have done half of
// its work.
type Deliver struct {
	// Longest time from receipt to answer. Must be below the 180 seconds that GREEN-API waits. With `queue`, it
	// is the longest time of one round of attempts, and may be longer. Default: 170s, with `queue` twice
	// `attempt_timeout`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Longest time for one handler's answer. Default: 60s, with `queue` 5m, or `timeout` if that is less. With
	// `queue`, at most 30m.
	AttemptTimeout caddy.Duration `json:"attempt_timeout,omitempty"`

	// How many other handlers to ask after one refused the body (a 4xx), or took it and then broke off or
	// let the time run out. The body itself may be the cause. If there is no other handler, one that broke
	// off is asked again. Default: 1.
	SecondOpinion *int `json:"second_opinion,omitempty"`

	// The number of failures after which a notification goes into the quarantine and the sender goes on to
	// the next. A failure (`handler_refused`, `handler_error`, `broken_off`, `attempt_timeout` or
	// `misrouted`) counts if one of the handlers that failed the notification has taken another one since
	// it last failed this one, and if it comes at least 45 seconds after the failure counted before.
	// `"off"`: never, and `dead_letter_after` is off, too. Default: 3.
	DeadLetter DeadLetter `json:"dead_letter,omitempty"`

	// How long a notification has to fail before it goes into the quarantine if it has failed as often as
	// `dead_letter` says, not counting `misrouted`, while the handlers that failed it took nothing. The
	// time doubles with each one, until a handler takes something again. `"off"`: never. Default: 1h.
	DeadLetterAfter DeadLetterAfter `json:"dead_letter_after,omitempty"`

	// How long a delivered notification is remembered. If one with the same content, apart from its
	// timestamp, comes within that time, it is answered 200 and not delivered. This does not apply to
	// incomingMessageStatus, which comes once for each reader without saying which. Only the last 1,000,000
	// are remembered, and a restart forgets them. Default: 0, none are remembered.
	Deduplicate caddy.Duration `json:"deduplicate,omitempty"`
}

func (d *Deliver) provision(_ caddy.Context, queued bool) error {
	if queued {
		d.setQueued()
	}
	if d.Timeout == 0 {
		d.Timeout = caddy.Duration(defaultTimeout)
	}
	timeout := time.Duration(d.Timeout)
	if timeout < 0 && queued {
		return fmt.Errorf("timeout: %s is out of range; want more than 0s", timeout)
	}
	if timeout < 0 || timeout >= senderTimeout && !queued {
		return fmt.Errorf("timeout: %s is out of range; want more than 0s and less than %s, after which the sender gives up", timeout, senderTimeout)
	}
	if d.AttemptTimeout == 0 {
		d.AttemptTimeout = caddy.Duration(min(defaultAttemptTimeout, timeout))
	}
	attempt := time.Duration(d.AttemptTimeout)
	if queued && attempt > maxQueuedAttemptTimeout {
		return fmt.Errorf("attempt_timeout: %s is out of range; want at most %s", attempt, maxQueuedAttemptTimeout)
	}
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

// setQueued sets the defaults of a block with a queue, in which no sender waits for the answer.
func (d *Deliver) setQueued() {
	switch {
	case d.AttemptTimeout == 0 && d.Timeout == 0:
		d.AttemptTimeout = caddy.Duration(defaultQueuedAttemptTimeout)
	case d.AttemptTimeout == 0:
		d.AttemptTimeout = min(caddy.Duration(defaultQueuedAttemptTimeout), d.Timeout)
	}
	if d.Timeout == 0 {
		d.Timeout = 2 * d.AttemptTimeout
	}
}

// limits returns the options in the form that package delivery takes.
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

// provisionDelivery sets up the limits and hooks of this block's deliveries.
func (h *Handler) provisionDelivery() {
	h.limits = h.Deliver.limits()
	h.limits.OwnHandlers = h.proxy != nil
	h.choice = h.proxyFor
	h.hooks = delivery.Hooks{
		Attempted: func(c *outcome.Case, got delivery.Answer) {
			h.survive(func() {
				h.countAttempt(got.Result)
				if !isRepeated(c, got) {
					h.watchHandler(got, got.Ended)
				}
			})
		},
		Slow: func(c *outcome.Case, upstream string) { h.survive(func() { h.tellSlow(c, upstream, time.Now()) }) },
		Waits: func(c *outcome.Case) {
			h.logger.Warn("notification waits for a handler", append(tell.NotificationFields(c), tell.AttemptFields(c)...)...)
			h.reporter.Waits(c, reason.NotNow)
		},
		Keep:    h.keep,
		Failing: h.app.shared.times,
	}
}

// deliver delivers the notification and returns the verdict.
func (h *Handler) deliver(v *visit, next caddyhttp.Handler) *outcome.Verdict {
	defer v.way.Close()
	return h.fleet.Deliver(v.r.Context(), &v.Case, h.wayOf(v, next), &h.limits, &h.hooks)
}

// wayOf returns the way to the handlers. It adds the notification's ID to the request.
func (h *Handler) wayOf(v *visit, next caddyhttp.Handler) delivery.Way {
	v.way = proxy.Way{Proxy: h.choice, Next: next, Log: h.logger}
	v.way.Base, v.way.Body = v.r, v.Body
	v.r.Header[idHeader] = []string{idOf(v.Digest())}
	return &v.way
}

// Header fields that green_api adds to the requests to handlers. A sender's own fields of these names never
// reach a handler.
const (
	// replayHeader marks a notification from the quarantine. Its value is the entry's ID.
	replayHeader = "X-Green-Api-Replay"

	// idHeader has the notification's ID, by which a handler recognizes one that it has seen before.
	idHeader = "X-Green-Api-Id"

	// deliveryHeader has the number of the round in which a notification from the queue is delivered. Above 1, a
	// handler may have begun to work on it before.
	deliveryHeader = "X-Green-Api-Delivery"

	// ownPrefix is how all of them begin.
	ownPrefix = "X-Green-Api-"
)

// idOf returns the ID of a notification: the first half of the SHA-256 of its body, in hex. So it is the
// same for each attempt, re-send and replay, through any edge of any version, and reveals nothing about the
// people in the notification. A body names its instance, so IDs of two instances differ.
func idOf(digest outcome.Digest) string {
	return hex.EncodeToString(digest[:len(digest)/2])
}

// withoutOwn removes our fields from a sender's header. It also removes a Connection header that names one
// of them, because a proxy would then not pass ours on.
func withoutOwn(header http.Header) {
	delete(header, replayHeader)
	delete(header, idHeader)
	delete(header, deliveryHeader)
	if slices.ContainsFunc(header["Connection"], namesOwn) {
		header.Del("Connection")
	}
}

func namesOwn(connection string) bool {
	for name := range strings.SplitSeq(connection, ",") {
		name = strings.TrimSpace(name)
		if len(name) > len(ownPrefix) && strings.EqualFold(name[:len(ownPrefix)], ownPrefix) {
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

// isRepeated reports whether a handler has only failed a notification once more that the queue tries again and again.
// That says nothing new of the handler, which may take all others.
func isRepeated(c *outcome.Case, got delivery.Answer) bool {
	switch got.Result {
	case delivery.HandlerError, delivery.RefusedByIt, delivery.Misrouted, delivery.TimedOut, delivery.BrokenOff:
		return c.Round > 1
	}
	return false
}

// countAttempt counts an attempt to deliver.
func (h *Handler) countAttempt(got delivery.Result) {
	switch got {
	case delivery.NoneFree:
	case delivery.Taken:
		h.reporter.Taken()
	default:
		h.reporter.NotTaken(got.Why())
	}
}

// DeadLetter is a number of failures. In JSON it is a number above 0, or "off".
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

// DeadLetterAfter is a duration. In JSON it is one above 0, or "off".
type DeadLetterAfter caddy.Duration

const deadLetterAfterOff = DeadLetterAfter(off)

// MarshalJSON writes "off" or nanoseconds.
func (d DeadLetterAfter) MarshalJSON() ([]byte, error) { return marshalOrOff(caddy.Duration(d)) }

// UnmarshalJSON reads "off" or a duration above 0.
func (d *DeadLetterAfter) UnmarshalJSON(text []byte) error {
	return unmarshalOrOff("dead_letter_after", text, (*caddy.Duration)(d))
}

// off is the duration of an option that is turned off.
const off caddy.Duration = -1

// marshalOrOff writes "off" or nanoseconds.
func marshalOrOff(d caddy.Duration) ([]byte, error) {
	if d == off {
		return []byte(`"off"`), nil
	}
	return strconv.AppendInt(nil, int64(d), 10), nil
}

// unmarshalOrOff reads "off" or a duration above 0, for an option.
func unmarshalOrOff(option string, text []byte, into *caddy.Duration) error {
	if string(text) == `"off"` {
		*into = off
		return nil
	}
	if err := into.UnmarshalJSON(text); err != nil || *into <= 0 {
		return fmt.Errorf("%s: invalid value %s; want a duration above 0s, such as \"1h\", or off", option, text)
	}
	return nil
}

// tellSlow tells the operator that a handler is slow to answer. The instances whose notifications it holds
// are waiting for it, but nothing fails that would be reported.
func (h *Handler) tellSlow(c *outcome.Case, handler string, now time.Time) {
	if !h.fleet.slow.Failed(handler, now) {
		return
	}
	fields := append(tell.NotificationFields(c), zap.Duration("after", h.limits.WarnAfter))
	if handler != "" { // without a policy of ours it is not yet known
		fields = append(fields, zap.String("handler", handler))
	}
	h.app.logger.Warn("handler is slow to answer, and the sender waits for it", fields...)
}

// watchHandler tells the operator when a handler starts to fail and when it has recovered. A refused
// notification is no sign that its handler fails.
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

// troubleOf identifies the trouble of a failing handler. Each block detects it by itself.
func (h *Handler) troubleOf(handler string) string { return "handler " + h.Name + " " + handler }

// After a reload, a waiting notification is delivered through the newest block of its block's name. The
// name alone proves little, as it may now belong to another block with other handlers. So a block takes
// over a notification only if it would have let it in.

// takesOver reports whether this block would have let in a notification that came to another block of its
// name. If the sender's token is not kept, the instance decides.
func (h *Handler) takesOver(c *outcome.Case) bool {
	if c.Via == viaHTTPAPI || c.Header.Get(replayHeader) != "" {
		return h.isFor(c.N.Instance)
	}
	return h.Auth.admits(c.Header, c.N.Instance)
}

// proxyFor returns the proxy for a notification that came to this block. It is the newest config's proxy if
// that takes the notification over, because an older one's upstreams may be gone and its health checks have
// stopped. It is nil if the rest of the route delivers.
func (h *Handler) proxyFor(c *outcome.Case) *proxy.Proxy {
	if newest := h.fleet.newest.Load(); newest != nil && newest != h && newest.proxy != nil && newest.takesOver(c) {
		return newest.proxy
	}
	return h.proxy
}

// warnOfOther warns if the block has nothing in common with its predecessor of the same name.
func (h *Handler) warnOfOther(before *Handler) {
	if before == nil || before == h || h.resembles(before) {
		return
	}
	h.app.logger.Warn("a green_api block has the name that another one had before, and none of its tokens and instances", zap.String("name", h.Name))
}

// resembles reports whether any sender of the previous block would still be let in.
func (h *Handler) resembles(before *Handler) bool {
	for _, c := range before.Receive {
		if h.isFor(notification.SameInstance(c.Instance)) {
			return true
		}
	}
	if before.Auth.Off || before.Auth.ReportOnly {
		return true // its senders are not known
	}
	for instance, token := range before.Auth.set.Load().Headers {
		header := http.Header{"Authorization": {token}}
		if h.Auth.admits(header, instance) || instance == "" && h.Auth.set.Load().Find(header) != nil {
			return true
		}
	}
	return false
}
