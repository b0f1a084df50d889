package greenapi

import (
	"context"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// askedOnce is a policy of Caddy's, or of anybody else, that does not choose an upstream that has
// failed this notification.
type askedOnce struct{ reverseproxy.Selector }

// Select chooses an upstream, nil if none may be asked now.
//
// A policy may count by position, as weighted_round_robin does, so it gets the whole pool, and is asked
// again when it has chosen one that is not open: nothing that Caddy exports could show it that one as
// not available. A policy that would go on choosing it gets those that are open alone.
func (p askedOnce) Select(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	a := askingOf(r.Context())
	if a == nil {
		return p.Selector.Select(pool, r, w)
	}
	// A policy may have another to fall back on, which must not take the same lock.
	r = r.WithContext(context.WithValue(r.Context(), askingKey{}, (*asking)(nil)))
	used, turns := pool, 2*len(pool)
	if weighted, ok := p.Selector.(*reverseproxy.WeightedRoundRobinSelection); ok && len(weighted.Weights) > 1 {
		used, turns = withWeight(pool, weighted.Weights)
	}
	return a.choose(used, func(open reverseproxy.UpstreamPool, _ func(*reverseproxy.Upstream) int) *reverseproxy.Upstream {
		for range turns {
			up := p.Selector.Select(pool, r, w)
			if up == nil || slices.Contains(open, up) {
				return up
			}
		}
		if len(used) < len(pool) {
			return nil // it would give their weights to others
		}
		return p.Selector.Select(open, r, w)
	})
}

// withWeight are the upstreams that weighted_round_robin ever chooses, and after how many turns it has come to
// each of them.
func withWeight(pool reverseproxy.UpstreamPool, weights []int) (used reverseproxy.UpstreamPool, turns int) {
	const most = 10_000
	for i, up := range pool {
		if i < len(weights) && weights[i] > 0 {
			used = append(used, up)
			turns += min(weights[i], most)
		}
	}
	return used, min(turns, most)
}
