package greenapi

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/address"
	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/live"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

func TestStatus(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	e := edgetest.Start(t, config)
	e.Post(edgetest.TextMessage)
	e.Post(edgetest.Broken("B"))
	e.Post(strings.Replace(edgetest.TextMessage, "1101000001", "1101000002", 1))
	var s api.Status
	if err := json.Unmarshal([]byte(edgetest.ReadAllOf(t, "http://"+admin+"/green_api/status")), &s); err != nil {
		t.Fatal(err)
	}
	if s.Version == "" || !strings.HasPrefix(s.Caddy, "v2.") && s.Caddy == "" || s.Addresses.Date != address.VendorDate || len(s.Addresses.List) != 12 ||
		s.Quarantine.Entries != 1 || s.Quarantine.MaxBytes != defaultMaxQuarantine || s.Quarantine.Path != e.Dir {
		t.Errorf("%+v", s)
	}
	if len(s.Instances) != 2 || s.Instances[0].Instance != "1101000002" || s.Instances[1].Outcomes[outcome.Delivered] != 1 || s.Instances[1].Outcomes[outcome.Quarantined] != 1 ||
		time.Since(s.Instances[0].Last) > time.Minute {
		t.Errorf("instances %+v", s.Instances)
	}
	if len(s.Blocks) == 1 && len(s.Blocks[0].Upstreams) == 1 {
		up := &s.Blocks[0].Upstreams[0]
		if up.P50 <= 0 || up.P99 < up.P50 {
			t.Errorf("p50 %v, p99 %v", up.P50, up.P99)
		}
		if time.Since(up.LastAsked) > time.Minute {
			t.Errorf("last asked %s", up.LastAsked)
		}
		if up.Trend == nil {
			t.Error("no trend")
		}
		up.P50, up.P99, up.LastAsked, up.Trend = 0, 0, time.Time{}, nil
	}
	handler := api.Upstream{Address: up.Address, Healthy: true, Taken: 2, NotTaken: map[reason.Reason]int64{}}
	if want := []api.Block{{Name: "default", Delivery: "direct", Upstreams: []api.Upstream{handler}}}; !reflect.DeepEqual(s.Blocks, want) {
		t.Errorf("blocks %+v, want %+v", s.Blocks, want)
	}
	for request, want := range map[string]int{"DELETE status": 405, "GET quarantine/replay": 405, "GET quarantine?limt=1": 400, "DELETE quarantine": 400, "GET quarantine/none": 404} {
		method, path, _ := strings.Cut(request, " ")
		r, err := http.NewRequest(method, "http://"+admin+"/green_api/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := edgetest.Client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: status %d, want %d", request, response.StatusCode, want)
		}
	}
}

// TestLive: whoever watches sees what ends, with the very counts of the metrics, and does not hold up a reload.
func TestLive(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, metricsSite("", edgetest.Loopback+"reverse_proxy "+up.Address))
	e := edgetest.Start(t, config)
	watch := func() *bufio.Scanner {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+admin+"/green_api/live", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/event-stream")
		answer, err := edgetest.Client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { answer.Body.Close() })
		return bufio.NewScanner(answer.Body)
	}
	await := func(events *bufio.Scanner, want string) string {
		for events.Scan() {
			if strings.Contains(events.Text(), want) {
				return events.Text()
			}
		}
		t.Fatalf("the stream ended without %s: %v", want, events.Err())
		return ""
	}
	watchers := []*bufio.Scanner{watch(), watch(), watch(), watch()}
	e.Post(edgetest.TextMessage)
	e.Post(edgetest.Broken("B"))
	for _, events := range watchers {
		await(events, `"outcome":"quarantined","reason":"schema"`)
	}
	events := watch()
	var tick struct{ Counts []live.Count }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(await(events, `"counts"`), "data: ")), &tick); err != nil {
		t.Fatal(err)
	}
	metrics := e.Scrape()
	for _, count := range tick.Counts {
		if got := sumOf(metrics, fmt.Sprintf(`outcome="%s",reason="%s"`, count.Outcome, count.Reason)); got != count.N {
			t.Errorf("%+v; the metrics say %d", count, got)
		}
	}
	began := time.Now()
	if err := e.Load(strings.Replace(config, "reverse_proxy", "deliver {\ntimeout 100s\n}\nreverse_proxy", 1)); err != nil {
		t.Fatal(err)
	}
	for _, events := range append(watchers, events) {
		await(events, `{"reason":"reload"}`)
	}
	if took := time.Since(began); took > edgetest.Patient(3*time.Second) {
		t.Errorf("the reload took %s", took)
	}
	await(watch(), `"outcome":"quarantined","reason":"schema"`)
}

