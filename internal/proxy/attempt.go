// Package proxy is the only way to Caddy's reverse_proxy: it makes the requests to the handlers, chooses
// among upstreams, says what became of an attempt, and holds the defaults of a nested reverse_proxy.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// A Way is the way of one notification to the handlers: through a reverse_proxy, or through the rest
// of the route.
type Way struct {
	Proxy func(*outcome.Case) caddyhttp.MiddlewareHandler // asked at each attempt; nil for none
	Next  caddyhttp.Handler
	Log   *zap.Logger
	onward
}

// Attempt asks one handler, until ctx is over at the latest. The request it hands on is its own.
func (way *Way) Attempt(ctx context.Context, a *delivery.Try) (got delivery.Answer) {
	far := new(reach)
	ctx = far.watch(ctx)
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
	err := way.toHandlers(a.Case).ServeHTTP(w, r)
	return classify(ctx, w.status, err, way.upstream() != "", far.never())
}

// toHandlers is the proxy of the config in effect, or the rest of the route if there is none.
func (way *Way) toHandlers(c *outcome.Case) caddyhttp.Handler {
	proxy := way.Proxy(c)
	if proxy == nil {
		return way.Next
	}
	return caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return proxy.ServeHTTP(w, r, way.Next)
	})
}

// classify says what became of an attempt from how the next handler returned: whether reverse_proxy
// chose an upstream (asked), and whether its request is known not to have reached it (unsent).
func classify(ctx context.Context, status int, err error, asked, unsent bool) delivery.Answer {
	if err == nil && status == statusCanceled { // reverse_proxy's, as when a transport is closed
		err = errCanceled
	}
	if err == nil {
		if status == 0 {
			return delivery.Answer{Result: delivery.Nobody, Err: errNoAnswer}
		}
		if status/100 == 2 && ctx.Err() != nil {
			// Its connection was being closed: with TLS, many a handler sees that, gives up, and its
			// server says 200 for it, which may still get through.
			return delivery.Answer{Result: delivery.TimedOut, Status: status, Err: delivery.ErrTimedOut}
		}
		return delivery.Answer{Result: delivery.ByStatus(status), Status: status}
	}
	if dial, notConnected := errors.AsType[reverseproxy.DialError](err); notConnected {
		return delivery.Answer{Result: delivery.NotNow, Err: fmt.Errorf("%w: %s", delivery.ErrNotConnected, dial.Error())} // whom, and why
	}
	if unsent {
		var routeErr caddyhttp.HandlerError
		if errors.As(err, &routeErr) && routeErr.Err != nil {
			err = routeErr.Err // without its id and place
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
	default: // of a handler like `error 500`
		return delivery.Answer{Result: delivery.ByStatus(said), Status: said}
	}
}

var (
	errNoAnswer = errors.New("nothing answered; put a reverse_proxy into or behind green_api")
	errCanceled = errors.New("the request to the handler was canceled, and not by its sender")
)

// statusCanceled is what reverse_proxy answers when its request was canceled. An attempt's never is.
const statusCanceled = 499

// panicked turns a panic of the handlers of the route into an answer. reverse_proxy panics with
// http.ErrAbortHandler when an answer ends in the middle; its status, which may be 200, is void.
func (way *Way) panicked(ctx context.Context, w *answerWriter, p any) delivery.Answer {
	if p == http.ErrAbortHandler { //nolint:errorlint // it is a sentinel, panicked as it is
		if ctx.Err() != nil {
			return delivery.Answer{Result: delivery.TimedOut, Status: w.status, Err: delivery.ErrTimedOut}
		}
		return delivery.Answer{Result: delivery.BrokenOff, Status: w.status, Err: errTruncated}
	}
	way.Log.Error("panic in the handlers behind green_api", zap.Any("panic", p), zap.Stack("stack"))
	return delivery.Answer{Result: delivery.BrokenOff, Err: errPanic}
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

func (w *answerWriter) Header() http.Header { return w.header }

func (w *answerWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 { // 1xx is no answer yet
		w.status = status
	}
}

func (w *answerWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.status/100 != 2 {
		w.text = append(w.text, p[:min(len(p), delivery.MaxAnswerText-len(w.text))]...)
	}
	return len(p), nil
}
