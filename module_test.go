package greenapi

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// TestOutcomes takes one notification of each kind through a whole Caddy with two handlers behind
// it.
func TestOutcomes(t *testing.T) {
	one, two := edgetest.NewUpstream(t, 200, nil), edgetest.NewUpstream(t, 204, nil)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+`
		validate {
			max_body_size 2KiB
			max_kept_body 4KiB
			drop deviceInfo incomingMessageReceived.stickerMessage
		}
		reverse_proxy `+one.Address+" "+two.Address))

	sticker := strings.Replace(edgetest.TextMessage, `"textMessage","textMessageData"`, `"stickerMessage","fileMessageData"`, 1)
	padded := func(n int) string { return edgetest.TextMessage + strings.Repeat(" ", n-len(edgetest.TextMessage)) }
	for _, test := range []struct {
		name    string
		body    string
		headers []string
		status  int
		outcome string
		reason  string
		level   string
	}{
		{"genuine", edgetest.TextMessage, nil, 200, "delivered", "", "info"},
		{"state", edgetest.StateChanged, nil, 200, "delivered", "", "info"},
		{"no token", edgetest.TextMessage, []string{"Authorization", ""}, 401, "refused", "no_token", "warn"},
		{"wrong token", edgetest.TextMessage, []string{"Authorization", "Bearer nope"}, 401, "refused", "bad_token", "warn"},
		{"dropped type", `{"typeWebhook":"deviceInfo","instanceData":{"idInstance":1}}`, nil, 200, "dropped", "unwanted", "debug"},
		{"dropped message type", sticker, nil, 200, "dropped", "unwanted", "debug"},
		{"unknown type", `{"typeWebhook":"brandNew","instanceData":{"idInstance":1}}`, nil, 200, "quarantined", "unknown_type", "warn"},
		{"unknown message type", strings.Replace(edgetest.TextMessage, `"textMessage"`, `"brandNewMessage"`, 1), nil, 200, "delivered", "unknown_message", "warn"},
		{"schema", strings.Replace(edgetest.TextMessage, `"a canary sings"`, "5", 1), nil, 200, "quarantined", "schema", "error"},
		{"malformed", edgetest.TextMessage[:100], nil, 200, "quarantined", "malformed", "error"},
		{"empty", "", nil, 200, "quarantined", "malformed", "error"},
		{"encoded", edgetest.TextMessage, []string{"Content-Encoding", "gzip"}, 200, "quarantined", "encoding", "error"},
		{"identity", edgetest.TextMessage, []string{"Content-Encoding", "identity"}, 200, "delivered", "", "info"},
		{"as long as may be", padded(2 << 10), nil, 200, "delivered", "", "info"},
		{"too large", padded(2<<10 + 1), nil, 200, "quarantined", "too_large", "error"},
		{"too large to keep", padded(4<<10 + 1), nil, 413, "refused", "too_large", "error"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e.T = t
			if got := e.Post(test.body, test.headers...); got != test.status {
				t.Errorf("status %d, want %d", got, test.status)
			}
			e.WantRecord("outcome", test.outcome, "reason", test.reason, "level", test.level)
		})
	}
	for _, request := range append(one.Requests(), two.Requests()...) {
		if len(request.Body) < len(edgetest.StateChanged) {
			t.Errorf("a handler was asked about %q", request.Body)
		}
	}
	e.T = t
	for range 50 { // idle handlers are chosen by chance
		if len(one.Requests()) > 0 && len(two.Requests()) > 0 {
			break
		}
		e.Post(edgetest.StateChanged)
	}
	if len(one.Requests()) == 0 || len(two.Requests()) == 0 {
		t.Error("not balanced over both handlers")
	}
	for _, secret := range []string{edgetest.Token, "canary sings", "Test Sender", "79001234568"} {
		for _, r := range e.Logs.Records(t) {
			for key, value := range r {
				if text, ok := value.(string); ok && strings.Contains(text, secret) {
					t.Errorf("record has %q in field %s", secret, key)
				}
			}
		}
	}
}

func TestMethods(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		response := e.Send(method, e.URL, nil)
		if response.StatusCode != 405 || response.Header.Get("Allow") != "POST" {
			t.Errorf("%s: %d, Allow %q", method, response.StatusCode, response.Header.Get("Allow"))
		}
		e.WantRecord("outcome", "refused", "reason", "method", "level", "debug")
	}
	if n := len(up.Requests()); n != 0 {
		t.Errorf("handler was asked %d times", n)
	}
}

