package backlog

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/queue"
	"github.com/greenapi-community/caddy-green-api/queue/queuetest"
)

// TestRecord: what comes out of the queue is what went in, without secrets.
func TestRecord(t *testing.T) {
	received := time.Date(2026, 11, 27, 10, 0, 0, 0, time.UTC)
	c := outcome.Case{
		Via: "http_api", Client: "203.0.113.7", Remote: "127.0.0.1:4000", TLS: true, Host: "hooks.example.com", URI: "/a?b", Started: received, Admitted: true,
		Body: []byte("{}"), Kind: "incomingCall",
		N: &notification.Notification{Type: "incomingCall", Message: "m", Instance: "1101000001", Chat: "79990000001@c.us", ID: "A1", Timestamp: 5},
		Header: http.Header{
			"Content-Type": {"application/json"}, "X-Custom": {"1", "2"}, "Authorization": {"Bearer secret-1"}, "Cookie": {"secret-2"},
			"Proxy-Authorization": {"secret-3"}, "X-Green-Api-Replay": {"forged"},
		},
	}
	record := RecordOf("default", &c)
	if text := record.Encode(); bytes.Contains(text, []byte("secret")) || bytes.Contains(text, []byte("forged")) {
		t.Errorf("%s", text)
	}
	got := CaseOf(queue.Delivery{Record: record, Round: 3})
	c.Header, c.Round = http.Header{"Content-Type": {"application/json"}, "X-Custom": {"1", "2"}}, 3
	if !reflect.DeepEqual(got, c) {
		t.Errorf("%+v\nwant %+v", got, c)
	}
	c.Header.Set("X-Custom", strings.Repeat("x", 9<<10))
	if got := RecordOf("default", &c).Header; len(got) != 1 || got["Content-Type"] == nil {
		t.Errorf("a very long header: %v", got)
	}
}

// TestAnswers: what handlers said last is remembered, for as little memory as a hundred thousand lanes may have.
func TestAnswers(t *testing.T) {
	var said outcome.Trail
	for i := range 5 {
		said.Answers = append(said.Answers, outcome.Attempt{Handler: fmt.Sprint("h:", i), Status: 500, Text: strings.Repeat("x", 1000), Times: 2})
	}
	said.Answers[4] = outcome.Attempt{Handler: "h:4", Error: "connection refused", Times: 1}
	kept := AnswersOf(&said)
	got := CaseOf(queue.Delivery{Record: new(queue.Record), Answers: kept}).Answers
	long := strings.Repeat("x", 256) + "…"
	want := []outcome.Attempt{{Handler: "h:2", Status: 500, Text: long, Times: 1}, {Handler: "h:3", Status: 500, Text: long, Times: 1}, {Handler: "h:4", Error: "connection refused", Times: 1}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if got := AnswersOf(new(outcome.Trail)); got != nil {
		t.Errorf("%+v", got)
	}
}

// TestWatch: what goes wrong is told once when it begins, and when it has ended.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := queuetest.NewMemory(1000)
		var fails atomic.Bool
		fails.Store(true)
		d := queue.New(store, queue.Hooks{
			Deliver: func(d queue.Delivery) queue.Result {
				if fails.Load() {
					return queue.Result{Why: "handler_error"}
				}
				return queue.Result{Outcome: queue.Delivered}
			},
			Failed: func(err error) { t.Error(err) },
		})
		d.Configure(map[string]queue.Options{"default": {InFlight: 1, Retry: []time.Duration{time.Second}}})
		d.Start()
		defer d.Close(context.Background())
		core, logged := observer.New(zapcore.InfoLevel)
		var notes []string
		var w Watch
		look := func(want ...string) {
			t.Helper()
			w.Look(d, time.Now(), func(string) (time.Duration, bool) { return 2 * time.Hour, true }, zap.New(core), func(n outcome.Note) {
				notes = append(notes, fmt.Sprintf("%s %s %s", n.Reason, n.Instance, n.Trouble))
			})
			var got []string
			for _, entry := range logged.TakeAll() {
				got = append(got, entry.Level.String()+" "+entry.Message)
			}
			for _, note := range notes {
				got = append(got, "alert "+note)
			}
			notes = nil
			if !slices.Equal(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
		}
		put := func(block string, size int) {
			t.Helper()
			if _, err := d.Put(t.Context(), &queue.Record{Block: block, Instance: "1101000001", Received: time.Now(), Body: make([]byte, size)}, 0); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		look()
		put("default", 500)
		look()
		lane := d.Lanes()[0].ID
		time.Sleep(6 * time.Minute)
		look("warn the queue falls behind", "alert queue_behind  queue")
		look()
		put("default", 400)
		look("warn the queue is nearly full")
		time.Sleep(10 * time.Minute)
		look("warn a lane of the queue stands still", "alert lane_stands 1101000001 lane "+lane)
		look()
		time.Sleep(50 * time.Minute)
		look("warn a notification in the queue is about to be too old for delivery", "alert queue_expiring 1101000001 ")
		look()
		fails.Store(false)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		look("info the queue has caught up", "info a lane of the queue goes on", "alert recovered  queue", "alert recovered  lane "+lane)
		put("gone", 1)
		look("error the queue holds notifications of a green_api block that the config does not have, or that has no reverse_proxy", "alert no_handler  ")
		look()
		if err := d.Pause(queue.Target{Instance: "1101000001"}); err != nil {
			t.Fatal(err)
		}
		_ = d.Drain(true)
		paused := []string{"warn the queue is being drained: what comes is answered 503", "warn the queue is paused: what comes is kept and not delivered"}
		look(paused...)
		look()
		time.Sleep(4 * time.Minute)
		look()
		time.Sleep(11*time.Minute + time.Second)
		look("warn the queue falls behind", paused[0], paused[1], "alert queue_behind  queue")
	})
}