// sumOf returns the sum of notifications with some labels.
func sumOf(metrics, labels string) (sum int64) {
	for line := range strings.Lines(metrics) {
		if value, found := strings.CutPrefix(line, "caddy_green_api_notifications_total{"+labels); found {
			n, _ := strconv.ParseInt(strings.TrimSpace(value[strings.Index(value, "} ")+2:]), 10, 64)
			sum += n
		}
	}
	return sum
}

// TestHealthOfApp: an app is ready when its config has started and its quarantine can be read.
func TestHealthOfApp(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	loaded := time.Date(2026, 11, 21, 15, 4, 5, 6_000_000, time.FixedZone("", 3600))
	for _, test := range []struct {
		path   string
		loaded time.Time
		want   []api.Unready
	}{
		{filepath.Join(dir, "quarantine"), loaded, nil},
		{filepath.Join(dir, "quarantine"), time.Time{}, []api.Unready{api.Starting}},
		{file, loaded, []api.Unready{api.QuarantineClosed}},
	} {
		a := &App{Quarantine: &Quarantine{Path: test.path}, loaded: test.loaded}
		got := a.health()
		if !slices.Equal(got.Reasons, test.want) || len(got.Config) != 64 {
			t.Errorf("%+v: %+v", test, got)
		}
		if want := map[bool]string{false: "2026-11-21T14:04:05.006Z"}[test.loaded.IsZero()]; got.Loaded != want {
			t.Errorf("loaded %q, want %q", got.Loaded, want)
		}
	}
}

// TestStanding: the status says which instance stands still and why, until a handler takes its notification.
func TestStanding(t *testing.T) {
	var well atomic.Bool
	up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) {
		if !well.Load() {
			http.Error(w, "cannot use 79001234567: "+edgetest.TextMessage, http.StatusInternalServerError)
		}
	})
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address+" {\nunhealthy_request_count 8\n}"))
	e := edgetest.Start(t, config)
	standing := func() (s api.Status, text string) {
		text = edgetest.ReadAllOf(t, "http://"+admin+"/green_api/status")
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Fatal(err)
		}
		return s, text
	}
	if s, text := standing(); len(s.Standing) > 0 || !strings.Contains(text, `"standing":[]`) {
		t.Errorf("before: %s", text)
	}
	for range 2 {
		if status := e.Post(edgetest.TextMessage); status != http.StatusBadGateway {
			t.Fatalf("status %d", status)
		}
	}
	if err := e.Load(strings.Replace(config, "reverse_proxy", "deliver {\ntimeout 100s\n}\nreverse_proxy", 1)); err != nil {
		t.Fatal(err)
	}
	s, text := standing()
	if len(s.Standing) != 1 {
		t.Fatalf("failed: %s", text)
	}
	one := s.Standing[0]
	if since, next := time.Since(one.Since), time.Until(one.Next); since < 0 || since > time.Minute || next < 0 || next > time.Minute {
		t.Errorf("since %s, next %s", one.Since, one.Next)
	}
	if !strings.HasPrefix(one.Said, "500 cannot use …: {") || strings.Contains(one.Said, "7900") {
		t.Errorf("said %q", one.Said)
	}
	one.Since, one.Next, one.Said = time.Time{}, time.Time{}, ""
	handler := s.Blocks[0].Upstreams[0] // the same after the reload
	if handler.Taken != 0 || handler.NotTaken["handler_error"] != 2 || handler.InHand != 0 || handler.LastFault == nil || handler.LastFault.Status != 500 || time.Since(handler.LastFault.At) > time.Minute {
		t.Errorf("handler %+v", handler)
	}
	if trend := handler.Trend; trend == nil || trend.Seconds != 15 || len(trend.Taken) != 60 || len(trend.NotTaken) != 60 || trend.NotTaken[58]+trend.NotTaken[59] != 2 {
		t.Errorf("trend %+v", trend)
	}
	if handler.Limit != 8 {
		t.Errorf("limit %d", handler.Limit)
	}
	if want := (api.Standing{Instance: "1101000001", Name: "default", Attempts: 2, Reason: "handler_error", Handler: up.Address, Handlers: []string{up.Address}}); !reflect.DeepEqual(one, want) {
		t.Errorf("got  %+v\nwant %+v", one, want)
	}
	well.Store(true)
	if status := e.Post(edgetest.TextMessage); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	if s, _ := standing(); len(s.Standing) > 0 {
		t.Errorf("delivered: %+v", s.Standing)
	}
	well.Store(false)
	e.Post(edgetest.Numbered("2"))
	if s, _ := standing(); len(s.Standing) != 1 || s.Standing[0].Attempts != 1 {
		t.Errorf("failed: %+v", s.Standing)
	}
	if status := e.Post(edgetest.Broken("B")); status != http.StatusOK { // the one before is gone from the sender's queue
		t.Fatalf("status %d", status)
	}
	if s, _ := standing(); len(s.Standing) > 0 {
		t.Errorf("kept: %+v", s.Standing)
	}
}

