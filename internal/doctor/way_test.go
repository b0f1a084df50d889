package doctor

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
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

// FuzzWayTo: whatever URL a console has, the way is found, and it comes to the block exactly if the URL's path does.
func FuzzWayTo(f *testing.F) {
	for _, seed := range []string{
		"https://hooks.test/green-api/webhook", "http://hooks.test", "https://hooks.test/green-api/webhook/../%2e%2e/x", "//hooks.test/%zz", "https://[::1%25eth0]:8443/GREEN-API/WEBHOOK",
		"https://hooks.test/{http.request.uri}?{env.HOME}", "mailto:somebody@hooks.test", "https://hooks.test/green-api//webhook", "https://\x00/", "?#",
	} {
		f.Add(seed)
	}
	block, paths := new(endOfWay), caddyhttp.MatchPath{"/green-api/webhook*"}
	if err := paths.Provision(caddy.Context{}); err != nil {
		f.Fatal(err)
	}
	server := &caddyhttp.Server{Routes: caddyhttp.RouteList{
		{Handlers: []caddyhttp.MiddlewareHandler{&rewrite.Rewrite{StripPathPrefix: "/proxied"}}},
		{MatcherSets: caddyhttp.MatcherSets{{&paths}}, Handlers: []caddyhttp.MiddlewareHandler{block}},
		{Handlers: []caddyhttp.MiddlewareHandler{&caddyhttp.StaticResponse{StatusCode: "404"}}},
	}}
	f.Fuzz(func(t *testing.T, text string) {
		target, err := url.Parse(text)
		if err != nil {
			return
		}
		got := WayTo(server, target, netip.MustParseAddr("192.0.2.7"), func(h caddyhttp.MiddlewareHandler) bool { return h == block })
		if (got.Block != nil) == (got.Other == "static_response") {
			t.Errorf("%q comes to %+v, want one of two ends", text, got)
		}
		lower := strings.ToLower(target.Path)
		if strings.HasPrefix(lower, "/green-api/webhook") && !strings.Contains(target.EscapedPath(), "%") && path.Clean(lower) == strings.TrimSuffix(lower, "/") && got.Block == nil {
			t.Errorf("%q does not come to the block", text)
		}
	})
}

// failing is a matcher that fails, as one of another module's may.
type failing struct{}

func (failing) MatchWithError(*http.Request) (bool, error) { return false, errors.New("no") }

// panicking is a matcher that wants more of a request than there is.
type panicking struct{}

func (panicking) MatchWithError(*http.Request) (bool, error) { panic("no such thing") }

// TestLost: a notification is lost where nobody takes it and the answer is 2xx all the same.
func TestLost(t *testing.T) {
	block := new(endOfWay)
	to := func(h caddyhttp.MiddlewareHandler) caddyhttp.RouteList {
		return caddyhttp.RouteList{{Handlers: []caddyhttp.MiddlewareHandler{h}}}
	}
	for _, test := range []struct {
		name   string
		routes caddyhttp.RouteList
		want   bool
	}{
		{"nothing", nil, true},
		{"a block", to(block), false},
		{"404", to(&caddyhttp.StaticResponse{StatusCode: "404"}), false},
		{"no status", to(&caddyhttp.StaticResponse{Body: "404;"}), true},
		{"204", to(&caddyhttp.StaticResponse{StatusCode: "204"}), true},
		{"a placeholder", to(&caddyhttp.StaticResponse{StatusCode: "{status}"}), false},
		{"closed", to(&caddyhttp.StaticResponse{Abort: true}), false},
		{"another handler", to(new(passing)), false},
		{"a matcher that panics", caddyhttp.RouteList{{MatcherSets: caddyhttp.MatcherSets{{panicking{}}}}}, false},
		{"a matcher that fails", caddyhttp.RouteList{{MatcherSets: caddyhttp.MatcherSets{{failing{}}}}}, false},
	} {
		way := WayTo(&caddyhttp.Server{Routes: test.routes}, &url.URL{Host: "hooks.test", Path: "/x"}, netip.MustParseAddr("192.0.2.7"), func(h caddyhttp.MiddlewareHandler) bool { return h == block })
		if way.Lost() != test.want {
			t.Errorf("%s: %+v", test.name, way)
		}
	}
}
