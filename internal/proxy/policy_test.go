package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

func somePool(n int) reverseproxy.UpstreamPool {
	var pool reverseproxy.UpstreamPool
	for i := range n {
		pool = append(pool, &reverseproxy.Upstream{Host: new(reverseproxy.Host), Dial: fmt.Sprintf("handler-%d:8080", i)})
	}
	return pool
}

// TestAffinityMoves: another handler takes its share of the chats, and no other chat moves.
func TestAffinityMoves(t *testing.T) {
	const chats = 10_000
	for _, n := range []int{2, 3, 10} {
		before, after := appendSeats(nil, somePool(n), NewLoads()), appendSeats(nil, somePool(n+1), NewLoads())
		moved := 0
		for i := range chats {
			key := fmt.Sprintf("1101000001\n7900%07d@c.us", i)
			was, is := before[highestRandomWeight(before, key)], after[highestRandomWeight(after, key)]
			if was.Address == is.Address {
				continue
			}
			moved++
			if is.Address != after[n].Address {
				t.Fatalf("%q moved from %s to %s, which was there before", key, was.Address, is.Address)
			}
		}
		share := chats / (n + 1)
		if moved < share*8/10 || moved > share*12/10 {
			t.Errorf("%d to %d handlers: %d of %d chats moved, want about %d", n, n+1, moved, chats, share)
		}
	}
}

func TestAffinityLeastBusy(t *testing.T) {
	seen := make(map[string]int)
	p := appendSeats(nil, somePool(3), NewLoads())
	for range 300 {
		seen[p[leastBusy(p, func(delivery.Seat) bool { return true })].Address]++
	}
	for name, n := range seen {
		if n < 50 {
			t.Errorf("%s: %d of 300 at rest", name, n)
		}
	}
	if len(seen) != 3 {
		t.Errorf("only %v", seen)
	}
	if up := leastBusy(p, func(delivery.Seat) bool { return false }); up >= 0 {
		t.Errorf("chose %s although none is eligible", p[up].Address)
	}
}

// TestPositions: every policy of Caddy's chooses among those that are open, and only them.
func TestPositions(t *testing.T) {
	whole := somePool(4)
	weighted := &reverseproxy.WeightedRoundRobinSelection{Weights: []int{5, 0, 3, 1}}
	if err := weighted.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	for name, policy := range map[string]reverseproxy.Selector{
		"first": reverseproxy.FirstSelection{}, "random": reverseproxy.RandomSelection{}, "least_conn": reverseproxy.LeastConnSelection{},
		"round_robin": new(reverseproxy.RoundRobinSelection), "ip_hash": reverseproxy.IPHashSelection{}, "weighted": weighted,
		"random_choose": reverseproxy.RandomChoiceSelection{Choose: 2},
	} {
		chosen := make(map[string]int)
		for range 300 {
			var up *reverseproxy.Upstream
			attempts := 0
			limits, hooks := delivery.DefaultLimits(), delivery.Hooks{Attempted: func(*outcome.Case, delivery.Answer) {}}
			limits.Timeout, limits.AttemptTimeout = time.Minute, time.Minute
			delivery.NewFleet(nil).Replay(&outcome.Case{Started: time.Now()}, wayFunc(func(t *delivery.Try) delivery.Answer {
				r := httptest.NewRequest(http.MethodPost, "/", nil)
				r = r.WithContext(delivery.WithTry(r.Context(), t))
				if attempts++; attempts == 1 { // the first upstream fails it
					AskedOnce{reverseproxy.FirstSelection{}, NewLoads()}.Select(whole, r, nil)
					return delivery.Answer{Result: delivery.HandlerError}
				}
				up = AskedOnce{policy, NewLoads()}.Select(whole, r, nil)
				return delivery.Answer{Result: delivery.Taken}
			}), &limits, &hooks)
			if up == nil {
				t.Fatalf("%s: chose none", name)
			}
			chosen[up.String()]++
		}
		if chosen[whole[0].String()] > 0 || name == "weighted" && chosen[whole[1].String()] > 0 {
			t.Errorf("%s: %v", name, chosen)
		}
	}
}

type wayFunc func(*delivery.Try) delivery.Answer

func (f wayFunc) Attempt(_ time.Time, t *delivery.Try) delivery.Answer { return f(t) }
