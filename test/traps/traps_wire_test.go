package traps

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// TestTrapUpgrade: no handler can make a tunnel of a notification, past all checks.
func TestTrapUpgrade(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if text, _ := io.ReadAll(conn); strings.Contains(string(text), "tunnel") {
			t.Error("there is a tunnel")
		}
	}))
	defer up.Close()
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 1s\nattempt_timeout 500ms\n}\nreverse_proxy "+up.Listener.Addr().String()))
	for _, status := range e.AnswersTo(edgetest.Request(edgetest.TextMessage, "Connection: Upgrade", "Upgrade: websocket") + "tunnel") {
		if status/100 < 4 {
			t.Errorf("status %d", status)
		}
	}
}

// TestTrapAtOnce: a refusal does not wait for a body that never comes.
func TestTrapAtOnce(t *testing.T) {
	up := edgetest.NewWitness(t)
	e := edgetest.Start(t, edgetest.SiteWith("", "green_api /green-api/* {\n"+edgetest.Loopback+"reverse_proxy "+up.Address+"\n}\n"+
		"green_api /elsewhere* {\nname elsewhere\nip_filter {\nallow 203.0.113.7\n}\nauth {\ntoken TOKEN\n}\n}\n"+
		"route /early* {\ntest_early_data\ngreen_api {\nname early\n"+edgetest.Loopback+"}\n}\nrespond 404\n"))
	for _, test := range []struct {
		name, path, token string
		status            int
		reason            string
	}{
		{"address", "/elsewhere", "x", 403, reason.IPNotAllowed},
		{"address, right token", "/elsewhere", edgetest.Token, 403, reason.UnlistedSender},
		{"early data", "/early", edgetest.Token, 425, reason.EarlyData},
		{"too large", "/green-api/webhook", edgetest.Token, 413, reason.TooLarge},
	} {
		for _, framing := range []string{"Content-Length: 99999999\r\n\r\n{", "Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"typ"} {
			if test.status == 413 && strings.Contains(framing, "chunked") {
				continue // its length is not announced: TestTrapFraming
			}
			t.Run(test.name, func(t *testing.T) {
				e.T = t
				began := time.Now()
				text := "POST " + test.path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + test.token + "\r\n" + framing
				if response := e.Trap(up, text, test.status, test.reason); !response.Close {
					t.Error("the connection is left open")
				}
				if took := time.Since(began); took > 5*time.Second { // the time-out of a body that stands still is a minute
					t.Errorf("took %s", took)
				}
			})
		}
	}
}

// TestTrapSlow: who sends a byte at a time is cut off, and a handler that takes longer than the
// sending may is not.
func TestTrapSlow(t *testing.T) {
	slow := make(chan struct{})
	up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Slow") != "" {
			<-slow
		}
	})
	e := edgetest.Start(t, edgetest.Global("servers {\ntimeouts {\nread_header 300ms\nread_body 300ms\n}\n}\n", edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address)))
	for _, test := range []struct{ name, head string }{
		{"header", "POST /green-api/webhook HTTP/1.1\r\nHost: localhost\r\nX-Drip: "},
		{"body", edgetest.RawHead + "Content-Length: 1000\r\n\r\n"},
		{"body in chunks", edgetest.RawHead + "Transfer-Encoding: chunked\r\n\r\n3e8\r\n"},
		{"body, of a stranger", strings.Replace(edgetest.RawHead, edgetest.Token, "x", 1) + "Content-Length: 1000\r\n\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", "127.0.0.1:"+e.Port)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			began := time.Now()
			var dripping sync.WaitGroup
			ended := make(chan struct{})
			dripping.Go(func() {
				io.WriteString(conn, test.head)
				drip := time.NewTicker(50 * time.Millisecond)
				defer drip.Stop()
				for {
					select {
					case <-drip.C:
						io.WriteString(conn, " ")
					case <-ended:
						return
					}
				}
			})
			answer, _ := io.ReadAll(conn)
			close(ended)
			dripping.Wait()
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("held for %s", took)
			}
			if strings.Contains(string(answer), " 200 ") {
				t.Errorf("answered %q", answer)
			}
		})
	}
	t.Run("handler", func(t *testing.T) {
		t.Parallel()
		timer := time.AfterFunc(700*time.Millisecond, func() { close(slow) })
		defer timer.Stop()
		one := *e
		one.T = t
		if got := one.AnswersTo(edgetest.Request(edgetest.TextMessage, "X-Slow: yes")); !slices.Equal(got, []int{200}) {
			t.Errorf("answers %v, want 200", got)
		}
	})
}

// forgery is what somebody puts into a text to write a line of the log, or to steer a terminal.
const forgery = "x\nFORGED \r\nFORGED \u2028FORGED \x1b[31mFORGED \x1b]0;FORGED\x07 *FORGED* <!channel> <a href=x>FORGED</a>"

