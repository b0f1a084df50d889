package deliver

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestDeliverPassesOn: the handler gets the very bytes that were checked, with their length, and
// the headers as nginx would pass them.
func TestDeliverPassesOn(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))

	spaced := " \r\n" + strings.Replace(edgetest.TextMessage, "canary", `can\u0061ry \ud83d "ё"`, 1) + "\n "
	spaced = strings.ReplaceAll(spaced, `\ud83d "ё"`, `\ud83d ё`+"\xff")
	chunked := fmt.Sprintf("7\r\n%s\r\n%x\r\n%s\r\n0\r\nX-Trailer: x\r\n\r\n", spaced[:7], len(spaced)-7, spaced[7:])
	for _, test := range []struct{ name, request string }{
		{"with a length", fmt.Sprintf("Content-Type: application/json\r\nX-Custom: kept\r\nContent-Length: %d\r\n\r\n%s", len(spaced), spaced)},
		{"chunked", "Content-Type: application/json\r\nX-Custom: kept\r\nTransfer-Encoding: chunked\r\nTrailer: X-Trailer\r\n\r\n" + chunked},
	} {
		t.Run(test.name, func(t *testing.T) {
			e.T = t
			if status := e.Raw(edgetest.RawHead + test.request).StatusCode; status != 200 {
				t.Fatalf("status %d", status)
			}
			requests := up.Requests()
			got := requests[len(requests)-1]
			if got.Body != spaced {
				t.Errorf("body %q, want %q", got.Body, spaced)
			}
			if got.Length != int64(len(spaced)) || len(got.Coding) > 0 {
				t.Errorf("Content-Length %d, Transfer-Encoding %v, want %d and none", got.Length, got.Coding, len(spaced))
			}
			for name, want := range map[string]string{
				"Authorization": "Bearer " + edgetest.Token, "Content-Type": "application/json", "X-Custom": "kept",
				"X-Forwarded-For": "127.0.0.1", "Expect": "", "Trailer": "",
			} {
				if got.Header.Get(name) != want {
					t.Errorf("%s: %q, want %q", name, got.Header.Get(name), want)
				}
			}
		})
	}
}

// TestDeliverExpect: the sender is told to go on once, and the handler is not asked whether it may.
func TestDeliverExpect(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	conn, err := net.Dial("tcp", "127.0.0.1:"+e.Port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "%sExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", edgetest.RawHead, len(edgetest.TextMessage))
	answers := bufio.NewReader(conn)
	if line, err := answers.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("got %q, %v", line, err)
	}
	answers.ReadString('\n')
	io.WriteString(conn, edgetest.TextMessage)
	if line, err := answers.ReadString('\n'); err != nil || !strings.Contains(line, "200 OK") {
		t.Fatalf("got %q, %v", line, err)
	}
	if got := up.Requests()[0].Header.Get("Expect"); got != "" {
		t.Errorf("handler got Expect: %q", got)
	}
}

