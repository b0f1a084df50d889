package queue

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/standin"
	"github.com/greenapi-community/caddy-green-api/queue"
	"github.com/greenapi-community/caddy-green-api/queue/bolt"
)

// TestQueued: the sender has its 200 before the handler has answered, and the log says both.
func TestQueued(t *testing.T) {
	handler := newGate(t)
	e := edgetest.Start(t, queued("", handler.Address))
	if status := e.Post(message(instance, chatA, 1)); status != 200 {
		t.Fatal(status)
	}
	e.WantRecord("outcome", "queued", "level", "debug", "status", "200", "instance", instance)
	asked(t, handler.Upstream, 1)
	handler.pass <- struct{}{}
	record := ended(e, 1)[0]
	if record.Text("msg") != "notification delivered" || record.Text("level") != "info" || record.Text("round") != "1" || record.Text("attempts") != "1" || record.Text("handler") != handler.Address || record.Text("queued_for") == "" {
		t.Errorf("%v", record)
	}
	for _, want := range []string{
		`caddy_green_api_notifications_total{outcome="queued",reason="",type="incomingMessageReceived"} 1`,
		`caddy_green_api_notifications_total{outcome="delivered",reason="",type="incomingMessageReceived"} 1`,
		"caddy_green_api_queue_put_total 1", `caddy_green_api_queue_done_total{outcome="delivered"} 1`, "caddy_green_api_queue_entries 0",
		"caddy_green_api_queue_wait_seconds_count 1", "caddy_green_api_queue_put_seconds_count 1", "caddy_green_api_age_seconds_count 1",
	} {
		// The entry is removed after the record.
		edgetest.Eventually(t, want, func() bool { return strings.Contains(e.Scrape(), want) })
	}
}

// TestOrder: a chat, or an instance, has one notification with the handlers at a time, and does not wait for others.
func TestOrder(t *testing.T) {
	for key, want := range map[string]int{"chat": 3, "instance": 2} {
		t.Run(key, func(t *testing.T) {
			handler := newGate(t)
			e := edgetest.Start(t, queued("key "+key, handler.Address))
			for _, body := range []string{message(instance, chatA, 1), message(instance, chatA, 2), message(instance, chatB, 3), message(another, chatA, 4)} {
				if status := e.Post(body); status != 200 {
					t.Fatal(status)
				}
			}
			asked(t, handler.Upstream, want)
			for range 4 {
				handler.pass <- struct{}{}
			}
			ended(e, 4)
			var of []string // the first chat of the first instance
			for _, body := range bodies(handler.Upstream) {
				if strings.Contains(body, `"idInstance":`+instance) && (key == "instance" || strings.Contains(body, chatA)) {
					of = append(of, body)
				}
			}
			inOrder := []string{message(instance, chatA, 1), message(instance, chatA, 2), message(instance, chatB, 3)}
			if key == "chat" {
				inOrder = inOrder[:2]
			}
			if !slices.Equal(of, inOrder) {
				t.Errorf("the handler got %q", of)
			}
		})
	}
}

// TestRounds: what no handler takes is tried again and keeps its lane waiting, but no other.
func TestRounds(t *testing.T) {
	failed := make(chan struct{}, 10)
	times := 0
	handler := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Green-Api-Delivery") == "" {
			t.Error("no X-Green-Api-Delivery")
		}
		if id := r.Header.Get("X-Green-Api-Delivery"); id == "1" && times == 0 {
			times++
			w.WriteHeader(500)
			failed <- struct{}{}
		}
	})
	e := edgetest.Start(t, queued("retry 100ms", handler.Address))
	e.Post(message(instance, chatA, 1))
	<-failed
	e.Post(message(instance, chatA, 2))
	e.Post(message(another, chatA, 3))
	records := ended(e, 3)
	if got := records[0]; got.Text("instance") != another {
		t.Errorf("another instance waited: %v", got)
	}
	if got := records[1]; got.Text("round") != "2" || got.Text("instance") != instance {
		t.Errorf("%v", got)
	}
	if !strings.Contains(e.Logs.All(), `"lane":"`) {
		t.Error("the record of a failed round does not name the lane")
	}
	if n := strings.Count(e.Logs.All(), "handler takes notifications again"); n > 1 {
		t.Errorf("the handler recovered %d times", n)
	}
	if !strings.Contains(e.Logs.All(), `"level":"warn","ts":`) || !strings.Contains(e.Logs.All(), "no handler took a notification, it stays in the queue") {
		t.Error("nothing is said of the failed round")
	}
}

