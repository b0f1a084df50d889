package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// answering are the handlers that answer every request. Others, like `header`, pass it to the next one.
var answering = []caddy.ModuleID{
	"http.handlers.static_response", "http.handlers.error", "http.handlers.green_api",
	"http.handlers.reverse_proxy", "http.handlers.file_server",
}

// catchesAll reports whether some route answers a request to any host and path. Where none does, Caddy answers
// 200, and GREEN-API takes its notification for delivered.
func catchesAll(routes caddyhttp.RouteList) bool {
	return slices.ContainsFunc(routes, func(route caddyhttp.Route) bool {
		return len(route.MatcherSets) == 0 && slices.ContainsFunc(route.Handlers, answersAll)
	})
}

func answersAll(handler caddyhttp.MiddlewareHandler) bool {
	if sub, ok := handler.(*caddyhttp.Subroute); ok {
		return catchesAll(sub.Routes)
	}
	module, ok := handler.(caddy.Module)
	return ok && slices.Contains(answering, module.CaddyModule().ID)
}

// unanswered finds servers that answer 200 to what no route matches.
func unanswered(blocks []Block) (found []Finding) {
	seen := make(map[*caddyhttp.Server]bool)
	for _, b := range blocks {
		if b.Server == nil || seen[b.Server] || catchesAll(b.Server.Routes) {
			continue
		}
		seen[b.Server] = true
		site := siteForAll(b.Server.Listen, len(b.Server.TLSConnPolicies) > 0)
		fix := "end each site with the line 'respond 404', and add a site for all other hosts, of these lines: '" + strings.Join(site, "', '") + "'"
		found = append(found, Finding{
			Kind: Empty200, Level: Error, Where: strings.Join(b.Server.Listen, " "), Fix: fix,
			Message: "requests that no route matches are answered 200 by Caddy, and a notification among them is lost",
			Fields:  []zap.Field{zap.Strings("listen", b.Server.Listen), zap.String("fix", fix)},
		})
	}
	return found
}

// siteForAll returns the lines of a Caddyfile's site that takes every host of a server. The site is bound
// as the server is, or it would be another server.
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

// allHosts is the address of a site for every host. Beside HTTPS on its own port, Caddy listens on the port of
// HTTP, to redirect.
func allHosts(address caddy.NetworkAddress, tls bool) string {
	switch port := address.StartPort; {
	case tls && (port == caddyhttp.DefaultHTTPSPort || port == 0):
		return "http://, https://"
	case tls:
		return fmt.Sprintf("https://:%d", port)
	case port == 0: // a socket has none
		return "http://"
	default:
		return fmt.Sprintf("http://:%d", port)
	}
}

// bindOf is the argument of the directive bind for an address, "" if it needs none.
func bindOf(address caddy.NetworkAddress) string {
	if address.IsUnixNetwork() || address.IsFdNetwork() {
		return address.String()
	}
	return address.Host
}
