package deliver

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

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

// TestLoadOfOthers: the requests that another block has with a handler count, too.
func TestLoadOfOthers(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	one := edgetest.NewUpstream(t, 0, func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/other") {
			close(began)
			<-goOn
		}
	})
	two := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.SiteWith("", "green_api /green-api/webhook* {\n"+edgetest.Loopback+"reverse_proxy "+one.Address+" "+two.Address+"\n}\n"+
		"green_api /other {\nname other\n"+edgetest.Loopback+"reverse_proxy "+one.Address+"\n}\nrespond 404\n"))
	answer := make(chan int)
	go func() {
		answer <- e.Send(http.MethodPost, "http://127.0.0.1:"+e.Port+"/other", strings.NewReader(edgetest.TextMessage)).StatusCode
	}()
	<-began
	for i := range 10 {
		if status := e.Post(edgetest.Numbered(fmt.Sprint("N", i))); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	close(goOn)
	if status := <-answer; status != 200 {
		t.Errorf("the other block's: status %d", status)
	}
	if n := len(one.Requests()); n != 1 {
		t.Errorf("the busy handler was asked %d times more", n-1)
	}
}
