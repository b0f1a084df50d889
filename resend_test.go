package greenapi

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// hangUpAfter posts a body and gives up when began is closed.
func (e *edge) hangUpAfter(body string, began <-chan struct{}) {
	e.t.Helper()
	ctx, hangUp := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+testToken)
	go func() {
		<-began
		hangUp()
	}()
	if response, err := testClient.Do(r); err == nil {
		e.t.Fatalf("answered %d before the handler did", response.StatusCode)
	}
}

// TestJoin: a notification that comes again while its first delivery still runs, after the sender
// gave up, joins that one; while the sender waits, the same bytes are another notification.
func TestJoin(t *testing.T) {
	for _, test := range []struct {
		name   string
		status int // of the handler
		answer int
	}{
		{"taken", 200, 200},
		{"refused", 422, 502},
	} {
		t.Run(test.name, func(t *testing.T) {
			began, goOn := make(chan struct{}), make(chan struct{})
			var asked atomic.Int64
			up := newUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) {
				if asked.Add(1) == 1 {
					close(began)
					<-goOn
				}
				w.WriteHeader(test.status)
			})
			e := start(t, site(loopback+"reverse_proxy "+up.address))
			e.hangUpAfter(textMessage, began)
			fleet := holdFleet(defaultName)
			defer releaseFleet(defaultName)
			eventually(t, "sender's end", func() bool {
				fleet.flights.mu.Lock()
				defer fleet.flights.mu.Unlock()
				for _, flight := range fleet.flights.of {
					return flight.sender.Err() != nil
				}
				return false
			})
			answer := make(chan int)
			go func() { answer <- e.post(textMessage) }()
			select {
			case status := <-answer:
				t.Fatalf("answered %d before the handler did", status)
			case <-time.After(100 * time.Millisecond):
			}
			close(goOn)
			if status := <-answer; status != test.answer {
				t.Errorf("status %d, want %d", status, test.answer)
			}
			if n := asked.Load(); n != 1 {
				t.Errorf("asked %d times", n)
			}
			joined := 0
			for _, record := range e.logs.records(t) {
				if record["joined"] == true {
					joined++
				}
				if record.text("handler") != up.address || record.text("attempts") != "1" {
					t.Errorf("%v", record)
				}
			}
			if n := len(e.logs.records(t)); n != 2 || joined != 1 {
				t.Errorf("%d records, %d joined", n, joined)
			}
		})
	}

	began, goOn := make(chan struct{}, 2), make(chan struct{})
	up := newUpstream(t, 0, func(http.ResponseWriter, *http.Request) {
		began <- struct{}{}
		<-goOn
	})
	e := start(t, site(loopback+"reverse_proxy "+up.address))
	answers := make(chan int)
	for range 2 {
		go func() { answers <- e.post(textMessage) }()
	}
	<-began
	<-began // both
	close(goOn)
	if a, b := <-answers, <-answers; a != 200 || b != 200 {
		t.Errorf("status %d and %d", a, b)
	}
}

