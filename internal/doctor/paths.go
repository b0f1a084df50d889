package doctor

import (
	"path"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// onePath finds a matcher in front of a block that takes only one exact path, or only what is below one.
// GREEN-API prints its URLs with and without a trailing slash, and the form that the matcher does not take
// gets a 404.
func onePath(b Block) (found []Finding) {
	if b.Server == nil {
		return nil
	}
	exact, folders := exactPaths(b.Server.Routes, b.Handler)
	for _, path := range exact {
		found = append(found, missingPath(b, path, otherForm(path),
			"a block takes one exact path, and GREEN-API's URL may end in a slash or not: the other form does not reach it"))
	}
	for _, path := range folders {
		found = append(found, missingPath(b, path, strings.TrimSuffix(path, "/*"),
			"a block takes what is below a slash only, and GREEN-API's URL may end without it: that form does not reach it"))
	}
	return found
}

// missingPath returns the finding about a path that no matcher takes.
func missingPath(b Block, path, missing, message string) Finding {
	fix := "match with a final *, such as " + strings.TrimSuffix(missing, "/") + "*"
	return Finding{
		Kind: OnePath, Level: Warn, Where: b.where() + ", path " + path, Message: message, Fix: fix,
		Fields: []zap.Field{zap.String("name", b.Name), zap.String("path", path), zap.String("missing", missing), zap.String("fix", fix)},
	}
}

// where names the block in a finding.
func (b Block) where() string { return "block " + b.Name }

// exactPaths returns the paths on the way to a handler of which only one form is matched, and the patterns
// such as /path/* of which the form without the slash is not matched. If the pattern is narrowed further
// on, a sender would not use that form.
func exactPaths(routes caddyhttp.RouteList, to caddyhttp.MiddlewareHandler) (exact, folders []string) {
	for _, route := range routes {
		inner, leads := onTheWay(route, to)
		if !leads {
			continue
		}
		patterns := pathsOf(route)
		misses := func(path string) bool { return !reaches(patterns, path) && !hasExact(routes, path) }
		for _, pattern := range patterns {
			switch {
			case isOneForm(pattern) && misses(otherForm(pattern)):
				exact = append(exact, pattern)
			case isFolder(pattern) && misses(strings.TrimSuffix(pattern, "/*")) && !narrows(inner, to):
				folders = append(folders, pattern)
			}
		}
		for _, routes := range inner {
			e, f := exactPaths(routes, to)
			exact, folders = append(exact, e...), append(folders, f...)
		}
	}
	return exact, folders
}

// onTheWay returns the routes inside a route that lead to the handler, and reports whether it leads there.
func onTheWay(route caddyhttp.Route, to caddyhttp.MiddlewareHandler) (inner []caddyhttp.RouteList, leads bool) {
	for _, handler := range route.Handlers {
		if sub, ok := handler.(*caddyhttp.Subroute); ok {
			if leadsTo(sub.Routes, to) {
				leads, inner = true, append(inner, sub.Routes)
			}
			continue
		}
		leads = leads || handler == to
	}
	return inner, leads
}

// narrows reports whether inner routes match the path again on the way to the handler.
func narrows(inner []caddyhttp.RouteList, to caddyhttp.MiddlewareHandler) bool {
	return slices.ContainsFunc(inner, func(routes caddyhttp.RouteList) bool {
		return slices.ContainsFunc(routes, func(route caddyhttp.Route) bool {
			inside, leads := onTheWay(route, to)
			return leads && (len(pathsOf(route)) > 0 || narrows(inside, to))
		})
	})
}

func leadsTo(routes caddyhttp.RouteList, to caddyhttp.MiddlewareHandler) bool {
	return slices.ContainsFunc(routes, func(route caddyhttp.Route) bool {
		_, leads := onTheWay(route, to)
		return leads
	})
}

// pathsOf returns the patterns of a route's path matchers.
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

// isOneForm reports whether a pattern is a single path. The root has only one form.
func isOneForm(pattern string) bool {
	return !strings.ContainsAny(pattern, "*{") && strings.Trim(pattern, "/") != ""
}

// isFolder reports whether a pattern takes everything below a path, but not the path itself.
func isFolder(pattern string) bool {
	path, below := strings.CutSuffix(pattern, "/*")
	return below && isOneForm(path)
}

// otherForm returns the path with a trailing slash added or removed.
func otherForm(exact string) string {
	if without, had := strings.CutSuffix(exact, "/"); had {
		return without
	}
	return exact + "/"
}

// reaches reports whether one of the patterns matches a path, as Caddy's path matcher does.
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

// hasExact reports whether a route is for exactly that path, and answers or rewrites it.
func hasExact(routes caddyhttp.RouteList, to string) bool {
	return slices.ContainsFunc(routes, func(route caddyhttp.Route) bool {
		return slices.Contains(pathsOf(route), to)
	})
}