// TestWatchPlaces: when handlers hang and have all places, the operator is told, and by which lanes.
func TestWatchPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := queue.New(queuetest.NewMemory(1000), queue.Hooks{
			Deliver: func(queue.Delivery) queue.Result {
				time.Sleep(5*time.Minute + 20*time.Second)
				return queue.Result{Outcome: queue.Delivered}
			},
		})
		d.Configure(map[string]queue.Options{"default": {InFlight: 1, Retry: []time.Duration{time.Second}}})
		d.Start()
		defer d.Close(context.Background())
		for i := range 2 {
			if _, err := d.Put(t.Context(), &queue.Record{Block: "default", Instance: fmt.Sprint(1101000001 + i), Received: time.Now(), Body: []byte("{}")}, 0); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		lane := d.Lanes()[slices.IndexFunc(d.Lanes(), func(l queue.Lane) bool { return l.Instance == "1101000001" })].ID
		core, logged := observer.New(zapcore.InfoLevel)
		var w Watch
		look := func() (got []string) {
			w.Look(d, time.Now(), func(string) (time.Duration, bool) { return 0, false }, zap.New(core), func(n outcome.Note) { got = append(got, n.More) })
			for _, entry := range logged.TakeAll() {
				got = append(got, entry.Message+fmt.Sprint(entry.ContextMap()["name"], entry.ContextMap()["lanes"]))
			}
			return got
		}
		time.Sleep(time.Minute)
		if got, want := look(), []string{"all places of a block's queue are taken, other lanes wait" + "default[" + lane + "]"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if got := look(); len(got) != 0 {
			t.Errorf("told again: %q", got)
		}
		time.Sleep(4*time.Minute + time.Second)
		if got, want := look(), "2 notifications wait. See which: caddy green-api queue list. All places of the block default (1) have been taken for 5m1s."; len(got) != 2 || got[0] != want {
			t.Errorf("%q, want %q", got, want)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got, want := look(), "places of a block's queue are free again"; !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// TestWatchAtOnce: while a config is replaced, both look. The operator is told once all the same.
func TestWatchAtOnce(t *testing.T) {
	d := queue.New(queuetest.NewMemory(1000), queue.Hooks{})
	if err := d.Pause(queue.Target{}); err != nil {
		t.Fatal(err)
	}
	core, logged := observer.New(zapcore.InfoLevel)
	var w Watch
	var looks sync.WaitGroup
	for range 100 {
		looks.Go(func() {
			w.Look(d, time.Now(), func(string) (time.Duration, bool) { return 0, false }, zap.New(core), func(outcome.Note) {})
		})
	}
	looks.Wait()
	if n := logged.Len(); n != 1 {
		t.Errorf("told %d times", n)
	}
}
