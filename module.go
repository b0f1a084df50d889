// Package greenapi is the edge for GREEN-API webhooks: a Caddy handler that checks where a
// notification comes from, its token and its JSON Schema, keeps what is broken, and delivers the
// rest to a fleet of handlers.
//
// GREEN-API takes a notification off its queue at exactly one answer, 200. At any other answer it
// stands still for 60 seconds, with everything behind it, and sends the same one again; after 24
// hours it is lost (GREEN-API docs: "Working with incoming webhooks", read 2026-07). So this
// package lives by one rule: answer 200 as soon as a re-send could not help, anything else only
// when it could, and never before the notification is safe, with a handler that said 2xx or on disk.
package greenapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/command"
	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/proxy"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
	"github.com/greenapi-community/caddy-green-api/notification"
)

func init() {
	caddy.RegisterModule(Handler{})
	caddycmd.RegisterCommand(command.New(command.Config{Resolve: resolve, Examine: examine}))
}

// Handler receives GREEN-API webhooks. Each request passes the gates `ip_filter`, `auth` and
// `validate`; what passes is delivered through `reverse_proxy`, or through the next handler of the
// route if there is none. The handler always answers itself, with a status and an empty body, and
// never returns an error to the route: 200 means that a handler took the notification or that it
// need not be sent again.
//
// These placeholders are set:
//
// Placeholder | Description
// ------------|-------------
// `{http.green_api.type}` | The notification's `typeWebhook`
// `{http.green_api.message}` | Its `messageData.typeMessage`; empty if it has none
// `{http.green_api.instance}` | Its `instanceData.idInstance`, as text
// `{http.green_api.chat}` | The chat it belongs to; empty if it has none
// `{http.green_api.id}` | Its `idMessage`; empty if it has none
// `{http.green_api.outcome}` | What became of it: delivered, dropped, quarantined, refused or failed
// `{http.green_api.reason}` | Why; empty if it was delivered without remark
type Handler struct {
	// The name of this block, by which it is known across reloads. Two blocks that differ
	// need two names. Default: `default`.
	Name string `json:"name,omitempty"`

	// Adds the body to each record of the log, at most 64 KiB of it. It has texts, names and phone
	// numbers in it. Default: false.
	LogBody bool `json:"log_body,omitempty"`

	// Which client addresses may send. Default: the addresses that GREEN-API publishes.
	IPFilter *IPFilter `json:"ip_filter,omitempty"`

	// Which tokens they must send. Required; `{"off": true}` turns the check off.
	Auth *Auth `json:"auth,omitempty"`

	// What a notification must look like, and which ones are of use. Default: the built-in schemas,
	// every known type.
	Validate *Validate `json:"validate,omitempty"`

	// How a notification is delivered.
	Deliver *Deliver `json:"deliver,omitempty"`

	// Instances whose notifications are not posted, but taken from GREEN-API's HTTP API. With one
	// here, `auth` may be missing: then nothing that is posted is let in.
	Receive []*Receive `json:"receive,omitempty"`

	// The proxy to the handlers. Everything that Caddy's own `reverse_proxy` knows, with these
	// defaults where nothing is set: selection policy `green_api`, `fail_duration` 5s, `max_fails`
	// 3, `dial_timeout` 2s, `tls_timeout` 5s, `keepalive` 4s, `max_response_header` 64KiB. Without it the
	// next handler of the route delivers.
	ReverseProxy *reverseproxy.Handler `json:"reverse_proxy,omitempty"`

	ctx      caddy.Context
	app      *App
	fleet    *fleet
	server   *caddyhttp.Server // that it is provisioned for; nil if that cannot be seen
	logger   *zap.Logger
	reporter tell.Reporter
	posted   []step                                          // the way of what is posted
	received []step                                          // the way of what is received from the HTTP API
	proxy    caddyhttp.MiddlewareHandler                     // the provisioned ReverseProxy, nil without one
	choice   func(*outcome.Case) caddyhttp.MiddlewareHandler // proxyFor
	limits   delivery.Limits
	hooks    delivery.Hooks
}

