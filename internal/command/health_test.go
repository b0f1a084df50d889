package command_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// healthOf asks for the health of an edge, as text and as JSON.
func healthOf(t *testing.T, wantCode int, admin string) (text string, health api.Health) {
	t.Helper()
	args := []string{"green-api", "health", "--address", admin}
	text, stderr, code := answered(t, wantCode, args...)
	if code != wantCode || stderr != "" || strings.Count(text, "\n") != 1 {
		t.Errorf("exit code %d, want %d; stdout %q, stderr %q", code, wantCode, text, stderr)
	}
	stdout, _, code := answered(t, wantCode, append(args, "--format", "json")...)
	if err := json.Unmarshal([]byte(stdout), &health); err != nil || code != wantCode || !strings.HasPrefix(stdout, `{"ready":`) {
		t.Errorf("%v: exit code %d, want %d; stdout %q", err, code, wantCode, stdout)
	}
	return text, health
}

// answered runs a command that is to reach the admin API. While Caddy reloads, it may close a connection that its old
// admin server has just accepted.
func answered(t *testing.T, wantCode int, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	for range 20 {
		stdout, stderr, code = runCommand(t, "", "", args...)
		if wantCode != 0 || !strings.Contains(stdout, "unreachable") {
			break
		}
	}
	return stdout, stderr, code
}

// TestHealth: the fingerprint follows what a config says of green_api, the time every reload.
func TestHealth(t *testing.T) {
	base, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"reverse_proxy 127.0.0.1:9"))
	e := edgetest.Start(t, base)
	text, first := healthOf(t, 0, admin)
	if want := "ready; config " + first.Config + " since " + first.Loaded + "\n"; text != want || len(first.Config) != 64 || !first.Ready || first.Reasons == nil {
		t.Errorf("%q, %+v", text, first)
	}
	if at, err := time.Parse(time.RFC3339, first.Loaded); err != nil || time.Since(at) > time.Minute || time.Since(at) < 0 {
		t.Errorf("loaded %s: %v", first.Loaded, err)
	}
	before := first
	for _, test := range []struct {
		name, config string
		same         bool
	}{
		{"the rest of the site", strings.Replace(base, "respond 404", "respond 410", 1), true},
		{"the same in other words", strings.Replace(base, "ip_filter {\nallow 127.0.0.1\n}\n", "ip_filter {\n\tallow \"127.0.0.1\"\n}\n\n", 1), true},
		{"a block", strings.Replace(base, "reverse_proxy 127.0.0.1:9", "reverse_proxy 127.0.0.1:10", 1), false},
		{"the app", strings.Replace(base, "quarantine DIR", "quarantine DIR {\nmax_size 64MiB\n}", 1), false},
	} {
		if err := e.Load(test.config); err != nil {
			t.Fatal(err)
		}
		_, got := healthOf(t, 0, admin)
		if got.Loaded <= before.Loaded || (got.Config == first.Config) != test.same {
			t.Errorf("%s: %+v after %+v", test.name, got, before)
		}
		before = got
	}
	// A config that does not load changes nothing.
	if err := e.Load(strings.Replace(base, "allow 127.0.0.1", "allow 127.0.0.300", 1)); err == nil {
		t.Error("a bad config has loaded")
	}
	if _, got := healthOf(t, 0, admin); got.Config != before.Config || got.Loaded != before.Loaded {
		t.Errorf("%+v after %+v", got, before)
	}
}

