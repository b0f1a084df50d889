package greenapi

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

func pool(n int) reverseproxy.UpstreamPool {
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
		before, after := pool(n), pool(n+1)
		moved := 0
		for i := range chats {
			key := fmt.Sprintf("1101000001\n7900%07d@c.us", i)
			was, is := highestRandomWeight(before, key), highestRandomWeight(after, key)
			if was.String() == is.String() {
				continue
			}
			moved++
			if is.String() != after[n].String() {
				t.Fatalf("%q moved from %s to %s, which was there before", key, was, is)
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
	p := pool(3)
	for range 300 {
		seen[leastBusy(p, (*reverseproxy.Upstream).NumRequests, (*reverseproxy.Upstream).Available).String()]++
	}
	for name, n := range seen {
		if n < 50 {
			t.Errorf("%s: %d of 300 at rest", name, n)
		}
	}
	if len(seen) != 3 {
		t.Errorf("only %v", seen)
	}
	if up := leastBusy(p, (*reverseproxy.Upstream).NumRequests, func(*reverseproxy.Upstream) bool { return false }); up != nil {
		t.Errorf("chose %s although none is eligible", up)
	}
}

// TestAffinityThroughCaddy: a chat stays with one handler, and its neighbour may be with another;
// the least busy handler is asked when nothing needs to stay together.
func TestAffinityThroughCaddy(t *testing.T) {
	ups := []*upstream{newUpstream(t, 200, nil), newUpstream(t, 200, nil), newUpstream(t, 200, nil)}
	upstreams := ups[0].address + " " + ups[1].address + " " + ups[2].address
	e := start(t, site(loopback+"reverse_proxy "+upstreams+" {\nlb_policy green_api chat\n}"))
	for chat := range 20 {
		for range 3 {
			if status := e.post(strings.Replace(textMessage, `"chatId":"79001234568@c.us"`, fmt.Sprintf(`"chatId":"7900%d@c.us"`, chat), 1)); status != 200 {
				t.Fatalf("status %d", status)
			}
		}
	}
	homes := make(map[string]map[string]bool)
	used := 0
	for _, up := range ups {
		if len(up.requests()) > 0 {
			used++
		}
		for _, request := range up.requests() {
			_, chat, _ := strings.Cut(request.body, `"chatId":"`)
			chat, _, _ = strings.Cut(chat, `"`)
			if homes[chat] == nil {
				homes[chat] = make(map[string]bool)
			}
			homes[chat][up.address] = true
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
	a, b := newUpstream(t, 0, first), newUpstream(t, 0, first)
	t.Cleanup(release) // before the upstreams are closed, which waits for their requests
	e := start(t, site(loopback+"reverse_proxy "+a.address+" "+b.address))
	done := make(chan int, 1)
	go func() { done <- e.post(numbered("FIRST")) }()
	<-began
	busy := a
	if len(busy.requests()) == 0 {
		busy = b
	}
	for range 10 {
		if status := e.post(textMessage); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	if n := len(busy.requests()); n != 1 {
		t.Errorf("the busy handler was asked %d times", n)
	}
	release()
	if status := <-done; status != 200 {
		t.Errorf("the first one: status %d", status)
	}
}
