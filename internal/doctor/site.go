package doctor

import (
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
)

// Site is where a handler of a server can be reached.
type Site struct {
	Names  []string // of hosts, as in the config
	Any    bool     // any other host leads there, too
	Prefix string   // that handle_path, or another rewrite, has taken off before; it begins and ends with a slash
}

// SiteOf returns where a handler can be reached.
func SiteOf(server *caddyhttp.Server, to caddyhttp.MiddlewareHandler) Site {
	site := Site{Prefix: "/"}
	site.follow(server.Routes, to, nil, "")
	slices.Sort(site.Names)
	site.Names = slices.Compact(site.Names)
	return site
}

// follow follows routes to the handler. names are the hosts of a route around them, and taken what was taken off the path.
func (s *Site) follow(routes caddyhttp.RouteList, to caddyhttp.MiddlewareHandler, names []string, taken string) {
	for _, route := range routes {
		here := hostsOf(route)
		if here == nil {
			here = names
		}
		before := taken
		for _, handler := range route.Handlers {
			switch h := handler.(type) {
			case *caddyhttp.Subroute:
				if leadsTo(h.Routes, to) {
					s.follow(h.Routes, to, here, before)
				}
			case *rewrite.Rewrite:
				before += strings.TrimSuffix(h.StripPathPrefix, "/")
			}
			if handler == to {
				s.found(here, before)
			}
		}
		if len(route.MatcherSets) == 0 { // what comes next gets the path as it is now
			taken = before
		}
	}
}

func (s *Site) found(names []string, taken string) {
	if taken != "" {
		s.Prefix = "/" + strings.Trim(taken, "/") + "/"
	}
	if names == nil {
		s.Any = true
	}
	for _, name := range names {
		if name == "*" || strings.ContainsAny(name, "{}") {
			s.Any = true
			continue
		}
		s.Names = append(s.Names, name)
	}
}

// hostsOf returns the hosts that a route is for, nil if it is for all.
func hostsOf(route caddyhttp.Route) (hosts []string) {
	for _, set := range route.MatcherSets {
		here := []string(nil)
		for _, matcher := range set {
			switch m := matcher.(type) {
			case *caddyhttp.MatchHost:
				here = *m
			case caddyhttp.MatchHost:
				here = m
			}
		}
		if here == nil { // one set is enough
			return nil
		}
		hosts = append(hosts, here...)
	}
	return hosts
}
