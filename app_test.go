package greenapi

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/greenapi-community/caddy-green-api/internal/drain"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestValidateBesideServer: `caddy validate` with the same quarantine does not hang on its lock.
func TestValidateBesideServer(t *testing.T) {
	e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(t.TempDir(), "quarantine")}
	p := edgetest.StartProcess(t, e, edgetest.Site(edgetest.Loopback))
	defer func() {
		p.Process.Kill()
		p.Wait()
	}()
	began := time.Now()
	out, err := edgetest.Command(t, "validate", "--config", p.File).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if took := time.Since(began); took > edgetest.Patient(3*time.Second) {
		t.Errorf("took %s", took)
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

// TestDrain: a reload waits until who has a connection to the old config has come over to the new
// one, but not for long.
func TestDrain(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config := edgetest.Site(edgetest.Loopback + "reverse_proxy " + up.Address)
	e := edgetest.Start(t, config)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	try := func() (reused bool, response *http.Response, err error) {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, e.URL, strings.NewReader(edgetest.TextMessage))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+edgetest.Token)
		trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
		if response, err = client.Do(r.WithContext(httptrace.WithClientTrace(r.Context(), trace))); err != nil {
			return reused, nil, err
		}
		response.Body.Close()
		if response.StatusCode != 200 {
			t.Errorf("status %d", response.StatusCode)
		}
		return reused, response, nil
	}
	post := func() (reused bool, response *http.Response) {
		t.Helper()
		reused, response, err := try()
		if err != nil {
			t.Fatal(err)
		}
		return reused, response
	}
	post()
	if reused, response := post(); !reused || response.Close {
		t.Fatalf("before: connection reused %t, closed %t", reused, response.Close)
	}

	loaded := make(chan error)
	began := time.Now()
	go func() { loaded <- e.Load(config + "\n# changed") }()
	for {
		reused, response := post()
		if response.Close {
			if !reused {
				t.Error("the connection was closed before it was answered")
			}
			break
		}
		if time.Since(began) > 10*time.Second {
			t.Fatal("the old config does not end its connections")
		}
	}
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > drain.Period {
		t.Errorf("the reload took %s, although all had come over", took)
	}

	// For a moment after a reload, the old server may still accept a connection, and end it.
	edgetest.Eventually(t, "an answer of the new config, which leaves an idle connection", func() bool {
		_, response, err := try()
		return err == nil && !response.Close
	})
	began = time.Now()
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < drain.Period || took > drain.Period+5*time.Second {
		t.Errorf("the reload with an idle connection took %s, want %s", took, drain.Period)
	}
	client.CloseIdleConnections()
	edgetest.Eventually(t, "the new config, which keeps connections", func() bool {
		_, response, err := try()
		return err == nil && !response.Close
	})
}

// TestDrainByProtocol: a reload ends connections of HTTP/1 and HTTP/2, where Go makes a GOAWAY of the
// header. HTTP/3 forbids it: the answer would be malformed, and a 200 lost.
func TestDrainByProtocol(t *testing.T) {
	h := benchHandler(t, "ip_filter {\nallow 203.0.113.7\n}\nauth {\ntoken demo-token\n}\n")
	before := h.app.drain
	h.app.drain = drain.New() // of no connection, so it is over at once
	h.app.drain.Wait()
	defer func() { h.app.drain = before }()
	for major, want := range map[int]string{1: "close", 2: "close", 3: ""} {
		w := &nowhere{header: make(http.Header)}
		r := benchRequest(w)
		r.ProtoMajor = major
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(edgetest.TextMessage)), int64(len(edgetest.TextMessage))
		taken := func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(http.StatusOK); return nil }
		if err := h.ServeHTTP(w, r, caddyhttp.HandlerFunc(taken)); err != nil || w.status != 200 {
			t.Fatal(err, w.status)
		}
		if got := w.header.Get("Connection"); got != want {
			t.Errorf("HTTP/%d: Connection %q, want %q", major, got, want)
		}
	}
}

// lookOften has a file that lists things of a kind looked at more often. Call it before Caddy runs.
func lookOften(t *testing.T, kind, path string) {
	t.Helper()
	key := kind + " " + path
	_, loaded, err := copies.LoadOrNew(key, func() (caddy.Destructor, error) { return &rememberedCopy{every: 20 * time.Millisecond}, nil })
	if err != nil || loaded {
		t.Fatalf("another config follows it already: %v", err)
	}
	t.Cleanup(func() { _, _ = copies.Delete(key) })
}