// A step is one check on a notification's way. It returns nil to let the notification go on.
type step struct {
	check      func(*visit) *outcome.Verdict
	reportOnly bool // let it go on all the same
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.green_api",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision prepares the gates and the proxy, and reports any mistake in their settings.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.ctx, h.logger = ctx, ctx.Logger()
	if err := h.join(ctx); err != nil {
		return err
	}
	h.reporter = h.newReporter()
	ctx = ctx.WithValue(loadedAgainKey{}, h.isAsBefore())
	if h.Auth == nil && len(h.Receive) > 0 {
		h.Auth = &Auth{nobody: true}
	}
	if h.Auth == nil {
		return errors.New("auth: required; want 'token', 'instance', or 'auth off' to take notifications without a token")
	}
	if h.IPFilter == nil {
		h.IPFilter = new(IPFilter)
	}
	if h.Validate == nil {
		h.Validate = new(Validate)
	}
	if h.Deliver == nil {
		h.Deliver = new(Deliver)
	}
	for _, part := range []struct {
		name      string
		provision func(caddy.Context) error
	}{
		{"ip_filter", h.IPFilter.provision},
		{"auth", func(ctx caddy.Context) error { return h.Auth.provision(ctx, h.app.operator.desk.Tell) }},
		{"validate", h.Validate.provision},
		{"deliver", h.Deliver.provision},
		{"reverse_proxy", h.provisionProxy},
		{"receive", h.provisionReceive},
	} {
		if err := part.provision(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	h.provisionDelivery()
	// The order is a contract: nothing is read before the sender is known, nothing is judged
	// before it is read, and a notification of a foreign instance is not worth a look.
	read := step{check: h.Validate.read} // what it refuses or keeps cannot be delivered
	parse := step{h.Validate.parse, h.Validate.ReportOnly}
	check := step{h.check, h.Validate.ReportOnly}
	h.posted = []step{
		{check: notEarly},
		{h.IPFilter.check, h.IPFilter.ReportOnly},
		{h.Auth.check, h.Auth.ReportOnly},
		{check: onlyPOST},
		read,
		parse,
		{h.Auth.checkInstance, h.Auth.ReportOnly},
		check,
	}
	h.received = []step{read, parse, check}
	if h.Validate.DriftGuard == nil || !h.Validate.DriftGuard.Off {
		h.Validate.guard(h.fleet.drift.Hold(h.Validate.rules.Schemas.Fingerprint()))
	}
	return nil
}

// join enters the block under its name into the app that all blocks share.
func (h *Handler) join(ctx caddy.Context) error {
	if h.Name == "" {
		h.Name = defaultName
	}
	app, err := ctx.App("green_api")
	if err != nil {
		return err
	}
	h.app = app.(*App)
	config, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := h.app.claim(h, config); err != nil {
		return err
	}
	h.fleet = holdFleet(h.Name)
	h.server, _ = ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if h.server != nil {
		h.app.drain.Watch(h.server)
	}
	return nil
}

// isAsBefore reports whether the block of the same name in the config before has the same settings.
func (h *Handler) isAsBefore() bool {
	before := h.fleet.newest.Load()
	return before != nil && bytes.Equal(before.app.blocks[h.Name].config, h.app.blocks[h.Name].config)
}

// Cleanup writes what is left to say of refused scanners, and leaves the name to the next config.
func (h *Handler) Cleanup() error {
	if h.Validate != nil && h.Validate.drift != nil {
		h.Validate.drift.Release()
	}
	if h.fleet != nil { // not after a failed Provision
		h.fleet.newest.CompareAndSwap(h, nil)
		_ = releaseFleet(h.Name) // never fails
	}
	if h.IPFilter != nil {
		h.IPFilter.cleanup()
	}
	return nil
}

// ServeHTTP takes a notification through the gates and delivers it. It is the only place that
// answers the sender.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	withoutOwn(r.Header)
	v := newVisit(w, r)
	v.Token = h.Auth.worth(r.Header)
	end := h.walk(v, h.posted, next)
	h.survive(func() { h.record(v, end) }) // what was delivered stays so
	unread := end.Outcome == outcome.Refused && v.Body == nil && !v.readOff
	// A body is unread: without this, the answer would wait until it has come or a time-out strikes.
	// Only of HTTP/1: a connection of HTTP/2 has the requests of others, too. Or a reload drains the
	// connections; HTTP/3 forbids the header, and ends them by itself.
	if unread && r.ProtoMajor == 1 || h.app.drain.Active() && r.ProtoMajor < 3 {
		w.Header().Set("Connection", "close")
	}
	if end.Header != "" {
		w.Header().Set(end.Header, end.Value)
	}
	w.WriteHeader(end.Status)
	return nil
}

// walk is the way of a notification: step by step, until one ends it or it is delivered.
func (h *Handler) walk(v *visit, steps []step, next caddyhttp.Handler) *outcome.Verdict {
	for _, step := range steps {
		end := step.check(v)
		if end != nil && step.reportOnly {
			h.reporter.ReportOnly(&v.Case, end)
			v.ReportOnly(end)
			if end.Reason == reason.Malformed { // nothing is known of it that could be checked
				break
			}
			continue
		}
		if end != nil && end.Outcome == outcome.Quarantined {
			end = h.keep(&v.Case, end)
		}
		if end != nil {
			return end
		}
	}
	return h.deliver(v, next)
}

// survive does what must not cost a notification its answer, such as to write a record of it, and
// reports whether that panicked.
func (h *Handler) survive(do func()) (panicked bool) {
	defer func() {
		if p := recover(); p != nil {
			panicked = true
			defer func() { _ = recover() }() // it may be the log that panics
			h.logger.Error("panic on the way of a notification", zap.Any("panic", p), zap.String("stack", string(debug.Stack())))
		}
	}()
	do()
	return false
}

// A visit is a notification together with the request that brought it.
type visit struct {
	outcome.Case
	w       http.ResponseWriter
	r       *http.Request
	readOff bool // the body of a refused request was read to its end

	way proxy.Way // to the handlers
}

func newVisit(w http.ResponseWriter, r *http.Request) *visit {
	client, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return &visit{w: w, r: r, Case: outcome.Case{
		Kind:   notification.KindNone,
		Client: client, Host: r.Host, URI: r.RequestURI, Header: r.Header, Started: time.Now(), Admitted: true, N: new(notification.Notification),
	}}
}

// placeholders sets what is known of the notification, for matchers and handlers later in the route.
func (v *visit) placeholders() {
	repl := replacer(v.r.Context())
	repl.Set("http.green_api.type", v.N.Type)
	repl.Set("http.green_api.message", v.N.Message)
	repl.Set("http.green_api.instance", v.N.Instance)
	repl.Set("http.green_api.chat", v.N.Chat)
	repl.Set("http.green_api.id", v.N.ID)
}

func replacer(ctx context.Context) *caddy.Replacer {
	return ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
}

// notEarly refuses TLS early data: it can be replayed, and its address is not verified.
func notEarly(v *visit) *outcome.Verdict {
	if v.r.TLS != nil && !v.r.TLS.HandshakeComplete {
		return &outcome.Verdict{Outcome: outcome.Refused, Reason: reason.EarlyData, Status: http.StatusTooEarly, Level: zap.DebugLevel}
	}
	return nil
}

// onlyPOST refuses other methods. GREEN-API posts (GREEN-API docs: "Working with incoming
// webhooks", read 2026-07).
func onlyPOST(v *visit) *outcome.Verdict {
	if v.r.Method == http.MethodPost {
		return nil
	}
	return &outcome.Verdict{
		Outcome: outcome.Refused, Reason: reason.Method, Status: http.StatusMethodNotAllowed, Level: zap.DebugLevel,
		Header: "Allow", Value: http.MethodPost,
	}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)

// record reports how the notification ended, and sets the placeholders that say so.
func (h *Handler) record(v *visit, end *outcome.Verdict) {
	said := v.WithRemark(end)
	repl := replacer(v.r.Context())
	repl.Set("http.green_api.outcome", string(said.Outcome))
	repl.Set("http.green_api.reason", string(said.Reason))
	if v.N.Instance != "" && said.Outcome != outcome.Refused {
		h.app.operator.seen.Add(v.N.Instance, said.Outcome, v.Started)
		h.app.operator.heard(v.N.Instance, v.Started)
	}
	h.reporter.Record(&v.Case, &said, accessLog(v.r))
}

// accessLog is where the access log takes more fields; nil if the server writes none.
func accessLog(r *http.Request) tell.AccessLog {
	if server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && server.Logs == nil {
		return nil
	}
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok && extra != nil {
		return extra
	}
	return nil
}