// TestDeadLetter: what handlers fail again and again while they take others goes into the quarantine.
func TestDeadLetter(t *testing.T) {
	const good, bad = "good", "POISON"
	handler := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.ContentLength == int64(len(numbered(bad))) {
				w.WriteHeader(status)
				fmt.Fprint(w, "cannot read it")
			}
		}
	}
	for _, test := range []struct {
		name    string
		status  int
		options string
		posts   string // g for a good one, b for the bad one
		last    int
		reason  string
	}{
		{"refused", 422, "", "bgbgb", 200, "undeliverable"},
		{"failed", 500, "", "bgbgb", 200, "undeliverable"},
		{"refused for too short", 422, "", "bgb", 502, "handler_refused"},
		{"nothing else was taken", 422, "", "gbbbbb", 502, "handler_refused"},
		{"nothing else was taken in between for long", 422, "", "bgbbbbgb", 200, "undeliverable"},
		{"not now does not count", 503, "timeout 60ms", "bgbgbgb", 503, "not_now"},
		{"misrouted does not count", 404, "", "bgbgbgb", 502, "misrouted"},
		{"after two", 422, "dead_letter 2", "bgb", 200, "undeliverable"},
		{"at once", 422, "dead_letter 1", "b", 200, "undeliverable"},
		{"off", 422, "dead_letter off", "bgbgbgbgb", 502, "handler_refused"},
		{"counts anew", 422, "", "bgbgbgb", 502, "handler_refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			up := newUpstream(t, 0, handler(test.status))
			e := start(t, site(loopback+"deliver {\n"+test.options+"\n}\nreverse_proxy "+up.address))
			status := 0
			for i, kind := range test.posts {
				if kind == 'b' {
					status = e.post(numbered(bad))
				} else if got := e.post(numbered(fmt.Sprint(good, i))); got != 200 {
					t.Errorf("good one: status %d", got)
				}
			}
			if status != test.last {
				t.Errorf("status %d, want %d", status, test.last)
			}
			e.wantRecord("reason", test.reason, "level", "error")
			kept := e.kept()
			if (len(kept) == 1) != (test.reason == "undeliverable" || test.name == "counts anew") {
				t.Fatalf("%d kept", len(kept))
			}
			if len(kept) == 1 {
				entry := kept[0]
				if entry.Reason != "undeliverable" || entry.NotificationID != bad || len(entry.Answers) != 1 ||
					entry.Answers[0].Handler != up.address || entry.Answers[0].Status != test.status || entry.Answers[0].Text != "cannot read it" {
					t.Errorf("kept %+v", entry)
				}
			}
		})
	}
}

// TestDeadLetterFull: if it cannot be kept, the failure stands.
func TestDeadLetterFull(t *testing.T) {
	up := newUpstream(t, 422, nil)
	e := start(t, strings.Replace(site(loopback+"deliver {\ndead_letter 1\n}\nreverse_proxy "+up.address), "quarantine DIR", "quarantine DIR {\nmax_size 1KiB\n}", 1))
	if status := e.post(textMessage); status != 502 {
		t.Errorf("status %d, want 502", status)
	}
	e.wantRecord("outcome", "failed", "reason", "handler_refused", "level", "error")
	if e.record().text("quarantine_error") == "" {
		t.Error("the record does not say why it is not kept")
	}
}

// TestDeadLettersBounded: however many different bodies fail, the memory for them is bounded.
func TestDeadLettersBounded(t *testing.T) {
	var d deadLetters
	body := make([]byte, 8)
	for i := range 3 * maxDeadLetters {
		binary.BigEndian.PutUint64(body, uint64(i))
		d.count(body, uint64(i), 0, time.Now())
	}
	if len(d.of) != maxDeadLetters || d.oldest.Len() != maxDeadLetters {
		t.Errorf("%d and %d remembered", len(d.of), d.oldest.Len())
	}
	if n := d.count(body, 1<<40, 0, time.Now()); n != 2 {
		t.Errorf("the last one: %d failures", n)
	}
}

// TestDeduplicate: only what a handler took is remembered, by event, and over reloads.
func TestDeduplicate(t *testing.T) {
	status := func(id, status string) string {
		return `{"typeWebhook":"outgoingMessageStatus","instanceData":{"idInstance":1101000001,"wid":"79001234567@c.us","typeInstance":"whatsapp"},` +
			`"timestamp":1700000000,"chatId":"79001234568@c.us","idMessage":"` + id + `","status":"` + status + `","sendByApi":true}`
	}
	up := script(t, "422", "200")
	config := site(loopback + "deliver {\ndeduplicate 24h\ndead_letter off\n}\nreverse_proxy " + up.address)
	e := start(t, config)
	for i, test := range []struct {
		body   string
		status int
		reason string
	}{
		{textMessage, 502, "handler_refused"},
		{textMessage, 200, ""},
		{textMessage, 200, "duplicate"},
		{strings.Replace(textMessage, "1700000000", "1700000060", 1), 200, "duplicate"}, // GREEN-API's own
		{strings.Replace(textMessage, "1101000001", "1101000002", 1), 200, ""},
		{strings.Replace(textMessage, `"chatId":"79001234568@c.us"`, `"chatId":"79001234569@c.us"`, 1), 200, ""},
		{status("3EB0C767D097B7C7C030", "sent"), 200, ""},
		{status("3EB0C767D097B7C7C030", "delivered"), 200, ""},
		{status("3EB0C767D097B7C7C030", "delivered"), 200, "duplicate"},
		{stateChanged, 200, ""},
		{strings.Replace(stateChanged, "1700000000", "1700000060", 1), 200, ""}, // without idMessage: another one
		{stateChanged, 200, "duplicate"},
	} {
		if i%4 == 3 {
			if err := e.load(config + fmt.Sprintf("\n# %d", i)); err != nil {
				t.Fatal(err)
			}
		}
		if got := e.post(test.body); got != test.status {
			t.Errorf("%d: status %d, want %d", i, got, test.status)
		}
		if got := e.record().text("reason"); got != test.reason {
			t.Errorf("%d: reason %q, want %q", i, got, test.reason)
		}
	}
}

