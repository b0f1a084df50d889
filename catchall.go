package greenapi

import (
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// answering are the handlers that answer whatever comes to them. Others, like `header`, hand on.
var answering = []caddy.ModuleID{
	"http.handlers.static_response", "http.handlers.error", "http.handlers.green_api",
	"http.handlers.reverse_proxy", "http.handlers.file_server",
}

// catchesAll tells whether a request to any host and path is answered by some route. Caddy answers
// 200 where none does, and GREEN-API would take its notification for delivered.
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

// warnOfEmpty200 tells of servers that answer 200 to what no route matches.
func (a *App) warnOfEmpty200() {
	warned := make(map[*caddyhttp.Server]bool)
	for _, b := range a.blocks {
		server := b.handler.server
		if server == nil || warned[server] || catchesAll(server.Routes) {
			continue
		}
		warned[server] = true
		a.logger.Warn("requests that no route matches are answered 200 by Caddy, and a notification among them is lost",
			zap.Strings("listen", server.Listen),
			zap.String("fix", "end each site in 'respond 404', and add a site for all other hosts, such as 'http://:8080 { respond 404 }'"))
	}
}
