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

// onward makes the requests to the handlers, one per attempt. The route's handlers may modify a request, so
// every attempt starts from the request as it arrived. Placeholders show what the attempt's own handlers
// have changed.
type onward struct {
	Base *http.Request // the request as it arrived
	Body []byte        // the body that was checked

	vars      map[string]any // the vars before the first attempt; nil until then
	published bool
	asked     asking // by the last attempt, if it was direct

	// mu guards against a transport that is still dialing after its attempt has ended and looks up the
	// server name.
	mu      sync.Mutex
	current *http.Request  // nil between attempts
	set     caddy.Replacer // set by the last attempt's handlers
}

const routeGroups = caddy.CtxKey("route_group")

// request returns the request for a new attempt. Its context is ctx with its own replacer, vars and route
// groups.
func (o *onward) request(ctx context.Context, w http.ResponseWriter) *http.Request {
	// A route group records that one of its `handle` blocks has matched, so attempts must not share it.
	groups, _ := ctx.Value(routeGroups).(map[string]struct{})
	ctx = context.WithValue(ctx, routeGroups, maps.Clone(groups))
	ctx = o.withVars(ctx)

	own := caddy.NewEmptyReplacer()
	set := *own // copied before Map adds a source, so it holds only what handlers set
	r := o.clone(context.WithValue(ctx, caddy.ReplacerCtxKey, own))
	p := &placeholders{onward: o, r: r, w: w}
	own.Map(p.lookUp)

	o.mu.Lock()
	defer o.mu.Unlock()
	o.current, o.set = r, set
	return r
}

// withVars gives each attempt its own vars. The first attempt uses those of the original request, because
// logs read there what a handler has set.
func (o *onward) withVars(ctx context.Context) context.Context {
	vars, _ := ctx.Value(caddyhttp.VarsCtxKey).(map[string]any)
	if o.vars == nil {
		o.vars = maps.Clone(vars)
		return ctx
	}
	return context.WithValue(ctx, caddyhttp.VarsCtxKey, maps.Clone(o.vars))
}

// publish shows what the handlers behind green_api set to logs and to the handlers before it.
func (o *onward) publish() {
	if !o.published {
		o.published = true
		replacerOf(o.Base.Context()).Map(o.lookUpLast)
	}
}

func (o *onward) lookUpLast(key string) (any, bool) {
	if o.asked.stage != notDirect && strings.HasPrefix(key, "http.reverse_proxy.") {
		return o.asked.lookUp(key)
	}
	return o.set.Get(key)
}

// upstream returns the upstream that reverse_proxy chose in the last attempt, "" if it chose none.
func (o *onward) upstream() string {
	upstream, _ := o.set.GetString(upstreamPlaceholder)
	return upstream
}

func (o *onward) ended() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.current = nil
}

// Close ends the last attempt. After it, logs show the attempt's upstream, not that of a proxy in front of
// green_api such as forward_auth.
func (o *onward) Close() {
	if o.asked.address != "" || o.upstream() != "" {
		replacerOf(o.Base.Context()).DeleteByPrefix("http.reverse_proxy.")
	}
}

const upstreamPlaceholder = "http.reverse_proxy.upstream.hostport"

// clone returns a fresh copy of the original request with the checked body.
func (o *onward) clone(ctx context.Context) *http.Request {
	r := o.Base.Clone(ctx)
	r.Body = io.NopCloser(bytes.NewReader(o.Body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(o.Body)), nil }
	r.ContentLength = int64(len(o.Body))
	r.Header.Set("Content-Length", strconv.Itoa(len(o.Body)))
	r.TransferEncoding, r.Trailer = nil, nil // the whole body is in memory
	r.Header.Del("Transfer-Encoding")
	r.Header.Del("Trailer")
	r.Header.Del("Expect") // already answered: the body has been read
	return r
}

// placeholders looks up the placeholders of one attempt, except those that its handlers set.
type placeholders struct {
	onward *onward
	r      *http.Request
	w      http.ResponseWriter

	// Caddy binds a replacer to a request only when it prepares a new one. That happens on the first
	// lookup; from then on, shown follows r. Most attempts look up nothing.
	shown *http.Request
	http  *caddy.Replacer
}

// lookUp returns the value for the attempt's request, or else the one from before the attempt.
func (p *placeholders) lookUp(key string) (any, bool) {
	p.onward.mu.Lock()
	defer p.onward.mu.Unlock()
	if key == "http.request.uuid" { // the same for all attempts and for the logs
		return replacerOf(p.onward.Base.Context()).Get(key)
	}
	if p.shown == nil {
		p.http = caddy.NewEmptyReplacer()
		p.shown = caddyhttp.PrepareRequest(p.r, p.http, p.w, nil)
	}
	*p.shown = *p.r
	value, known := p.http.Get(key)
	if strings.HasPrefix(key, "http.request.body") {
		p.r.Body = p.shown.Body // Get has read the body and replaced it
	}
	if known {
		return value, true
	}
	return p.before(key)
}

// before asks the replacer of the original request. A `map` in front of green_api is bound to that request,
// but may map something that the attempt has changed, so the original is made to look like the attempt's
// request during the lookup.
func (p *placeholders) before(key string) (any, bool) {
	came := p.onward.Base
	before := replacerOf(came.Context())
	if p.r != p.onward.current {
		return before.Get(key)
	}
	kept, url := *came, *came.URL
	*came.URL = *p.r.URL // copies of the request share the URL
	*came = *p.r
	defer func() {
		p.r.Body = came.Body // {http.request.body}, as in lookUp
		*came = kept
		*came.URL = url
	}()
	return before.Get(key)
}

func replacerOf(ctx context.Context) *caddy.Replacer {
	return ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
}
