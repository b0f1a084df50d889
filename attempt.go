package greenapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"
)

// An answer is what became of one attempt.
type answer struct {
	result     result
	handler    string        // the upstream; "" if there is none or it is not known
	status     int           // what the handler said; 0 if it said nothing
	text       string        // the beginning of what it said, if that was no 2xx
	retryAfter time.Duration // what it asked for
	err        error         // why it said nothing
}

type result int

const (
	taken        result = iota // a complete 2xx
	notNow                     // not reachable, or says so
	noneFree                   // nobody was asked: all are full, asked for time, or have answered
	brokenOff                  // after the body was sent
	timedOut                   // after the body was sent
	handlerError               // another 5xx
	misrouted                  // 3xx, 401, 403, 404, 405: not what a handler would say
	refusedByIt                // another 4xx
	nobody                     // nothing was there to answer
)

// attempt asks one handler, until deadline at the latest, through the newest config of this name. The
// request it hands on is its own.
func (h *Handler) attempt(ctx context.Context, deadline time.Time, v *visit, a *asking, next caddyhttp.Handler) (got answer) {
	if end := time.Now().Add(time.Duration(h.Deliver.AttemptTimeout)); end.Before(deadline) {
		deadline = end
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	way := new(reach)
	ctx = way.watch(ctx)
	a.policy = false // until it is asked
	slow := time.AfterFunc(warnAfter, func() { h.survive(func() { h.tellSlow(v, a.asked(), time.Now()) }) })
	w := &answerWriter{header: make(http.Header)}
	r := v.onward.request(ctx, w)
	defer func() {
		slow.Stop()
		if p := recover(); p != nil {
			got = h.panicked(ctx, w, p)
		}
		v.onward.ended()
		got.handler = v.onward.upstream()
		if a.chosen.upstream != "" {
			got.handler = a.chosen.upstream
		}
		got.text, got.retryAfter = withoutToken(string(w.text), v.r.Header), retryAfter(w.header)
		a.done(got.result)
		h.survive(func() {
			v.asked(got)
			h.watchHandler(got, time.Now())
		})
	}()
	err := h.toHandlers(v, next).ServeHTTP(w, r)
	return classify(ctx, w.status, err, v.onward.upstream() != "", way.never())
}

// toHandlers is the way to the handlers: the proxy of the newest config, as the upstreams of an
// older one may be gone and its health checks are over; without a proxy, the rest of the route.
func (h *Handler) toHandlers(v *visit, next caddyhttp.Handler) caddyhttp.Handler {
	proxy := h.proxy
	if newest := h.fleet.newest.Load(); newest != nil && newest != h && newest.proxy != nil && newest.takesOver(v) {
		proxy = newest.proxy
	}
	if proxy == nil {
		return next
	}
	return caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return proxy.ServeHTTP(w, r, next)
	})
}

// classify says what became of an attempt from how the next handler returned: whether reverse_proxy
// chose an upstream (asked), and whether its request is known not to have reached it (unsent).
func classify(ctx context.Context, status int, err error, asked, unsent bool) answer {
	if err == nil && status == statusCanceled { // reverse_proxy's, as when a transport is closed
		err = errCanceled
	}
	if err == nil {
		if status == 0 {
			return answer{result: nobody, err: errNoAnswer}
		}
		if status/100 == 2 && ctx.Err() != nil {
			// Its connection was being closed: with TLS, many a handler sees that, gives up, and its
			// server says 200 for it, which may still get through.
			return answer{result: timedOut, status: status, err: errTimedOut}
		}
		return answer{result: byStatus(status), status: status}
	}
	if dial, notConnected := errors.AsType[reverseproxy.DialError](err); notConnected {
		return answer{result: notNow, err: fmt.Errorf("%w: %s", errNotConnected, dial.Error())} // whom, and why
	}
	if unsent {
		var routeErr caddyhttp.HandlerError
		if errors.As(err, &routeErr) && routeErr.Err != nil {
			err = routeErr.Err // without its id and place
		}
		return answer{result: notNow, err: fmt.Errorf("%w: %w", errNotConnected, err)}
	}
	if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return answer{result: timedOut, err: errTimedOut}
	}
	var routeErr caddyhttp.HandlerError
	if !errors.As(err, &routeErr) {
		return answer{result: brokenOff, err: err}
	}
	switch said := routeErr.StatusCode; {
	case said == http.StatusServiceUnavailable && !asked:
		return answer{result: noneFree, err: errNoneAvailable}
	case said == http.StatusGatewayTimeout:
		return answer{result: timedOut, err: err}
	case said == http.StatusBadGateway && asked, said == statusCanceled, said < 300, said > 599:
		return answer{result: brokenOff, err: err}
	default: // of a handler like `error 500`
		return answer{result: byStatus(said), status: said}
	}
}

var (
	errNoAnswer      = errors.New("nothing answered; put a reverse_proxy into or behind green_api")
	errNotConnected  = errors.New("handler could not be connected to")
	errTimedOut      = errors.New("handler did not answer in time")
	errNoneAvailable = errors.New("no handler available")
	errCanceled      = errors.New("the request to the handler was canceled, and not by its sender")
)

// statusCanceled is what reverse_proxy answers when its request was canceled. An attempt's never is.
const statusCanceled = 499

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
func (h *Handler) panicked(ctx context.Context, w *answerWriter, p any) answer {
	if p == http.ErrAbortHandler { //nolint:errorlint // it is a sentinel, panicked as it is
		if ctx.Err() != nil {
			return answer{result: timedOut, status: w.status, err: errTimedOut}
		}
		return answer{result: brokenOff, status: w.status, err: errTruncated}
	}
	h.logger.Error("panic in the handlers behind green_api", zap.Any("panic", p), zap.Stack("stack"))
	return answer{result: brokenOff, err: errPanic}
}

var (
	errTruncated = errors.New("handler broke off its answer")
	errPanic     = errors.New("panic in the handlers behind green_api")
)

// answerWriter takes what a handler answers and keeps its status, its header and the beginning of
// a text that is not of a 2xx. It has no Unwrap: nothing of an attempt may reach the sender.
type answerWriter struct {
	header http.Header
	status int
	text   []byte
}

// maxAnswerText is how many bytes of a handler's answer are kept.
const maxAnswerText = 1 << 10

func (w *answerWriter) Header() http.Header { return w.header }

func (w *answerWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 { // 1xx is no answer yet
		w.status = status
	}
}

func (w *answerWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.status/100 != 2 {
		w.text = append(w.text, p[:min(len(p), maxAnswerText-len(w.text))]...)
	}
	return len(p), nil
}

// retryAfter reads how long a handler wants to be left alone: seconds or a date (RFC 9110, 10.2.3).
// 0 if it does not say.
func retryAfter(header http.Header) time.Duration {
	text := header.Get("Retry-After")
	if text == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(date))
	}
	return 0
}
