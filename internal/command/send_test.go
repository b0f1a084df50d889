package command_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/command"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// summaryOf parses what send --format json prints.
func summaryOf(t *testing.T, stdout string) command.SendSummary {
	t.Helper()
	var s command.SendSummary
	decoder := json.NewDecoder(strings.NewReader(stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil || decoder.More() {
		t.Fatalf("stdout is not one summary: %v\n%s", err, stdout)
	}
	return s
}

// TestSendExamples: what send makes of the examples passes the schemas, is of every type, and each
// has an id of its own.
func TestSendExamples(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	stdout, stderr, code := edgetest.RunCaddy(t, t.TempDir(), "", "green-api", "send", up.URL+"/hook", "--token", edgetest.Token, "--instances", "3", "--format", "json")
	if code != 0 || stderr != "" {
		t.Fatalf("exit code %d, stderr %q", code, stderr)
	}
	schemas, err := notification.LoadSchemas("")
	if err != nil {
		t.Fatal(err)
	}
	kinds, ids, instances := make(map[string]bool), make(map[string]bool), make(map[string]int)
	for _, request := range up.Requests() {
		n, err := notification.Parse([]byte(request.Body))
		if err != nil {
			t.Fatalf("%v: %s", err, request.Body)
		}
		if faults := schemas.Validate(n); len(faults) > 0 {
			t.Errorf("%s %s: %v", n.Type, n.Message, faults)
		}
		kinds[n.Type] = true
		kinds[n.Type+"."+n.Message] = true
		instances[n.Instance]++
		if n.ID != "" && ids[n.Instance+n.ID] {
			t.Errorf("%s: a second time", n.ID)
		}
		ids[n.Instance+n.ID] = true
		if age := time.Since(time.Unix(n.Timestamp, 0)); age > time.Minute {
			t.Errorf("%s %s is %s old", n.Type, n.Message, age)
		}
		if request.Header.Get("Authorization") != "Bearer "+edgetest.Token {
			t.Error("no token")
		}
	}
	for _, example := range notification.Examples() {
		if !kinds[example.Type+"."+example.Message] {
			t.Errorf("no %s.%s", example.Type, example.Message)
		}
	}
	s := summaryOf(t, stdout)
	if len(instances) != 3 || s.Notifications != len(up.Requests()) || s.Acknowledged != s.Notifications || s.Sent != s.Notifications || s.Answers["200"] != s.Sent {
		t.Errorf("%+v, %d requests, instances %v", s, len(up.Requests()), instances)
	}
}

// TestSendOptions has what is sent, and how it ends.
func TestSendOptions(t *testing.T) {
	dir := t.TempDir()
	odd := " {\"not\": \x00 valid\xff"
	for name, body := range map[string]string{"a.json": odd, "b.json": edgetest.StateChanged, "README.md": "no body"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name   string
		args   []string
		status int
		code   int
		want   command.SendSummary // counts only
		bodies []string
	}{
		{name: "files", args: []string{"--body", dir}, status: 200, want: command.SendSummary{Notifications: 2, Sent: 2, Acknowledged: 2}, bodies: []string{odd, edgetest.StateChanged}},
		{
			name: "a file, several times", args: []string{"--body", filepath.Join(dir, "b.json"), "--count", "3"}, status: 200,
			want: command.SendSummary{Notifications: 3, Sent: 3, Acknowledged: 3}, bodies: []string{edgetest.StateChanged, edgetest.StateChanged, edgetest.StateChanged},
		},
		{name: "a type", args: []string{"--type", "incomingCall", "--count", "5", "--rate", "500"}, status: 200, want: command.SendSummary{Notifications: 5, Sent: 5, Acknowledged: 5}},
		{name: "a message type", args: []string{"--type", "incomingMessageReceived.textMessage", "--count", "4"}, status: 200, want: command.SendSummary{Notifications: 4, Sent: 4, Acknowledged: 4}},
		{
			name: "given up", args: []string{"--type", "incomingCall", "--count", "2", "--attempts", "3", "--pause", "1ms"}, status: 503, code: 1,
			want: command.SendSummary{Notifications: 2, Sent: 2, Lost: 2, Resent: 4},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			up := edgetest.NewUpstream(t, test.status, nil)
			args := append([]string{"green-api", "send", up.URL, "--format", "json"}, test.args...)
			stdout, stderr, code := runCommand(t, dir, "", args...)
			if code != test.code || (stderr == "") != (code == 0) {
				t.Errorf("exit code %d, want %d; stderr %q", code, test.code, stderr)
			}
			s := summaryOf(t, stdout)
			got := command.SendSummary{Notifications: s.Notifications, Sent: s.Sent, Acknowledged: s.Acknowledged, Lost: s.Lost, Resent: s.Resent}
			if fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("%+v, want %+v", got, test.want)
			}
			if s.Answers[fmt.Sprint(test.status)] != s.Sent+s.Resent {
				t.Errorf("answers %v", s.Answers)
			}
			var bodies []string
			for _, request := range up.Requests() {
				bodies = append(bodies, request.Body)
			}
			if test.bodies != nil && !slices.Equal(bodies, test.bodies) {
				t.Errorf("sent %q", bodies)
			}
		})
	}
}

