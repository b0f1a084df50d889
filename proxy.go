package greenapi

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/greenapi-community/caddy-green-api/internal/proxy"
)

func init() {
	caddy.RegisterModule(wholeBody{})
}

var errNoUpstream = errors.New("no upstream; want one or more, such as 127.0.0.1:9001, or 'dynamic'")

// provisionProxy loads the nested reverse_proxy with our defaults. It is loaded as a module of its
// own, so that Caddy gives it its logger and cleans it up.
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
	if _, ours := rp.LoadBalancing.SelectionPolicy.(*Affinity); !ours {
		rp.LoadBalancing.SelectionPolicy = proxy.AskedOnce{Selector: rp.LoadBalancing.SelectionPolicy}
	}
	h.proxy = rp
	return nil
}

// wholeBody is the transport `http`, which is shown that a notification's body is in memory: net/http
// then writes it together with the header. Behind the wrappers of reverse_proxy it cannot see that,
// and writes the header first, in case that the body is long in coming. It is a module for Caddy to
// load: active health checks begin to use a transport as soon as it is loaded.
type wholeBody struct{ reverseproxy.HTTPTransport }

// CaddyModule returns the Caddy module information.
func (wholeBody) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.reverse_proxy.transport.green_api", New: func() caddy.Module { return new(wholeBody) }}
}

// RoundTrip sends a notification.
func (t *wholeBody) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.HTTPTransport.RoundTrip(proxy.InOnePiece(r))
}

// unmarshalProxy parses the nested reverse_proxy with Caddy's own parser.
func unmarshalProxy(h httpcaddyfile.Helper, segment *caddyfile.Dispenser) (*reverseproxy.Handler, error) {
	if err := proxy.RefuseOptions(segment); err != nil {
		return nil, err
	}
	segment.Reset()
	rp := new(reverseproxy.Handler)
	if err := rp.UnmarshalCaddyfile(segment); err != nil {
		return nil, err
	}
	return rp, rp.FinalizeUnmarshalCaddyfile(h)
}
