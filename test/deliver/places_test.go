package deliver

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestBackPressure: a handler never has more than max_requests, what is above waits, and those that
// wait are served in the order in which they came.
func TestBackPressure(t *testing.T) {
	const places, notifications = 1, 30 // with more, two that were called may overtake each other
	var mu sync.Mutex
	var now, most int
	var order []string
	release := make(chan struct{})
	up := edgetest.NewUpstream(t, 0, nil)
	up.Config.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		now++
		most = max(most, now)
		order = append(order, string(body))
		mu.Unlock()
		<-release
		mu.Lock()
		now--
		mu.Unlock()
	})
	e := edgetest.Start(t, counting(edgetest.Loopback+"reverse_proxy "+up.Address+" {\nunhealthy_request_count "+fmt.Sprint(places)+"\n}"))
	answers := make(chan int, notifications)
	for i := range notifications {
		go func() { answers <- e.Post(edgetest.Numbered(fmt.Sprint("N", i))) }()
		edgetest.Eventually(t, "place in line", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return waits(e)+len(order) > i
		})
	}
	for range notifications {
		release <- struct{}{}
		if status := <-answers; status != 200 {
			t.Errorf("status %d", status)
		}
	}
	if most != places {
		t.Errorf("%d at once, want %d", most, places)
	}
	for i, body := range order {
		if body != edgetest.Numbered(fmt.Sprint("N", i)) {
			t.Errorf("%d. is %s", i, body)
		}
	}
	edgetest.Eventually(t, "free places", func() bool { return waits(e) == 0 })
}

// TestBackPressureStorm: with many at once no handler gets more than it may, and no place is lost.
func TestBackPressureStorm(t *testing.T) {
	const places, senders, each = 3, 50, 20
	var most atomic.Int64
	busy := func() http.HandlerFunc {
		var now atomic.Int64
		return func(http.ResponseWriter, *http.Request) {
			for n := now.Add(1); n > most.Load(); {
				most.Store(n)
			}
			time.Sleep(time.Millisecond)
			now.Add(-1)
		}
	}
	a, b := edgetest.NewUpstream(t, 0, busy()), edgetest.NewUpstream(t, 0, busy())
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+a.Address+" "+b.Address+" {\nunhealthy_request_count "+fmt.Sprint(places)+"\n}"))
	var group sync.WaitGroup
	for sender := range senders {
		group.Go(func() {
			for i := range each {
				if status := e.Post(edgetest.Numbered(fmt.Sprintf("S%d-%d", sender, i))); status != 200 {
					t.Errorf("status %d", status)
				}
			}
		})
	}
	group.Wait()
	if most.Load() > places {
		t.Errorf("%d at once, want at most %d", most.Load(), places)
	}
	if n := len(a.Requests()) + len(b.Requests()); n != senders*each {
		t.Errorf("%d delivered, want %d", n, senders*each)
	}
}
