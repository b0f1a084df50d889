package greenapi

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/drain"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

const nameIsAnothers = "a green_api block has the name that another one had before"

// TestTakeOver: what waits goes on through the newest block of its name if that one would have let it
// in, and else stays with the handlers of its own.
func TestTakeOver(t *testing.T) {
	for _, test := range []struct {
		name, auth  string
		taken, warn bool
	}{
		{"the same token", "token TOKEN", true, false},
		{"another one beside it", "token other TOKEN", true, false},
		{"for the instance alone", "instance 1101000001 TOKEN", true, false},
		{"off", "off", true, false},
		{"report_only", "token other\nreport_only", true, false},
		{"another token", "token other", false, true},
		{"another token of the instance", "token TOKEN\ninstance 1101000001 other", false, false},
		{"the token of another instance", "instance 1101000002 TOKEN", false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var ready atomic.Bool
			own := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) {
				if !ready.Load() {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			})
			others := edgetest.NewUpstream(t, 200, nil)
			e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 5s\n}\nreverse_proxy "+own.Address))
			answer := make(chan int)
			go func() { answer <- e.Post(edgetest.TextMessage) }()
			edgetest.Eventually(t, "waiting", func() bool { return len(own.Requests()) > 0 })
			auth := "auth {\n" + test.auth + "\n}\n"
			if test.auth == "off" {
				auth = "auth off\n"
			}
			// The block of before has a name of its own now, and another one goes without.
			if err := e.Load(edgetest.SiteWith("", "green_api /green-api/webhook* {\nname sales\n"+edgetest.Loopback+"reverse_proxy "+own.Address+"\n}\n"+
				"green_api /support* {\nip_filter {\nallow 127.0.0.1\n}\n"+auth+"reverse_proxy "+others.Address+"\n}\nrespond 404\n")); err != nil {
				t.Fatal(err)
			}
			if test.taken {
				edgetest.Eventually(t, "the new block's handler", func() bool { return len(others.Requests()) > 0 })
			}
			ready.Store(true)
			if status := <-answer; status != 200 {
				t.Errorf("status %d", status)
			}
			if n := len(others.Requests()); (n > 0) != test.taken {
				t.Errorf("the new block's handler was asked %d times", n)
			}
			if warned := strings.Contains(e.Logs.All(), nameIsAnothers); warned != test.warn {
				t.Errorf("warned %t, want %t", warned, test.warn)
			}
		})
	}
}

// TestTakeOverByInstance: of what was received, and of a replay, the sender's token is not known.
func TestTakeOverByInstance(t *testing.T) {
	h := &Handler{Auth: newAuth(t, Auth{Instance: map[string][]string{"1101000002": {"other"}}}), Receive: []*Receive{{Instance: "01101000003"}}}
	for instance, want := range map[string]bool{"1101000001": false, "1101000002": true, "1101000003": true, "": true} {
		received := h.unposted(outcome.Case{URI: "/", Header: make(http.Header)})
		received.Via, received.N.Instance = viaHTTPAPI, instance
		replay := h.unposted(outcome.Case{URI: "/", Header: make(http.Header)})
		replay.N.Instance = instance
		replay.Header.Set(replayHeader, "1")
		if got := h.takesOver(&received.Case); got != want {
			t.Errorf("received, %q: %t", instance, got)
		}
		if got := h.takesOver(&replay.Case); got != want {
			t.Errorf("replayed, %q: %t", instance, got)
		}
		posted := h.unposted(outcome.Case{URI: "/", Header: make(http.Header)})
		posted.N.Instance = instance
		if h.takesOver(&posted.Case) {
			t.Errorf("posted without a token, %q", instance)
		}
	}
}

// TestTakeOverWithoutProxy: a newest block that leaves delivery to its route has no way to offer, so what
// waits stays with the proxy that it came to.
func TestTakeOverWithoutProxy(t *testing.T) {
	var ready atomic.Bool
	asked := make(chan struct{}, 1000)
	up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		if !ready.Load() {
			w.WriteHeader(503)
		}
	})
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	answer := make(chan int)
	go func() { answer <- e.Post(edgetest.TextMessage) }()
	<-asked
	if err := e.Load(edgetest.Site(edgetest.Loopback)); err != nil {
		t.Fatal(err)
	}
	ready.Store(true)
	if status := <-answer; status != 200 {
		t.Errorf("status %d", status)
	}
}

// TestReplayByName: an entry is not replayed through a block that has only its name.
func TestReplayByName(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site("ip_filter off\nauth {\ninstance 1101000001 TOKEN\n}\nreverse_proxy "+up.Address))
	e := edgetest.Start(t, config)
	e.Post(edgetest.Broken("ONE"))
	id := e.Record().Text("quarantine_id")
	replay := func() (result api.Result) {
		t.Helper()
		response, err := edgetest.Client.Post("http://"+admin+"/green_api/quarantine/replay?id="+id, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(&result); err != nil {
			t.Fatal(err)
		}
		return result
	}
	if err := e.Load(strings.Replace(config, "1101000001", "1101000002", 1)); err != nil {
		t.Fatal(err)
	}
	if got := replay(); got.Outcome != "failed" || got.Reason != reason.NoHandler || len(up.Requests()) > 0 || !strings.HasSuffix(got.Error, "add --to NAME, one of: default") {
		t.Errorf("%+v, asked %d times", got, len(up.Requests()))
	}
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	if got := replay(); got.Outcome != "delivered" {
		t.Errorf("%+v", got)
	}
}

// TestNewestEnds: when no block of a name is left, nothing goes through the last one that was.
func TestNewestEnds(t *testing.T) {
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy 127.0.0.1:9"))
	f := holdFleet(defaultName)
	defer releaseFleet(defaultName)
	if f.newest.Load() == nil {
		t.Fatal("no block runs")
	}
	if err := e.Load(edgetest.Site("name other\n" + edgetest.Loopback + "reverse_proxy 127.0.0.1:9")); err != nil {
		t.Fatal(err)
	}
	if f.newest.Load() != nil {
		t.Error("a block of a config that is over is the newest")
	}
}

// TestStartedUnheard: without Caddy's event `started`, much would be amiss and nothing said.
func TestStartedUnheard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.ErrorLevel)
		for _, started := range []bool{true, false} {
			a := &App{logger: zap.New(core), drain: drain.New()}
			a.awaitStarted()
			time.Sleep(startedWithin - time.Second)
			if started {
				a.unheard.Stop()
			}
			time.Sleep(2 * time.Second)
			if n := len(logs.TakeAll()); (n == 1) == started {
				t.Errorf("started %t: %d errors", started, n)
			}
		}
	})
	edgetest.Start(t, edgetest.Site(edgetest.Loopback))
	app, err := caddy.ActiveContext().AppIfConfigured("green_api")
	if err != nil {
		t.Fatal(err)
	}
	if app.(*App).unheard.Stop() {
		t.Error("it goes on to wait after the start")
	}
}
