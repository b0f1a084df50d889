package greenapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// A proxyWay is the way of one notification to the handlers: through a reverse_proxy, or through the rest
// of the route.
type proxyWay struct {
	proxy func(*outcome.Case) caddyhttp.MiddlewareHandler // asked at each attempt; nil for none
	next  caddyhttp.Handler
	log   *zap.Logger
	onward
}

// attempt asks one handler, until ctx is over at the latest. The request it hands on is its own.
func (way *proxyWay) attempt(ctx context.Context, a *asking) (got answer) {
	far := new(reach)
	ctx = far.watch(ctx)
	w := &answerWriter{header: make(http.Header)}
	r := way.request(ctx, w)
	defer func() {
		if p := recover(); p != nil {
			got = way.panicked(ctx, w, p)
		}
		way.ended()
		got.handler = way.upstream()
		got.text, got.retryAfter = withoutToken(string(w.text), way.came.Header), retryAfter(w.header)
	}()
	err := way.toHandlers(a.c).ServeHTTP(w, r)
	return classify(ctx, w.status, err, way.upstream() != "", far.never())
}

// toHandlers is the proxy of the config in effect, or the rest of the route if there is none.
func (way *proxyWay) toHandlers(c *outcome.Case) caddyhttp.Handler {
	proxy := way.proxy(c)
	if proxy == nil {
		return way.next
	}
	return caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return proxy.ServeHTTP(w, r, way.next)
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
	errNoAnswer = errors.New("nothing answered; put a reverse_proxy into or behind green_api")
	errCanceled = errors.New("the request to the handler was canceled, and not by its sender")
)

// statusCanceled is what reverse_proxy answers when its request was canceled. An attempt's never is.
const statusCanceled = 499

// panicked turns a panic of the handlers of the route into an answer. reverse_proxy panics with
// http.ErrAbortHandler when an answer ends in the middle; its status, which may be 200, is void.
func (way *proxyWay) panicked(ctx context.Context, w *answerWriter, p any) answer {
	if p == http.ErrAbortHandler { //nolint:errorlint // it is a sentinel, panicked as it is
		if ctx.Err() != nil {
			return answer{result: timedOut, status: w.status, err: errTimedOut}
		}
		return answer{result: brokenOff, status: w.status, err: errTruncated}
	}
	way.log.Error("panic in the handlers behind green_api", zap.Any("panic", p), zap.Stack("stack"))
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
