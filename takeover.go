package greenapi

import (
	"net/http"
	"slices"

	"go.uber.org/zap"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// A notification that waits over a reload goes on through the newest block of its block's name. A
// name alone says little: it may be given to another block, with other handlers. So a block takes a
// notification over only if it would have let it in.

// takesOver reports whether the block would have let in a notification that came to another one of its
// name. Where no token of the sender is kept, its instance decides.
func (h *Handler) takesOver(c *outcome.Case) bool {
	if c.Via == viaHTTPAPI || c.Header.Get(replayHeader) != "" {
		return h.isFor(c.N.Instance)
	}
	return h.Auth.admits(c.Header, c.N.Instance)
}

// proxyFor is the proxy for a notification that came to this block: that of the newest config if it takes
// the notification over, as the upstreams of an older one may be gone and its health checks are over; nil
// if the rest of the route delivers.
func (h *Handler) proxyFor(c *outcome.Case) caddyhttp.MiddlewareHandler {
	if newest := h.fleet.newest.Load(); newest != nil && newest != h && newest.proxy != nil && newest.takesOver(c) {
		return newest.proxy
	}
	return h.proxy
}

// isFor reports whether the block lets in notifications of an instance, if their token is right, or
// receives them. A body that names no instance is for any block.
func (h *Handler) isFor(instance string) bool {
	return instance == "" || h.Auth.hasTokenFor(instance) || h.receives(instance)
}

func (h *Handler) receives(instance string) bool {
	return slices.ContainsFunc(h.Receive, func(c *Receive) bool { return notification.SameInstance(c.Instance) == instance })
}

// admits reports whether the gate lets in a notification of an instance.
func (a *Auth) admits(header http.Header, instance string) bool {
	return a.Off || a.ReportOnly || a.set.Load().Admits(header, instance)
}

// hasTokenFor reports whether there is a token with which the gate lets in notifications of an instance.
func (a *Auth) hasTokenFor(instance string) bool {
	return a.Off || a.ReportOnly || a.headerFor(instance) != ""
}

// warnOfOther warns if the block has nothing in common with the one of its name that ran before.
func (h *Handler) warnOfOther(before *Handler) {
	if before == nil || before == h || h.resembles(before) {
		return
	}
	h.app.logger.Warn("a green_api block has the name that another one had before, and none of its tokens and instances", zap.String("name", h.Name))
}

// resembles reports whether some sender of the block before is let in still.
func (h *Handler) resembles(before *Handler) bool {
	for _, c := range before.Receive {
		if h.isFor(notification.SameInstance(c.Instance)) {
			return true
		}
	}
	if before.Auth.Off || before.Auth.ReportOnly {
		return true // nothing is known of who sends
	}
	for instance, token := range before.Auth.set.Load().Headers {
		header := http.Header{"Authorization": {token}}
		if h.Auth.admits(header, instance) || instance == "" && h.Auth.set.Load().Find(header) != nil {
			return true
		}
	}
	return false
}
