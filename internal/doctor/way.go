package doctor

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
)

// A Way is where a notification posted to a URL ends up in a server. Without a block or another handler
// that answers it, Caddy answers 200 and it is lost.
type Way struct {
	Block caddyhttp.MiddlewareHandler // nil for none
	Other string                      // module that answers instead, "" for none

	says2xx bool // Other answers 2xx, whatever is posted
	failed  bool // a matcher failed, which Caddy answers with an error
	unknown bool // it leads through a handler that may answer, or change where it leads
}

// Lost reports whether a notification that comes this way is answered 2xx although nobody takes it.
func (w Way) Lost() bool {
	return w.Block == nil && !w.failed && !w.unknown && (w.Other == "" || w.says2xx)
}

// WayTo follows the routes of a server as Caddy would, but runs only those handlers that rewrite a request.
// from is the sender's address.
func WayTo(server *caddyhttp.Server, to *url.URL, from netip.Addr, isBlock func(caddyhttp.MiddlewareHandler) bool) (way Way) {
	defer func() {
		if recover() != nil { // a matcher wants more of a request than there is: that must not end an edge
			way.failed = true
		}
	}()
	r := &http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: to.Path, RawPath: to.RawPath, RawQuery: to.RawQuery}, Host: to.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"application/json; charset=utf-8"}},
		Body: http.NoBody, RemoteAddr: netip.AddrPortFrom(from, 443).String(),
	}
	if r.URL.Path == "" {
		r.URL.Path = "/"
	}
	r.RequestURI = r.URL.RequestURI()
	if len(server.TLSConnPolicies) > 0 {
		r.TLS = &tls.ConnectionState{HandshakeComplete: true, ServerName: to.Hostname()}
	}
	local := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv4Unspecified(), 443))
	r = r.WithContext(context.WithValue(context.Background(), http.LocalAddrContextKey, net.Addr(local)))
	repl := caddy.NewReplacer()
	f := &follower{server: server, isBlock: isBlock, repl: repl, r: caddyhttp.PrepareRequest(r, repl, unwritten{}, server)}
	f.follow(server.Routes)
	return f.way
}

// follower follows routes with a request.
type follower struct {
	server  *caddyhttp.Server
	isBlock func(caddyhttp.MiddlewareHandler) bool
	repl    *caddy.Replacer
	r       *http.Request
	way     Way
	depth   int
}

// maxDepth limits how deep routes may be nested. Named routes may form a cycle.
const maxDepth = 100

// follow follows routes, and reports whether the way ends there.
func (f *follower) follow(routes caddyhttp.RouteList) (ends bool) {
	if f.depth++; f.depth > maxDepth {
		return true
	}
	defer func() { f.depth-- }()
	var taken []string // groups of which a route has been taken
	for _, route := range routes {
		if route.Group != "" && slices.Contains(taken, route.Group) {
			continue
		}
		matches, err := route.MatcherSets.AnyMatchWithError(f.r)
		if err != nil {
			f.way.failed = true // Caddy answers with an error
			return true
		}
		if !matches {
			continue
		}
		if route.Group != "" {
			taken = append(taken, route.Group)
		}
		if slices.ContainsFunc(route.Handlers, f.pass) || route.Terminal {
			return true
		}
	}
	return false
}

// pass goes through a handler, and reports whether the way ends there.
func (f *follower) pass(handler caddyhttp.MiddlewareHandler) (ends bool) {
	if f.isBlock(handler) {
		f.way.Block = handler
		return true
	}
	switch h := handler.(type) {
	case *caddyhttp.Subroute:
		return f.follow(h.Routes)
	case *caddyhttp.Invoke:
		route := f.server.NamedRoutes[h.Name]
		return route != nil && f.follow(caddyhttp.RouteList{*route})
	case *rewrite.Rewrite:
		h.Rewrite(f.r, f.repl)
		return false
	}
	module, ok := handler.(caddy.Module)
	if !ok || !slices.Contains(answering, module.CaddyModule().ID) {
		f.way.unknown = f.way.unknown || !ok || !slices.Contains(passingOn, module.CaddyModule().ID)
		return false
	}
	f.way.Other = module.CaddyModule().ID.Name()
	if static, ok := handler.(*caddyhttp.StaticResponse); ok && !static.Abort {
		f.way.says2xx = static.StatusCode == "" || strings.HasPrefix(string(static.StatusCode), "2")
	}
	return true
}

// unwritten discards everything written.
type unwritten struct{}

func (unwritten) Header() http.Header { return make(http.Header) }

func (unwritten) Write(text []byte) (int, error) { return len(text), nil }

func (unwritten) WriteHeader(int) {}
