package proxy

import (
	"context"
	"maps"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"
)

// A strike is a failure of an upstream that reverse_proxy is to count. It exports nothing for that, so it is
// given a request that fails: the policy chooses the upstream, and the transport returns the error. So
// `fail_duration` and `max_fails`, /reverse_proxy/upstreams and the metrics are Caddy's own.
type strike struct {
	upstream string
	err      error
	host     *reverseproxy.Host // of the upstream; set by the policy
}

type strikeKey struct{}

func strikeOf(ctx context.Context) *strike {
	s, _ := ctx.Value(strikeKey{}).(*strike)
	return s
}

// longestStrike limits how long a strike takes: reverse_proxy looks dynamic upstreams up again, usually in its
// cache.
const longestStrike = time.Second

// strike has reverse_proxy count a failure. At level DEBUG, that logs a roundtrip of its own.
func (d *direct) strike(base *http.Request, upstream string, err error) {
	defer func() {
		if p := recover(); p != nil { // a source of dynamic upstreams
			d.log.Error("panic in the handlers behind green_api", zap.Any("panic", p), zap.Stack("stack"))
		}
	}()
	s := &strike{upstream: upstream, err: err}
	own := caddy.NewEmptyReplacer() // takes what reverse_proxy sets
	own.Map(replacerOf(base.Context()).Get)
	vars, _ := base.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(base.Context()), longestStrike)
	defer cancel()
	ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, maps.Clone(vars))
	ctx = context.WithValue(ctx, caddy.ReplacerCtxKey, own)
	r := base.Clone(context.WithValue(ctx, strikeKey{}, s))
	r.Body, r.ContentLength = http.NoBody, 0
	_ = d.rp.ServeHTTP(unread{header: make(http.Header)}, r, nil) // the error is s.err
	if d.rp.DynamicUpstreams == nil || s.host == nil {
		return
	}
	d.failing.Range(func(address, host any) bool {
		if host.(*reverseproxy.Host).Fails() == 0 {
			d.failing.CompareAndDelete(address, host)
		}
		return true
	})
	d.failing.Store(upstream, s.host)
}

// struck returns the upstream that a request is a strike against. It reports false for any other request.
func struck(pool reverseproxy.UpstreamPool, r *http.Request) (*reverseproxy.Upstream, bool) {
	s := strikeOf(r.Context())
	if s == nil {
		return nil, false
	}
	for _, up := range pool {
		if up.Dial == s.upstream {
			s.host = up.Host
			return up, true
		}
	}
	return nil, true // it is gone
}

// Struck returns the error that a transport must return at once, nil if the request is for a handler.
func Struck(r *http.Request) error {
	if s := strikeOf(r.Context()); s != nil {
		return s.err
	}
	return nil
}