// TestStatusRemembers: the status has what was said at load, and the alerts, without what is secret of their endpoints.
func TestStatusRemembers(t *testing.T) {
	quickAlerts(t)
	t.Setenv("ALERT_KEY", "very-secret")
	in := edgetest.NewInbox(t, func(int) int { return http.StatusInternalServerError })
	config := edgetest.Alerting(in.URL+"/{env.ALERT_KEY}", "header X-Key {env.ALERT_KEY}", edgetest.Loopback+"validate {\nmax_kept_body 16MiB\n}\n")
	config, admin := edgetest.WithAdmin(t, strings.Replace(config, "quarantine DIR", "quarantine DIR {\nmax_size 64MiB\n}", 1))
	e := edgetest.Start(t, config)
	e.Post(edgetest.Broken("B"))
	var s api.Status
	var text string
	edgetest.Eventually(t, "an alert that fails", func() bool {
		text = edgetest.ReadAllOf(t, "http://"+admin+"/green_api/status")
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Fatal(err)
		}
		return len(s.Alerts) > 0
	})
	if one := s.Alerts[0]; one.Sent || one.Failing.IsZero() || one.Error != "answer 500" || one.Reason != reason.Schema || one.Count != 1 || one.Level != "error" || one.Endpoint == "" {
		t.Errorf("%+v", one)
	}
	if strings.Contains(text, "very-secret") {
		t.Errorf("a secret: %s", text)
	}
	if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0].Message, "does not fit into a quarter") || s.Warnings[0].Fields["name"] != "default" {
		t.Errorf("warnings %+v", s.Warnings)
	}
	if err := e.Load(strings.Replace(config, "max_size 64MiB", "max_size 1GiB", 1)); err != nil {
		t.Fatal(err)
	}
	if text := edgetest.ReadAllOf(t, "http://"+admin+"/green_api/status"); !strings.Contains(text, `"warnings":[]`) || !strings.Contains(text, `"error":"answer 500"`) {
		t.Errorf("after a reload: %s", text)
	}
}

// TestStandingAtAll: while the next handler is being asked, an instance does not stand still at once, and if none takes
// it, all are named.
func TestStandingAtAll(t *testing.T) {
	fails := edgetest.NewUpstream(t, http.StatusInternalServerError, nil)
	asked, held := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	hangs := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-held
		w.WriteHeader(http.StatusInternalServerError)
	})
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+fails.Address+" "+hangs.Address+" {\nlb_policy first\n}"))
	defer release()
	began := time.Now()
	answered := make(chan int)
	go func() { answered <- e.Post(edgetest.TextMessage) }()
	<-asked
	if standing := activeApp().standing(); len(standing) > 0 && time.Since(began) < time.Second {
		t.Errorf("already: %+v", standing)
	}
	edgetest.Eventually(t, "it to stand still", func() bool { return len(activeApp().standing()) > 0 })
	if one := activeApp().standing()[0]; !one.Waiting || !slices.Equal(one.Handlers, []string{fails.Address}) {
		t.Errorf("%+v", one)
	}
	release()
	if status := <-answered; status == http.StatusOK {
		t.Error("delivered")
	}
	if one := activeApp().standing()[0]; one.Waiting || one.Attempts != 2 || !slices.Equal(one.Handlers, []string{fails.Address, hangs.Address}) {
		t.Errorf("at the end: %+v", one)
	}
}
