package doctor

import (
	"crypto/tls"
	"net/http"
	"net/netip"
	"net/url"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
)

// A Way is where a notification that is posted to a URL comes to in a server. Without a block and another
// handler that answers it, Caddy answers 200 and it is lost.
type Way struct {
	Block caddyhttp.MiddlewareHandler // nil for none
	Other string                      // module that answers in its place, "" for none
}

// WayTo follows the routes of a server as Caddy would, and runs none of their handlers but those that
// rewrite a request. from is the address of the sender.
func WayTo(server *caddyhttp.Server, to *url.URL, from netip.Addr, isBlock func(caddyhttp.MiddlewareHandler) bool) Way {
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

// maxDepth is how deep routes may lie in each other. Named routes may go in a circle.
const maxDepth = 100

// follow follows routes, and reports whether the way ends there.
func (f *follower) follow(routes caddyhttp.RouteList) (ends bool) {
	if f.depth++; f.depth > maxDepth {
		return true
	}
	defer func() { f.depth-- }()
	var taken []string // groups, of which one route is taken
	for _, route := range routes {
		if route.Group != "" && slices.Contains(taken, route.Group) {
			continue
		}
		matches, err := route.MatcherSets.AnyMatchWithError(f.r)
		if err != nil {
			return true // Caddy answers with an error
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
		return false
	}
	f.way.Other = module.CaddyModule().ID.Name()
	return true
}

// unwritten is where nothing is written.
type unwritten struct{}

func (unwritten) Header() http.Header { return make(http.Header) }

func (unwritten) Write(text []byte) (int, error) { return len(text), nil }

func (unwritten) WriteHeader(int) {}