// TestNoUnexplained200 has everything that once answered 200 where nobody took the notification.
func TestNoUnexplained200(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	broken := edgetest.NewUpstream(t, 500, nil)
	proxied := "green_api /green-api/webhook* {\n" + edgetest.Loopback + "reverse_proxy " + up.Address + "\n}\nrespond 404\n"
	for _, test := range []struct {
		name   string
		site   string
		path   string
		host   string
		status int
	}{
		{"vendor's URL", proxied, "/green-api/webhook", "", 200},
		{"with trailing slash", proxied, "/green-api/webhook/", "", 200},
		{"wrong path", proxied, "/green-api/wrong", "", 404},
		{"root", proxied, "/", "", 404},
		{"wrong host", proxied, "/green-api/webhook", "wrong.example.com", 200}, // the site is for every host
		{
			"wrong host, site with a host", "@host host hooks.example.com\nhandle @host {\n" + proxied + "}\nrespond 404\n",
			"/green-api/webhook", "wrong.example.com", 404,
		},
		{"nothing behind", "green_api /green-api/webhook* {\n" + edgetest.Loopback + "}\n", "/green-api/webhook", "", 502},
		{"only a header behind", "green_api {\n" + edgetest.Loopback + "}\nheader X-Edge yes\n", "/green-api/webhook", "", 502},
		{"only respond 404 behind", "green_api {\n" + edgetest.Loopback + "}\nrespond 404\n", "/green-api/webhook", "", 502},
		{
			"handle_errors says 200", "green_api {\n" + edgetest.Loopback + "reverse_proxy " + broken.Address + "\n}\nhandle_errors {\nrespond oops 200\n}\n",
			"/green-api/webhook", "", 502,
		},
		{
			"error behind, handle_errors says 200", "green_api {\n" + edgetest.Loopback + "deliver {\ntimeout 300ms\n}\n}\nerror 503\nhandle_errors {\nrespond oops 200\n}\n",
			"/green-api/webhook", "", 503,
		},
		{
			"handle blocks behind", "green_api {\n" + edgetest.Loopback + "}\nhandle /green-api/* {\nreverse_proxy " + up.Address + "\n}\nhandle {\nrespond 404\n}\n",
			"/green-api/webhook", "", 200,
		},
		{
			"handle blocks behind, none matches", "green_api {\n" + edgetest.Loopback + "}\nhandle /elsewhere {\nreverse_proxy " + up.Address + "\n}\n",
			"/green-api/webhook", "", 502,
		},
		{
			"inside a handle block", "handle /green-api/* {\ngreen_api {\n" + edgetest.Loopback + "}\nhandle {\nreverse_proxy " + up.Address + "\n}\n}\nhandle {\nrespond 404\n}\n",
			"/green-api/webhook", "", 200,
		},
		{
			"a redirect behind", "green_api {\n" + edgetest.Loopback + "}\nrespond 302 {\nclose\n}\n",
			"/green-api/webhook", "", 502,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			asked := len(up.Requests())
			e := edgetest.Start(t, edgetest.SiteWith("", test.site))
			response := e.Send(http.MethodPost, "http://127.0.0.1:"+e.Port+test.path, strings.NewReader(edgetest.TextMessage), "Host", test.host)
			if response.StatusCode != test.status {
				t.Errorf("status %d, want %d", response.StatusCode, test.status)
			}
			if took := len(up.Requests()) > asked; took != (test.status == 200) {
				t.Errorf("status %d, and a handler took it: %t", response.StatusCode, took)
			}
		})
	}
}

// TestEarlyData: what is sent before the handshake is over can be a replay.
func TestEarlyData(t *testing.T) {
	for _, test := range []struct {
		tls  *tls.ConnectionState
		want int
	}{
		{nil, 0},
		{&tls.ConnectionState{HandshakeComplete: true}, 0},
		{&tls.ConnectionState{}, 425},
	} {
		end := notEarly(&visit{r: &http.Request{TLS: test.tls}})
		if (end == nil) != (test.want == 0) || end != nil && (end.Status != test.want || end.Outcome != outcome.Refused) {
			t.Errorf("%+v: %+v", test.tls, end)
		}
	}
}

// TestAborted: half a body is no notification, whoever is to blame.
func TestAborted(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	for _, text := range []string{
		edgetest.RawHead + "Content-Length: 1000\r\n\r\n" + edgetest.TextMessage,
		edgetest.RawHead + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"typ",
		edgetest.RawHead + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + edgetest.TextMessage,
	} {
		conn, err := net.Dial("tcp", "127.0.0.1:"+e.Port)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, text)
		conn.(*net.TCPConn).CloseWrite()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		answer, _ := io.ReadAll(conn)
		conn.Close()
		if strings.Contains(string(answer), " 200 ") {
			t.Errorf("answered %q", answer)
		}
		e.WantRecord("outcome", "refused", "reason", "aborted", "level", "debug")
	}
	if len(up.Requests()) != 0 {
		t.Error("a handler was asked")
	}
}

