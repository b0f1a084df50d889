package greenapi

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

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
			up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) {
				if asked.Add(1) == 1 {
					close(began)
					<-goOn
				}
				w.WriteHeader(test.status)
			})
			e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
			e.HangUpAfter(edgetest.TextMessage, began)
			awaitHangUp(t)
			answer := make(chan int)
			go func() { answer <- e.Post(edgetest.TextMessage) }()
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
			for _, record := range e.Logs.Records(t) {
				if record["joined"] == true {
					joined++
				}
				if record.Text("handler") != up.Address || record.Text("attempts") != "1" {
					t.Errorf("%v", record)
				}
			}
			if n := len(e.Logs.Records(t)); n != 2 || joined != 1 {
				t.Errorf("%d records, %d joined", n, joined)
			}
		})
	}

	began, goOn := make(chan struct{}, 2), make(chan struct{})
	up := edgetest.NewUpstream(t, 0, func(http.ResponseWriter, *http.Request) {
		began <- struct{}{}
		<-goOn
	})
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	answers := make(chan int)
	for range 2 {
		go func() { answers <- e.Post(edgetest.TextMessage) }()
	}
	<-began
	<-began // both
	close(goOn)
	if a, b := <-answers, <-answers; a != 200 || b != 200 {
		t.Errorf("status %d and %d", a, b)
	}
}

// TestUnheard: what ended well when its sender had hung up is not done a second time; the sender is
// told when it sends it again, once.
func TestUnheard(t *testing.T) {
	for _, test := range []struct {
		name    string
		status  int // of the handler
		options string
		later   time.Duration
		answer  int
		reason  string // of the re-send
		asked   int64
		kept    int
	}{
		{"taken", 200, "", time.Minute, 200, "duplicate", 1, 0},
		{"taken, with deduplicate", 200, "deduplicate 1h", time.Minute, 200, "duplicate", 1, 0},
		{"taken, but long ago", 200, "", 10*time.Minute + time.Second, 200, "", 2, 0},
		{"dead letter", 422, "dead_letter 1", time.Minute, 200, "duplicate", 1, 1},
		{"failed", 422, "", time.Minute, 502, "handler_refused", 2, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			began, goOn := make(chan struct{}), make(chan struct{})
			var asked atomic.Int64
			up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) {
				if asked.Add(1) == 1 {
					close(began)
					<-goOn
				}
				w.WriteHeader(test.status)
			})
			e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\n"+test.options+"\n}\nreverse_proxy "+up.Address))
			e.HangUpAfter(edgetest.TextMessage, began)
			awaitHangUp(t)
			close(goOn)
			edgetest.Eventually(t, "end of the first", func() bool { return len(e.Logs.Records(t)) == 1 })
			later(test.later)
			if status := e.Post(edgetest.TextMessage); status != test.answer {
				t.Errorf("status %d, want %d", status, test.answer)
			}
			e.WantRecord("reason", test.reason)
			if test.reason == "duplicate" {
				e.WantRecord("outcome", "dropped", "level", "debug")
			}
			if n := asked.Load(); n != test.asked {
				t.Errorf("asked %d times, want %d", n, test.asked)
			}
			if test.options == "" && test.status == 200 { // it was told, so this is another one
				e.Post(edgetest.TextMessage)
				e.WantRecord("outcome", "delivered")
			}
			if kept := e.Kept(); len(kept) != test.kept {
				t.Errorf("%d kept, want %d", len(kept), test.kept)
			}
		})
	}
}

// awaitHangUp waits until the edge knows that the sender of the one that is on its way has hung up.
func awaitHangUp(t *testing.T) {
	fleet := holdFleet(defaultName)
	defer releaseFleet(defaultName)
	edgetest.Eventually(t, "sender's end", fleet.IsUnheard)
}

