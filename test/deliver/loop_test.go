package deliver

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestLoop asks real handlers; internal/delivery has the whole table of what they may do. lb_policy first
// makes them be asked in order.
func TestLoop(t *testing.T) {
	for _, test := range []struct {
		name     string
		handlers [][]string
		options  string
		status   int
		reason   string
		asked    []int // how often each handler is; -1 for more than once
	}{
		{"not reachable: to the end", [][]string{{"down"}, {"down"}}, "timeout 500ms", 503, "not_now", []int{0, 0}},
		{"broken off: a single handler is asked again", [][]string{{"break", "200"}}, "", 200, "", []int{2}},
		{"timed out: a second opinion", [][]string{{"hang"}, {"200"}}, "attempt_timeout 200ms", 200, "", []int{1, 1}},
		{"refused: the second opinion too", [][]string{{"422"}, {"400"}, {"200"}}, "", 502, "handler_refused", []int{1, 1, 0}},
		{"all of it", [][]string{{"503"}, {"down"}, {"500"}, {"404"}, {"break"}, {"202"}}, "", 200, "", []int{1, 0, 1, 1, 1, 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var handlers []*edgetest.Upstream
			var addresses string
			for _, steps := range test.handlers {
				up := edgetest.Script(t, steps...)
				handlers, addresses = append(handlers, up), addresses+" "+up.Address
			}
			e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\n"+test.options+"\n}\nreverse_proxy"+addresses+" {\nlb_policy first\n}"))
			if status := e.Post(edgetest.TextMessage); status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			for i, up := range handlers {
				requests := up.Requests()
				if n := len(requests); n != test.asked[i] && (test.asked[i] >= 0 || n < 2) {
					t.Errorf("handler %d was asked %d times, want %d", i, n, test.asked[i])
				}
				for _, request := range requests {
					if request.Body != edgetest.TextMessage {
						t.Errorf("handler %d got %q", i, request.Body)
					}
				}
			}
			e.WantRecord("reason", test.reason)
			if n := len(e.Logs.Records(t)); n != 1 {
				t.Errorf("%d records", n)
			}
		})
	}
}

// TestLoopStockPolicies: no policy of Caddy's sends a notification to a handler that has failed it.
func TestLoopStockPolicies(t *testing.T) {
	for _, policy := range []string{"random", "least_conn", "round_robin", "first", "ip_hash", "uri_hash", "weighted_round_robin 5 1 1", "header X-None {\nfallback green_api\n}", "green_api", "green_api chat"} {
		name, _, _ := strings.Cut(policy, "{")
		t.Run(name, func(t *testing.T) {
			a, b, c := edgetest.Script(t, "500"), edgetest.Script(t, "break"), edgetest.Script(t, "200")
			e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+a.Address+" "+b.Address+" "+c.Address+" {\nlb_policy "+policy+"\n}"))
			for i := range 10 {
				if status := e.Post(edgetest.Numbered(fmt.Sprint("N", i))); status != 200 {
					t.Fatalf("status %d", status)
				}
			}
			for _, up := range []*edgetest.Upstream{a, b} {
				asked := make(map[string]bool)
				for _, request := range up.Requests() {
					if asked[request.Body] {
						t.Error("a failed handler was asked again")
					}
					asked[request.Body] = true
				}
			}
			if n := len(c.Requests()); n != 10 {
				t.Errorf("%d of 10 delivered", n)
			}
		})
	}
}

// TestLoopBehindTheGate: lb_policy green_api works in a reverse_proxy further on, too, and one
// without it is asked again as far as that makes sense.
func TestLoopBehindTheGate(t *testing.T) {
	a, b := edgetest.Script(t, "500"), edgetest.Script(t, "200")
	e := edgetest.Start(t, edgetest.SiteWith("", "green_api {\n"+edgetest.Loopback+"}\nreverse_proxy "+a.Address+" "+b.Address+" {\nlb_policy green_api\n}\n"))
	for i := range 10 {
		if status := e.Post(edgetest.Numbered(fmt.Sprint("N", i))); status != 200 {
			t.Errorf("with the policy: status %d", status)
		}
	}
	busy := edgetest.Script(t, "503", "503", "200")
	e = edgetest.Start(t, edgetest.SiteWith("", "green_api {\n"+edgetest.Loopback+"}\nreverse_proxy "+busy.Address+"\n"))
	if status := e.Post(edgetest.TextMessage); status != 200 {
		t.Errorf("without: status %d", status)
	}
	busy = edgetest.Script(t, "503", "200")
	e = edgetest.Start(t, edgetest.SiteWith("", "green_api {\n"+edgetest.Loopback+"}\nhandle /green-api/* {\nreverse_proxy "+busy.Address+"\n}\nhandle {\nrespond 404\n}\n"))
	if status := e.Post(edgetest.TextMessage); status != 200 {
		t.Errorf("in a handle block: status %d", status)
	}
	poison := edgetest.Script(t, "500")
	e = edgetest.Start(t, edgetest.SiteWith("", "green_api {\n"+edgetest.Loopback+"}\nreverse_proxy "+poison.Address+"\n"))
	if status := e.Post(edgetest.TextMessage); status != 502 {
		t.Errorf("without, 500: status %d", status)
	}
	if n := len(poison.Requests()); n > 2 {
		t.Errorf("without, 500: asked %d times", n)
	}
}