// TestPlaceholders: matchers, headers and other fleets by type work with stock directives.
func TestPlaceholders(t *testing.T) {
	states, rest := edgetest.NewUpstream(t, 200, nil), edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.SiteWith("", "green_api {\n"+edgetest.Loopback+"}\n@state vars {http.green_api.type} stateInstanceChanged\n"+
		"handle @state {\nreverse_proxy "+states.Address+"\n}\nhandle {\nreverse_proxy "+rest.Address+` {
			header_up X-All "{http.green_api.type} {http.green_api.message} {http.green_api.instance} {http.green_api.chat} {http.green_api.id}"
		}
	}
`))
	for _, body := range []string{edgetest.TextMessage, edgetest.StateChanged} {
		if status := e.Post(body); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	if len(states.Requests()) != 1 || len(rest.Requests()) != 1 {
		t.Fatalf("asked %d and %d times, want once each", len(states.Requests()), len(rest.Requests()))
	}
	want := "incomingMessageReceived textMessage 1101000001 79001234568@c.us 3EB0C767D097B7C7C030"
	if got := rest.Requests()[0].Header.Get("X-All"); got != want {
		t.Errorf("placeholders %q, want %q", got, want)
	}
}

// TestPlaceholdersInTime: none is known before there is something to say, and each says what the last block
// to see a request knows of it.
func TestPlaceholdersInTime(t *testing.T) {
	h := benchHandler(t, "ip_filter {\nallow 203.0.113.7\n}\nauth {\ntoken demo-token\n}\n")
	w := &nowhere{header: make(http.Header)}
	r := benchRequest(w)
	want := func(when string, repl *caddy.Replacer, want string) {
		t.Helper()
		var got []string
		for _, name := range []string{"type", "message", "instance", "chat", "id", "outcome", "reason"} {
			value, known := repl.Get("http.green_api." + name)
			text := caddy.ToString(value)
			if !known {
				text = "?"
			}
			got = append(got, text)
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	serve := func(r *http.Request, body, token string, next caddyhttp.HandlerFunc) {
		t.Helper()
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		r.Header.Set("Authorization", "Bearer "+token)
		if err := h.ServeHTTP(w, r, next); err != nil {
			t.Error(err)
		}
	}
	const text = "incomingMessageReceived textMessage 1101000001 79001234568@c.us 3EB0C767D097B7C7C030 "
	const state = "stateInstanceChanged  1101000001   "
	repl := replacer(r.Context())
	want("before", repl, "? ? ? ? ? ? ?")
	serve(r, edgetest.TextMessage, "wrong", nil)
	want("refused", repl, "? ? ? ? ? refused bad_token")
	serve(r, edgetest.TextMessage, "demo-token", func(w http.ResponseWriter, inner *http.Request) error {
		own := replacer(inner.Context())
		want("on its way", repl, text+"refused bad_token")
		want("in the handlers", own, text+"refused bad_token")
		serve(inner, edgetest.StateChanged, "demo-token", func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(http.StatusOK)
			return nil
		})
		want("after a block behind it", own, state+"delivered ")
		want("before that one", repl, text+"refused bad_token")
		own.Set("http.green_api.type", "set")
		want("with one that is set", own, strings.Replace(state, "stateInstanceChanged", "set", 1)+"delivered ")
		w.WriteHeader(http.StatusOK)
		return nil
	})
	want("delivered", repl, text+"delivered ")
	serve(r, edgetest.StateChanged, "demo-token", func(http.ResponseWriter, *http.Request) error {
		return caddyhttp.Error(http.StatusUnprocessableEntity, nil)
	})
	want("another", repl, state+"failed handler_refused")
}

// steering are some of the runes that a terminal obeys.
const steering = "\u009b\u200f\u2028\u202e\u2069"

// TestTerminal: nothing that an outsider says steers the terminal of who reads the log, an alert, or
// what the commands print.
func TestTerminal(t *testing.T) {
	quickAlerts(t)
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	port := edgetest.FreePort(t)
	config := strings.Replace(edgetest.Alerting(in.URL, "header Content-Type text/plain\nbody {alert.text}", "log_body\n"+edgetest.Loopback+"reverse_proxy "+up.Address), "admin off", "admin 127.0.0.1:"+port, 1)
	e := edgetest.Start(t, config)
	body := strings.Replace(edgetest.TextMessage, "3EB0C767D097B7C7C030", "id"+steering, 1)
	body = strings.Replace(body, `"typeWebhook":"`, `"typeWebhook":"`+steering, 1)
	clean := func(what, text string) {
		t.Helper()
		if text == "" || strings.ContainsAny(text, steering+"\x1b") {
			t.Errorf("%s: %q", what, text)
		}
	}
	e.Post(body)
	e.WantRecord("outcome", "quarantined")
	clean("log", e.Logs.All())
	edgetest.Eventually(t, "alert", func() bool { return len(in.All()) > 0 })
	clean("alert", in.All()[0])

	file := filepath.Join(t.TempDir(), "body.json")
	if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{
		"check " + file, "check --format json " + file, "check /nonexistent/" + steering, "send " + steering,
		"quarantine list", "quarantine list --format json", "quarantine export", "quarantine show", "quarantine show --format json",
	} {
		args := append([]string{"green-api"}, strings.Split(command, " ")...)
		if args[1] == "quarantine" {
			if args[2] == "show" {
				args = append(args[:3], append([]string{e.Record().Text("quarantine_id")}, args[3:]...)...)
			}
			args = append(args, "--address", "127.0.0.1:"+port)
		}
		stdout, stderr, _ := edgetest.RunCommand(t, t.TempDir(), "", args...)
		clean(command, stdout+stderr)
		if strings.Contains(command, "show --format json") {
			var entry struct {
				NotificationID string `json:"notification_id"`
			}
			if err := json.Unmarshal([]byte(stdout), &entry); err != nil || entry.NotificationID != "id"+steering {
				t.Errorf("%s: %q, %v", command, entry.NotificationID, err)
			}
		}
	}
}

// TestRecords compares the record of each outcome, field by field, with testdata/records.jsonl.
// What differs from run to run is replaced. Run with -update after a change that is meant.
func TestRecords(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	refusing := edgetest.NewUpstream(t, 422, nil)
	block := func(name, inside string) string {
		return "green_api /" + name + " {\nname " + name + "\n" + inside + "\n}\n"
	}
	tokens := "auth {\ntoken TOKEN\ninstance 1101000009 other-token\n}\n"
	e := edgetest.Start(t, strings.Replace(edgetest.SiteWith("", "log\n"+
		block("ok", "ip_filter {\nallow 127.0.0.1\n}\n"+tokens+"validate {\ndrop incomingCall\nmax_body_size 2KiB\nmax_kept_body 4KiB\n}\nreverse_proxy "+up.Address)+
		block("elsewhere", "ip_filter {\nallow 203.0.113.7\n}\n"+tokens)+
		block("report", "ip_filter {\nallow 203.0.113.7\nreport_only\n}\n"+tokens+"reverse_proxy "+up.Address)+
		block("body", "log_body\n"+edgetest.Loopback+"reverse_proxy "+up.Address)+
		block("refusing", edgetest.Loopback+"deliver {\ndead_letter 2\n}\nreverse_proxy "+refusing.Address)+
		block("retained", edgetest.Loopback+"deliver {\ntimeout 50ms\n}\nreverse_proxy 127.0.0.1:1")+
		block("gone", edgetest.Loopback+"deliver {\ntimeout 200ms\n}\nreverse_proxy 127.0.0.1:1")+
		block("nobody", edgetest.Loopback)+
		block("twice", edgetest.Loopback+"deliver {\ndeduplicate 1h\n}\nreverse_proxy "+up.Address)), "auto_https off", "auto_https off\n\tservers {\n\t}", 1))

	right, wrong := "Bearer "+edgetest.Token, "Bearer wrong"
	call := `{"typeWebhook":"incomingCall","instanceData":{"idInstance":1101000001},"from":"79001234568@c.us","idMessage":"C","status":"offer"}`
	var got strings.Builder
	for _, test := range []struct{ name, path, body, token string }{
		{"delivered", "ok", edgetest.TextMessage, right},
		{"dropped unwanted", "ok", call, right},
		{"dropped duplicate, first", "twice", edgetest.TextMessage, right},
		{"dropped duplicate", "twice", edgetest.TextMessage, right},
		{"quarantined schema", "ok", edgetest.Broken("S"), right},
		{"quarantined malformed", "ok", edgetest.TextMessage[:100], right},
		{"quarantined unknown_type", "ok", strings.Replace(edgetest.TextMessage, "incomingMessageReceived", "brandNew", 1), right},
		{"quarantined too_large", "ok", edgetest.TextMessage + strings.Repeat(" ", 2<<10), right},
		{"refused too_large", "ok", edgetest.TextMessage + strings.Repeat(" ", 4<<10), right},
		{"delivered unknown_message", "ok", strings.Replace(edgetest.TextMessage, `"textMessage"`, `"brandNewMessage"`, 1), right},
		{"refused no_token", "ok", edgetest.TextMessage, ""},
		{"refused bad_token", "ok", edgetest.TextMessage, wrong},
		{"refused instance_not_allowed", "ok", strings.Replace(edgetest.TextMessage, "1101000001", "1101000009", 1), right},
		{"refused ip_not_allowed", "elsewhere", edgetest.TextMessage, wrong},
		{"refused unlisted_sender", "elsewhere", edgetest.TextMessage, right},
		{"report_only", "report", edgetest.TextMessage, right},
		{"log_body", "body", edgetest.StateChanged, right},
		{"failed handler_refused", "refusing", edgetest.TextMessage, right},
		{"delivered by another", "ok", edgetest.StateChanged, right},
		{"failed not_now", "gone", edgetest.TextMessage, right},
		{"failed no_handler", "nobody", edgetest.TextMessage, right},
		{"first seen", "retained", edgetest.StateChanged, right},
		{"quarantined retention", "retained", edgetest.StateChanged, right},
		{"quarantined undeliverable", "refusing", edgetest.TextMessage, right},
	} {
		if test.name == "quarantined retention" || test.name == "quarantined undeliverable" {
			later(24 * time.Hour)
		}
		before := len(e.Logs.Records(t))
		e.URL = "http://127.0.0.1:" + e.Port + "/" + test.path
		e.Post(test.body, "Authorization", test.token)
		for _, record := range e.Logs.Records(t)[before:] {
			line, err := json.Marshal(map[string]any(record))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&got, "%s: %s\n", test.name, steady(string(line), e.Port, up.Address, refusing.Address))
		}
	}

	// Nothing secret in the whole log, but for the record that log_body asks for.
	for line := range strings.Lines(e.Logs.All()) {
		if strings.Contains(line, `"body":`) {
			continue
		}
		for _, secret := range []string{edgetest.Token, "other-token", "canary sings", "Test Sender", "7900123456"} {
			if strings.Contains(line, secret) && !strings.Contains(line, `"logger":"http.handlers.reverse_proxy"`) {
				t.Errorf("the log has %q: %s", secret, line)
			}
		}
	}
	if !regexp.MustCompile(`"logger":"http\.log\.access.*"green_api_outcome":"delivered"`).MatchString(e.Logs.All()) ||
		!strings.Contains(e.Logs.All(), `"green_api_type":"incomingMessageReceived"`) {
		t.Error("the access log does not say what became of notifications")
	}

	const file = "testdata/records.jsonl"
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(got.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		var g, w string
		if i < len(gotLines) {
			g = gotLines[i]
		}
		if i < len(wantLines) {
			w = wantLines[i]
		}
		if g != w {
			t.Errorf("got  %s\nwant %s", g, w)
		}
	}
}

