package greenapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// chunks writes a body in chunks of a size.
func chunks(body string, size int) string {
	var text strings.Builder
	for len(body) > 0 {
		n := min(size, len(body))
		fmt.Fprintf(&text, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return text.String() + "0\r\n\r\n"
}

// TestTrapFraming has requests about whose ends two servers may be of two minds. Nothing but the
// notification itself may reach a handler.
func TestTrapFraming(t *testing.T) {
	up := newWitness(t)
	e := start(t, site(loopback+"validate {\nmax_body_size 2KiB\nmax_kept_body 4KiB\n}\nreverse_proxy "+up.address))
	padded := func(n int) string { return textMessage + strings.Repeat(" ", n-len(textMessage)) }
	noToken := strings.Replace(request(textMessage), "Authorization", "X-Nothing", 1)
	chunked := "Transfer-Encoding: chunked\r\n\r\n"
	for _, test := range []struct {
		name    string
		text    string
		want    []int // all answers; 0 is any but 200
		reached int   // notifications that handlers got
	}{
		{"whole", request(textMessage), []int{200}, 1},
		{"two after each other", request(textMessage) + request(textMessage+" "), []int{200, 200}, 2},
		{"one without a token after it", request(textMessage) + noToken, []int{200, 401}, 1},
		{"one inside it", request(noToken + request(textMessage)), []int{200}, 0},
		{"length too short", strings.Replace(request(textMessage), fmt.Sprint("Content-Length: ", len(textMessage)), fmt.Sprint("Content-Length: ", len(textMessage)-9), 1), []int{200, 400}, 0},
		{"length too long", strings.Replace(request(textMessage), fmt.Sprint("Content-Length: ", len(textMessage)), fmt.Sprint("Content-Length: ", len(textMessage)+9), 1), []int{0}, 0},
		{"length too long, a request for the rest", rawHead + fmt.Sprint("Content-Length: ", len(textMessage)+len(noToken)) + "\r\n\r\n" + textMessage + noToken, []int{200}, 0},
		{"two lengths", rawHead + fmt.Sprintf("Content-Length: %d\r\nContent-Length: 5\r\n\r\n", len(textMessage)) + textMessage, []int{400}, 0},
		{"two lengths in a line", rawHead + fmt.Sprintf("Content-Length: %d, 5\r\n\r\n", len(textMessage)) + textMessage, []int{400}, 0},
		{"length with a sign", rawHead + fmt.Sprintf("Content-Length: +%d\r\n\r\n", len(textMessage)) + textMessage, []int{400}, 0},
		{"negative length", rawHead + "Content-Length: -1\r\n\r\n" + textMessage, []int{400}, 0},
		{"no length", rawHead + "\r\n" + textMessage, []int{200, 400}, 0},
		{"chunked", rawHead + chunked + chunks(textMessage, 7), []int{200}, 1},
		{"chunked, and a length", rawHead + "Content-Length: 5\r\n" + chunked + chunks(textMessage, 100), []int{200}, 1},
		{"chunked, one without a token after it", rawHead + chunked + chunks(textMessage, 100) + noToken, []int{200, 401}, 1},
		{"chunked, with an extension", rawHead + chunked + "3;x=y\r\n" + textMessage[:3] + "\r\n" + chunks(textMessage[3:], 99), []int{200}, 1},
		{"chunked, huge extensions", rawHead + chunked + strings.Repeat("1;"+strings.Repeat("x", 2000)+"\r\n \r\n", 500) + chunks(textMessage, 99), []int{0}, 0},
		{"chunked, longer than a number", rawHead + chunked + "fffffffffffffffff\r\n" + textMessage + "\r\n0\r\n\r\n", []int{0}, 0},
		{"chunked, negative", rawHead + chunked + "-1\r\n" + textMessage + "\r\n0\r\n\r\n", []int{0}, 0},
		{"chunked, with a token in the trailer", strings.Replace(rawHead, "Authorization", "X-Nothing", 1) + "Trailer: Authorization\r\n" + chunked + strings.TrimSuffix(chunks(textMessage, 99), "\r\n") + "Authorization: Bearer " + testToken + "\r\n\r\n", []int{401}, 0},
		{"chunked, without an end", rawHead + chunked + strings.TrimSuffix(chunks(textMessage, 99), "0\r\n\r\n"), []int{0}, 0},
		{"coding twice", rawHead + "Transfer-Encoding: chunked\r\n" + chunked + chunks(textMessage, 99), []int{0}, 0},
		{"coding twice, one unknown", rawHead + "Transfer-Encoding: identity\r\n" + chunked + chunks(textMessage, 99), []int{0}, 0},
		{"coding unknown", rawHead + "Transfer-Encoding: xchunked\r\n\r\n" + chunks(textMessage, 99), []int{0}, 0},
		{"coding gzip", rawHead + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunks(textMessage, 99), []int{0}, 0},
		{"coding with a control character", rawHead + "Transfer-Encoding: \x0bchunked\r\n\r\n" + chunks(textMessage, 99), []int{0}, 0},
		{"a space before the colon", rawHead + "Transfer-Encoding : chunked\r\n\r\n" + chunks(textMessage, 99), []int{0}, 0},
		{"as long as may be", request(padded(2 << 10)), []int{200}, 1},
		{"too long", request(padded(2<<10 + 1)), []int{200}, 0},
		{"too long to keep", request(padded(4<<10 + 1)), []int{413}, 0},
		{"chunked, as long as may be", rawHead + chunked + chunks(padded(2<<10), 500), []int{200}, 1},
		{"chunked, too long", rawHead + chunked + chunks(padded(2<<10+1), 500), []int{200}, 0},
		{"chunked, too long to keep", rawHead + chunked + chunks(padded(4<<10+1), 500), []int{413}, 0},
		{"chunked, and never an end", rawHead + chunked + strings.Repeat("400\r\n"+strings.Repeat(" ", 1<<10)+"\r\n", 1000), []int{413}, 0},
		{"a length of terabytes", rawHead + "Content-Length: 9999999999999\r\n\r\n" + textMessage, []int{413}, 0},
		{"to another protocol", request(textMessage, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"), []int{200}, 1},
		{"HTTP/1.0", strings.Replace(request(textMessage), "HTTP/1.1", "HTTP/1.0", 1), []int{200}, 1},
		{"two hosts", request(textMessage, "Host: elsewhere"), []int{400}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			e.t = t
			e.later(unheardFor) // a sender that closes its half early looks like one that has hung up
			before := len(up.requests())
			got := e.answersTo(test.text)
			for i := range got {
				if i < len(test.want) && test.want[i] == 0 && got[i] != 200 {
					got[i] = 0
				}
			}
			if len(got) == 0 && test.want[0] == 0 { // not even an answer
				got = []int{0}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("answers %v, want %v", got, test.want)
			}
			requests := up.requests()[before:]
			if len(requests) != test.reached {
				t.Errorf("handlers got %d, want %d", len(requests), test.reached)
			}
			for _, r := range requests {
				if strings.TrimSpace(r.body) != textMessage || r.length != int64(len(r.body)) || len(r.coding) > 0 {
					t.Errorf("a handler got %q, of length %d, coding %q", r.body, r.length, r.coding)
				}
			}
		})
	}
}

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
	e := start(t, site(loopback+"deliver {\ntimeout 1s\nattempt_timeout 500ms\n}\nreverse_proxy "+up.Listener.Addr().String()))
	for _, status := range e.answersTo(request(textMessage, "Connection: Upgrade", "Upgrade: websocket") + "tunnel") {
		if status/100 < 4 {
			t.Errorf("status %d", status)
		}
	}
}

// TestTrapAtOnce: a refusal does not wait for a body that never comes.
func TestTrapAtOnce(t *testing.T) {
	up := newWitness(t)
	e := start(t, siteWith("", "green_api /green-api/* {\n"+loopback+"reverse_proxy "+up.address+"\n}\n"+
		"green_api /elsewhere* {\nname elsewhere\nip_filter {\nallow 203.0.113.7\n}\nauth {\ntoken TOKEN\n}\n}\n"+
		"route /early* {\ntest_early_data\ngreen_api {\nname early\n"+loopback+"}\n}\nrespond 404\n"))
	for _, test := range []struct {
		name, path, token string
		status            int
		reason            string
	}{
		{"address", "/elsewhere", "x", 403, reasonIPNotAllowed},
		{"address, right token", "/elsewhere", testToken, 403, reasonUnlistedSender},
		{"early data", "/early", testToken, 425, reasonEarlyData},
		{"too large", "/green-api/webhook", testToken, 413, reasonTooLarge},
	} {
		for _, framing := range []string{"Content-Length: 99999999\r\n\r\n{", "Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"typ"} {
			if test.status == 413 && strings.Contains(framing, "chunked") {
				continue // its length is not announced: TestTrapFraming
			}
			t.Run(test.name, func(t *testing.T) {
				e.t = t
				began := time.Now()
				text := "POST " + test.path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + test.token + "\r\n" + framing
				if response := e.trap(up, text, test.status, test.reason); !response.Close {
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
	up := newUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Slow") != "" {
			<-slow
		}
	})
	e := start(t, global("servers {\ntimeouts {\nread_header 300ms\nread_body 300ms\n}\n}\n", site(loopback+"reverse_proxy "+up.address)))
	for _, test := range []struct{ name, head string }{
		{"header", "POST /green-api/webhook HTTP/1.1\r\nHost: localhost\r\nX-Drip: "},
		{"body", rawHead + "Content-Length: 1000\r\n\r\n"},
		{"body in chunks", rawHead + "Transfer-Encoding: chunked\r\n\r\n3e8\r\n"},
		{"body, of a stranger", strings.Replace(rawHead, testToken, "x", 1) + "Content-Length: 1000\r\n\r\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", "127.0.0.1:"+e.port)
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
		one.t = t
		if got := one.answersTo(request(textMessage, "X-Slow: yes")); !slices.Equal(got, []int{200}) {
			t.Errorf("answers %v, want 200", got)
		}
	})
}

// TestTrapExampleTimeouts: what the documents show bounds how long a header and a body may take.
func TestTrapExampleTimeouts(t *testing.T) {
	t.Setenv("GREEN_API_TOKEN", "demo-token")
	configs := make(map[string]string)
	example, err := os.ReadFile("Caddyfile.example")
	if err != nil {
		t.Fatal(err)
	}
	configs["Caddyfile.example"] = string(example)
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range fencesOf(string(readme)) {
		if found.language == "caddyfile" && strings.Contains(found.text, "admin unix/") {
			configs["README.md"] = found.text
		}
	}
	if len(configs) != 2 {
		t.Error("README.md shows no config for production")
	}
	for name, config := range configs {
		text, err := adapt(config)
		if err != nil {
			t.Fatal(err)
		}
		var parsed struct {
			Apps struct {
				HTTP struct {
					Servers map[string]struct {
						Routes     json.RawMessage `json:"routes"`
						ReadBody   time.Duration   `json:"read_timeout"`
						ReadHeader time.Duration   `json:"read_header_timeout"`
					} `json:"servers"`
				} `json:"http"`
			} `json:"apps"`
		}
		if err := json.Unmarshal(text, &parsed); err != nil {
			t.Fatal(err)
		}
		for _, server := range parsed.Apps.HTTP.Servers {
			if !strings.Contains(string(server.Routes), `"handler":"green_api"`) {
				continue
			}
			for _, bound := range []time.Duration{server.ReadBody, server.ReadHeader} {
				if bound <= 0 || bound > time.Minute {
					t.Errorf("%s: header within %s, body within %s; want at most a minute", name, server.ReadHeader, server.ReadBody)
				}
			}
		}
	}
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
			in := newInbox(t, nil)
			up := newUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Forged", "FORGED")
				w.WriteHeader(418)
				io.WriteString(w, forgery)
			})
			config := alerting(in.URL, "header Content-Type text/plain\nbody \"{alert.text} {alert.reason} {alert.type} {alert.instances} {alert.example}\"",
				loopback+"deliver {\ndead_letter off\n}\nreverse_proxy "+up.address)
			config = strings.Replace(config, "bind 127.0.0.1", "bind 127.0.0.1\nlog", 1)
			e := start(t, strings.Replace(config, "format json", "format "+format, 1))
			statuses := make(map[int]int)
			for _, body := range []string{
				textMessage,
				strings.Replace(textMessage, "incomingMessageReceived", text, 1),           // unknown type
				strings.Replace(textMessage, `"textMessage"`, `"`+text+`"`, 1),             // unknown message
				strings.Replace(textMessage, "3EB0C767D097B7C7C030", text, 1),              // id
				strings.Replace(textMessage, "79001234568@c.us", text, 2),                  // chat
				strings.Replace(textMessage, `"a canary sings"`, `{"`+text+`":1}`, 1),      // schema
				strings.Replace(textMessage, `"textMessageData":{`, `"`+text+`":{"a":`, 1), // schema, and the name of a field
				strings.Replace(textMessage, `{"type`, `{"`+text+`":1,"`+text+`":2,"type`, 1),
				forgery,
			} {
				for _, line := range e.answersTo(request(body, "X-Forged: FORGED\u2028FORGED", "Referer: FORGED\u2028")) {
					statuses[line]++
				}
			}
			for _, head := range []string{
				"POST /green-api/webhook%0aFORGED HTTP/1.1\r\nHost: localhost\r\n",
				"POST /green-api/webhook/\x1b[31mFORGED?\u2028 HTTP/1.1\r\nHost: localhost\r\n",
				"POST /green-api/webhook HTTP/1.1\r\nHost: \x1b[31mFORGED\r\n",
				"FORGED\x1b[31m /green-api/webhook HTTP/1.1\r\nHost: localhost\r\n",
			} {
				e.answersTo(head + "Authorization: Bearer FORGED\u2028\r\nContent-Length: 0\r\n\r\n")
			}
			if statuses[502] < 1 || statuses[200] < 5 {
				t.Errorf("answers %v", statuses)
			}
			eventually(t, "alerts", func() bool {
				if format == "console" { // they are the same
					return true
				}
				all := strings.Join(in.all(), "\n")
				return strings.Contains(all, reasonSchema) && strings.Contains(all, reasonHandlerRefused) && strings.Contains(all, reasonUnknownType) &&
					strings.Contains(all, reasonMalformed) && strings.Contains(all, reasonBadToken)
			})
			for _, alert := range in.all() {
				if strings.ContainsAny(alert, "\x1b\x07\n\r\u2028*<") || strings.Contains(alert, "FORGED") {
					t.Errorf("alert: %q", alert)
				}
			}
			all := e.logs.all()
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
	up := newUpstream(t, 200, nil)
	e := start(t, site(loopback+"deliver {\ntimeout 1s\n}\nreverse_proxy "+up.address+" {\nheader_up X-All \"{http.green_api.type} {http.green_api.chat} {http.green_api.id}\"\n}"))
	body := strings.NewReplacer("3EB0C767D097B7C7C030", "{env.GREEN_API_TEST_SECRET}{http.request.header.Authorization}",
		"79001234568@c.us", "{http.green_api.id}{file./etc/hostname}").Replace(textMessage)
	if status := e.post(body); status != 200 {
		t.Fatalf("status %d", status)
	}
	want := "incomingMessageReceived {http.green_api.id}{file./etc/hostname} {env.GREEN_API_TEST_SECRET}{http.request.header.Authorization}"
	if got := up.requests()[0].header.Get("X-All"); got != want {
		t.Errorf("X-All: %q, want %q", got, want)
	}
	for _, evil := range []string{`\r\nX-Evil: 1`, `\nX-Evil: 1`, `\r\n\r\n{\"evil\":1}`, `\u0000`} {
		e.post(strings.Replace(textMessage, "3EB0C767D097B7C7C030", evil, 1))
	}
	for _, got := range up.requests() {
		if got.header.Get("X-Evil") != "" || !strings.HasPrefix(got.body, `{"typeWebhook":`) {
			t.Errorf("a handler got %+v", got)
		}
	}
}

// TestTrapSharedConnection: over HTTP/2, a stranger who is refused does not take the connection from
// others who share it, as behind a proxy.
func TestTrapSharedConnection(t *testing.T) {
	up := newUpstream(t, 200, nil)
	e := start(t, global("servers {\nprotocols h1 h2c\n}\n", site(loopback+"reverse_proxy "+up.address)))
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
		r, err := http.NewRequest(method, e.url, body)
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
		{http.MethodPost, testToken, strings.NewReader(textMessage), 200},
		{http.MethodGet, testToken, nil, 405},
		{http.MethodPost, "x", strings.NewReader(textMessage), 401},
		{http.MethodPut, testToken, never, 405},
		{http.MethodPost, testToken, strings.NewReader(textMessage), 200},
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
	up := newWitness(t)
	e := start(t, site(loopback+"reverse_proxy "+up.address))
	conn, err := net.Dial("tcp", "127.0.0.1:"+e.port)
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
		{"wrong", textMessage, 401, false},
		{testToken, textMessage, 200, false},
		{"wrong", "not a notification", 401, false},
		{"", "", 401, false},
		{testToken, textMessage, 200, false},
		{"wrong", strings.Repeat(" ", maxClaim+1), 401, true}, // too long to be read off
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
	up := newWitness(t)
	e := start(t, site(loopback+"reverse_proxy "+up.address))
	e.trap(up, request(textMessage, "Content-Type: application/json", replayHeader+": forged"), 200, "")
	if got := up.requests(); len(got) != 1 || got[0].header.Get(replayHeader) != "" {
		t.Errorf("the handler got %+v", got)
	}
}