// TestDeliverAnswers has what a handler may do, and what the sender is told.
func TestDeliverAnswers(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	hijack := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				io.WriteString(conn, text)
				conn.Close()
			}
		}
	}
	tests := []struct {
		name   string
		answer http.HandlerFunc
		status int
		reason string
		said   string // handler_status
	}{
		{"200", status(200), 200, "", ""},
		{"201", status(201), 200, "", ""},
		{"204", status(204), 200, "", ""},
		{"a long body", func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 4<<20)) }, 200, "", ""},
		{"a long header", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Long", strings.Repeat("x", 1<<20)) }, 502, "broken_off", ""},
		{"early hints", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(103); w.WriteHeader(202) }, 200, "", ""},
		{"301", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", 301) }, 502, "misrouted", "301"},
		{"304", status(304), 502, "misrouted", "304"},
		{"401", status(401), 502, "misrouted", "401"},
		{"403", status(403), 502, "misrouted", "403"},
		{"404", status(404), 502, "misrouted", "404"},
		{"405", status(405), 502, "misrouted", "405"},
		{"400", status(400), 502, "handler_refused", "400"},
		{"422", status(422), 502, "handler_refused", "422"},
		{"408", status(408), 503, "not_now", "408"},
		{"425", status(425), 503, "not_now", "425"},
		{"429", status(429), 503, "not_now", "429"},
		{"502", status(502), 503, "not_now", "502"},
		{"503", status(503), 503, "not_now", "503"},
		{"504", status(504), 503, "not_now", "504"},
		{"500", status(500), 502, "handler_error", "500"},
		{"501", status(501), 502, "handler_error", "501"},
		{"broken off without an answer", hijack(""), 502, "broken_off", ""},
		{"200 broken off in the body", hijack("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), 502, "broken_off", "200"},
		{"200 broken off in a chunk", hijack("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf"), 502, "broken_off", "200"},
		{"no HTTP", hijack("hello\r\n\r\n"), 502, "broken_off", ""},
		{"hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 504, "attempt_timeout", ""},
		{"hangs after 200", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, 504, "attempt_timeout", "200"},
	}
	var site strings.Builder
	var handlers []*edgetest.Upstream
	for i, test := range tests {
		up := edgetest.NewUpstream(t, 0, test.answer)
		handlers = append(handlers, up)
		timeout, attempt := 5*time.Second, 4*time.Second
		switch test.reason {
		case "not_now":
			timeout, attempt = 800*time.Millisecond, 400*time.Millisecond // all of it is waited
		case "attempt_timeout":
			timeout, attempt = 900*time.Millisecond, 300*time.Millisecond
		}
		timeout, attempt = edgetest.Patient(timeout), edgetest.Patient(attempt)
		fmt.Fprintf(&site, "green_api /n%d {\nname n%d\n%sdeliver {\ntimeout %s\nattempt_timeout %s\nsecond_opinion 0\n}\nreverse_proxy %s {\nheader_down X-Handler yes\n}\n}\n", i, i, edgetest.Loopback, timeout, attempt, up.Address)
	}
	e := edgetest.Start(t, edgetest.SiteWith("", site.String()))
	var posting sync.WaitGroup
	for i, test := range tests { // all at once, as many of them wait
		posting.Go(func() {
			response := e.Send(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%s/n%d", e.Port, i), strings.NewReader(edgetest.Numbered(fmt.Sprintf("N%d", i))))
			if response.StatusCode != test.status {
				t.Errorf("%s: status %d, want %d", test.name, response.StatusCode, test.status)
			}
			for name := range response.Header {
				switch name {
				case "Date", "Server", "Content-Length", "Connection":
				default:
					t.Errorf("%s: the sender got a header of the handler's: %s", test.name, name)
				}
			}
		})
	}
	posting.Wait()
	records := make(map[string]edgetest.Record)
	for _, r := range e.Logs.Records(t) {
		records[r.Text("id")] = r
	}
	for i, test := range tests {
		outcome, level := "delivered", "info"
		if test.status != 200 {
			outcome, level = "failed", "error"
		}
		record, n := records[fmt.Sprintf("N%d", i)], len(handlers[i].Requests())
		for field, want := range map[string]string{
			"outcome": outcome, "reason": test.reason, "level": level, "handler_status": test.said,
			"status": fmt.Sprint(test.status), "handler": handlers[i].Address, "attempts": fmt.Sprint(n),
		} {
			if got := record.Text(field); got != want {
				t.Errorf("%s: %s %q, want %q", test.name, field, got, want)
			}
		}
		if (n == 1) == (test.reason == "not_now") {
			t.Errorf("%s: the handler was asked %d times", test.name, n)
		}
	}
}

func TestDeliverNobodyThere(t *testing.T) {
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 500ms\n}\nreverse_proxy 127.0.0.1:"+edgetest.FreePort(t)))
	if status := e.Post(edgetest.TextMessage); status != 503 {
		t.Errorf("status %d, want 503", status)
	}
	e.WantRecord("outcome", "failed", "reason", "not_now")
}

// TestDeliverOutlivesTheSender: a handler that has begun is not cut short when the sender hangs up.
func TestDeliverOutlivesTheSender(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	finished := make(chan error, 1)
	up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		select {
		case <-goOn:
			finished <- nil
		case <-r.Context().Done():
			finished <- r.Context().Err()
		}
	})
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	ctx, hangUp := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, strings.NewReader(edgetest.TextMessage))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+edgetest.Token)
	go func() {
		<-began
		hangUp()
	}()
	if response, err := edgetest.Client.Do(r); err == nil {
		t.Fatalf("answered %d before the handler did", response.StatusCode)
	}
	// Caddy has noticed when a cancelled request would have been recorded.
	time.Sleep(100 * time.Millisecond)
	close(goOn)
	if err := <-finished; err != nil {
		t.Errorf("handler was cut short: %v", err)
	}
	edgetest.Eventually(t, "record of the delivery", func() bool { return len(e.Logs.Records(t)) == 1 })
	e.WantRecord("outcome", "delivered")
}