// TestFollowedFiles: a change of a followed file is in effect within seconds and without a reload. If the file
// is bad, its last good copy stays in effect, and the operator is told.
func TestFollowedFiles(t *testing.T) {
	quickAlerts(t)
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	instances, addresses := filepath.Join(t.TempDir(), "instances"), filepath.Join(t.TempDir(), "addresses")
	writeFile(t, instances, "1101000001 first-token\n")
	writeFile(t, addresses, "203.0.113.7 # not us\n")
	lookOften(t, "instances", instances)
	lookOften(t, "addresses", addresses)
	e := edgetest.Start(t, edgetest.Alerting(in.URL, "every 1s",
		"ip_filter {\nsource green_api_file "+addresses+"\n}\nauth {\ninstances "+instances+"\n}\nreverse_proxy "+up.Address))
	post := func(token string) int { return e.Post(edgetest.TextMessage, "Authorization", token) }
	if got := post("Bearer first-token"); got != 403 {
		t.Errorf("from an address that is not listed: status %d", got)
	}
	writeFile(t, instances, "# changed\n1101000001 first-token Basic c2Vjb25k # both\n1101000002 x\n")
	writeFile(t, addresses, "203.0.113.7\n127.0.0.0/8\n")
	edgetest.Eventually(t, "let in by the second token", func() bool { return post("Basic c2Vjb25k") == 200 })
	if got := post("Bearer first-token"); got != 200 {
		t.Errorf("first token, still: status %d", got)
	}
	writeFile(t, instances, "1101000001 s3cret-canary-tokenä\n")
	writeFile(t, addresses, "localhost\n")
	for _, complaint := range []string{"line 1: instance 1101000001: token 1: invalid token", "line 1: no address"} {
		edgetest.Eventually(t, complaint, func() bool { return strings.Contains(e.Logs.All(), complaint) })
	}
	edgetest.Eventually(t, "alert", func() bool { return strings.Contains(strings.Join(in.All(), ""), `"reason":"bad_file"`) })
	if got := post("Bearer first-token"); got != 200 {
		t.Errorf("bad files: status %d", got)
	}
	if strings.Contains(e.Logs.All()+strings.Join(in.All(), ""), "s3cret-canary") {
		t.Error("a token of the file is in the log or an alert")
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestFollowForced: if a file seems to have been cut short, another config keeps its last good copy in effect. The
// same config, loaded again, takes the file as it stands, with a WARN of what it has lost.
func TestFollowForced(t *testing.T) {
	file := filepath.Join(t.TempDir(), "instances")
	listed := func(count int) (text string) {
		for i := range count {
			text += fmt.Sprintf("%d token-%d\n", 1101000001+i, i+1)
		}
		return text
	}
	writeFile(t, file, listed(40))
	quickAlerts(t)
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	config := edgetest.Alerting(in.URL, "every 1s", "ip_filter {\nallow 127.0.0.1\n}\nauth {\ninstances "+file+"\n}\nreverse_proxy "+up.Address)
	e := edgetest.Start(t, config)
	load := func(config string, want int) {
		t.Helper()
		if err := e.Load(config); err != nil {
			t.Fatal(err)
		}
		if got := e.Post(strings.Replace(edgetest.TextMessage, "1101000001", "1101000040", 1), "Authorization", "token-40"); got != want {
			t.Errorf("status %d, want %d", got, want)
		}
	}
	complaints := func(complaint string) int { return strings.Count(e.Logs.All(), complaint) }
	writeFile(t, file, listed(20)+"1101000021 tok")
	config = strings.Replace(config, "ip_filter {", "log_body\nip_filter {", 1)
	load(config, 200)
	if torn, n := e.Post(edgetest.TextMessage, "Authorization", "tok"), complaints("as if the file was cut short"); torn != 401 || n != 1 {
		t.Errorf("cut short: with the torn token status %d, %d complaints", torn, n)
	}
	edgetest.Eventually(t, "alert", func() bool { return strings.Contains(strings.Join(in.All(), ""), "as if the file was cut short") })
	writeFile(t, file, listed(20))
	config = strings.Replace(config, "log_body\n", "", 1)
	load(config, 200)
	if n := complaints("20 of 40 entries are missing"); n != 1 {
		t.Errorf("half of it: %d complaints", n)
	}
	load(config, 401) // as with --force
	if logs := e.Logs.All(); !strings.Contains(logs, `"instances_before":40,"instances_now":20,"instances_lost":20`) {
		t.Errorf("no warning of the loss: %s", logs)
	}
	load(config, 401)
	if n := complaints("instances_lost"); n != 1 {
		t.Errorf("%d warnings of the loss, want 1", n)
	}
}

// TestFollowLeaksNothing: what follows a file ends with the config that names it.
func TestFollowLeaksNothing(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"instances": "1101000001 x\n", "addresses": "203.0.113.7\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := func(i int) string {
		return edgetest.Site(fmt.Sprintf("ip_filter {\nsource green_api_file %s/addresses\n}\nauth {\ninstances %s/instances\ntoken x%d\n}\nreverse_proxy 127.0.0.1:9001", dir, dir, i))
	}
	e := edgetest.Start(t, config(0))
	for i := range 10 {
		if err := e.Load(config(i % 2)); err != nil {
			t.Fatal(err)
		}
	}
	settle := func() int {
		time.Sleep(50 * time.Millisecond)
		return runtime.NumGoroutine()
	}
	before := settle()
	const reloads = 30 // each follows two files, so that a leak of one shows three times over
	for i := range reloads {
		if err := e.Load(config(i % 2)); err != nil {
			t.Fatal(err)
		}
	}
	edgetest.Eventually(t, "goroutines as before", func() bool { return settle() <= before+10 })
}

// metricsSite has a block and a page of metrics.
func metricsSite(global, block string) string {
	return strings.Replace(edgetest.SiteWith("", "green_api /green-api/webhook* {\n"+block+"\n}\nmetrics /metrics\n"),
		"green_api {\n\t\tquarantine DIR\n", "green_api {\n\t\tquarantine DIR\n"+global, 1)
}

// TestMetrics: each outcome is counted once, over reloads and for two blocks, and the names are as
// Prometheus wants them.
func TestMetrics(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config := metricsSite("metrics {\nper_instance\n}\n", "ip_filter {\nallow 127.0.0.1\n}\nauth {\ntoken TOKEN\ninstance 1101000001 TOKEN\n}\nvalidate {\ndrop incomingCall\n}\nreverse_proxy "+up.Address)
	e := edgetest.Start(t, config)
	e.Post(edgetest.TextMessage)
	if err := e.Load(config + "\n# changed"); err != nil {
		t.Fatal(err)
	}
	e.Post(edgetest.TextMessage)
	e.Post(edgetest.Broken("B"))
	e.Post(strings.Replace(edgetest.TextMessage, "incomingMessageReceived", "brandNew", 1))
	e.Post(strings.Replace(edgetest.TextMessage, "1101000001", "1101000002", 1))
	e.Post("{")
	e.Post(edgetest.TextMessage, "Authorization", "")
	edgetest.Eventually(t, "a look at the disk", func() bool { return !math.IsNaN(quarantineFree()) })
	page := e.Scrape()
	for _, line := range []string{
		`caddy_green_api_notifications_total{outcome="delivered",reason="",type="incomingMessageReceived"} 3`,
		`caddy_green_api_notifications_total{outcome="quarantined",reason="schema",type="incomingMessageReceived"} 1`,
		`caddy_green_api_notifications_total{outcome="quarantined",reason="unknown_type",type="other"} 1`,
		`caddy_green_api_notifications_total{outcome="quarantined",reason="malformed",type="none"} 1`,
		`caddy_green_api_notifications_total{outcome="refused",reason="no_token",type="none"} 1`,
		`caddy_green_api_instance_notifications_total{instance="1101000001",outcome="delivered"} 2`,
		`caddy_green_api_attempts_total{result="taken"} `,
		`caddy_green_api_delivery_seconds_bucket{le="+Inf"} `,
		`caddy_green_api_age_seconds_bucket{le="86400"} `,
		`caddy_green_api_waiting 0`,
		`caddy_green_api_quarantine_entries 3`,
		`caddy_green_api_quarantine_bytes `,
		`caddy_green_api_quarantine_max_bytes 1.073741824e+09`,
		`caddy_green_api_quarantine_free_bytes `,
		`caddy_green_api_last_notification_timestamp_seconds 1.`,
		`caddy_green_api_instance_last_notification_timestamp_seconds{instance="1101000001"} 1.`,
	} {
		if !strings.Contains(page, "\n"+line) {
			t.Errorf("lacks %s", line)
		}
	}
	if strings.Contains(page, "_free_bytes 0\n") || strings.Contains(page, "_free_bytes NaN") {
		t.Error("nothing is free on the quarantine's disk")
	}
	if strings.Contains(page, `instance="1101000002"`) {
		t.Error("counts an instance that is not in the config")
	}
	var ours strings.Builder
	for line := range strings.Lines(page) {
		if strings.Contains(line, "caddy_green_api_") {
			ours.WriteString(line)
		}
	}
	problems, err := promlint.New(strings.NewReader(ours.String())).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
}

// TestMetricsBounded: nothing that a sender invents makes a series.
func TestMetricsBounded(t *testing.T) {
	e := edgetest.Start(t, metricsSite("metrics {\nper_instance\n}\n", edgetest.Loopback+"validate {\nunknown_type drop\n}"))
	post := func(n int) {
		e.Post(strings.Replace(strings.Replace(edgetest.TextMessage, "incomingMessageReceived", fmt.Sprint("type", n), 1), "1101000001", fmt.Sprint(n), 1))
	}
	series := func() int { return strings.Count(e.Scrape(), "\ncaddy_green_api_") }
	post(0)
	before := series()
	for n := range 100 {
		post(n)
	}
	if after := series(); after != before {
		t.Errorf("%d series, %d before", after, before)
	}
	if want := `caddy_green_api_notifications_total{outcome="dropped",reason="unknown_type",type="other"} 101`; !strings.Contains(e.Scrape(), want) {
		t.Errorf("lacks %s", want)
	}
}

type eventEar struct{}

func (eventEar) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.test_ear", New: func() caddy.Module { return new(eventEar) }}
}