// TestTrapInjection: what a request says does not write lines of the log of its own, and nothing of
// it but its closed lists is in an alert.
func TestTrapInjection(t *testing.T) {
	quoted, err := json.Marshal(forgery)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Trim(string(quoted), `"`)
	for _, format := range []string{"json", "console"} {
		t.Run(format, func(t *testing.T) {
			in := edgetest.NewInbox(t, nil)
			up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Forged", "FORGED")
				w.WriteHeader(418)
				io.WriteString(w, forgery)
			})
			config := edgetest.Alerting(in.URL, "header Content-Type text/plain\nbody \"{alert.text} {alert.reason} {alert.type} {alert.instances} {alert.example}\"",
				edgetest.Loopback+"deliver {\ndead_letter off\n}\nreverse_proxy "+up.Address)
			config = strings.Replace(config, "bind 127.0.0.1", "bind 127.0.0.1\nlog", 1)
			e := edgetest.Start(t, strings.Replace(config, "format json", "format "+format, 1))
			statuses := make(map[int]int)
			for _, body := range []string{
				edgetest.TextMessage,
				strings.Replace(edgetest.TextMessage, "incomingMessageReceived", text, 1),           // unknown type
				strings.Replace(edgetest.TextMessage, `"textMessage"`, `"`+text+`"`, 1),             // unknown message
				strings.Replace(edgetest.TextMessage, "3EB0C767D097B7C7C030", text, 1),              // id
				strings.Replace(edgetest.TextMessage, "79001234568@c.us", text, 2),                  // chat
				strings.Replace(edgetest.TextMessage, `"a canary sings"`, `{"`+text+`":1}`, 1),      // schema
				strings.Replace(edgetest.TextMessage, `"textMessageData":{`, `"`+text+`":{"a":`, 1), // schema, and the name of a field
				strings.Replace(edgetest.TextMessage, `{"type`, `{"`+text+`":1,"`+text+`":2,"type`, 1),
				forgery,
			} {
				for _, line := range e.AnswersTo(edgetest.Request(body, "X-Forged: FORGED\u2028FORGED", "Referer: FORGED\u2028")) {
					statuses[line]++
				}
			}
			for _, head := range []string{
				"POST /green-api/webhook%0aFORGED HTTP/1.1\r\nHost: localhost\r\n",
				"POST /green-api/webhook/\x1b[31mFORGED?\u2028 HTTP/1.1\r\nHost: localhost\r\n",
				"POST /green-api/webhook HTTP/1.1\r\nHost: \x1b[31mFORGED\r\n",
				"FORGED\x1b[31m /green-api/webhook HTTP/1.1\r\nHost: localhost\r\n",
			} {
				e.AnswersTo(head + "Authorization: Bearer FORGED\u2028\r\nContent-Length: 0\r\n\r\n")
			}
			if statuses[502] < 1 || statuses[200] < 5 {
				t.Errorf("answers %v", statuses)
			}
			if err := caddy.Stop(); err != nil { // which sends what was gathered for alerts
				t.Fatal(err)
			}
			edgetest.Eventually(t, "alerts", func() bool {
				if format == "console" { // they are the same
					return true
				}
				all := strings.Join(in.All(), "\n")
				return strings.Contains(all, reason.Schema) && strings.Contains(all, reason.HandlerRefused) && strings.Contains(all, reason.UnknownType) &&
					strings.Contains(all, reason.Malformed) && strings.Contains(all, reason.BadToken)
			})
			for _, alert := range in.All() {
				if strings.ContainsAny(alert, "\x1b\x07\n\r\u2028*<") || strings.Contains(alert, "FORGED") {
					t.Errorf("alert: %q", alert)
				}
			}
			all := e.Logs.All()
			if !strings.Contains(all, "FORGED") {
				t.Error("nothing of it was logged, so that nothing is proven")
			}
			if i := strings.IndexAny(all, "\x1b\x07\r"); i >= 0 && format == "json" {
				t.Errorf("control character in the log: %q", all[max(0, i-200):i+20])
			}
			for line := range strings.Lines(all) {
				if strings.HasPrefix(line, "FORGED") || strings.HasPrefix(strings.TrimSpace(line), "FORGED") {
					t.Errorf("a line of the log: %q", line)
				}
				if format == "json" && !json.Valid([]byte(line)) {
					t.Errorf("no JSON: %q", line)
				}
			}
		})
	}
}

// TestTrapPlaceholders: what a body says is not taken for a placeholder, and is no header line.
func TestTrapPlaceholders(t *testing.T) {
	t.Setenv("GREEN_API_TEST_SECRET", "the-canary-of-the-environment")
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 1s\n}\nreverse_proxy "+up.Address+" {\nheader_up X-All \"{http.green_api.type} {http.green_api.chat} {http.green_api.id}\"\n}"))
	body := strings.NewReplacer("3EB0C767D097B7C7C030", "{env.GREEN_API_TEST_SECRET}{http.request.header.Authorization}",
		"79001234568@c.us", "{http.green_api.id}{file./etc/hostname}").Replace(edgetest.TextMessage)
	if status := e.Post(body); status != 200 {
		t.Fatalf("status %d", status)
	}
	want := "incomingMessageReceived {http.green_api.id}{file./etc/hostname} {env.GREEN_API_TEST_SECRET}{http.request.header.Authorization}"
	if got := up.Requests()[0].Header.Get("X-All"); got != want {
		t.Errorf("X-All: %q, want %q", got, want)
	}
	for _, evil := range []string{`\r\nX-Evil: 1`, `\nX-Evil: 1`, `\r\n\r\n{\"evil\":1}`, `\u0000`} {
		e.Post(strings.Replace(edgetest.TextMessage, "3EB0C767D097B7C7C030", evil, 1))
	}
	for _, got := range up.Requests() {
		if got.Header.Get("X-Evil") != "" || !strings.HasPrefix(got.Body, `{"typeWebhook":`) {
			t.Errorf("a handler got %+v", got)
		}
	}
}

