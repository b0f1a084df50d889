package greenapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"
)

const (
	reasonNotNow         = "not_now"
	reasonBrokenOff      = "broken_off"
	reasonAttemptTimeout = "attempt_timeout"
	reasonHandlerError   = "handler_error"
	reasonMisrouted      = "misrouted"
	reasonHandlerRefused = "handler_refused"
	reasonNoHandler      = "no_handler"
)

const (
	defaultTimeout        = 170 * time.Second
	defaultAttemptTimeout = 60 * time.Second

	// senderTimeout is how long GREEN-API waits for an answer (GREEN-API release notes 5.44.24.11;
	// "Working with incoming webhooks", read 2026-07).
	senderTimeout = 180 * time.Second
)

// Deliver says how a notification gets to a handler.
//
// The handler's answer decides: any complete 2xx is delivered, and answered 200. The sender hanging
// up does not cut the delivery short: the handler may have done half of its work.
type Deliver struct {
	// Longest time from receipt to answer. Below the 180 seconds that GREEN-API waits.
	// Default: 170s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Longest time for one handler's answer. Default: 60s, or `timeout` if that is less.
	AttemptTimeout caddy.Duration `json:"attempt_timeout,omitempty"`

	logger *zap.Logger
}

func (d *Deliver) provision(ctx caddy.Context) error {
	d.logger = ctx.Logger()
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
	return nil
}

// An answer is what became of one attempt.
type answer struct {
	result result
	status int   // what the handler said; 0 if it said nothing
	err    error // why it said nothing
}

type result int

const (
	taken        result = iota // a complete 2xx
	notNow                     // no handler reachable or all busy, or one that says so
	brokenOff                  // after the body was sent
	timedOut                   // after the body was sent
	handlerError               // another 5xx
	misrouted                  // 3xx, 401, 403, 404, 405: not what a handler would say
	refusedByIt                // another 4xx
	nobody                     // nothing was there to answer
)

// failures are the verdicts on what was not taken. Each is an answer that makes the sender keep
// the notification.
var failures = map[result]verdict{
	notNow:       {reason: reasonNotNow, status: http.StatusServiceUnavailable},
	brokenOff:    {reason: reasonBrokenOff, status: http.StatusBadGateway},
	timedOut:     {reason: reasonAttemptTimeout, status: http.StatusGatewayTimeout},
	handlerError: {reason: reasonHandlerError, status: http.StatusBadGateway},
	misrouted:    {reason: reasonMisrouted, status: http.StatusBadGateway},
	refusedByIt:  {reason: reasonHandlerRefused, status: http.StatusBadGateway},
	nobody:       {reason: reasonNoHandler, status: http.StatusBadGateway},
}

// deliver asks the handlers to take the notification and says how that ended.
func (d *Deliver) deliver(v *visit, next caddyhttp.Handler) *verdict {
	ctx, cancel := context.WithDeadline(context.WithoutCancel(v.r.Context()), v.started.Add(time.Duration(d.Timeout)))
	defer cancel()

	got := d.attempt(ctx, v, next)
	if got.result == taken {
		return &verdict{outcome: delivered, status: http.StatusOK, level: zap.InfoLevel}
	}
	end := failures[got.result]
	end.outcome, end.level, end.err = failed, zap.ErrorLevel, got.err
	if got.status != 0 {
		end.fields = append(end.fields, zap.Int("handler_status", got.status))
	}
	return &end
}

// attempt asks one handler. The request it hands on is its own in everything that the handlers of
// the route may change.
func (d *Deliver) attempt(ctx context.Context, v *visit, next caddyhttp.Handler) (got answer) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(d.AttemptTimeout))
	defer cancel()
	// A route group remembers that one of its `handle` blocks has matched.
	groups, _ := ctx.Value(routeGroups).(map[string]struct{})
	ctx = context.WithValue(ctx, routeGroups, maps.Clone(groups))

	repl := replacer(ctx)
	repl.Delete(upstreamPlaceholder) // of a proxy before us, as forward_auth
	w := &answerWriter{header: make(http.Header)}
	v.attempts++
	defer func() {
		if asked, ok := repl.GetString(upstreamPlaceholder); ok {
			v.handler = asked
		}
		if p := recover(); p != nil {
			got = d.panicked(ctx, w, p)
		}
	}()
	err := next.ServeHTTP(w, v.request(ctx))
	_, asked := repl.GetString(upstreamPlaceholder)
	return classify(ctx, w.status, err, asked)
}

