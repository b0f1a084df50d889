package proxy

import (
	"math/rand/v2"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/cespare/xxhash/v2"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
)

// AskedOnce wraps a policy, Caddy's own or any other, so that it never chooses an upstream that has already
// failed this notification.
type AskedOnce struct {
	reverseproxy.Selector
	Loads *Loads
}

// Select chooses an upstream. It returns nil if none may be asked now.
//
// A policy may count by position, as weighted_round_robin does, so it gets the whole pool. If it chooses an
// upstream that is not open, it is asked again: Caddy exports nothing that would make that upstream look
// unavailable to it. If it keeps choosing such an upstream, it gets only the open ones.
func (p AskedOnce) Select(pool reverseproxy.UpstreamPool, r *http.Request, w http.ResponseWriter) *reverseproxy.Upstream {
	if up, ok := struck(pool, r); ok {
		return up
	}
	a := delivery.TryOf(r.Context())
	if a == nil {
		return p.Selector.Select(pool, r, w)
	}
	r = withoutAsking(r)
	used, turns := pool, 2*len(pool)
	if weighted, ok := p.Selector.(*reverseproxy.WeightedRoundRobinSelection); ok && len(weighted.Weights) > 1 {
		used, turns = withWeight(pool, weighted.Weights)
	}
	return chosen(used, a.Choose(seatsOf(used, p.Loads), func(open []delivery.Seat) int {
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
			return -1 // a shorter pool would give their weights to others
		}
		left := make(reverseproxy.UpstreamPool, len(open))
		for i, s := range open {
			left[i] = used[s.At]
		}
		return indexOf(p.Selector.Select(left, r, w))
	}))
}

// withoutAsking returns the request for an inner policy. That one must not call Choose itself, which takes
// the same lock.
func withoutAsking(r *http.Request) *http.Request {
	return r.WithContext(delivery.WithTry(r.Context(), nil))
}

// seatsOf returns a function that appends the pool's upstreams to a list of seats.
func seatsOf(pool reverseproxy.UpstreamPool, loads *Loads) func(to []delivery.Seat) []delivery.Seat {
	return func(to []delivery.Seat) []delivery.Seat { return appendSeats(to, pool, loads) }
}

func appendSeats(to []delivery.Seat, pool reverseproxy.UpstreamPool, loads *Loads) []delivery.Seat {
	for i, up := range pool {
		to = append(to, delivery.Seat{
			At: i, Address: up.Dial, Limit: up.MaxRequests, Requests: up.NumRequests() + loads.of(up.Dial), Healthy: up.Healthy(),
		})
	}
	return to
}

// chosen returns the upstream at an index, nil for -1.
func chosen(pool reverseproxy.UpstreamPool, at int) *reverseproxy.Upstream {
	if at < 0 {
		return nil
	}
	return pool[at]
}

// withWeight returns the upstreams that weighted_round_robin can choose at all, and the number of turns in
// which it gets round to each of them.
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

// ChooseByKey always chooses the same upstream for the same key. If the key is "" or no upstream is
// healthy, it chooses the least busy one; nil if all are full. Behind green_api it does not choose one that
// has failed this notification while another is left.
func ChooseByKey(pool reverseproxy.UpstreamPool, r *http.Request, key string, loads *Loads) *reverseproxy.Upstream {
	if up, ok := struck(pool, r); ok {
		return up
	}
	if t := delivery.TryOf(r.Context()); t != nil {
		return chosen(pool, t.Choose(seatsOf(pool, loads), func(open []delivery.Seat) int { return pickByKey(open, key) }))
	}
	open := slices.DeleteFunc(appendSeats(nil, pool, loads), delivery.Seat.Full)
	if i := pickByKey(open, key); i >= 0 {
		return chosen(pool, open[i].At)
	}
	return nil
}

func pickByKey(open []delivery.Seat, key string) int {
	if key != "" {
		if i := highestRandomWeight(open, key); i >= 0 {
			return i
		}
	} else if i := leastBusy(open, func(s delivery.Seat) bool { return s.Healthy }); i >= 0 {
		return i
	}
	return leastBusy(open, func(delivery.Seat) bool { return true })
}

// highestRandomWeight is rendezvous hashing: each key ranks all upstreams, and adding or removing one does
// not change how the others rank. It returns the index of the best healthy upstream, -1 if there is none.
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

// leastBusy returns the index of the eligible upstream with the fewest requests in flight, -1 if there is
// none. It picks at random among equals, so that idle upstreams share the load.
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
			if level++; rand.IntN(level) == 0 { //nolint:gosec // not a secret
				best = i
			}
		}
	}
	return best
}
