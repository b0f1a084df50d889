package greenapi

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/greenapi-community/caddy-green-api/internal/address"
	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/doctor"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/token"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// fit says whether what an instance has as webhookUrl and webhookUrlToken fits this config.
func (a *App) fit(instance, webhookURL, secret string) (f api.Fit) {
	f.Instance = instance
	id := notification.SameInstance(instance)
	receiving := a.receiverOf(id)
	switch {
	case receiving != "":
		f.Block = receiving
		if webhookURL != "" {
			f.Findings = append(f.Findings, api.Received)
		}
		return f
	case webhookURL == "":
		f.Findings = append(f.Findings, api.NoURL)
		return f
	}
	target, err := url.Parse(webhookURL)
	if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
		f.Findings = append(f.Findings, api.BadURL)
		return f
	}
	if target.Scheme == "http" && !isLocal(target.Hostname()) {
		f.Findings = append(f.Findings, api.HTTPURL)
	}
	h := a.blockAt(target)
	if h == nil {
		f.Findings = append(f.Findings, api.NoBlock)
		return f
	}
	f.Block = h.Name
	if why := h.Auth.unfit(id, secret); why != "" {
		f.Findings = append(f.Findings, api.Unfit(why))
	}
	return f
}

// receiverOf is the name of the block that receives an instance from the HTTP API, "" for none.
func (a *App) receiverOf(instance string) string {
	for name, b := range a.blocks {
		if b.handler.receives(instance) {
			return name
		}
	}
	return ""
}

// blockAt is the block that a notification comes to that is posted to a URL; nil for none. The port is not
// compared: another proxy may be in front.
func (a *App) blockAt(target *url.URL) *Handler {
	app, err := a.ctx.AppIfConfigured("http")
	if err != nil {
		return nil
	}
	isBlock := func(handler caddyhttp.MiddlewareHandler) bool { _, is := handler.(*Handler); return is }
	for _, server := range app.(*caddyhttp.App).Servers {
		if h, ok := doctor.WayTo(server, target, address.Vendor()[0].Addr(), isBlock).Block.(*Handler); ok {
			return h
		}
	}
	return nil
}

// unfit is why the gate would refuse the notifications of an instance that has a token in the console, ""
// if it would not. With report_only, it is why they will be refused.
func (a *Auth) unfit(instance, secret string) reason.Reason {
	header := make(http.Header)
	if secret != "" {
		header.Set("Authorization", sentAs(secret))
	}
	switch a.judge(header) {
	case outcome.TokenOff:
		return ""
	case outcome.TokenNone:
		return reason.NoToken
	case outcome.TokenWrong:
		return reason.BadToken
	}
	if !a.set.Load().Admits(header, instance) {
		return reason.InstanceNotAllowed
	}
	return ""
}

// sentAs is the header in which GREEN-API sends the token of the console. What it makes of one that is no
// token is not known, and is none here either.
func sentAs(secret string) string {
	scheme, text, ok := token.Split(secret)
	if !ok {
		return secret
	}
	return strings.ToUpper(scheme[:1]) + scheme[1:] + " " + text
}
