package command

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// TestTopSentence: the first line says who stands still and why, or what else needs the operator.
func TestTopSentence(t *testing.T) {
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	one := api.Standing{
		Instance: "1101000007", Since: ago(14*time.Minute + 5*time.Second), Attempts: 13, Reason: "handler_error",
		Handler: "10.0.0.2:8080", Said: "500 no database", Next: noon.Add(40 * time.Second),
	}
	with := func(change func(*api.Standing)) api.Status {
		changed := one
		change(&changed)
		return api.Status{Standing: []api.Standing{changed}}
	}
	handler := func(fault api.Fault, asked time.Time) api.Status {
		return api.Status{Blocks: []api.Block{{Upstreams: []api.Upstream{{Address: "h:1", Healthy: true, LastFault: &fault, LastAsked: asked}}}}}
	}
	for _, test := range []struct {
		name   string
		status api.Status
		want   string
	}{
		{"well", api.Status{}, "All is well."},
		{"fails", with(func(*api.Standing) {}), "1101000007 stands still for 14 min: 10.0.0.2:8080 answers 500, 13 times. Next try in ~40 s."},
		{"no answer", with(func(s *api.Standing) { s.Said, s.Attempts = "handler could not be connected to", 1 }), "1101000007 stands still for 14 min: 10.0.0.2:8080: handler could not be connected to. Next try in ~40 s."},
		{"in hand", with(func(s *api.Standing) { s.Waiting, s.Next = true, time.Time{} }), "1101000007 stands still for 14 min: 10.0.0.2:8080 answers 500, 13 times. It is tried now."},
		{"slow", with(func(s *api.Standing) { s.Waiting, s.Attempts, s.Said, s.Reason = true, 0, "", "" }), "1101000007 stands still for 14 min: 10.0.0.2:8080 has its notification and does not answer. It is tried now."},
		{"no place", with(func(s *api.Standing) {
			s.Waiting, s.Attempts, s.Said, s.Handler, s.Reason = true, 0, "", "", "not_now"
		}), "1101000007 stands still for 14 min: it waits for a place at a handler. It is tried now."},
		{"full queue", with(func(s *api.Standing) { s.Attempts, s.Said, s.Handler, s.Reason = 0, "", "", "queue_full" }), "1101000007 stands still for 14 min: queue_full. Next try in ~40 s."},
		{"overdue", with(func(s *api.Standing) { s.Next = ago(3 * time.Minute) }), "1101000007 stands still for 14 min: 10.0.0.2:8080 answers 500, 13 times. It should have come again 3 min ago."},
		{"hostile", with(func(s *api.Standing) { s.Instance = "11\x1b[2J" }), "11?[2J stands still for 14 min: 10.0.0.2:8080 answers 500, 13 times. Next try in ~40 s."},
		{"three", api.Status{Standing: []api.Standing{one, one, one}}, "1101000007 stands still for 14 min: 10.0.0.2:8080 answers 500, 13 times. Next try in ~40 s. 2 others stand still, too."},
		{"unhealthy", api.Status{Blocks: []api.Block{{Upstreams: []api.Upstream{{Address: "h:1", Healthy: true}, {Address: "h:2"}}}}}, "Handler h:2 is not healthy."},
		{"failing", handler(api.Fault{At: ago(10 * time.Second), Status: 500}, ago(10*time.Second)), "Handler h:1 did not take its last notification 10 s ago: it answered 500."},
		{"refusing", handler(api.Fault{At: ago(time.Minute), Error: "connection refused"}, ago(time.Minute)), "Handler h:1 did not take its last notification 1 min ago: connection refused."},
		{"well", handler(api.Fault{At: ago(10 * time.Second), Status: 500}, ago(9*time.Second)), "All is well."},
		{"well", handler(api.Fault{At: ago(time.Hour), Status: 500}, ago(time.Hour)), "All is well."},
		{"paused", api.Status{Queue: &api.QueueStatus{Connected: true, Paused: true}}, "The queue is paused: something in it is not delivered."},
		{"alert", api.Status{AlertsPending: 1, Alerts: []api.Alert{{Endpoint: "a.example", Failing: ago(time.Hour), Error: "answer 500"}}}, "An alert cannot be sent to a.example for 1 h 0 min: answer 500."},
	} {
		o := overview{Status: test.status}
		if o.say(noon); o.Sentence != test.want || o.Well != (test.name == "well") {
			t.Errorf("%s: %s\nwant %s", test.name, o.Sentence, test.want)
		}
	}
}