// TestDeduplicate: only what a handler took is remembered, by event, and over reloads.
func TestDeduplicate(t *testing.T) {
	status := func(id, status string) string {
		return `{"typeWebhook":"outgoingMessageStatus","instanceData":{"idInstance":1101000001,"wid":"79001234567@c.us","typeInstance":"whatsapp"},` +
			`"timestamp":1700000000,"chatId":"79001234568@c.us","idMessage":"` + id + `","status":"` + status + `","sendByApi":true}`
	}
	up := edgetest.Script(t, "422", "200")
	config := edgetest.Site(edgetest.Loopback + "deliver {\ndeduplicate 24h\ndead_letter off\n}\nreverse_proxy " + up.Address)
	e := edgetest.Start(t, config)
	for i, test := range []struct {
		body   string
		status int
		reason string
	}{
		{edgetest.TextMessage, 502, "handler_refused"},
		{edgetest.TextMessage, 200, ""},
		{edgetest.TextMessage, 200, "duplicate"},
		{strings.Replace(edgetest.TextMessage, "1700000000", "1700000060", 1), 200, "duplicate"}, // GREEN-API's own
		{strings.Replace(edgetest.TextMessage, "1101000001", "1101000002", 1), 200, ""},
		{strings.Replace(edgetest.TextMessage, `"chatId":"79001234568@c.us"`, `"chatId":"79001234569@c.us"`, 1), 200, ""},
		{status("3EB0C767D097B7C7C030", "sent"), 200, ""},
		{status("3EB0C767D097B7C7C030", "delivered"), 200, ""},
		{status("3EB0C767D097B7C7C030", "delivered"), 200, "duplicate"},
		{edgetest.StateChanged, 200, ""},
		{strings.Replace(edgetest.StateChanged, "1700000000", "1700000060", 1), 200, ""}, // without idMessage: another one
		{edgetest.StateChanged, 200, "duplicate"},
		{strings.Replace(edgetest.TextMessage, "a canary sings", "a canary sings more", 1), 200, ""}, // a placeholder before
		{strings.Replace(edgetest.TextMessage, `"a canary sings"`, `"a canary sings","more":1`, 1), 200, ""},
		{strings.Replace(edgetest.TextMessage, `"typeWebhook":"incomingMessageReceived",`, "", 1)[:1] + strings.Replace(edgetest.TextMessage, `{"typeWebhook":"incomingMessageReceived",`, "", 1)[:len(edgetest.TextMessage)-len(`{"typeWebhook":"incomingMessageReceived",`)-1] +
			`,"typeWebhook":"incomingMessageReceived"}`, 200, "duplicate"}, // in another order
	} {
		if i%4 == 3 {
			if err := e.Load(config + fmt.Sprintf("\n# %d", i)); err != nil {
				t.Fatal(err)
			}
		}
		if got := e.Post(test.body); got != test.status {
			t.Errorf("%d: status %d, want %d", i, got, test.status)
		}
		if got := e.Record().Text("reason"); got != test.reason {
			t.Errorf("%d: reason %q, want %q", i, got, test.reason)
		}
	}
}

// TestExit: when the process is told to end, what only waits for a handler is answered at once, and
// what a handler works at is finished.
func TestExit(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	up := edgetest.NewUpstream(t, 0, func(http.ResponseWriter, *http.Request) {
		close(began)
		<-goOn
	})
	e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(t.TempDir(), "quarantine")}
	e.URL = "http://127.0.0.1:" + e.Port + "/green-api/webhook"
	p := edgetest.StartProcess(t, e, edgetest.SiteWith("", "green_api /green-api/webhook* {\n"+edgetest.Loopback+"reverse_proxy 127.0.0.1:"+edgetest.FreePort(t)+"\n}\n"+
		"green_api /busy {\nname busy\n"+edgetest.Loopback+"reverse_proxy "+up.Address+"\n}\nrespond 404\n"))
	answer, busy := make(chan int), make(chan int)
	go func() { answer <- e.Post(edgetest.TextMessage) }()
	go func() {
		busy <- e.Send(http.MethodPost, "http://127.0.0.1:"+e.Port+"/busy", strings.NewReader(edgetest.TextMessage)).StatusCode
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
		t.Errorf("%v\n%s", err, p.Output)
	}
}

// TestExitAsksNobodyElse: once the process is told to end, no further handler is asked.
func TestExitAsksNobodyElse(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	a := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-goOn
		w.WriteHeader(http.StatusInternalServerError)
	})
	b := edgetest.NewUpstream(t, 200, nil)
	e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(t.TempDir(), "quarantine")}
	e.URL = "http://127.0.0.1:" + e.Port + "/green-api/webhook"
	p := edgetest.StartProcess(t, e, edgetest.Site(edgetest.Loopback+"reverse_proxy "+a.Address+" "+b.Address+" {\nlb_policy first\n}"))
	answer := make(chan int)
	go func() { answer <- e.Post(edgetest.TextMessage) }()
	<-began
	p.Process.Signal(syscall.SIGTERM)
	edgetest.Eventually(t, "the end", func() bool { // its listeners are closed after those that wait were told
		conn, err := net.Dial("tcp", "127.0.0.1:"+e.Port)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	close(goOn)
	if status := <-answer; status != 502 {
		t.Errorf("status %d, want 502", status)
	}
	if n := len(b.Requests()); n > 0 {
		t.Errorf("the other handler was asked %d times", n)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("%v\n%s", err, p.Output)
	}
}