func (eventEar) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }

func (eventEar) Handle(_ context.Context, e caddy.Event) error {
	heard.Lock()
	heard.events = append(heard.events, e)
	gate := heard.gate
	heard.Unlock()
	if gate != nil {
		<-gate
	}
	return nil
}

// TestEvents: Caddy's events app hears of what went wrong, also from a config that is replaced while
// a subscriber takes its time, which no request waits for.
func TestEvents(t *testing.T) {
	up := edgetest.NewUpstream(t, 422, nil)
	gate := make(chan struct{})
	heard.Lock()
	heard.events, heard.gate = nil, gate
	heard.Unlock()
	config := edgetest.SiteWith("events {\non green_api.quarantined test_ear\non green_api.failed test_ear\non green_api.refused test_ear\n}",
		"green_api /green-api/webhook* {\n"+edgetest.Loopback+"reverse_proxy "+up.Address+"\n}\nrespond 404\n")
	e := edgetest.Start(t, config)
	e.Post(edgetest.Broken("KEPT"))
	e.Post(edgetest.TextMessage)
	e.Post(edgetest.TextMessage, "Authorization", "Bearer wrong")
	if err := e.Load(config + "\n# changed"); err != nil {
		t.Fatal(err)
	}
	close(gate)
	edgetest.Eventually(t, "three events", func() bool {
		heard.Lock()
		defer heard.Unlock()
		return len(heard.events) == 3
	})
	heard.Lock()
	defer heard.Unlock()
	for i, want := range []struct{ name, reason, instance string }{
		{"green_api.quarantined", "schema", "1101000001"}, {"green_api.failed", "handler_refused", "1101000001"}, {"green_api.refused", "bad_token", "1101000001"},
	} {
		got := heard.events[i]
		if got.Name() != want.name || got.Data["reason"] != want.reason || got.Data["instance"] != want.instance || got.Data["outcome"] == "" {
			t.Errorf("%d: %s %v", i, got.Name(), got.Data)
		}
		if text := fmt.Sprint(got.Data); strings.Contains(text, "canary") || strings.Contains(text, "7900123") {
			t.Errorf("%d: says too much: %s", i, text)
		}
	}
}

func init() { caddy.RegisterModule(eventEar{}) }

// heard are the events that a subscriber got.
var heard struct {
	sync.Mutex
	events []caddy.Event
	gate   chan struct{} // that it waits for at each event
}

var _ caddyevents.Handler = eventEar{}