// TestTimedOut: a second handler does not begin what the first one is still doing.
func TestTimedOut(t *testing.T) {
	one, two := newGate(t), newGate(t)
	config := strings.Replace(queued("retry 1m", one.Address+" "+two.Address), "queue {", "deliver {\nattempt_timeout 200ms\n}\nqueue {", 1)
	e := edgetest.Start(t, config)
	e.Post(message(instance, chatA, 1))
	edgetest.Eventually(t, "the round ends", func() bool { return strings.Contains(e.Logs.All(), `"reason":"attempt_timeout"`) })
	if n := len(one.Requests()) + len(two.Requests()); n != 1 {
		t.Errorf("%d handlers were asked", n)
	}
}

// TestInstanceFull: what finds the share of its instance full waits for room, and gets 200 when there is some.
func TestInstanceFull(t *testing.T) {
	handler := newGate(t)
	e := edgetest.Start(t, queued("max_per_instance 1", handler.Address))
	e.Post(message(instance, chatA, 1))
	asked(t, handler.Upstream, 1)
	second := make(chan int)
	go func() { second <- e.Post(message(instance, chatA, 2)) }()
	if status := e.Post(message(another, chatA, 3)); status != 200 {
		t.Errorf("another instance: %d", status)
	}
	select {
	case status := <-second:
		t.Errorf("%d without room", status)
	case <-time.After(300 * time.Millisecond):
	}
	if n := strings.Count(e.Logs.All(), "notification waits for room in the queue"); n != 1 {
		t.Errorf("said %d times that it waits", n)
	}
	handler.pass <- struct{}{}
	handler.pass <- struct{}{}
	if status := <-second; status != 200 {
		t.Errorf("%d", status)
	}
	handler.pass <- struct{}{}
	ended(e, 3)
}

// TestPutFails: what may be stored and may not is answered 503, and not stored twice when it comes again.
func TestPutFails(t *testing.T) {
	handler := edgetest.NewUpstream(t, 200, nil)
	config := queued("put_timeout 1ns", handler.Address)
	e := edgetest.Start(t, config)
	if status := e.Post(message(instance, chatA, 1)); status != 503 {
		t.Fatal(status)
	}
	e.WantRecord("outcome", "failed", "reason", "queue_unavailable", "level", "error")
	if err := e.Load(strings.Replace(config, "put_timeout 1ns", "", 1)); err != nil {
		t.Fatal(err)
	}
	if status := e.Post(message(instance, chatA, 1)); status != 200 {
		t.Fatal(status)
	}
	e.Post(message(instance, chatA, 2))
	ended(e, 2)
	if got := bodies(handler); !slices.Equal(got, []string{message(instance, chatA, 1), message(instance, chatA, 2)}) {
		t.Errorf("the handler got %q", got)
	}
}

// TestTooLarge: what cannot fit into the queue is kept.
func TestTooLarge(t *testing.T) {
	handler := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, strings.Replace(queued("", handler.Address), "quarantine DIR", "quarantine DIR\nqueue {\nmax_size 1MiB\n}", 1))
	long := strings.Replace(message(instance, chatA, 1), "Ann", strings.Repeat("x", 990_000), 1)
	if status := e.Post(long); status != 200 {
		t.Fatal(status)
	}
	e.WantRecord("outcome", "quarantined", "reason", "too_large")
}

// TestSurvives: what is in the queue survives the end of the process, a pause too, and is delivered by the next one.
func TestSurvives(t *testing.T) {
	handler := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, queued("", handler.Address))
	e := edgetest.Start(t, config)
	command(t, admin, "pause")
	for i := range 3 {
		if status := e.Post(message(instance, chatA, i)); status != 200 {
			t.Fatal(status)
		}
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	if got := lanes(t, admin); len(got) != 1 || got[0]["state"] != "paused" || got[0]["entries"] != 3.0 {
		t.Errorf("%v", got)
	}
	if n := len(handler.Requests()); n != 0 {
		t.Errorf("%d were delivered", n)
	}
	command(t, admin, "resume")
	asked(t, handler, 3)
}

// TestRemoved: without `queue` in the config, what is in the queue is delivered to the end, and what comes meanwhile
// waits for what came before.
func TestRemoved(t *testing.T) {
	handler := newGate(t)
	config := queued("", handler.Address)
	e := edgetest.Start(t, config)
	e.Post(message(instance, chatA, 1))
	e.Post(message(instance, chatA, 2))
	asked(t, handler.Upstream, 1)
	if err := e.Load(without(config)); err != nil {
		t.Fatal(err)
	}
	third := make(chan int)
	go func() { third <- e.Post(message(instance, chatA, 3)) }()
	fourth := make(chan int)
	go func() { fourth <- e.Post(message(another, chatA, 4)) }()
	asked(t, handler.Upstream, 2)
	for range 4 {
		handler.pass <- struct{}{}
	}
	if status := <-third; status != 200 {
		t.Error(status)
	}
	if status := <-fourth; status != 200 {
		t.Error(status)
	}
	var order []string
	for _, body := range bodies(handler.Upstream) {
		if strings.Contains(body, instance) {
			order = append(order, body)
		}
	}
	if want := []string{message(instance, chatA, 1), message(instance, chatA, 2), message(instance, chatA, 3)}; !slices.Equal(order, want) {
		t.Errorf("the handler got %q", order)
	}
}