func TestSendText(t *testing.T) {
	up := edgetest.Script(t, "503", "200")
	stdout, stderr, code := edgetest.RunCaddy(t, t.TempDir(), "", "green-api", "send", up.URL, "--type", "incomingCall", "--pause", "20ms")
	if code != 0 || !strings.HasPrefix(stderr, "503, again in 20ms: incomingCall.whatsapp of 1101000001\n") || strings.Contains(stderr, "\x1b") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	for _, part := range []string{" sent, ", " acknowledged, 0 lost, 1 re-sent in ", "answers by status: 200: ", ", 503: 1\n", "stalled ", "p50 ", "p99 "} {
		if !strings.Contains(stdout, part) {
			t.Errorf("lacks %q:\n%s", part, stdout)
		}
	}
}

// TestSendNamesInstance: a failure of a file is one of the instance that the file names.
func TestSendNamesInstance(t *testing.T) {
	dir := t.TempDir()
	for name, body := range map[string]string{"other.json": strings.Replace(edgetest.StateChanged, "1101000001", "7103000009", 1), "odd.json": "no JSON"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	up := edgetest.NewUpstream(t, 503, nil)
	_, stderr, code := runCommand(t, dir, "", "green-api", "send", up.URL, "--body", ".", "--attempts", "1")
	if want := "503, given up: odd.json\n503, given up: other.json of 7103000009\n"; code != 1 || stderr != want {
		t.Errorf("exit code %d, stderr %q, want %q", code, stderr, want)
	}
}

// TestSendEnds: a 200 may be one of the quarantine's, and send says how many are.
func TestSendEnds(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"validate {\nmax_body_size 2KiB\ndrop deviceInfo\n}\nreverse_proxy "+up.Address))
	e := edgetest.Start(t, config)
	dir := t.TempDir()
	for name, body := range map[string]string{
		"good.json": edgetest.TextMessage, "bad.json": edgetest.Broken("BAD"), "odd.json": "no JSON", "big.json": edgetest.TextMessage + strings.Repeat(" ", 2<<10),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	send := func(args ...string) (stdout, stderr string, code int) {
		t.Helper()
		return runCommand(t, dir, "", append([]string{"green-api", "send", e.URL, "--token", edgetest.Token, "--attempts", "1"}, args...)...)
	}
	for _, test := range []struct {
		args                   string
		delivered, quarantined int
		line                   string
	}{
		{"--type incomingCall --count 3", 3, 0, "of those, 3 delivered, 0 quarantined\n"},
		{"--type deviceInfo --count 2", 0, 0, "of those, 0 delivered, 0 quarantined, 2 dropped\n"},
		{"--body good.json --body bad.json", 1, 1, "of those, 1 delivered, 1 quarantined; see 'caddy green-api quarantine list --address " + admin + "'\n"},
		{"--body .", 1, 3, "of those, 1 delivered, 3 quarantined; see"}, // the edge knows no instance of two
		{"--body big.json", 0, 1, "of those, 0 delivered, 1 quarantined; see"},
	} {
		args := append(strings.Fields(test.args), "--admin", admin)
		stdout, stderr, code := send(append(args, "--format", "json")...)
		s := summaryOf(t, stdout)
		if code != 0 || stderr != "" || s.Delivered == nil || s.Quarantined == nil || *s.Delivered != test.delivered || *s.Quarantined != test.quarantined {
			t.Errorf("%s: exit code %d, %s, %s", test.args, code, stdout, stderr)
		}
		if stdout, _, _ := send(args...); !strings.Contains(stdout, test.line) {
			t.Errorf("%s: lacks %q: %s", test.args, test.line, stdout)
		}
	}

	// What cannot be known is not guessed.
	free := "127.0.0.1:" + edgetest.FreePort(t)
	stdout, stderr, code := send("--type", "incomingCall", "--admin", free, "--format", "json")
	if s := summaryOf(t, stdout); code != 0 || s.Delivered != nil || s.Quarantined != nil || !strings.Contains(stderr, "is not known: admin API on "+free) {
		t.Errorf("without an admin API: exit code %d, %s, %s", code, stdout, stderr)
	}
	if stdout, _, code := send("--type", "incomingCall", "--admin", free); code != 0 || !strings.Contains(stdout, "is not known: admin API on "+free) {
		t.Errorf("without an admin API: exit code %d, %s", code, stdout)
	}
	other := edgetest.NewUpstream(t, 200, nil) // it is not behind this admin API
	stdout, _, code = runCommand(t, dir, "", "green-api", "send", other.URL, "--type", "incomingCall", "--admin", admin)
	if code != 0 || !strings.Contains(stdout, "does not add up") {
		t.Errorf("another server: exit code %d, %s", code, stdout)
	}
	foreign := edgetest.NewUpstream(t, 200, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	if stdout, _, code := send("--type", "incomingCall", "--admin", foreign.Address); code != 0 || !strings.Contains(stdout, "counts no outcomes") {
		t.Errorf("something else than an admin API: exit code %d, %s", code, stdout)
	}
	if _, stderr, code := send("--admin", ""); code != 2 || !strings.Contains(stderr, "--admin: empty") {
		t.Errorf("empty: exit code %d, %s", code, stderr)
	}
}

func TestSendRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct {
		args string
		want string
	}{
		{"", "want one URL"},
		{"http://a http://b", "want one URL"},
		{"hooks.example.com", `invalid URL "hooks.example.com"; want one such as https://hooks.example.com/green-api/webhook`},
		{"hooks.example.com/?token=SECRET", "invalid URL (not shown, there may be a secret in it); want one such as"},
		{"http://127.0.0.1:1 --type incomingMesage", `no example of --type "incomingMesage"; want TYPE or TYPE.MESSAGE out of `},
		{"http://127.0.0.1:1 --type incomingCall --body x", "--type goes with the built-in examples"},
		{"http://127.0.0.1:1 --body x", "--body: stat x: no such file"},
		{"http://127.0.0.1:1 --body .", "--body: .: no *.json file in it"},
		{"http://127.0.0.1:1 --instances 0", "invalid --instances 0; want 1 or more"},
		{"http://127.0.0.1:1 --count -1", "invalid --count -1"},
		{"http://127.0.0.1:1 --in-flight 0", "invalid --in-flight 0; want 1 or more"},
		{"http://127.0.0.1:1 --instances 9223372036854775807", "invalid --instances 9223372036854775807; want at most 1000000"},
		{"http://127.0.0.1:1 --in-flight 9223372036854775807", "invalid --in-flight 9223372036854775807; want at most 1000000 for all --instances together"},
		{"http://127.0.0.1:1 --instances 1000 --in-flight 1001", "invalid --in-flight 1001; want at most 1000000 for all --instances together"},
		{"http://127.0.0.1:1 --pause 0s", "invalid --pause 0s; want a duration above 0s"},
		{"http://127.0.0.1:1 --timeout -1s", "invalid --timeout -1s"},
		{"http://127.0.0.1:1 --rate -1", "want none below 0"},
		{"http://127.0.0.1:1 --attempts -1", "want none below 0"},
		{"http://127.0.0.1:1 --format xml", `invalid --format "xml"; want text or json`},
		{"http://127.0.0.1:1 --retries 3", "unknown flag: --retries"},
	} {
		stdout, stderr, code := runCommand(t, dir, "", append([]string{"green-api", "send"}, strings.Fields(test.args)...)...)
		if code != 2 || stdout != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("%q: exit code %d, want 2; stdout %q, stderr %q, want %q", test.args, code, stdout, stderr, test.want)
		}
	}
}