// turnstile lets the first request through and answers all others 503.
type turnstile struct{ passed *atomic.Int64 }

func init() {
	caddy.RegisterModule(turnstile{})
	httpcaddyfile.RegisterHandlerDirective("test_turnstile", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return new(turnstile), nil
	})
}

func (turnstile) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_turnstile", New: func() caddy.Module { return new(turnstile) }}
}

func (s *turnstile) Provision(caddy.Context) error {
	s.passed = &turnstilePassed
	s.passed.Store(0)
	return nil
}

var turnstilePassed atomic.Int64

func (s turnstile) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if s.passed.Add(1) == 1 {
		return next.ServeHTTP(w, r)
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	return nil
}

// TestLoopNoHotLoop: a handler of the route that fails before any policy is asked is asked again
// after a pause, even if the policy was asked before.
func TestLoopNoHotLoop(t *testing.T) {
	up := edgetest.Script(t, "503")
	e := edgetest.Start(t, edgetest.SiteWith("order test_turnstile before reverse_proxy", "green_api {\n"+edgetest.Loopback+"deliver {\ntimeout 600ms\n}\n}\ntest_turnstile\nreverse_proxy "+up.Address+" {\nlb_policy green_api\n}\n"))
	if status := e.Post(edgetest.TextMessage); status != 503 {
		t.Errorf("status %d", status)
	}
	if n := turnstilePassed.Load(); n < 3 || n > 10 {
		t.Errorf("asked %d times in 600 ms", n)
	}
}

// TestLoopRetryAfter: who asks for time gets it, but no notification waits for what comes too late.
func TestLoopRetryAfter(t *testing.T) {
	for name, config := range map[string]string{
		"in the block":          edgetest.Site(edgetest.Loopback + "reverse_proxy HANDLER"),
		"behind it, any policy": edgetest.SiteWith("", "green_api {\n"+edgetest.Loopback+"}\nreverse_proxy HANDLER\n"),
	} {
		up := edgetest.Script(t, "503 Retry-After: 3600")
		e := edgetest.Start(t, strings.ReplaceAll(config, "HANDLER", up.Address))
		began := time.Now()
		if status := e.Post(edgetest.TextMessage); status != 503 {
			t.Errorf("%s: status %d", name, status)
		}
		if took := time.Since(began); took > 5*time.Second || len(up.Requests()) != 1 {
			t.Errorf("%s: asked %d times in %s", name, len(up.Requests()), took)
		}
	}
}

// TestLoopReload: what waits is delivered through the config that runs, not the one it came to.
func TestLoopReload(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	gone := "127.0.0.1:" + edgetest.FreePort(t)
	e := edgetest.Start(t, counting(edgetest.Loopback+"reverse_proxy "+gone))
	answer := make(chan int)
	go func() { answer <- e.Post(edgetest.TextMessage) }()
	edgetest.Eventually(t, "waiting", func() bool { return waits(e) == 1 })
	if err := e.Load(edgetest.Site(edgetest.Loopback + "reverse_proxy " + up.Address)); err != nil {
		t.Fatal(err)
	}
	if status := <-answer; status != 200 {
		t.Errorf("status %d", status)
	}
	// A config that does not load leaves the running one where it is.
	if err := e.Load(edgetest.Site(edgetest.Loopback+"reverse_proxy "+gone) + "http://:" + e.Port + " {\nbind 192.0.2.1\n}\n"); err == nil {
		t.Error("loads")
	}
	edgetest.Eventually(t, "delivery after a failed reload", func() bool {
		r, err := http.NewRequest(http.MethodPost, e.URL, strings.NewReader(edgetest.Numbered("AFTER")))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+edgetest.Token)
		response, err := edgetest.Client.Do(r)
		if err != nil {
			return false // a connection to the socket of the config that failed
		}
		response.Body.Close()
		return response.StatusCode == 200
	})
}