// TestNotReady: the command says why an edge is not ready.
func TestNotReady(t *testing.T) {
	config, admin := edgetest.WithAdmin(t, "{\nadmin off\npersist_config off\nauto_https off\n}\nhttp://:PORT {\nbind 127.0.0.1\n}\n")
	edgetest.Start(t, config)
	text, health := healthOf(t, 1, admin)
	if text != "not ready: not_configured\n" || health.Ready || !slices.Equal(health.Reasons, []api.Unready{api.NotConfigured}) {
		t.Errorf("%q, %+v", text, health)
	}
	nobody := "127.0.0.1:" + edgetest.FreePort(t)
	stdout, stderr, code := runCommand(t, "", "", "green-api", "health", "--address", nobody)
	if code != 1 || stderr != "" || !strings.HasPrefix(stdout, "not ready: unreachable: admin API on "+nobody+": ") || !strings.Contains(stdout, "--address") {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	stdout, stderr, code = runCommand(t, "", "", "green-api", "health", "--address", nobody, "--format", "json")
	if code != 1 || stdout != `{"ready":false,"reasons":["unreachable"],"config":"","loaded":""}`+"\n" || !strings.Contains(stderr, nobody) {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	other := edgetest.NewUpstream(t, 404, nil) // a server that is no Caddy, or one without the plugin
	stdout, _, code = runCommand(t, "", "", "green-api", "health", "--address", other.Address)
	if code != 1 || !strings.Contains(stdout, "no admin API of a Caddy with green_api") {
		t.Errorf("exit code %d, %q", code, stdout)
	}
	for _, args := range [][]string{{"--format", "xml"}, {"--config", "/nonexistent/Caddyfile"}, {"more"}} {
		if stdout, stderr, code := runCommand(t, "", "", append([]string{"green-api", "health"}, args...)...); code != 2 || stdout != "" || stderr == "" {
			t.Errorf("%v: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

// A SlowApp is an app of Caddy that takes its time to start.
type SlowApp struct{}

var slowStart = make(chan struct{}, 1) // lets one of them start

func (SlowApp) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "test_slow", New: func() caddy.Module { return new(SlowApp) }}
}

func (SlowApp) Start() error { <-slowStart; return nil }

func (SlowApp) Stop() error { return nil }

func init() { caddy.RegisterModule(SlowApp{}) }

// TestHealthStarts: a config that has not started yet is not ready.
func TestHealthStarts(t *testing.T) {
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback))
	text, err := edgetest.Adapt(strings.NewReplacer("PORT", edgetest.FreePort(t), "DIR", t.TempDir(), "TOKEN", edgetest.Token).Replace(config))
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), `"apps":{`, `"apps":{"test_slow":{},`, 1))
	loaded := make(chan error, 1)
	go func() { loaded <- caddy.Load(text, true) }()
	start := sync.OnceFunc(func() { slowStart <- struct{}{} })
	t.Cleanup(func() { start(); _ = caddy.Stop() })
	edgetest.Eventually(t, "starting", func() bool {
		stdout, _, code := runCommand(t, "", "", "green-api", "health", "--address", admin)
		return code == 1 && stdout == "not ready: starting\n"
	})
	start()
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	healthOf(t, 0, admin)
}

// TestHealthEnds: a process that is told to stop is no longer ready, while it does what it has in hand.
func TestHealthEnds(t *testing.T) {
	hold := make(chan struct{})
	up := edgetest.NewUpstream(t, 0, func(http.ResponseWriter, *http.Request) { <-hold })
	let := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(let)
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: t.TempDir()}
	e.URL = "http://127.0.0.1:" + e.Port + "/green-api/webhook"
	p := edgetest.StartProcess(t, e, config)
	t.Cleanup(func() { p.Process.Kill() })
	healthOf(t, 0, admin)
	answered := make(chan int, 1)
	go func() { answered <- e.Post(edgetest.TextMessage) }()
	edgetest.Eventually(t, "in hand", func() bool { return len(up.Requests()) == 1 })
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	edgetest.Eventually(t, "ending", func() bool {
		stdout, _, code := runCommand(t, "", "", "green-api", "health", "--address", admin)
		return code == 1 && stdout == "not ready: ending\n"
	})
	let()
	if status := <-answered; status != 200 {
		t.Errorf("status %d", status)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("%v:\n%s", err, p.Output)
	}
}
