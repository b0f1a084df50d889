package proxy

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// onward makes the requests that go to the handlers, one for each attempt. The handlers of a route
// may change theirs: every attempt begins with the request as it came, and its placeholders show
// what its own handlers have made of it.
type onward struct {
	Base *http.Request // the request as it came
	Body []byte        // what was checked

	vars map[string]any // as they were before the first attempt; nil until then

	// The lock is for a transport that still dials when its attempt is over, and looks up the name of
	// a server.
	mu      sync.Mutex
	current *http.Request  // nil between two attempts
	set     caddy.Replacer // what the last attempt's handlers have set
}

// routeGroups is the key under which Caddy keeps the route groups of a request.
const routeGroups = caddy.CtxKey("route_group")

// request returns the request of a new attempt. Its context is ctx with a replacer, vars and route
// groups of its own.
func (o *onward) request(ctx context.Context, w http.ResponseWriter) *http.Request {
	// A route group remembers that one of its `handle` blocks has matched.
	groups, _ := ctx.Value(routeGroups).(map[string]struct{})
	ctx = context.WithValue(ctx, routeGroups, maps.Clone(groups))
	ctx = o.withVars(ctx)

	own := caddy.NewEmptyReplacer()
	set := *own // it has no other source yet
	r := o.clone(context.WithValue(ctx, caddy.ReplacerCtxKey, own))
	p := &placeholders{onward: o, r: r, w: w}
	own.Map(p.lookUp)

	o.mu.Lock()
	defer o.mu.Unlock()
	o.current, o.set = r, set
	return r
}

// withVars gives an attempt its vars. The first one has those of the request that came, where logs
// look for what a handler has set.
func (o *onward) withVars(ctx context.Context) context.Context {
	vars, _ := ctx.Value(caddyhttp.VarsCtxKey).(map[string]any)
	if o.vars == nil {
		o.vars = maps.Clone(vars)
		// From now on, logs and handlers before green_api find what handlers behind it have set.
		replacerOf(o.Base.Context()).Map(func(key string) (any, bool) { return o.set.Get(key) })
		return ctx
	}
	return context.WithValue(ctx, caddyhttp.VarsCtxKey, maps.Clone(o.vars))
}

// upstream is the upstream that reverse_proxy has chosen in the last attempt, "" if it was not come to.
func (o *onward) upstream() string {
	upstream, _ := o.set.GetString(upstreamPlaceholder)
	return upstream
}

// ended ends an attempt.
func (o *onward) ended() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.current = nil
}

// Close ends the last attempt: logs find its upstream, not that of a proxy before green_api, such
// as forward_auth.
func (o *onward) Close() {
	if o.upstream() != "" {
		replacerOf(o.Base.Context()).DeleteByPrefix("http.reverse_proxy.")
	}
}

const upstreamPlaceholder = "http.reverse_proxy.upstream.hostport"

// clone returns a fresh request with the body that was checked.
func (o *onward) clone(ctx context.Context) *http.Request {
	r := o.Base.Clone(ctx)
	r.Body = io.NopCloser(bytes.NewReader(o.Body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(o.Body)), nil }
	r.ContentLength = int64(len(o.Body))
	r.Header.Set("Content-Length", strconv.Itoa(len(o.Body)))
	r.TransferEncoding, r.Trailer = nil, nil // it is whole
	r.Header.Del("Transfer-Encoding")
	r.Header.Del("Trailer")
	r.Header.Del("Expect") // answered by reading it
	return r
}

// placeholders are those of one attempt, beside the ones that its handlers set.
type placeholders struct {
	onward *onward
	r      *http.Request
	w      http.ResponseWriter

	// Caddy binds a replacer to a request only as it prepares a new one. It is done when the first
	// placeholder is looked up, and that one shows r from then on. Most attempts need none.
	shown *http.Request
	http  *caddy.Replacer
}

// lookUp finds what is of the attempt's request, or else what was there before.
func (p *placeholders) lookUp(key string) (any, bool) {
	p.onward.mu.Lock()
	defer p.onward.mu.Unlock()
	if key == "http.request.uuid" { // one for all attempts, and for the logs
		return replacerOf(p.onward.Base.Context()).Get(key)
	}
	if p.shown == nil {
		p.http = caddy.NewEmptyReplacer()
		p.shown = caddyhttp.PrepareRequest(p.r, p.http, p.w, nil)
	}
	*p.shown = *p.r
	value, known := p.http.Get(key)
	if strings.HasPrefix(key, "http.request.body") {
		p.r.Body = p.shown.Body // it was read, and another one put there
	}
	if known {
		return value, true
	}
	return p.before(key)
}

// before asks the replacer of the request as it came. A `map` before green_api is bound to that one, and
// what it maps may have changed since: so, for this moment, it is the attempt's.
func (p *placeholders) before(key string) (any, bool) {
	came := p.onward.Base
	before := replacerOf(came.Context())
	if p.r != p.onward.current {
		return before.Get(key)
	}
	kept, url := *came, *came.URL
	*came.URL = *p.r.URL // other copies of the request have it, too
	*came = *p.r
	defer func() {
		p.r.Body = came.Body // {http.request.body}, as above
		*came = kept
		*came.URL = url
	}()
	return before.Get(key)
}

func replacerOf(ctx context.Context) *caddy.Replacer {
	return ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
}
