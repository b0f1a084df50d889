package greenapi

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

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

var volatile = regexp.MustCompile(`"(ts|age|duration|quarantine_id|attempts|remote_port)":("[^"]*"|[0-9.e+-]+)`)

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
