package doctor

import (
	"net/http"
	"net/netip"
	"net/url"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

// endOfWay is a block.
type endOfWay struct{ caddyhttp.MiddlewareHandler }

// passing is a handler that hands every request on.
type passing struct{ caddyhttp.MiddlewareHandler }

// TestWayTo: the way goes as a request would, and ends at the first handler that answers.
func TestWayTo(t *testing.T) {
	block := new(endOfWay)
	type handlers = []caddyhttp.MiddlewareHandler
	type routes = caddyhttp.RouteList
	path := func(paths ...string) caddyhttp.MatcherSets {
		m := caddyhttp.MatchPath(paths)
		return caddyhttp.MatcherSets{{&m}}
	}
	https := caddyhttp.MatchProtocol("https")
	to := func(h ...caddyhttp.MiddlewareHandler) routes { return routes{{Handlers: h}} }
	notFound := &caddyhttp.StaticResponse{StatusCode: "404"}
	for _, test := range []struct {
		name   string
		server *caddyhttp.Server
		url    string
		want   string // "block", another handler that answers, or "" for none
	}{
		{"nothing", &caddyhttp.Server{}, "https://hooks.test/x", ""},
		{"block", &caddyhttp.Server{Routes: to(new(passing), block)}, "https://hooks.test/x", "block"},
		{"no path", &caddyhttp.Server{Routes: routes{{MatcherSets: path("/"), Handlers: handlers{block}}}}, "https://hooks.test", "block"},
		{"behind an answer", &caddyhttp.Server{Routes: to(notFound, block)}, "https://hooks.test/x", "static_response"},
		{"in another route's place", &caddyhttp.Server{Routes: routes{
			{MatcherSets: path("/x"), Handlers: handlers{new(passing)}, Terminal: true}, {Handlers: handlers{block}},
		}}, "https://hooks.test/x", ""},
		{"first of a group", &caddyhttp.Server{Routes: routes{
			{Group: "g", MatcherSets: path("/y"), Handlers: handlers{notFound}}, {Group: "g", Handlers: handlers{new(passing)}}, {Group: "g", Handlers: handlers{notFound}}, {Handlers: handlers{block}},
		}}, "https://hooks.test/x", "block"},
		{"rewritten", &caddyhttp.Server{Routes: routes{
			{Handlers: handlers{&rewrite.Rewrite{StripPathPrefix: "/a"}}}, {MatcherSets: path("/x"), Handlers: handlers{block}},
		}}, "https://hooks.test/a/x", "block"},
		{"inside", &caddyhttp.Server{Routes: to(&caddyhttp.Subroute{Routes: to(new(passing))}, &caddyhttp.Subroute{Routes: to(block)})}, "https://hooks.test/x", "block"},
		{"named", &caddyhttp.Server{
			Routes: to(&caddyhttp.Invoke{Name: "no"}, &caddyhttp.Invoke{Name: "edge"}), NamedRoutes: map[string]*caddyhttp.Route{"edge": {Handlers: handlers{block}}},
		}, "https://hooks.test/x", "block"},
		{"circle", &caddyhttp.Server{
			Routes: to(&caddyhttp.Invoke{Name: "edge"}), NamedRoutes: map[string]*caddyhttp.Route{"edge": {Handlers: handlers{&caddyhttp.Invoke{Name: "edge"}}}},
		}, "https://hooks.test/x", ""},
		{"TLS", &caddyhttp.Server{
			TLSConnPolicies: caddytls.ConnectionPolicies{nil}, Routes: routes{{MatcherSets: caddyhttp.MatcherSets{{&https}}, Handlers: handlers{block}}},
		}, "https://hooks.test/x", "block"},
		{"TLS ends before", &caddyhttp.Server{Routes: routes{{MatcherSets: caddyhttp.MatcherSets{{&https}}, Handlers: handlers{block}}}}, "https://hooks.test/x", ""},
	} {
		target, err := url.Parse(test.url)
		if err != nil {
			t.Fatal(err)
		}
		got := WayTo(test.server, target, netip.MustParseAddr("192.0.2.7"), func(h caddyhttp.MiddlewareHandler) bool { return h == block })
		end := got.Other
		if got.Block == block {
			end = "block"
		}
		if end != test.want {
			t.Errorf("%s: %+v, want %q", test.name, got, test.want)
		}
	}
}

// TestWayToRequest: matchers see what a request of the sender has.
func TestWayToRequest(t *testing.T) {
	var seen *http.Request
	server := &caddyhttp.Server{Routes: caddyhttp.RouteList{{MatcherSets: caddyhttp.MatcherSets{{seeing{&seen}}}}}}
	target, err := url.Parse("https://user@hooks.test:8443/a%2Fb?c=d#e")
	if err != nil {
		t.Fatal(err)
	}
	WayTo(server, target, netip.MustParseAddr("192.0.2.7"), func(caddyhttp.MiddlewareHandler) bool { return false })
	if seen == nil || seen.Method != "POST" || seen.Host != "hooks.test:8443" || seen.RequestURI != "/a%2Fb?c=d" || seen.URL.Path != "/a/b" ||
		seen.RemoteAddr != "192.0.2.7:443" || caddyhttp.GetVar(seen.Context(), caddyhttp.ClientIPVarKey) != "192.0.2.7" {
		t.Errorf("%+v", seen)
	}
}

// seeing is a matcher that keeps the request.
type seeing struct{ request **http.Request }

func (s seeing) MatchWithError(r *http.Request) (bool, error) { *s.request = r; return false, nil }