// steady replaces what differs from run to run.
func steady(line, port string, handlers ...string) string {
	line = volatile.ReplaceAllString(line, `"$1":"*"`)
	line = regexp.MustCompile(`"tried":\[[^\]]*\]`).ReplaceAllString(line, `"tried":["*"]`)
	for _, handler := range handlers {
		line = strings.ReplaceAll(line, handler, "HANDLER")
	}
	return strings.ReplaceAll(line, "127.0.0.1:"+port, "EDGE")
}

// TestRecordPanics: whatever goes wrong in saying it, a delivered notification is answered 200.
func TestRecordPanics(t *testing.T) {
	for _, text := range []string{"notification delivered", "handler fails", "handler takes notifications again", `"http.handlers.green_api"`} {
		up := edgetest.Script(t, "503", "200")
		e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
		edgetest.PanicAt.Store(text)
		status := e.Post(edgetest.TextMessage)
		edgetest.PanicAt.Store("")
		if status != 200 {
			t.Errorf("panic at %q: status %d", text, status)
		}
		if n := len(up.Requests()); n != 2 { // without an answer, the tests' client sends it again
			t.Errorf("panic at %q: a handler was asked %d times", text, n)
		}
		if !strings.HasPrefix(text, `"`) && !strings.Contains(e.Logs.All(), "a log with a fault") {
			t.Errorf("panic at %q: nothing said", text)
		}
	}
}

