package greenapi

import (
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/greenapi-community/caddy-green-api/internal/proxy"
)

func init() {
	caddy.RegisterModule(Affinity{})
}

// Affinity is the load-balancing policy `green_api`: the upstream with the fewest requests in
// flight or, with `by`, always the same one for an instance or a chat, as long as it is available.
// Adding or removing one of N upstreams moves about 1/N of the instances or chats.
//
// When no upstream is healthy, the least busy one that is not full is asked all the same: a
// notification that is not delivered makes its instance wait, a health mark does not.
type Affinity struct {
	// What stays with one upstream: `instance` or `chat`. A notification that has none goes to the
	// least busy upstream. Default: nothing.
	By string `json:"by,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Affinity) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.selection_policies.green_api",
		New: func() caddy.Module { return new(Affinity) },
	}
}

// Provision checks what is to stay together.
func (a *Affinity) Provision(caddy.Context) error {
	switch a.By {
	case "", proxy.ByInstance, proxy.ByChat:
		return nil
	}
	return fmt.Errorf("lb_policy green_api: invalid value %q; want instance, chat or nothing", a.By)
}

// Select chooses an upstream, nil if all are full. Behind green_api it does not choose one that
// has failed this notification while another is left.
func (a *Affinity) Select(pool reverseproxy.UpstreamPool, r *http.Request, _ http.ResponseWriter) *reverseproxy.Upstream {
	return proxy.ChooseByKey(pool, r, a.key(r))
}

// key is what must stay with one upstream, "" for nothing.
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
	return instance + "\n" + chat // a chat with two instances is two chats
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