func TestDuplicatesForget(t *testing.T) {
	var d duplicates
	now := time.Unix(1700000000, 0)
	key := func(i int) (k eventKey) {
		binary.BigEndian.PutUint64(k[:], uint64(i))
		return k
	}
	d.add(key(1), now, time.Minute)
	for after, want := range map[time.Duration]bool{0: true, 59 * time.Second: true, time.Minute: false} {
		if got := d.has(key(1), now.Add(after)); got != want {
			t.Errorf("after %s: %t", after, got)
		}
	}
	for i := range maxDuplicates + 1000 {
		d.add(key(i+2), now, time.Minute)
	}
	if len(d.until) > maxDuplicates || len(d.oldest) != len(d.until) || d.has(key(1), now) || !d.has(key(maxDuplicates), now) {
		t.Errorf("%d remembered", len(d.until))
	}
	d.add(key(0), now.Add(time.Hour), time.Minute)
	if len(d.until) != 1 || len(d.oldest) != 1 {
		t.Errorf("%d remembered after all are over", len(d.until))
	}
}

// TestExit: when the process is told to end, what only waits for a handler is answered at once, and
// what a handler works at is finished.
func TestExit(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	up := newUpstream(t, 0, func(http.ResponseWriter, *http.Request) {
		close(began)
		<-goOn
	})
	e := &edge{t: t, port: freePort(t), dir: filepath.Join(t.TempDir(), "quarantine")}
	e.url = "http://127.0.0.1:" + e.port + "/green-api/webhook"
	p := startProcess(t, e, siteWith("", "green_api /green-api/webhook* {\n"+loopback+"reverse_proxy 127.0.0.1:"+freePort(t)+"\n}\n"+
		"green_api /busy {\nname busy\n"+loopback+"reverse_proxy "+up.address+"\n}\nrespond 404\n"))
	answer, busy := make(chan int), make(chan int)
	go func() { answer <- e.post(textMessage) }()
	go func() {
		busy <- e.send(http.MethodPost, "http://127.0.0.1:"+e.port+"/busy", strings.NewReader(textMessage)).StatusCode
	}()
	<-began
	select {
	case status := <-answer:
		t.Fatalf("answered %d, although no handler is there", status)
	case <-time.After(300 * time.Millisecond):
	}
	told := time.Now()
	p.Process.Signal(syscall.SIGTERM)
	if status := <-answer; status != 503 {
		t.Errorf("status %d, want 503", status)
	}
	if took := time.Since(told); took > 2*time.Second {
		t.Errorf("answered %s after the end was told", took)
	}
	close(goOn)
	if status := <-busy; status != 200 {
		t.Errorf("the one at work: status %d", status)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("%v\n%s", err, p.output)
	}
}

// TestFlightsBothWays: what comes by webhook and HTTP API at once, as while an instance is switched,
// is one notification; twice by the same way it is two.
func TestFlightsBothWays(t *testing.T) {
	for _, test := range []struct {
		first, second string
		joins         bool
	}{{"", viaHTTPAPI, true}, {viaHTTPAPI, "", true}, {"", "", false}, {viaHTTPAPI, viaHTTPAPI, false}} {
		var f flights
		mine, _ := f.board(t.Context(), test.first, []byte(textMessage))
		if mine == nil {
			t.Fatal("the first does not board")
		}
		if _, other := f.board(t.Context(), test.second, []byte(textMessage)); (other != nil) != test.joins {
			t.Errorf("via %q, then %q: joins %t, want %t", test.first, test.second, other != nil, test.joins)
		}
	}
}