// TestReportOnly: a gate that reports lets everything through that can go on, and says what it would
// have done.
func TestReportOnly(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, metricsSite("", "ip_filter {\nallow 203.0.113.7\nreport_only\n}\nauth {\ntoken TOKEN\ninstance 1101000002 other\nreport_only\n}\n"+
		"validate {\ndrop stateInstanceChanged\nmax_body_size 1KiB\nreport_only\n}\nreverse_proxy "+up.Address))
	for _, test := range []struct {
		name, body, token string
		would, reason     string
		level             string
		status            int
	}{
		{"no fault but the address", edgetest.TextMessage, "Bearer " + edgetest.Token, "refused", "unlisted_sender", "warn", 200},
		{"no token", edgetest.Numbered("NOTOKEN"), "", "refused", "no_token", "warn", 200},
		{"schema", edgetest.Broken("SCHEMA"), "Bearer " + edgetest.Token, "quarantined", "schema", "error", 200},
		{"malformed", "{no JSON", "Bearer " + edgetest.Token, "quarantined", "malformed", "error", 200},
		{"another instance", strings.Replace(edgetest.TextMessage, "1101000001", "1101000002", 1), "Bearer " + edgetest.Token, "refused", "unlisted_sender", "warn", 200},
	} {
		before := len(up.Requests())
		if got := e.Post(test.body, "Authorization", test.token); got != test.status {
			t.Errorf("%s: status %d, want %d", test.name, got, test.status)
		}
		if requests := up.Requests(); len(requests) != before+1 || requests[before].Body != test.body {
			t.Errorf("%s: not delivered as it came", test.name)
		}
		e.WantRecord("outcome", "delivered", "reason", test.reason, "would_be", test.would, "report_only", "true", "level", test.level)
	}
	page := e.Scrape()
	for labels, want := range map[[3]string]float64{
		{"none", "refused", "unlisted_sender"}: 4, {"none", "refused", "ip_not_allowed"}: 1, {"none", "refused", "no_token"}: 1,
		{"incomingMessageReceived", "quarantined", "schema"}: 1, {"none", "quarantined", "malformed"}: 1, {"incomingMessageReceived", "refused", "instance_not_allowed"}: 1,
	} {
		line := fmt.Sprintf(`caddy_green_api_report_only_total{outcome=%q,reason=%q,type=%q} %g`, labels[1], labels[2], labels[0], want)
		if !strings.Contains(page, "\n"+line+"\n") {
			t.Errorf("lacks %s", line)
		}
	}
	sums := make(map[string]int64)
	for _, count := range activeApp().status().WouldBe {
		sums[string(count.Outcome)+" "+string(count.Reason)] += count.N
	}
	if got := fmt.Sprint(sums); got != "map[quarantined malformed:1 quarantined schema:1 refused instance_not_allowed:1 refused ip_not_allowed:1 refused no_token:1 refused unlisted_sender:4]" {
		t.Error(got)
	}
	if got := e.Post(edgetest.StateChanged); got != 200 || !strings.Contains(up.Requests()[len(up.Requests())-1].Body, "stateInstanceChanged") {
		t.Errorf("what would be dropped: status %d", got)
	}
	// What cannot go on does not.
	before := len(up.Requests())
	e.Post(edgetest.TextMessage + strings.Repeat(" ", 1<<10))
	e.WantRecord("outcome", "quarantined", "reason", "too_large")
	if response := e.Send(http.MethodGet, e.URL, nil); response.StatusCode != 405 || response.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("GET: status %d, %v", response.StatusCode, response.Header)
	}
	if len(up.Requests()) != before {
		t.Error("it was delivered")
	}
	if kept := e.Kept(); len(kept) != 1 {
		t.Errorf("%d kept", len(kept))
	}
}

