// Package proxy is the only code that uses Caddy's reverse_proxy: it makes the requests to the handlers,
// chooses among upstreams, classifies the result of an attempt, and holds the defaults of a nested
// reverse_proxy.
package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// A Way leads one notification to the handlers, directly, through a reverse_proxy, or through the rest of the
// route.
type Way struct {
	Proxy func(*outcome.Case) *Proxy // called at each attempt; returns nil if there is none
	Next  caddyhttp.Handler
	Log   *zap.Logger
	onward
}

// Attempt asks one handler. The handler gets a request of its own.
func (way *Way) Attempt(deadline time.Time, t *delivery.Try) delivery.Answer {
	proxy := way.Proxy(t.Case)
	way.publish()
	if proxy != nil && proxy.direct != nil && proxy.direct.takes(way.Base) {
		return way.directly(proxy.direct, deadline, t)
	}
	return way.throughCaddy(proxy, deadline, t)
}

// directly asks the handler that the policy chooses.
func (way *Way) directly(d *direct, deadline time.Time, t *delivery.Try) (got delivery.Answer) {
	defer func() {
		if p := recover(); p != nil {
			got = way.broken(p)
		}
		way.ended()
	}()
	return d.attempt(way, deadline, t)
}

// throughCaddy lets reverse_proxy ask, or the handlers of the route if there is none.
func (way *Way) throughCaddy(proxy *Proxy, deadline time.Time, t *delivery.Try) (got delivery.Answer) {
	ctx, cancel := context.WithDeadline(delivery.WithTry(context.WithoutCancel(way.Base.Context()), t), deadline)
	defer cancel()
	far := new(reach)
	ctx = far.watch(ctx)
	way.notAsked()
	w := &answerWriter{header: make(http.Header)}
	r := way.request(ctx, w)
	defer func() {
		if p := recover(); p != nil {
			got = way.panicked(ctx, w, p)
		}
		way.ended()
		got.Handler = way.upstream()
		got.Text, got.RetryAfter = delivery.WithoutToken(string(w.text), way.Base.Header), delivery.RetryAfter(w.header)
	}()
	var err error
	if proxy == nil {
		err = way.Next.ServeHTTP(w, r)
	} else {
		err = proxy.rp.ServeHTTP(w, r, way.Next)
	}
	return classify(ctx, w.status, err, way.upstream() != "", far.never())
}

// classify turns what the next handler returned into an answer. asked is whether reverse_proxy chose an
// upstream, unsent whether the request certainly did not reach it.
func classify(ctx context.Context, status int, err error, asked, unsent bool) delivery.Answer {
	if err == nil && status == statusCanceled { // reverse_proxy wrote it, as when a transport is closed
		err = errCanceled
	}
	if err == nil {
		if status == 0 {
			return delivery.Answer{Result: delivery.Nobody, Err: errNoAnswer}
		}
		return byStatus(status, ctx.Err() != nil)
	}
	if dial, notConnected := errors.AsType[reverseproxy.DialError](err); notConnected {
		return delivery.Answer{Result: delivery.NotNow, Err: fmt.Errorf("%w: %s", delivery.ErrNotConnected, dial.Error())} // names the address and the cause
	}
	if unsent {
		var routeErr caddyhttp.HandlerError
		if errors.As(err, &routeErr) && routeErr.Err != nil {
			err = routeErr.Err // without its ID and location
		}
		return delivery.Answer{Result: delivery.NotNow, Err: fmt.Errorf("%w: %w", delivery.ErrNotConnected, err)}
	}
	if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return delivery.Answer{Result: delivery.TimedOut, Err: delivery.ErrTimedOut}
	}
	var routeErr caddyhttp.HandlerError
	if !errors.As(err, &routeErr) {
		return delivery.Answer{Result: delivery.BrokenOff, Err: err}
	}
	switch said := routeErr.StatusCode; {
	case said == http.StatusServiceUnavailable && !asked:
		return delivery.Answer{Result: delivery.NoneFree, Err: delivery.ErrNoneAvailable}
	case said == http.StatusGatewayTimeout:
		return delivery.Answer{Result: delivery.TimedOut, Err: err}
	case said == http.StatusBadGateway && asked, said == statusCanceled, said < 300, said > 599:
		return delivery.Answer{Result: delivery.BrokenOff, Err: err}
	default: // from a handler such as `error 500`
		return delivery.Answer{Result: delivery.ByStatus(said), Status: said}
	}
}

var (
	errNoAnswer = errors.New("nothing answered; put a reverse_proxy into or behind green_api")
	errCanceled = errors.New("the request to the handler was canceled, and not by its sender")
)

// byStatus returns what a complete answer means. late is whether the attempt's time is over.
func byStatus(status int, late bool) delivery.Answer {
	switch {
	case status < 100:
		return delivery.Answer{Result: delivery.BrokenOff, Err: errNoStatus}
	case status/100 == 2 && late:
		// Its connection was already being closed. With TLS, many handlers notice that and give up, and
		// their server answers 200 for them, which may still get through.
		return delivery.Answer{Result: delivery.TimedOut, Status: status, Err: delivery.ErrTimedOut}
	}
	return delivery.Answer{Result: delivery.ByStatus(status), Status: status}
}

// errNoStatus: net/http takes any three digits.
var errNoStatus = errors.New("handler answered with a status below 100")

// noStatus stands for an answer with the status 0.
const noStatus = -1

// statusCanceled is what reverse_proxy answers when its request was canceled. We never cancel an attempt.
const statusCanceled = 499

// panicked turns a panic in the route's handlers into an answer. reverse_proxy panics with
// http.ErrAbortHandler if an answer breaks off in the middle; the status, which may be 200, means nothing
// then.
func (way *Way) panicked(ctx context.Context, w *answerWriter, p any) delivery.Answer {
	if p == http.ErrAbortHandler { //nolint:errorlint // it is a sentinel, panicked as it is
		if ctx.Err() != nil {
			return delivery.Answer{Result: delivery.TimedOut, Status: max(w.status, 0), Err: delivery.ErrTimedOut}
		}
		return delivery.Answer{Result: delivery.BrokenOff, Status: max(w.status, 0), Err: errTruncated}
	}
	return way.broken(p)
}

func (way *Way) broken(p any) delivery.Answer {
	way.Log.Error("panic in the handlers behind green_api", zap.Any("panic", p), zap.Stack("stack"))
	return delivery.Answer{Result: delivery.BrokenOff, Err: errPanic}
}

var (
	errTruncated = errors.New("handler broke off its answer")
	errPanic     = errors.New("panic in the handlers behind green_api")
)

// answerWriter receives a handler's answer. It keeps the status, the header and the beginning of the text
// unless the status is 2xx. It has no Unwrap: nothing of an attempt may reach the sender.
type answerWriter struct {
	header http.Header
	status int
	text   []byte
}

func (w *answerWriter) Header() http.Header { return w.header }

func (w *answerWriter) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status < 100) { // 1xx is not an answer yet
		w.status = cmp.Or(status, noStatus)
	}
}

func (w *answerWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.status/100 != 2 {
		w.text = append(w.text, p[:min(len(p), delivery.MaxAnswerText-len(w.text))]...)
	}
	return len(p), nil
}
