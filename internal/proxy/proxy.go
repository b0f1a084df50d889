package proxy

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/netip"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/exchange"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// A Proxy leads to the handlers of a block. It belongs to a reverse_proxy, which has the upstreams, their
// health and the policy. A notification goes to the chosen upstream either through that reverse_proxy or
// directly, which costs less; the handler sees no difference.
type Proxy struct {
	// Why notifications do not go directly, "" if they do.
	Why string

	rp     *reverseproxy.Handler
	loads  *Loads
	direct *direct // nil if there is Why
}

// Options are what New needs beside the reverse_proxy.
type Options struct {
	Config    json.RawMessage // of the reverse_proxy, as it was loaded
	Transport *http.Transport // as it was provisioned; nil if it is not Caddy's `http`
	Key       Key             // of the policy `green_api`; nil for another policy
	Loads     *Loads
	Log       *zap.Logger
}

// A Key returns what must stay with one upstream, "" for nothing.
type Key func(*outcome.Case) string

// New returns the way to the upstreams of a provisioned reverse_proxy.
func New(rp *reverseproxy.Handler, o Options) *Proxy {
	p := &Proxy{rp: rp, loads: o.Loads, Why: notDirectly(o.Config)}
	if p.Why != "" {
		return p
	}
	d := &direct{rp: rp, key: o.Key, loads: o.Loads, log: o.Log}
	for _, text := range rp.TrustedProxies {
		prefix, err := netip.ParsePrefix(text)
		if addr, single := netip.ParseAddr(text); err != nil && single == nil {
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		d.trusted = append(d.trusted, prefix)
	}
	if rp.Headers != nil && hasOps(rp.Headers.Request) {
		d.ops = rp.Headers.Request
	}
	for _, up := range rp.Upstreams {
		d.targets = append(d.targets, targetOf(up.Dial))
	}
	config := exchange.Config{
		Dial:      o.Transport.DialContext,
		IdleTime:  o.Transport.IdleConnTimeout,
		MaxHeader: int(o.Transport.MaxResponseHeaderBytes),
		NoGzip:    o.Transport.DisableCompression,
	}
	if t, ok := rp.Transport.(reverseproxy.TLSTransport); ok && t.TLSEnabled() {
		d.secure = true
		config.TLS, config.TLSTimeout = o.Transport.TLSClientConfig, o.Transport.TLSHandshakeTimeout
		if config.TLS == nil { // as it is without an option that changes it; to a pool, this would be no TLS
			config.TLS = new(tls.Config)
		}
	}
	if config.MaxHeader == 0 {
		config.MaxHeader = 10 << 20 // net/http's limit
	}
	d.pool = exchange.NewPool(config)
	p.direct = d
	return p
}

// An Upstream is the state of a static upstream.
type Upstream struct {
	Address     string
	NumRequests int // in flight, directly and through reverse_proxy
	Limit       int // of these: its max_requests, or the reverse_proxy's unhealthy_request_count; 0 for none
	Fails       int // that passive health checks count
	Healthy     bool
}

// Upstreams returns the static upstreams in their order.
func (p *Proxy) Upstreams() []Upstream {
	list := make([]Upstream, 0, len(p.rp.Upstreams))
	for _, up := range p.rp.Upstreams {
		list = append(list, Upstream{up.Dial, up.NumRequests() + p.loads.of(up.Dial), up.MaxRequests, up.Fails(), up.Healthy()})
	}
	return list
}

// Close closes connections that nobody uses, and has the others closed after their request.
func (p *Proxy) Close() {
	if p.direct != nil {
		p.direct.pool.Close()
	}
}

func hasOps(ops *headers.HeaderOps) bool {
	return ops != nil && len(ops.Add)+len(ops.Set)+len(ops.Delete)+len(ops.Replace) > 0
}