// TestRemovedOld: without `queue` in the config, nothing that is in the queue is too old to be delivered.
func TestRemovedOld(t *testing.T) {
	handler := edgetest.NewUpstream(t, 200, nil)
	config := without(queued("", handler.Address))
	e := edgetest.Start(t, config)
	store, err := bolt.Open(e.Dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := &queue.Record{Block: "default", Instance: instance, Received: time.Now().Add(-48 * time.Hour), Host: "localhost", URI: "/", Body: []byte(message(instance, chatA, 1))}
	_, err = store.Put(t.Context(), r, 0)
	if err := errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
	if err := e.Load(strings.Replace(config, "metrics /metrics", "metrics /metrics2", 1)); err != nil {
		t.Fatal(err)
	}
	asked(t, handler, 1)
}

// TestBesides: a block that never had a queue does not wait for what another one stores.
func TestBesides(t *testing.T) {
	fast := edgetest.NewUpstream(t, 200, nil)
	config := queued("", fast.Address)
	config = strings.Replace(config, "metrics /metrics\n", "green_api /besides {\nname besides\n"+edgetest.Loopback+"reverse_proxy "+fast.Address+"\n}\nmetrics /metrics\n", 1)
	e := edgetest.Start(t, config)
	var senders sync.WaitGroup
	var over atomic.Bool
	for n := range 8 {
		senders.Go(func() {
			for i := 0; !over.Load(); i++ {
				e.Post(message(strconv.Itoa(1101000010+n), chatA, i))
			}
		})
	}
	defer senders.Wait()
	defer over.Store(true)
	slow := 0 // a busy machine may hold up a few
	for i := range 50 {
		began := time.Now()
		status := e.Send(http.MethodPost, strings.Replace(e.URL, "/green-api/webhook", "/besides", 1), strings.NewReader(message(instance, chatA, i)), "Connection", "close").StatusCode
		if status != 200 {
			t.Fatalf("status %d", status)
		}
		if time.Since(began) > 900*time.Millisecond {
			slow++
		}
	}
	if slow > 10 {
		t.Errorf("%d of 50 waited as long as for a queue", slow)
	}
}

// TestReload: a delivery under way ends on the old config, and the next one takes the new one's handlers.
func TestReload(t *testing.T) {
	before, after := newGate(t), edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, queued("", before.Address))
	e.Post(message(instance, chatA, 1))
	e.Post(message(instance, chatA, 2))
	asked(t, before.Upstream, 1)
	if err := e.Load(queued("key chat", after.Address)); err != nil {
		t.Fatal(err)
	}
	before.pass <- struct{}{}
	ended(e, 2)
	if got := bodies(after); !slices.Equal(got, []string{message(instance, chatA, 2)}) {
		t.Errorf("the new handler got %q", got)
	}
}

// TestDraining: the operator can empty the queue before the edge is taken away.
func TestDraining(t *testing.T) {
	handler := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, queued("", handler.Address))
	e := edgetest.Start(t, config)
	command(t, admin, "drain")
	if status := e.Post(message(instance, chatA, 1)); status != 503 {
		t.Error(status)
	}
	e.WantRecord("outcome", "failed", "reason", "draining")
	if status := e.Send(http.MethodGet, "http://"+admin+"/green_api/health", nil).StatusCode; status != 503 {
		t.Errorf("health: %d", status)
	}
	command(t, admin, "drain?off=true")
	if status := e.Post(message(instance, chatA, 1)); status != 200 {
		t.Error(status)
	}
	ended(e, 1)

	// Drained, removed and added again, it takes in.
	command(t, admin, "drain")
	for _, next := range []string{without(config), config} {
		if err := e.Load(next); err != nil {
			t.Fatal(err)
		}
	}
	if status := e.Post(message(instance, chatA, 2)); status != 200 {
		t.Errorf("%d after it was removed and added again", status)
	}
}