// TestTrapSharedConnection: over HTTP/2, a stranger who is refused does not take the connection from
// others who share it, as behind a proxy.
func TestTrapSharedConnection(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Global("servers {\nprotocols h1 h2c\n}\n", edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address)))
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	dials := 0
	transport := &http.Transport{Protocols: &protocols, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		dials++
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	post := func(method, token string, body io.Reader) int {
		t.Helper()
		r, err := http.NewRequest(method, e.URL, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.ProtoMajor != 2 {
			t.Fatalf("HTTP/%d", response.ProtoMajor)
		}
		return response.StatusCode
	}
	never, writer := io.Pipe() // a body that never comes
	defer writer.Close()
	for _, test := range []struct {
		method, token string
		body          io.Reader
		status        int
	}{
		{http.MethodPost, edgetest.Token, strings.NewReader(edgetest.TextMessage), 200},
		{http.MethodGet, edgetest.Token, nil, 405},
		{http.MethodPost, "x", strings.NewReader(edgetest.TextMessage), 401},
		{http.MethodPut, edgetest.Token, never, 405},
		{http.MethodPost, edgetest.Token, strings.NewReader(edgetest.TextMessage), 200},
	} {
		if status := post(test.method, test.token, test.body); status != test.status {
			t.Errorf("status %d, want %d", status, test.status)
		}
	}
	if dials != 1 {
		t.Errorf("%d connections, want 1", dials)
	}
}

// TestWrongTokenKeepsConnection: a sender whose body was read off to the end is not made to connect
// anew, however it is answered; what it sends next is judged by itself.
func TestWrongTokenKeepsConnection(t *testing.T) {
	up := edgetest.NewWitness(t)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	conn, err := net.Dial("tcp", "127.0.0.1:"+e.Port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	answers := bufio.NewReader(conn)
	for i, test := range []struct {
		token, body string
		status      int
		closed      bool
	}{
		{"wrong", edgetest.TextMessage, 401, false},
		{edgetest.Token, edgetest.TextMessage, 200, false},
		{"wrong", "not a notification", 401, false},
		{"", "", 401, false},
		{edgetest.Token, edgetest.TextMessage, 200, false},
		{"wrong", strings.Repeat(" ", 64<<10+1), 401, true}, // too long to be read off
	} {
		if _, err := fmt.Fprintf(conn, "POST /green-api/webhook HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
			test.token, len(test.body), test.body); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		response.Body.Close()
		if response.StatusCode != test.status || response.Close != test.closed {
			t.Errorf("request %d: %d, closed %v; want %d, %v", i, response.StatusCode, response.Close, test.status, test.closed)
		}
	}
}

// TestTrapReplayHeader: what marks a replay is not taken from a sender.
func TestTrapReplayHeader(t *testing.T) {
	up := edgetest.NewWitness(t)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	e.Trap(up, edgetest.Request(edgetest.TextMessage, "Content-Type: application/json", "X-Green-Api-Replay"+": forged"), 200, "")
	if got := up.Requests(); len(got) != 1 || got[0].Header.Get("X-Green-Api-Replay") != "" {
		t.Errorf("the handler got %+v", got)
	}
}

// TestTrapIDHeader: a sender can neither choose the id by which a handler knows a notification, nor take
// it away.
func TestTrapIDHeader(t *testing.T) {
	up := edgetest.NewWitness(t)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	for i, line := range []string{
		"X-Green-Api-Id: forged", "x-green-api-id: forged", "X-Green-Api-Id: a\r\nX-Green-Api-Id: b",
		"X_Green_Api_Id: forged", "X-Green-Api_Id: forged", "X.Green.Api.Id: forged",
		"Connection: X-Green-Api-Id", "Connection: keep-alive\r\nConnection: keep-alive , x-green-api-id",
	} {
		e.Trap(up, edgetest.Request(edgetest.TextMessage, "Content-Type: application/json", line), 200, "")
		got := up.Requests()
		if len(got) != i+1 {
			t.Fatalf("%q: the handler got %d requests", line, len(got))
		}
		own := 0
		for name, values := range got[i].Header {
			if strings.NewReplacer("_", "-", ".", "-").Replace(strings.ToLower(name)) == "x-green-api-id" {
				own += len(values)
			}
		}
		if id := got[i].Header.Get("X-Green-Api-Id"); own != 1 || len(id) != 32 {
			t.Errorf("%q: the handler got %v", line, got[i].Header)
		}
	}
}