// TestTopPicture: a picture fits a terminal, whatever is in it, and has colours only if it may.
func TestTopPicture(t *testing.T) {
	long := strings.Repeat("x\x1b[31m", 40)
	o := overview{Rates: map[outcome.Outcome]float64{"delivered": 211.4, "dropped": 0.55, "failed": 0.01}, P50: 3.05, P99: 41, Waiting: 1}
	o.Status.Queue = &api.QueueStatus{Entries: 12, Lanes: 3, LanesWaiting: 1, OldestSeconds: 65, Connected: true}
	o.Status.Blocks = []api.Block{{Name: "sales", Upstreams: []api.Upstream{
		{Address: "10.0.0.1:8080", Healthy: true, InHand: 9, NumRequests: 12, Limit: 20, Taken: 123456, P50: 3.1, P99: 12},
		{Address: "10.0.0.2:8080", Healthy: true, LastFault: &api.Fault{At: noon.Add(-4 * time.Second), Reason: "handler_error", Status: 500}},
		{Address: "10.0.0.3:8080", Healthy: true, Until: noon.Add(4 * time.Second), Why: "attempt_timeout"},
	}}, {Name: long, Upstreams: []api.Upstream{{Address: long}}}}
	o.Status.Warnings = []api.Warning{{Message: long}}
	o.Status.Alerts = []api.Alert{{At: noon.Add(-time.Minute), Reason: "schema", Error: long}}
	for n := range 20 {
		o.Status.Standing = append(o.Status.Standing, api.Standing{Instance: fmt.Sprint(1101000000 + n), Name: "sales", Since: noon.Add(-time.Hour), Handler: "10.0.0.2:8080", Said: "500 " + long})
	}
	o.say(noon)
	for _, colour := range []bool{false, true} {
		p := &picture{width: 80, colour: colour}
		p.draw(&o, noon)
		text := strings.Join(p.lines, "\n")
		if strings.Contains(text, "\x1b[31mx") || strings.Contains(text, "x\x1b") || strings.Contains(text, "\x1b") != colour {
			t.Errorf("control characters: %q", text)
		}
		for _, line := range p.lines {
			if n := len([]rune(line)); n > 80 && !colour {
				t.Errorf("%d characters: %s", n, line)
			}
		}
		for _, part := range []string{
			"212/s: delivered 211, dropped 0.6, failed <0.1", "p50 3.0 ms, p99 41 ms; 1 waits for a handler", "3 lanes, 12 notifications, 0 B; 1 waits; the oldest for 1 min",
			"10.0.0.1:8080", "12/20  ", "123456", "500 4 s ago", "left alone", "… and 5 more", "not healthy",
		} {
			if !strings.Contains(text, part) {
				t.Errorf("lacks %q:\n%s", part, text)
			}
		}
	}
}

// TestTopRuns: pictures follow the stream; the status is not asked for more often than it may be, and a reload is
// survived, but not a server that is gone.
func TestTopRuns(t *testing.T) {
	var statuses, streams atomic.Int32
	var gone atomic.Bool
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/green_api/status", func(w http.ResponseWriter, _ *http.Request) {
		statuses.Add(1)
		fmt.Fprint(w, `{"standing":[],"blocks":[]}`)
	})
	mux.HandleFunc("/green_api/live", func(w http.ResponseWriter, r *http.Request) {
		if gone.Load() {
			panic(http.ErrAbortHandler)
		}
		n := streams.Add(1)
		if r.Header.Get("Accept") != "text/event-stream" {
			t.Error("does not ask for a stream")
		}
		fmt.Fprintf(w, "event: hello\ndata: {\"now\":%q,\"trend\":{\"seconds\":15,\"until\":%d,\"slots\":[{},{\"delivered\":30}]}}\n\n", noon.Format(time.RFC3339), noon.Unix())
		for delivered := range 1000 {
			fmt.Fprintf(w, "event: rows\ndata: {}\n\nevent: tick\nid: 1\ndata: {\"counts\":[{\"outcome\":\"delivered\",\"reason\":\"\",\"n\":%d}],\"waiting\":7,\"p50_ms\":3}\n\n", delivered)
			http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(time.Millisecond):
			}
			if n == 1 && delivered == 50 { // a reload
				fmt.Fprint(w, "event: end\ndata: {\"reason\":\"reload\"}\n\n")
				return
			}
			if gone.Load() {
				return
			}
		}
		<-release
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	defer close(release)
	var out bytes.Buffer
	top := &top{address: strings.TrimPrefix(server.URL, "http://"), out: &out, screen: true, times: topTimes{
		picture: 10 * time.Millisecond, status: 100 * time.Millisecond, idle: time.Second, lost: 100 * time.Millisecond,
	}}
	began := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- top.run(t.Context(), false, false) }()
	for streams.Load() < 2 || statuses.Load() < 4 {
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	if most := int32(time.Since(began)/(100*time.Millisecond)) + 2; statuses.Load() > most {
		t.Errorf("asked %d times for the status, want at most %d", statuses.Load(), most)
	}
	gone.Store(true)
	if err := <-ended; err == nil {
		t.Error("ends well, with a server that is gone")
	}
	text := out.String()
	for _, part := range []string{"\x1b[2J\x1b[HAll is well.\x1b[K\n", "now         1/s: delivered 1\x1b[K", "7 wait for a handler", "The server does not answer for "} {
		if !strings.Contains(text, part) {
			t.Errorf("lacks %q:\n%.500q", part, text)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	gone.Store(false)
	out.Reset()
	if err := top.run(ctx, false, false); err != nil || out.Len() == 0 {
		t.Errorf("%v: %q", err, out.String())
	}
}

// TestTopEnds: why a stream ends is said.
func TestTopEnds(t *testing.T) {
	for text, want := range map[string]string{
		"event: end\nid: 1\ndata: {\"reason\":\"reload\"}\n\n": "it reloads its config",
		"event: end\nid: 1\ndata: {\"reason\":\"exit\"}\n\n":   "it was stopped",
		"event: rows\nid: 1\ndata: {}\n\n":                     "the stream of the admin API broke off",
	} {
		news := make(chan liveNews, 1)
		readLive(strings.NewReader(text), news, nil)
		if got := <-news; got.ended == nil || got.ended.Error() != want {
			t.Errorf("%q: %v, want %s", text, got.ended, want)
		}
	}
}