// TestLogBody: bodies are in the log only if that is said.
func TestLogBody(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	for option, want := range map[string]string{"": "", "log_body\n": edgetest.TextMessage} {
		e := edgetest.Start(t, edgetest.Site(option+edgetest.Loopback+"reverse_proxy "+up.Address))
		e.Post(edgetest.TextMessage)
		if got := e.Record().Text("body"); got != want {
			t.Errorf("%q: body %q", option, got)
		}
	}
}

var volatile = regexp.MustCompile(`"(ts|age|duration|quarantine_id|attempts|remote_port)":("[^"]*"|[0-9.e+-]+)`)

// TestSecrets takes tokens through all that can go wrong, with handlers that repeat what they were
// sent, and looks for them wherever somebody might read them.
func TestSecrets(t *testing.T) {
	secrets := map[string]string{
		"SHARED": "canary-shared-7f3a", "OWN": "canary-own-91bc", "LISTED": "canary-listed-c02e", "WRONG": "canary-wrong-55d1", "ALERT": "canary-alert-e8a7",
		"BASIC": base64.StdEncoding.EncodeToString([]byte("canary:basic-3c9f")), "USED": "canary-url-0b6d",
	}
	for name, secret := range secrets {
		t.Setenv("GREEN_API_TEST_"+name, secret)
	}
	clean := func(where, text string) {
		t.Helper()
		if text == "" {
			t.Errorf("%s: nothing", where)
		}
		for name, secret := range secrets {
			for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte("Bearer " + secret))} {
				if at := strings.Index(text, form); at >= 0 {
					t.Errorf("%s has the token %s: …%s…", where, name, text[max(0, at-150):min(len(text), at+50)])
				}
			}
		}
	}

	quickAlerts(t)
	in := edgetest.NewInbox(t, func(n int) int { // it repeats, too
		if n == 1 {
			return 500
		}
		return 200
	})
	up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"REPEAT", "REFUSE"} {
			if strings.Contains(r.Header.Get("X-Do"), name) || r.Header.Get(replayHeader) != "" {
				w.WriteHeader(map[string]int{"REPEAT": 500, "REFUSE": 422}[name])
				fmt.Fprintf(w, "Fault in %s\nAuthorization: %s\n%v", r.URL, r.Header.Get("Authorization"), r.Header)
				return
			}
		}
	})
	folder := t.TempDir()
	instances := filepath.Join(folder, "instances")
	if err := os.WriteFile(instances, []byte("1101000003 "+secrets["LISTED"]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lookOften(t, "instances", instances)
	block := "green_api /green-api/webhook* {\nlog_body\nip_filter {\nallow 127.0.0.1\n}\nauth {\ntoken {env.GREEN_API_TEST_SHARED} \"Basic {env.GREEN_API_TEST_BASIC}\"\n" +
		"instance 1101000002 {env.GREEN_API_TEST_OWN}\ninstances " + instances + "\n}\ndeliver {\ndead_letter 2\n}\nreverse_proxy " + up.Address + "\n}\n" +
		"green_api /strict* {\nname strict\nip_filter {\nallow 203.0.113.7\n}\nauth {\ntoken {env.GREEN_API_TEST_SHARED}\n}\n}\nmetrics /metrics\nlog\nrespond /elsewhere 404\n"
	ears := "events {\non green_api.quarantined test_ear\non green_api.failed test_ear\non green_api.refused test_ear\n}\n"
	config := strings.Replace(edgetest.SiteWith(ears, block), "quarantine DIR\n", "quarantine DIR\nalert "+in.URL+"/{env.GREEN_API_TEST_USED} {\nheader Authorization \"Bearer {env.GREEN_API_TEST_ALERT}\"\n}\nmetrics {\nper_instance\n}\n", 1)
	config, admin := edgetest.WithAdmin(t, config)
	heard.Lock()
	heard.events, heard.gate = nil, nil
	heard.Unlock()
	e := edgetest.Start(t, config)

	of := func(instance string) string { return strings.Replace(edgetest.TextMessage, "1101000001", instance, 1) }
	outcomes := make(map[int]int)
	for range 3 { // with one that is taken in between, so that what fails does so by itself
		later(time.Minute)
		for _, test := range []struct{ body, authorization, do string }{
			{edgetest.TextMessage, "Bearer " + secrets["SHARED"], ""},
			{strings.Replace(edgetest.TextMessage, "3EB0", "REPEAT", 1), "Bearer " + secrets["SHARED"], "REPEAT"},
			{strings.Replace(edgetest.TextMessage, "3EB0", "REFUSE", 1), "Basic " + secrets["BASIC"], "REFUSE"},
			{strings.Replace(of("1101000002"), "3EB0", "OWN", 1), "Bearer " + secrets["OWN"], "REFUSE"},
			{strings.Replace(of("1101000003"), "3EB0", "LISTED", 1), secrets["LISTED"], "REPEAT"},
			{edgetest.TextMessage, "Bearer " + secrets["WRONG"], ""},
			{edgetest.TextMessage, "Digest " + secrets["SHARED"], ""},
			{edgetest.TextMessage, "Bearer " + secrets["SHARED"] + " x", ""},
			{edgetest.TextMessage, "Bearer " + secrets["OWN"], ""},
			{of("1101000002"), "Bearer " + secrets["SHARED"], ""},
			{of("1101000003"), "Bearer " + secrets["OWN"], ""},
			{edgetest.Broken("SCHEMA"), "Bearer " + secrets["SHARED"], ""},
			{"{", "Basic " + secrets["BASIC"], ""},
			{strings.Replace(edgetest.TextMessage, "incomingMessageReceived", "brandNew", 1), secrets["SHARED"], ""},
		} {
			outcomes[e.Post(test.body, "Authorization", test.authorization, "X-Do", test.do)]++
		}
		for _, path := range []string{"/strict", "/elsewhere"} {
			e.Send(http.MethodPost, "http://127.0.0.1:"+e.Port+path, strings.NewReader(edgetest.TextMessage), "Authorization", "Bearer "+secrets["SHARED"])
		}
		e.Send(http.MethodGet, e.URL, nil, "Authorization", "Bearer "+secrets["SHARED"])
	}
	for _, status := range []int{200, 401, 403, 502} {
		if outcomes[status] == 0 {
			t.Errorf("no answer was %d: %v", status, outcomes)
		}
	}
	if err := os.WriteFile(instances, []byte("1101000003 "+secrets["LISTED"]+"\n"+secrets["OWN"]+" 1101000004\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	edgetest.Eventually(t, "complaint of the file", func() bool { return strings.Contains(e.Logs.All(), "file cannot be used") })
	edgetest.Eventually(t, "alerts", func() bool { return len(in.All()) > 5 })

	ask := func(method, path string, body string) string {
		t.Helper()
		r, err := http.NewRequest(method, "http://"+admin+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "text/caddyfile")
		response, err := edgetest.Client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		clean(method+" "+path, string(text))
		return string(text)
	}
	for _, part := range []string{`"reason":"undeliverable"`, "Fault in"} {
		if list := ask(http.MethodGet, "/green_api/quarantine?body=true", ""); !strings.Contains(list, part) {
			t.Errorf("nothing of %s is kept: %s", part, list)
		}
	}
	ask(http.MethodGet, "/green_api/status", "")
	ask(http.MethodGet, "/config/", "")
	for _, verb := range []string{"list", "show", "replay", "export"} {
		args := []string{"green-api", "quarantine", verb, "--address", admin}
		if verb == "show" {
			for entry := range strings.Lines(ask(http.MethodGet, "/green_api/quarantine?limit=1&reason=undeliverable", "")) {
				args = append(args, strings.Split(entry, `"`)[3])
			}
		}
		stdout, stderr, _ := edgetest.RunCaddy(t, folder, "", args...)
		clean("quarantine "+verb, stdout+stderr)
	}
	bad := strings.NewReplacer("PORT", e.Port, "DIR", e.Dir).Replace(config)
	for _, slip := range []struct{ old, new string }{
		{"token {env.GREEN_API_TEST_SHARED}", "token Bearer " + secrets["SHARED"]},
		{"token {env.GREEN_API_TEST_SHARED}", "tokn " + secrets["SHARED"]},
		{"token {env.GREEN_API_TEST_SHARED}", secrets["SHARED"]},
		{"instance 1101000002", "instance " + secrets["OWN"]},
		{"instance 1101000002 {env.GREEN_API_TEST_OWN}", "instance " + secrets["OWN"]},
		{"{env.GREEN_API_TEST_USED} {", secrets["USED"] + " " + secrets["USED"] + " {"},
		{in.URL, "ftp://" + secrets["USED"]},
		{"header Authorization", "header " + secrets["ALERT"] + " x"},
	} {
		if !strings.Contains(bad, slip.old) {
			t.Fatalf("no %q", slip.old)
		}
		if said := ask(http.MethodPost, "/load", strings.Replace(bad, slip.old, slip.new, 1)); !strings.Contains(said, "error") {
			t.Errorf("%q loads: %s", slip.new, said)
		}
	}
	clean("the metrics", edgetest.ReadAllOf(t, "http://127.0.0.1:"+e.Port+"/metrics"))
	for _, alert := range in.All() {
		clean("an alert", alert)
	}
	heard.Lock()
	events := heard.events
	heard.Unlock()
	for _, event := range events {
		clean("an event", fmt.Sprint(event.Data))
	}
	clean("the log", e.Logs.All())
	if len(events) == 0 {
		t.Error("no event")
	}
	entries := e.Kept()
	clean("the quarantine", fmt.Sprint(entries))
	file, err := os.ReadFile(filepath.Join(e.Dir, "quarantine.db"))
	if err != nil {
		t.Fatal(err)
	}
	clean("the quarantine's file", string(file))
}