const upstreamPlaceholder = "http.reverse_proxy.upstream.hostport"

// routeGroups is the key under which Caddy keeps the route groups of a request.
const routeGroups = caddy.CtxKey("route_group")

// request returns a fresh request with the body that was checked.
func (v *visit) request(ctx context.Context) *http.Request {
	r := v.r.Clone(ctx)
	r.Body = io.NopCloser(bytes.NewReader(v.body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(v.body)), nil }
	r.ContentLength = int64(len(v.body))
	r.Header.Set("Content-Length", strconv.Itoa(len(v.body)))
	r.TransferEncoding, r.Trailer = nil, nil // it is whole
	r.Header.Del("Transfer-Encoding")
	r.Header.Del("Trailer")
	r.Header.Del("Expect") // answered by reading it
	return r
}

// classify says what became of an attempt from how the next handler returned. asked tells whether
// reverse_proxy chose an upstream.
func classify(ctx context.Context, status int, err error, asked bool) answer {
	if err == nil {
		if status == 0 {
			return answer{result: nobody, err: errNoAnswer}
		}
		return answer{result: byStatus(status), status: status}
	}
	var notConnected reverseproxy.DialError
	if errors.As(err, &notConnected) {
		return answer{result: notNow, err: errNotConnected}
	}
	if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return answer{result: timedOut, err: context.DeadlineExceeded}
	}
	var routeErr caddyhttp.HandlerError
	if !errors.As(err, &routeErr) {
		return answer{result: brokenOff, err: err}
	}
	switch said := routeErr.StatusCode; {
	case said == http.StatusServiceUnavailable && !asked:
		return answer{result: notNow, err: errNoneAvailable}
	case said == http.StatusGatewayTimeout:
		return answer{result: timedOut, err: err}
	case said == http.StatusBadGateway && asked, said < 300, said > 599:
		return answer{result: brokenOff, err: err}
	default: // of a handler like `error 500`
		return answer{result: byStatus(said), status: said}
	}
}

var (
	errNoAnswer      = errors.New("nothing answered; put a reverse_proxy into or behind green_api")
	errNotConnected  = errors.New("handler could not be connected to")
	errNoneAvailable = errors.New("no handler available")
)

// byStatus says what a handler's status means.
func byStatus(status int) result {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return notNow
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return misrouted
	}
	switch status / 100 {
	case 2:
		return taken
	case 3:
		return misrouted
	case 4:
		return refusedByIt
	case 5:
		return handlerError
	}
	return brokenOff // no HTTP
}

// panicked turns a panic of the handlers of the route into an answer. reverse_proxy panics with
// http.ErrAbortHandler when an answer ends in the middle; its status, which may be 200, is void.
func (d *Deliver) panicked(ctx context.Context, w *answerWriter, p any) answer {
	if p == http.ErrAbortHandler { //nolint:errorlint // it is a sentinel, panicked as it is
		if ctx.Err() != nil {
			return answer{result: timedOut, status: w.status, err: context.DeadlineExceeded}
		}
		return answer{result: brokenOff, status: w.status, err: errTruncated}
	}
	d.logger.Error("panic in the handlers behind green_api", zap.Any("panic", p), zap.Stack("stack"))
	return answer{result: brokenOff, err: errPanic}
}

var (
	errTruncated = errors.New("handler broke off its answer")
	errPanic     = errors.New("panic in the handlers behind green_api")
)

// answerWriter takes what a handler answers and keeps its status only. It has no Unwrap: nothing
// of an attempt may reach the sender.
type answerWriter struct {
	header http.Header
	status int
}

func (w *answerWriter) Header() http.Header { return w.header }

func (w *answerWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 { // 1xx is no answer yet
		w.status = status
	}
}

func (w *answerWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return len(p), nil
}

// unmarshalCaddyfile sets up delivery from Caddyfile tokens. Syntax:
//
//	deliver {
//	    timeout         <duration>
//	    attempt_timeout <duration>
//	}
func (d *Deliver) unmarshalCaddyfile(disp *caddyfile.Dispenser) error {
	if err := noArgs(disp); err != nil {
		return err
	}
	return eachOption(disp, "deliver", []option{
		{name: "timeout", parse: func() error { return durationArg(disp, &d.Timeout) }},
		{name: "attempt_timeout", parse: func() error { return durationArg(disp, &d.AttemptTimeout) }},
	})
}