// TestSkipped: what the operator skips is in the quarantine, and can be replayed.
func TestSkipped(t *testing.T) {
	handler := edgetest.NewUpstream(t, 500, nil)
	config, admin := edgetest.WithAdmin(t, queued("", handler.Address))
	e := edgetest.Start(t, config)
	e.Post(message(instance, chatA, 1))
	edgetest.Eventually(t, "the first round fails", func() bool {
		got := lanes(t, admin)
		return len(got) == 1 && got[0]["state"] == "waiting" && got[0]["reason"] == "handler_error"
	})
	command(t, admin, "skip?lane="+lanes(t, admin)[0]["lane"].(string))
	record := ended(e, 1)[0]
	if record.Text("reason") != "skipped" || record.Text("quarantine_id") == "" {
		t.Errorf("%v", record)
	}
	kept := e.Kept()
	if len(kept) != 1 || len(kept[0].Answers) != 1 || kept[0].Answers[0].Status != 500 || kept[0].Reason != "skipped" || kept[0].Instance != instance || kept[0].Name != "default" {
		t.Errorf("%+v", kept)
	}
}

// TestReceived: what is fetched from the HTTP API goes through the queue, too, and is deleted there once it is stored.
func TestReceived(t *testing.T) {
	edgetest.Proof(t)
	vendor := edgetest.NewVendor(t, standin.Options{}, instance)
	handler := newGate(t)
	config := strings.Replace(queued("", handler.Address), "queue {", vendor.Receives(instance)+"queue {", 1)
	e := edgetest.Start(t, config)
	vendor.Notify(instance, []byte(message(instance, chatA, 1)))
	vendor.Notify(instance, []byte(message(instance, chatA, 2)))
	edgetest.Eventually(t, "both are stored", func() bool { return strings.Count(e.Logs.All(), `"outcome":"queued"`) == 2 })
	asked(t, handler.Upstream, 1)
	handler.pass <- struct{}{}
	handler.pass <- struct{}{}
	for _, record := range ended(e, 2) {
		if record.Text("via") != "http_api" {
			t.Errorf("%v", record)
		}
	}
	if got := handler.Requests()[0].Uri; got != "/green-api/webhook?via=api" {
		t.Error(got)
	}
}

// TestWire: a handler sees the same request with a queue and without one, but for the number of the round.
func TestWire(t *testing.T) {
	sent := func(config func(upstream string) string) []map[string]any {
		handler := edgetest.NewUpstream(t, 200, nil)
		e := edgetest.Start(t, config(handler.Address))
		for i, headers := range [][]string{
			nil,
			{"X-Custom", "one", "User-Agent", "other", "Accept-Language", "ru"},
			{"Cookie", "", "X-Forwarded-For", "203.0.113.9", "X-Forwarded-Proto", "https", "Via", "1.0 before"},
			{"Host", "hooks.example.com", "Connection", "X-Hop", "X-Hop", "gone", "Te", "trailers"},
			{"X-Green-Api-Id", "forged", "X-Green-Api-Delivery", "9", "X-Green-Api-Replay", "forged"},
		} {
			body := message(instance, chatA, i)
			if status := e.Send(http.MethodPost, e.URL+"?a=b%20c&d", strings.NewReader(body), headers...).StatusCode; status != 200 {
				t.Fatal(status)
			}
		}
		asked(t, handler, 5)
		var all []map[string]any
		for _, r := range handler.Requests() {
			header := maps.Clone(map[string][]string(r.Header))
			delete(header, "X-Green-Api-Delivery")
			delete(header, "X-Forwarded-Host") // its port is the test's
			all = append(all, map[string]any{"uri": r.Uri, "method": r.Method, "header": header, "length": r.Length, "body": r.Body})
		}
		return all
	}
	direct := sent(func(upstream string) string { return without(queued("", upstream)) })
	later := sent(func(upstream string) string { return queued("", upstream) })
	for i := range direct {
		if !reflect.DeepEqual(direct[i], later[i]) {
			t.Errorf("request %d: with a queue\n%v\nwithout\n%v", i, later[i], direct[i])
		}
	}
}

// command gives the queue an order through the admin API.
func command(t *testing.T, admin, order string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, "http://"+admin+"/green_api/queue/"+order, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := edgetest.Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 {
		t.Fatalf("%s: %d %s %v", order, response.StatusCode, text, err)
	}
}

// lanes lists the queue through the admin API.
func lanes(t *testing.T, admin string) (all []map[string]any) {
	t.Helper()
	response, err := edgetest.Client.Get("http://" + admin + "/green_api/queue")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	for lines := json.NewDecoder(response.Body); lines.More(); {
		var lane map[string]any
		if err := lines.Decode(&lane); err != nil {
			t.Fatal(err)
		}
		all = append(all, lane)
	}
	return all
}
