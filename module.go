// Package greenapi is the edge for GREEN-API webhooks: a Caddy handler that checks where a notification
// comes from, its token and its JSON Schema, keeps what is broken, and delivers the rest to a fleet of
// handlers.
//
// GREEN-API takes a notification off its queue only when it is answered 200. After any other answer the
// queue stands still for 60 seconds, with everything behind it, and GREEN-API sends the same one again;
// after 24 hours it is lost (GREEN-API docs: "Working with incoming webhooks", read 2026-07). So this
// package has one rule: answer 200 as soon as a re-send could not help, anything else only if it could, and
// never 200 before the notification is safe, with a handler that answered 2xx or on disk.
package greenapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
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
	"github.com/greenapi-community/caddy-green-api/internal/token"
	"github.com/greenapi-community/caddy-green-api/notification"
)

func init() {
	caddy.RegisterModule(Handler{})
	caddycmd.RegisterCommand(command.New(command.Config{Resolve: resolve, Examine: examine}))
}

// Handler receives GREEN-API webhooks. Each request passes the gates `ip_filter`, `auth` and
// `validate`; what passes is delivered through `reverse_proxy`, or through the next handler of the
// route if there is none. The handler always answers by itself, with a status and an empty body, and
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
// `{http.green_api.outcome}` | What became of it: queued, delivered, dropped, quarantined, refused or failed
// `{http.green_api.reason}` | Why; empty if it was delivered without remark
type Handler struct {
	// The name that identifies this block across reloads. Two blocks that differ need two names. Default:
	// `default`.
	Name string `json:"name,omitempty"`

	// Adds the body to each log record, up to 64 KiB. A body contains texts, names and phone numbers.
	// Default: false.
	LogBody bool `json:"log_body,omitempty"`

	// The client addresses that may send. Default: the addresses that GREEN-API publishes.
	IPFilter *IPFilter `json:"ip_filter,omitempty"`

	// The tokens that they must send. Required; `{"off": true}` turns the check off.
	Auth *Auth `json:"auth,omitempty"`

	// What a notification must look like, and which ones are wanted. Default: the built-in schemas, every
	// known type.
	Validate *Validate `json:"validate,omitempty"`

	// How a notification is delivered.
	Deliver *Deliver `json:"deliver,omitempty"`

	// Stores a notification before it is delivered, so that no sender waits for a handler. Default: no queue.
	Queue *Queue `json:"queue,omitempty"`

	// Instances whose notifications are not posted but fetched from GREEN-API's HTTP API. If there are any,
	// `auth` may be omitted; then no posted notification is let in.
	Receive []*Receive `json:"receive,omitempty"`

	// The proxy to the handlers. It takes everything that Caddy's own `reverse_proxy` takes, with these
	// defaults: selection policy `green_api`, `fail_duration` 5s, `max_fails` 3, `dial_timeout` 2s,
	// `tls_timeout` 5s, `keepalive` 4s, `keepalive_idle_conns_per_host` 10000, `max_response_header` 64KiB.
	// Without it the next handler of the route delivers.
	ReverseProxy *reverseproxy.Handler `json:"reverse_proxy,omitempty"`

	ctx      caddy.Context
	app      *App
	fleet    *fleet
	server   *caddyhttp.Server // the server it is provisioned for; nil if unknown
	logger   *zap.Logger
	reporter tell.Reporter
	posted   []step                           // for a posted notification
	received []step                           // for one received from the HTTP API
	proxy    *proxy.Proxy                     // to the handlers of ReverseProxy, nil without one
	choice   func(*outcome.Case) *proxy.Proxy // proxyFor
	limits   delivery.Limits
	hooks    delivery.Hooks
	rounds   delivery.Hooks // for what is in the queue
}