// TestDeliverNext: any handler of the route may deliver, not only reverse_proxy; a panic in one is
// a failed attempt.
func TestDeliverNext(t *testing.T) {
	for _, test := range []struct {
		behind string
		status int
		reason string
	}{
		{"respond 202", 200, ""},
		{"error 500", 502, "handler_error"},
		{"error 404", 502, "misrouted"},
		{"error 200", 502, "broken_off"},
		{"abort", 502, "broken_off"},
		{"test_panic", 502, "broken_off"},
	} {
		t.Run(test.behind, func(t *testing.T) {
			e := edgetest.Start(t, edgetest.SiteWith("order test_panic before respond", "green_api {\n"+edgetest.Loopback+"}\n"+test.behind+"\n"))
			if status := e.Post(edgetest.TextMessage); status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			e.WantRecord("reason", test.reason)
		})
	}
}

// panicker is a handler with a fault.
type panicker struct{}

func init() {
	caddy.RegisterModule(panicker{})
	httpcaddyfile.RegisterHandlerDirective("test_panic", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		return panicker{}, nil
	})
}

func (panicker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_panic", New: func() caddy.Module { return new(panicker) }}
}

func (panicker) ServeHTTP(http.ResponseWriter, *http.Request, caddyhttp.Handler) error {
	panic("a fault")
}

// TestDeliverTooLate: of a body that is as long in coming as `timeout`, no handler is asked, and none is
// blamed.
func TestDeliverTooLate(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 200ms\n}\nreverse_proxy "+up.Address))
	for _, late := range []time.Duration{170 * time.Millisecond, 230 * time.Millisecond} {
		body := io.MultiReader(strings.NewReader(edgetest.TextMessage[:10]), lateReader{late, strings.NewReader(edgetest.TextMessage[10:])})
		if status := e.Send(http.MethodPost, e.URL, body).StatusCode; status != 503 {
			t.Errorf("%s: status %d", late, status)
		}
		e.WantRecord("reason", "not_now", "attempts", "", "handler", "")
	}
	if n := len(up.Requests()); n > 0 {
		t.Errorf("a handler was asked %d times", n)
	}
	if strings.Contains(e.Logs.All(), "handler fails") {
		t.Error("a handler is blamed")
	}
}

// lateReader waits before each read.
type lateReader struct {
	after time.Duration
	io.Reader
}

func (r lateReader) Read(p []byte) (int, error) {
	time.Sleep(r.after)
	return r.Reader.Read(p)
}

// TestWholeBody: a handler gets a notification in one piece, with one write. In two, the first would
// end with the header.
func TestWholeBody(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var mu sync.Mutex
	var pieces [][]byte
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buffer := make([]byte, 64<<10)
				for {
					n, err := conn.Read(buffer)
					if err != nil {
						return
					}
					mu.Lock()
					pieces = append(pieces, bytes.Clone(buffer[:n]))
					mu.Unlock()
					if bytes.HasSuffix(buffer[:n], []byte(edgetest.TextMessage)) {
						_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					}
				}
			}()
		}
	}()
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+listener.Addr().String()))
	const sent = 50
	for range sent {
		if status := e.Post(edgetest.TextMessage); status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(pieces) != sent {
		t.Errorf("%d notifications came in %d pieces", sent, len(pieces))
	}
}
