package greenapi

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/net/dns/dnsmessage"

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
	e := edgetest.Start(t, edgetest.SiteWith("order test_turnstile before reverse_proxy", "green_api {\n"+edgetest.Loopback+"deliver {\ntimeout 1s\n}\n}\ntest_turnstile\nreverse_proxy "+up.Address+" {\nlb_policy green_api\n}\n"))
	if status := e.Post(edgetest.TextMessage); status != 503 {
		t.Errorf("status %d", status)
	}
	if n := turnstilePassed.Load(); n < 3 || n > 20 {
		t.Errorf("asked %d times in a second", n)
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
	up := edgetest.Script(t, "503 Retry-After: 1", "200")
	e := edgetest.Start(t, edgetest.SiteWith("", "green_api {\n"+edgetest.Loopback+"}\nreverse_proxy "+up.Address+"\n"))
	began := time.Now()
	if status := e.Post(edgetest.TextMessage); status != 200 || time.Since(began) < time.Second {
		t.Errorf("behind the block: status %d after %s", status, time.Since(began))
	}
}

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
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address+" {\nunhealthy_request_count "+fmt.Sprint(places)+"\n}"))
	fleet := holdFleet(defaultName)
	defer releaseFleet(defaultName)
	answers := make(chan int, notifications)
	for i := range notifications {
		go func() { answers <- e.Post(edgetest.Numbered(fmt.Sprint("N", i))) }()
		edgetest.Eventually(t, "place in line", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return fleet.Waits()+len(order) > i
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
	edgetest.Eventually(t, "free places", func() bool {
		return fleet.Waits() == 0
	})
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

// TestLoopReload: what waits is delivered through the config that runs, not the one it came to.
func TestLoopReload(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	gone := "127.0.0.1:" + edgetest.FreePort(t)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+gone))
	answer := make(chan int)
	go func() { answer <- e.Post(edgetest.TextMessage) }()
	fleet := holdFleet(defaultName)
	defer releaseFleet(defaultName)
	edgetest.Eventually(t, "waiting", func() bool {
		return fleet.Waits() == 1
	})
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

// warnSoon lets the operator hear sooner of a notification that waits.
func warnSoon() {
	holdFleet(defaultName).newest.Load().limits.WarnAfter = 200 * time.Millisecond
	_ = releaseFleet(defaultName)
}

// TestLoopWarns: the operator hears of a notification that waits, once.
func TestLoopWarns(t *testing.T) {
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 700ms\n}\nreverse_proxy 127.0.0.1:"+edgetest.FreePort(t)))
	warnSoon()
	if status := e.Post(edgetest.TextMessage); status != 503 {
		t.Errorf("status %d", status)
	}
	records := e.Logs.Records(t)
	if len(records) != 2 {
		t.Fatalf("%d records", len(records))
	}
	if first := records[0]; first["msg"] != "notification waits for a handler" || first["level"] != "warn" ||
		first.Text("instance") != "1101000001" || first["attempts"].(float64) < 3 {
		t.Errorf("%v", first)
	}
	if last := records[1]; last["level"] != "error" || last["reason"] != "not_now" {
		t.Errorf("%v", last)
	}
}

// TestUpstreams: each kind of upstream that reverse_proxy knows works inside the block.
func TestUpstreams(t *testing.T) {
	plain := edgetest.NewUpstream(t, 200, nil)
	_, port, _ := strings.Cut(plain.Address, ":")
	secure := edgetest.NewUpstream(t, 200, nil)
	tls := httptest.NewTLSServer(secure.Config.Handler)
	t.Cleanup(tls.Close)
	socket := t.TempDir() + "/handler.sock"
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	local := edgetest.NewUpstream(t, 200, nil)
	go http.Serve(listener, local.Config.Handler)
	t.Cleanup(func() { listener.Close() })

	names := "resolvers " + nameServer(t, port)
	for _, test := range []struct {
		name, block string
		up          *edgetest.Upstream
	}{
		{"dynamic a", "{\ndynamic a handlers.test " + port + " {\n" + names + "\n}\n}", plain},
		{"dynamic srv", "{\ndynamic srv _webhook._tcp.handlers.test {\n" + names + "\n}\ntransport http {\n" + names + "\n}\n}", plain},
		{"https", "https://" + tls.Listener.Addr().String() + " {\ntransport http {\ntls_insecure_skip_verify\n}\n}", secure},
		{"unix socket", "unix/" + socket, local},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := len(test.up.Requests())
			e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 5s\n}\nreverse_proxy "+test.block))
			if status := e.Post(edgetest.TextMessage); status != 200 {
				t.Errorf("status %d: %s", status, e.Logs.All())
			}
			if n := len(test.up.Requests()) - before; n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

// nameServer is a name server that knows one handler, on this machine.
func nameServer(t *testing.T, port string) string {
	t.Helper()
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			var message dnsmessage.Message
			if message.Unpack(buffer[:n]) != nil || len(message.Questions) != 1 {
				continue
			}
			message.Response = true
			message.Additionals = nil
			question := message.Questions[0]
			answer := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 60}}
			switch question.Type {
			case dnsmessage.TypeSRV:
				answer.Body = &dnsmessage.SRVResource{Port: uint16(number), Target: dnsmessage.MustNewName("handler-1.test.")}
			case dnsmessage.TypeA:
				answer.Body = &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}
			}
			if answer.Body != nil {
				message.Answers = []dnsmessage.Resource{answer}
			}
			if answer, err := message.Pack(); err == nil {
				conn.WriteTo(answer, from)
			}
		}
	}()
	return conn.LocalAddr().String()
}

// TestHealthChecks: a handler that fails Caddy's active check is not asked, one that fails passively
// is asked only if no other is left.
func TestHealthChecks(t *testing.T) {
	var sick atomic.Bool
	checked := make(chan struct{}, 100)
	a := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			if sick.Load() {
				w.WriteHeader(500)
			}
			checked <- struct{}{}
		}
	})
	b := edgetest.NewUpstream(t, 200, nil)
	sick.Store(true)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+a.Address+" "+b.Address+" {\nlb_policy first\nhealth_uri /health\nhealth_interval 20ms\n}"))
	<-checked
	<-checked
	count := func() (n int) {
		for _, request := range a.Requests() {
			if request.Path != "/health" {
				n++
			}
		}
		return n
	}
	for i := range 5 {
		if status := e.Post(edgetest.Numbered(fmt.Sprint("SICK", i))); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	if n := count(); n != 0 {
		t.Errorf("a sick handler was asked %d times", n)
	}
	sick.Store(false)
	edgetest.Eventually(t, "asked again", func() bool {
		e.Post(edgetest.Numbered(fmt.Sprint("WELL", time.Now().UnixNano())))
		return count() > 0
	})

	down, flaky := edgetest.Script(t, "down"), edgetest.Script(t, "503", "503", "503", "200")
	e = edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+down.Address+" "+flaky.Address+" {\nfail_duration 1m\nmax_fails 1\n}"))
	for i := range 5 {
		if status := e.Post(edgetest.Numbered(fmt.Sprint("P", i))); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	sleeper := edgetest.Script(t, "break", "200")
	e = edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+sleeper.Address+" {\nfail_duration 1m\nmax_fails 1\n}"))
	if status := e.Post(edgetest.TextMessage); status != 200 {
		t.Errorf("the only handler, unhealthy: status %d", status)
	}
}
