package greenapi

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/proxy"
)

func init() {
	caddy.RegisterModule(Affinity{})
	caddy.RegisterModule(wholeBody{})
}

// checkWeights checks that each static upstream has a weight. Caddy's policy never chooses one that has none.
func checkWeights(rp *reverseproxy.Handler) error {
	weighted, ok := rp.LoadBalancing.SelectionPolicy.(*reverseproxy.WeightedRoundRobinSelection)
	if !ok || rp.DynamicUpstreams != nil || len(weighted.Weights) == len(rp.Upstreams) {
		return nil
	}
	return fmt.Errorf("lb_policy weighted_round_robin: %d weights for %d upstreams; want one for each, in their order", len(weighted.Weights), len(rp.Upstreams))
}

var errNoUpstream = errors.New("no upstream; want one or more, such as 127.0.0.1:9001, or 'dynamic'")

// provisionProxy loads the nested reverse_proxy with our defaults. It is loaded as a module of its own, so
// that Caddy gives it a logger and cleans it up.
func (h *Handler) provisionProxy(ctx caddy.Context) error {
	if h.ReverseProxy == nil {
		return nil
	}
	config, err := proxy.Config(h.ReverseProxy)
	if err != nil {
		return err
	}
	loaded, err := ctx.LoadModuleByID("http.handlers.reverse_proxy", config)
	if err != nil {
		return err
	}
	rp := loaded.(*reverseproxy.Handler)
	if len(rp.Upstreams) == 0 && rp.DynamicUpstreams == nil {
		return errNoUpstream
	}
	if err := checkWeights(rp); err != nil {
		return err
	}
	options := proxy.Options{Config: config, Loads: loads, Log: h.app.logger}
	if affinity, ours := rp.LoadBalancing.SelectionPolicy.(*Affinity); ours {
		options.Key = affinity.keyOf
	} else {
		rp.LoadBalancing.SelectionPolicy = proxy.AskedOnce{Selector: rp.LoadBalancing.SelectionPolicy, Loads: loads}
	}
	if transport, ok := rp.Transport.(*wholeBody); ok {
		options.Transport = transport.Transport
	}
	h.proxy = proxy.New(rp, options)
	return nil
}

// tellWay says how notifications reach the handlers.
func (h *Handler) tellWay(log *zap.Logger) {
	switch {
	case h.proxy == nil:
	case h.proxy.Why == "":
		log.Debug("handlers are asked directly", zap.String("name", h.Name))
	default:
		log.Debug("handlers are asked through Caddy's reverse_proxy", zap.String("name", h.Name), zap.String("why", h.proxy.Why))
	}
}

// wholeBody is the `http` transport, which shows net/http that a notification's body is in memory, so that
// net/http writes it together with the header. Behind reverse_proxy's wrappers net/http cannot see that,
// and would write the header first in case the body is slow to arrive. wholeBody is a module that Caddy
// loads, because active health checks start to use a transport as soon as it is loaded.
type wholeBody struct{ reverseproxy.HTTPTransport }

// CaddyModule returns the Caddy module information.
func (wholeBody) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.reverse_proxy.transport.green_api", New: func() caddy.Module { return new(wholeBody) }}
}

// RoundTrip sends a notification.
func (t *wholeBody) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := proxy.Struck(r); err != nil {
		return nil, err
	}
	return t.HTTPTransport.RoundTrip(proxy.InOnePiece(r))
}

// unmarshalProxy parses the nested reverse_proxy with Caddy's own parser.
func unmarshalProxy(h httpcaddyfile.Helper, segment *caddyfile.Dispenser) (*reverseproxy.Handler, error) {
	if err := proxy.RefuseOptions(segment, func(option string) error { return refuseNginxWord(segment, option) }); err != nil {
		return nil, err
	}
	segment.Reset()
	rp := new(reverseproxy.Handler)
	if err := rp.UnmarshalCaddyfile(segment); err != nil {
		return nil, err
	}
	return rp, rp.FinalizeUnmarshalCaddyfile(h)
}

// Affinity is the load-balancing policy `green_api`. It chooses the upstream with the fewest requests in
// flight or, with `by`, always the same one for an instance or a chat as long as it is available. Adding or
// removing one of N upstreams moves about 1/N of the instances or chats.
//
// If no upstream is healthy, it still chooses the least busy one that is not full: an undelivered
// notification blocks its whole instance, a failed health check blocks nothing.
type Affinity struct {
	// What stays with one upstream: `instance` or `chat`. A notification without a chat or instance goes to
	// the least busy upstream. Default: nothing.
	By string `json:"by,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Affinity) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.selection_policies.green_api",
		New: func() caddy.Module { return new(Affinity) },
	}
}

// Provision checks the settings.
func (a *Affinity) Provision(caddy.Context) error {
	switch a.By {
	case "", proxy.ByInstance, proxy.ByChat:
		return nil
	}
	return fmt.Errorf("lb_policy green_api: invalid value %q; want instance, chat or nothing", a.By)
}

// Select chooses an upstream, nil if all are full. Behind green_api it does not choose one that has failed
// this notification while another is left.
func (a *Affinity) Select(pool reverseproxy.UpstreamPool, r *http.Request, _ http.ResponseWriter) *reverseproxy.Upstream {
	return proxy.ChooseByKey(pool, r, a.key(r), loads)
}

// keyOf returns what must stay with one upstream, "" for nothing.
func (a *Affinity) keyOf(c *outcome.Case) string {
	switch {
	case a.By == proxy.ByInstance:
		return c.N.Instance
	case a.By == proxy.ByChat && c.N.Chat != "":
		return c.N.Instance + "\n" + c.N.Chat // the same chat in two instances is two chats
	}
	return ""
}

// key returns the same for a request, in green_api or not.
func (a *Affinity) key(r *http.Request) string {
	if a.By == "" {
		return ""
	}
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return ""
	}
	instance, _ := repl.GetString("http.green_api.instance")
	if a.By == proxy.ByInstance {
		return instance
	}
	chat, _ := repl.GetString("http.green_api.chat")
	if chat == "" {
		return ""
	}
	return instance + "\n" + chat
}

// UnmarshalCaddyfile sets up the policy from Caddyfile tokens. Syntax:
//
//	lb_policy green_api [instance|chat]
func (a *Affinity) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the policy's name
	if !d.NextArg() {
		return nil
	}
	a.By = d.Val()
	if a.By != proxy.ByInstance && a.By != proxy.ByChat {
		return d.Errf("invalid lb_policy green_api '%s'; want instance, chat or nothing", a.By)
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Affinity)(nil)
	_ reverseproxy.Selector = (*Affinity)(nil)
	_ caddyfile.Unmarshaler = (*Affinity)(nil)
)