// A step is one check of a notification. It returns nil to let the notification go on.
type step struct {
	check      func(*visit) *outcome.Verdict
	reportOnly bool // let it go on in any case
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
		{"deliver", func(ctx caddy.Context) error { return h.Deliver.provision(ctx, h.Queue != nil) }},
		{"reverse_proxy", h.provisionProxy},
		{"receive", h.provisionReceive},
	} {
		if err := part.provision(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	h.provisionDelivery()
	if err := h.provisionQueue(ctx); err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	// The order is a contract: nothing is read before the sender is known, nothing is judged before it is
	// read, and a notification from a foreign instance is not judged at all.
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

// join registers the block under its name with the app that all blocks share.
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

// isAsBefore reports whether the block of this name had the same settings in the previous config.
func (h *Handler) isAsBefore() bool {
	before := h.fleet.newest.Load()
	return before != nil && bytes.Equal(before.app.blocks[h.Name].config, h.app.blocks[h.Name].config)
}

// Cleanup writes the pending summary of refused scanners, and releases the name.
func (h *Handler) Cleanup() error {
	if h.Validate != nil && h.Validate.drift != nil {
		h.Validate.drift.Release()
	}
	if h.fleet != nil { // not set if Provision failed
		h.fleet.newest.CompareAndSwap(h, nil)
		_ = releaseFleet(h.Name) // never fails
	}
	if h.IPFilter != nil {
		h.IPFilter.cleanup()
	}
	if h.proxy != nil {
		h.proxy.Close()
	}
	return nil
}

// ServeHTTP takes a notification through the gates and delivers it. Only ServeHTTP answers the sender.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	withoutOwn(r.Header)
	v := newVisit(w, r)
	h.Auth.look(v)
	end := h.walk(v, h.posted, next)
	h.survive(func() { h.record(v, end) }) // a panic here does not undo a delivery
	unread := end.Outcome == outcome.Refused && v.Body == nil && !v.readOff
	// If the body is unread, the answer would otherwise wait until the body has arrived or a timeout
	// strikes. That is for HTTP/1 only: an HTTP/2 connection also carries other requests. A reload, too,
	// has its connections closed to drain them; HTTP/3 forbids the header and ends connections by itself.
	if unread && r.ProtoMajor == 1 || h.app.drain.Active() && r.ProtoMajor < 3 {
		w.Header().Set("Connection", "close")
	}
	if end.Header != "" {
		w.Header().Set(end.Header, end.Value)
	}
	w.WriteHeader(end.Status)
	return nil
}

// walk takes a notification through the steps until one ends it, and otherwise delivers it.
func (h *Handler) walk(v *visit, steps []step, next caddyhttp.Handler) *outcome.Verdict {
	for _, step := range steps {
		end := step.check(v)
		if end != nil && step.reportOnly {
			h.reporter.ReportOnly(&v.Case, end)
			v.ReportOnly(end)
			if end.Reason == reason.Malformed { // nothing is known that the other steps could check
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
	if h.Queue != nil {
		return h.enqueue(v)
	}
	if end := h.waitForOlder(v); end != nil {
		return end
	}
	return h.deliver(v, next)
}

// survive runs what must not cost a notification its answer, such as writing its record. It reports whether
// that panicked.
func (h *Handler) survive(do func()) (panicked bool) {
	defer func() {
		if p := recover(); p != nil {
			panicked = true
			defer func() { _ = recover() }() // the logger itself may be what panics
			h.logger.Error("panic on the way of a notification", zap.Any("panic", p), zap.String("stack", string(debug.Stack())))
		}
	}()
	do()
	return false
}

// A visit is a notification together with the request that brought it.
type visit struct {
	outcome.Case
	w        http.ResponseWriter
	r        *http.Request
	server   *caddyhttp.Server // nil if unknown
	viaProxy bool              // a trusted proxy reported the client's address
	readOff  bool              // the body of a refused request was read to its end

	end struct { // as the record says it
		outcome outcome.Outcome
		reason  reason.Reason
	}

	tokens *token.Set   // the tokens in effect when the request came
	grant  *token.Grant // what the request's token admits, nil for nothing

	repl  *caddy.Replacer
	shown *placeholders // of repl; nil if they have to be set

	way proxy.Way // to the handlers

	own placeholders // here, as an allocation of its own would cost more
}

func newVisit(w http.ResponseWriter, r *http.Request) *visit {
	vars, _ := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	client, _ := vars[caddyhttp.ClientIPVarKey].(string)
	viaProxy, _ := vars[caddyhttp.TrustedProxyVarKey].(bool)
	v := &visit{w: w, viaProxy: viaProxy, Case: outcome.Case{
		Kind:   notification.KindNone,
		Client: client, Remote: r.RemoteAddr, TLS: r.TLS != nil, Host: r.Host, URI: r.RequestURI, Header: r.Header, Started: time.Now(), Admitted: true,
		N: &nothingRead,
	}}
	v.of(r)
	return v
}

// nothingRead is what is known of a posted notification before its body has been read. Nobody changes it.
var nothingRead notification.Notification

// of sets the request.
func (v *visit) of(r *http.Request) {
	v.r = r
	v.server, _ = r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	v.repl = replacer(r.Context())
	v.shown = v.own.in(v.repl)
}

func replacer(ctx context.Context) *caddy.Replacer {
	return ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
}

// placeholders publishes what is known of the notification to matchers and handlers later in the route.
func (v *visit) placeholders() {
	if v.shown != nil {
		v.shown.known.Store(v)
		return
	}
	for _, name := range []string{"type", "message", "instance", "chat", "id"} {
		value, _ := v.about(name)
		v.repl.Set(placeholderPrefix+name, value)
	}
}

// ended publishes how the notification ended.
func (v *visit) ended(end outcome.Outcome, why reason.Reason) {
	v.end.outcome, v.end.reason = end, why
	if v.shown != nil {
		v.shown.ended.Store(v)
		return
	}
	v.repl.Set(placeholderPrefix+"outcome", string(end))
	v.repl.Set(placeholderPrefix+"reason", string(why))
}

// about returns the value of a placeholder about the notification.
func (v *visit) about(name string) (value string, known bool) {
	switch name {
	case "type":
		return v.N.Type, true
	case "message":
		return v.N.Message, true
	case "instance":
		return v.N.Instance, true
	case "chat":
		return v.N.Chat, true
	case "id":
		return v.N.ID, true
	}
	return "", false
}

// placeholders looks up the placeholders of green_api in one replacer when somebody asks for them, which
// few do. A replacer has only one, however many blocks see its requests: the last block that knows a value
// says it.
type placeholders struct {
	repl *caddy.Replacer

	known atomic.Pointer[visit] // what the notification is; nil until that is known
	ended atomic.Pointer[visit] // how it ended; nil until then
}

const (
	placeholderPrefix = "http.green_api."

	// placeholdersKey finds the placeholders of a replacer. With these braces, no config can name it.
	placeholdersKey = "{http.green_api}"
)

// in makes p known to a replacer, unless that has placeholders already. It returns those that it has now.
// It returns nil behind another green_api block: the replacer of an attempt first asks the one of the
// request that the attempt is for, so the values have to be set.
func (p *placeholders) in(repl *caddy.Replacer) *placeholders {
	found, _ := repl.Get(placeholdersKey)
	before, _ := found.(*placeholders)
	switch {
	case before == nil:
		p.repl = repl
		repl.Map(p.lookUp)
		return p
	case before.repl == repl:
		return before
	}
	return nil
}

func (p *placeholders) lookUp(key string) (any, bool) {
	name, ours := strings.CutPrefix(key, placeholderPrefix)
	if !ours {
		return p, key == placeholdersKey
	}
	if v := p.ended.Load(); v != nil {
		switch name {
		case "outcome":
			return string(v.end.outcome), true
		case "reason":
			return string(v.end.reason), true
		}
	}
	if v := p.known.Load(); v != nil {
		return v.about(name)
	}
	return nil, false
}

// notEarly refuses TLS early data: it can be replayed, and its source address is not verified.
func notEarly(v *visit) *outcome.Verdict {
	if v.r.TLS != nil && !v.r.TLS.HandshakeComplete {
		return &outcome.Verdict{Outcome: outcome.Refused, Reason: reason.EarlyData, Status: http.StatusTooEarly, Level: zap.DebugLevel}
	}
	return nil
}

// onlyPOST refuses other methods. GREEN-API uses POST (GREEN-API docs: "Working with incoming webhooks",
// read 2026-07).
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

// record reports how the notification ended, and sets the placeholders for that.
func (h *Handler) record(v *visit, end *outcome.Verdict) {
	said := v.WithRemark(end)
	v.ended(said.Outcome, said.Reason)
	if v.N.Instance != "" && said.Outcome != outcome.Refused {
		h.app.operator.seen.Add(v.N.Instance, said.Outcome, v.Started)
		h.app.operator.heard(v.N.Instance, v.Started)
	}
	if said.Outcome == outcome.Refused {
		h.refused(v, said.Reason)
	}
	h.reporter.Record(&v.Case, &said, v.accessLog())
}

// accessLog returns where to add fields to the access log, nil if the server writes none.
func (v *visit) accessLog() tell.AccessLog {
	if v.server != nil && v.server.Logs == nil {
		return nil
	}
	if extra, ok := v.r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok && extra != nil {
		return extra
	}
	return nil
}
