package doctor

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// answering are the handlers that answer every request. Others, such as `header`, pass it to the next one.
var answering = []caddy.ModuleID{
	"http.handlers.static_response", "http.handlers.error", "http.handlers.green_api",
	"http.handlers.reverse_proxy", "http.handlers.file_server", "http.handlers.authentication", "http.handlers.metrics",
}

// passingOn are the handlers that pass every request on. Any other may answer.
var passingOn = []caddy.ModuleID{
	"http.handlers.encode", "http.handlers.headers", "http.handlers.intercept", "http.handlers.log_append", "http.handlers.map",
	"http.handlers.push", "http.handlers.request_body", "http.handlers.templates", "http.handlers.timeouts", "http.handlers.tracing",
	"http.handlers.vars",
}

// nowhere is a part of a path and of a host that no config has.
const nowhere = "no-such-name-of-an-edge"

// unanswered finds servers that answer 2xx to a notification that reaches no block: sent by sender to a wrong host, or
// to a wrong path beside a block. GREEN-API takes it for delivered.
func unanswered(blocks []Block, sender netip.Addr) (found []Finding) {
	seen := make(map[*caddyhttp.Server]bool)
	isBlock := func(h caddyhttp.MiddlewareHandler) bool {
		return slices.ContainsFunc(blocks, func(b Block) bool { return b.Handler == h })
	}
	for _, b := range blocks {
		if b.Server == nil || seen[b.Server] {
			continue
		}
		seen[b.Server] = true
		near := &neighbours{server: b.Server, isBlock: isBlock, hosts: []string{nowhere + ".invalid"}, paths: []string{"/" + nowhere}}
		near.collect(b.Server.Routes, 0)
		for _, to := range near.urls() {
			if way := WayTo(b.Server, to, sender, isBlock); way.Lost() {
				found = append(found, lostAt(b.Server, way))
				break
			}
		}
	}
	return found
}

// neighbours are hosts and paths in the matchers on the way to blocks, with something in place of each wildcard: a
// request for one of them comes close to a block.
type neighbours struct {
	server       *caddyhttp.Server
	isBlock      func(caddyhttp.MiddlewareHandler) bool
	hosts, paths []string
}

// collect reports whether one of the routes leads to a block.
func (n *neighbours) collect(routes caddyhttp.RouteList, depth int) (leads bool) {
	for _, route := range routes {
		if depth > maxDepth || !slices.ContainsFunc(route.Handlers, func(h caddyhttp.MiddlewareHandler) bool { return n.handlerLeads(h, depth) }) {
			continue
		}
		leads = true
		for _, set := range route.MatcherSets {
			for _, matcher := range set {
				switch m := matcher.(type) {
				case *caddyhttp.MatchHost:
					n.hosts = withFilled(n.hosts, *m)
				case caddyhttp.MatchHost:
					n.hosts = withFilled(n.hosts, m)
				case *caddyhttp.MatchPath:
					n.paths = withFilled(n.paths, *m)
				case caddyhttp.MatchPath:
					n.paths = withFilled(n.paths, m)
				}
			}
		}
	}
	return leads
}

func (n *neighbours) handlerLeads(h caddyhttp.MiddlewareHandler, depth int) bool {
	switch h := h.(type) {
	case *caddyhttp.Subroute:
		return n.collect(h.Routes, depth+1)
	case *caddyhttp.Invoke:
		route := n.server.NamedRoutes[h.Name]
		return route != nil && n.collect(caddyhttp.RouteList{*route}, depth+1)
	}
	return n.isBlock(h)
}

func withFilled(known, patterns []string) []string {
	for _, pattern := range patterns {
		if text := strings.ReplaceAll(pattern, "*", nowhere); !slices.Contains(known, text) {
			known = append(known, text)
		}
	}
	return known
}

// urls returns each host with each path, as many as are worth the time.
func (n *neighbours) urls() (urls []*url.URL) {
	const most = 1000
	for _, host := range n.hosts {
		for _, path := range n.paths {
			if !strings.HasPrefix(path, "/") {
				path = "/" + path
			}
			if urls = append(urls, &url.URL{Host: host, Path: path}); len(urls) == most {
				return urls
			}
		}
	}
	return urls
}

// lostAt returns the finding for a server where a way ends with 200.
func lostAt(server *caddyhttp.Server, way Way) Finding {
	site := siteForAll(server.Listen, len(server.TLSConnPolicies) > 0)
	fix := "end each site with the line 'respond 404', and add a site for all other hosts, of these lines: '" + strings.Join(site, "', '") + "'"
	message := "requests that no route matches are answered 200 by Caddy, and a notification among them is lost"
	if way.Other != "" {
		message = "requests for other paths or hosts are answered 200 by a 'respond' without an error status, and a notification among them is lost"
	}
	return Finding{
		Kind: Empty200, Level: Error, Where: strings.Join(server.Listen, " "), Fix: fix, Message: message,
		Fields: []zap.Field{zap.Strings("listen", server.Listen), zap.String("fix", fix)},
	}
}

// siteForAll returns the lines of a Caddyfile site that takes every host of a server. The site is bound
// like the server; otherwise it would be another server.
func siteForAll(listen []string, tls bool) (lines []string) {
	var sites, bind []string
	for _, text := range listen {
		address, err := caddy.ParseNetworkAddress(text)
		if err != nil {
			continue
		}
		if site := allHosts(address, tls); !slices.Contains(sites, site) {
			sites = append(sites, site)
		}
		if to := bindOf(address); to != "" && !slices.Contains(bind, to) {
			bind = append(bind, to)
		}
	}
	if len(sites) == 0 {
		sites = []string{"http://"}
	}
	lines = []string{strings.Join(sites, ", ") + " {"}
	if len(bind) > 0 {
		lines = append(lines, "bind "+strings.Join(bind, " "))
	}
	return append(lines, "respond 404", "}")
}

// allHosts returns the address of a site for every host. For HTTPS on its default port, Caddy also listens
// on the HTTP port, to redirect.
func allHosts(address caddy.NetworkAddress, tls bool) string {
	switch port := address.StartPort; {
	case tls && (port == caddyhttp.DefaultHTTPSPort || port == 0):
		return "http://, https://"
	case tls:
		return fmt.Sprintf("https://:%d", port)
	case port == 0: // a socket has no port
		return "http://"
	default:
		return fmt.Sprintf("http://:%d", port)
	}
}

// bindOf returns the argument of the bind directive for an address, "" if it needs none.
func bindOf(address caddy.NetworkAddress) string {
	if address.IsUnixNetwork() || address.IsFdNetwork() {
		return address.String()
	}
	return address.Host
}
