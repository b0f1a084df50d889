package greenapi

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

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

// heard are the events that a subscriber got.
var heard struct {
	sync.Mutex
	events []caddy.Event
	gate   chan struct{} // that it waits for at each event
}

type eventEar struct{}

func init() { caddy.RegisterModule(eventEar{}) }

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

var _ caddyevents.Handler = eventEar{}

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
