package greenapi

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
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
		before, after := seatsOf(somePool(n))(nil), seatsOf(somePool(n+1))(nil)
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
	p := seatsOf(somePool(3))(nil)
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

// TestAffinityThroughCaddy: a chat stays with one handler, and its neighbour may be with another;
// the least busy handler is asked when nothing needs to stay together.
func TestAffinityThroughCaddy(t *testing.T) {
	ups := []*edgetest.Upstream{edgetest.NewUpstream(t, 200, nil), edgetest.NewUpstream(t, 200, nil), edgetest.NewUpstream(t, 200, nil)}
	upstreams := ups[0].Address + " " + ups[1].Address + " " + ups[2].Address
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+upstreams+" {\nlb_policy green_api chat\n}"))
	for chat := range 20 {
		for range 3 {
			if status := e.Post(strings.Replace(edgetest.TextMessage, `"chatId":"79001234568@c.us"`, fmt.Sprintf(`"chatId":"7900%d@c.us"`, chat), 1)); status != 200 {
				t.Fatalf("status %d", status)
			}
		}
	}
	homes := make(map[string]map[string]bool)
	used := 0
	for _, up := range ups {
		if len(up.Requests()) > 0 {
			used++
		}
		for _, request := range up.Requests() {
			_, chat, _ := strings.Cut(request.Body, `"chatId":"`)
			chat, _, _ = strings.Cut(chat, `"`)
			if homes[chat] == nil {
				homes[chat] = make(map[string]bool)
			}
			homes[chat][up.Address] = true
		}
	}
	for chat, handlers := range homes {
		if len(handlers) != 1 {
			t.Errorf("chat %s went to %d handlers", chat, len(handlers))
		}
	}
	if used < 2 || len(homes) != 20 {
		t.Errorf("%d handlers took %d chats", used, len(homes))
	}
}

// TestAffinityAvoidsTheBusy: while one handler is at work, the other is asked.
func TestAffinityAvoidsTheBusy(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(goOn) })
	var taken atomic.Bool
	first := func(http.ResponseWriter, *http.Request) {
		if !taken.Swap(true) {
			close(began)
			<-goOn
		}
	}
	a, b := edgetest.NewUpstream(t, 0, first), edgetest.NewUpstream(t, 0, first)
	t.Cleanup(release) // before the upstreams are closed, which waits for their requests
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+a.Address+" "+b.Address))
	done := make(chan int, 1)
	go func() { done <- e.Post(edgetest.Numbered("FIRST")) }()
	<-began
	busy := a
	if len(busy.Requests()) == 0 {
		busy = b
	}
	for range 10 {
		if status := e.Post(edgetest.TextMessage); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	if n := len(busy.Requests()); n != 1 {
		t.Errorf("the busy handler was asked %d times", n)
	}
	release()
	if status := <-done; status != 200 {
		t.Errorf("the first one: status %d", status)
	}
}

// TestWeights: who is drained by a weight of 0 gets nothing, and the others' weights stay theirs, also while one
// of them fails.
func TestWeights(t *testing.T) {
	for _, test := range []struct {
		weights  string
		handlers []string
		status   int
		asked    []int
	}{
		{"1 0 1", []string{"500", "200", "200"}, 200, []int{19, 0, 20}}, // its next turn is always the failing one's
		{"1 0 1", []string{"200", "200", "down"}, 200, []int{20, 0, 0}},
		{"1 0", []string{"500", "200"}, 502, []int{20, 0}},
		{"0 3 0 1", []string{"200", "500", "200", "200"}, 200, []int{0, 15, 0, 20}},
		{"3 1", []string{"200", "200"}, 200, []int{15, 5}},
		{"1", []string{"500", "200"}, 200, []int{20, 20}},
	} {
		t.Run(test.weights+" "+strings.Join(test.handlers, " "), func(t *testing.T) {
			var ups []*edgetest.Upstream
			var addresses string
			for _, answer := range test.handlers {
				up := edgetest.Script(t, answer)
				ups, addresses = append(ups, up), addresses+" "+up.Address
			}
			e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ndead_letter off\n}\nreverse_proxy"+addresses+" {\nlb_policy weighted_round_robin "+test.weights+"\nmax_fails 1000\n}"))
			for i := range 20 {
				if status := e.Post(edgetest.Numbered(fmt.Sprint("N", i))); status != test.status {
					t.Fatalf("status %d", status)
				}
			}
			for i, up := range ups {
				if n := len(up.Requests()); n < test.asked[i]-6 || n > test.asked[i]+6 || test.asked[i] == 0 && n > 0 {
					t.Errorf("handler %d was asked %d times, want about %d", i, n, test.asked[i])
				}
			}
		})
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
			delivery.NewFleet(nil).Replay(t.Context(), &outcome.Case{Started: time.Now()}, wayFunc(func(ctx context.Context, _ *delivery.Try) delivery.Answer {
				r := httptest.NewRequest(http.MethodPost, "/", nil).WithContext(ctx)
				if attempts++; attempts == 1 { // the first upstream fails it
					askedOnce{reverseproxy.FirstSelection{}}.Select(whole, r, nil)
					return delivery.Answer{Result: delivery.HandlerError}
				}
				up = askedOnce{policy}.Select(whole, r, nil)
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

type wayFunc func(context.Context, *delivery.Try) delivery.Answer

func (f wayFunc) Attempt(ctx context.Context, a *delivery.Try) delivery.Answer { return f(ctx, a) }
