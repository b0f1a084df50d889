package greenapi

import (
	"path"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// warnOfExactPaths warns of blocks behind a matcher of one exact path. GREEN-API prints its URLs with and
// without a slash at the end, and the form that the matcher does not take gets a 404.
func (a *App) warnOfExactPaths() {
	for _, b := range a.blocks {
		h := b.handler
		if h.server == nil {
			continue
		}
		for _, exact := range exactPaths(h.server.Routes, h) {
			a.logger.Warn("a block takes one exact path, and GREEN-API's URL may end in a slash or not: the other form does not reach it",
				zap.String("name", h.Name), zap.String("path", exact), zap.String("missing", otherForm(exact)),
				zap.String("fix", "match with a final *, such as "+strings.TrimSuffix(exact, "/")+"*"))
		}
	}
}

// exactPaths returns the paths on the way to a handler of which only one form is matched.
func exactPaths(routes caddyhttp.RouteList, to *Handler) (exact []string) {
	for _, route := range routes {
		inner, leads := exactPathsIn(route, to)
		if !leads {
			continue
		}
		patterns := pathsOf(route)
		for _, pattern := range patterns {
			if isOneForm(pattern) && !reaches(patterns, otherForm(pattern)) && !hasExact(routes, otherForm(pattern)) {
				exact = append(exact, pattern)
			}
		}
		exact = append(exact, inner...)
	}
	return exact
}

// exactPathsIn is exactPaths for what is inside a route, and reports whether the route leads to the handler.
func exactPathsIn(route caddyhttp.Route, to *Handler) (exact []string, leads bool) {
	for _, handler := range route.Handlers {
		switch handler := handler.(type) {
		case *Handler:
			leads = leads || handler == to
		case *caddyhttp.Subroute:
			if leadsTo(handler.Routes, to) {
				leads, exact = true, append(exact, exactPaths(handler.Routes, to)...)
			}
		}
	}
	return exact, leads
}

func leadsTo(routes caddyhttp.RouteList, to *Handler) bool {
	return slices.ContainsFunc(routes, func(route caddyhttp.Route) bool {
		_, leads := exactPathsIn(route, to)
		return leads
	})
}

// pathsOf are the patterns of a route's path matchers.
func pathsOf(route caddyhttp.Route) (patterns []string) {
	for _, set := range route.MatcherSets {
		for _, matcher := range set {
			switch m := matcher.(type) {
			case *caddyhttp.MatchPath:
				patterns = append(patterns, *m...)
			case caddyhttp.MatchPath:
				patterns = append(patterns, m...)
			}
		}
	}
	return patterns
}

// isOneForm reports whether a pattern is one path. The root has one form only.
func isOneForm(pattern string) bool {
	return !strings.ContainsAny(pattern, "*{") && strings.Trim(pattern, "/") != ""
}

// otherForm is the path with a slash at its end, or without.
func otherForm(exact string) string {
	if without, had := strings.CutSuffix(exact, "/"); had {
		return without
	}
	return exact + "/"
}

// reaches reports whether one of the patterns takes a path, as Caddy's path matcher does.
func reaches(patterns []string, to string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		head, tail := strings.HasPrefix(pattern, "*"), strings.HasSuffix(pattern, "*")
		part := strings.Trim(pattern, "*")
		switch {
		case strings.Contains(part, "*"):
			matches, _ := path.Match(pattern, to)
			return matches
		case head && tail:
			return strings.Contains(to, part)
		case head:
			return strings.HasSuffix(to, part)
		case tail:
			return strings.HasPrefix(to, part)
		}
		return pattern == to
	})
}

// hasExact reports whether some route beside is for a path, exactly: it answers it or rewrites it.
func hasExact(routes caddyhttp.RouteList, to string) bool {
	return slices.ContainsFunc(routes, func(route caddyhttp.Route) bool {
		return slices.Contains(pathsOf(route), to)
	})
}
