package proxy

import (
	"math/rand/v2"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/cespare/xxhash/v2"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
)

// AskedOnce is a policy of Caddy's, or of anybody else, that does not choose an upstream that has
// failed this notification.
type AskedOnce struct{ reverseproxy.Selector }

// Select chooses an upstream, nil if none may be asked now.
//
// A policy may count by position, as weighted_round_robin does, so it gets the whole pool, and is asked
// again when it has chosen one that is not open: nothing that Caddy exports could show it that one as
// not available. A policy that would go on choosing it gets those that are open alone.
func (p AskedOnce) Select(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	a := delivery.TryOf(r.Context())
	if a == nil {
		return p.Selector.Select(pool, r, w)
	}
	r = withoutAsking(r)
	used, turns := pool, 2*len(pool)
	if weighted, ok := p.Selector.(*reverseproxy.WeightedRoundRobinSelection); ok && len(weighted.Weights) > 1 {
		used, turns = withWeight(pool, weighted.Weights)
	}
	return chosen(used, a.Choose(seatsOf(used), func(open []delivery.Seat) int {
		indexOf := func(up *reverseproxy.Upstream) int {
			return slices.IndexFunc(open, func(s delivery.Seat) bool { return used[s.At] == up })
		}
		for range turns {
			up := p.Selector.Select(pool, r, w)
			if up == nil {
				return -1
			}
			if i := indexOf(up); i >= 0 {
				return i
			}
		}
		if len(used) < len(pool) {
			return -1 // it would give their weights to others
		}
		left := make(reverseproxy.UpstreamPool, len(open))
		for i, s := range open {
			left[i] = used[s.At]
		}
		return indexOf(p.Selector.Select(left, r, w))
	}))
}

// withoutAsking is the request for a policy that is asked by another: it must not choose by itself, which
// takes the same lock.
func withoutAsking(r *http.Request) *http.Request {
	return r.WithContext(delivery.WithTry(r.Context(), nil))
}

// seatsOf appends the upstreams of a pool to seats.
func seatsOf(pool reverseproxy.UpstreamPool) func(to []delivery.Seat) []delivery.Seat {
	return func(to []delivery.Seat) []delivery.Seat {
		for i, up := range pool {
			to = append(to, delivery.Seat{At: i, Address: up.String(), Limit: up.MaxRequests, Requests: up.NumRequests(), Healthy: up.Healthy()})
		}
		return to
	}
}

// chosen is the upstream with a number, nil for -1.
func chosen(pool reverseproxy.UpstreamPool, at int) *reverseproxy.Upstream {
	if at < 0 {
		return nil
	}
	return pool[at]
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

// ChooseByKey chooses the upstream that has always been the one for a key, or the least busy one if the key
// is "" or none is healthy; nil if all are full. Behind green_api it does not choose one that has failed
// this notification while another is left.
func ChooseByKey(pool reverseproxy.UpstreamPool, r *http.Request, key string) *reverseproxy.Upstream {
	pick := func(open []delivery.Seat) int {
		if key != "" {
			if i := highestRandomWeight(open, key); i >= 0 {
				return i
			}
		} else if i := leastBusy(open, func(s delivery.Seat) bool { return s.Healthy }); i >= 0 {
			return i
		}
		return leastBusy(open, func(delivery.Seat) bool { return true })
	}
	if asking := delivery.TryOf(r.Context()); asking != nil {
		return chosen(pool, asking.Choose(seatsOf(pool), pick))
	}
	open := slices.DeleteFunc(seatsOf(pool)(nil), delivery.Seat.Full)
	if i := pick(open); i >= 0 {
		return chosen(pool, open[i].At)
	}
	return nil
}

// highestRandomWeight is rendezvous hashing: each key ranks all upstreams, and an upstream that
// comes or goes changes the rank of none of the others. It returns the best healthy one's index, -1 for none.
func highestRandomWeight(seats []delivery.Seat, key string) int {
	best, bestWeight := -1, uint64(0)
	for i, s := range seats {
		if !s.Healthy {
			continue
		}
		if weight := xxhash.Sum64String(s.Address + "\n" + key); best < 0 || weight > bestWeight {
			best, bestWeight = i, weight
		}
	}
	return best
}

// leastBusy is the eligible upstream with the fewest requests in flight, any one of those that are
// level: at rest, each gets its share. It returns its index, -1 for none.
func leastBusy(seats []delivery.Seat, eligible func(delivery.Seat) bool) int {
	best, fewest, level := -1, 0, 0
	for i, s := range seats {
		if !eligible(s) {
			continue
		}
		switch {
		case best < 0 || s.Requests < fewest:
			best, fewest, level = i, s.Requests, 1
		case s.Requests == fewest:
			if level++; rand.IntN(level) == 0 { //nolint:gosec // no secret
				best = i
			}
		}
	}
	return best
}
