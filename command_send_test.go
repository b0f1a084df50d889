package greenapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// summaryOf parses what send --format json prints.
func summaryOf(t *testing.T, stdout string) sendSummary {
	t.Helper()
	var s sendSummary
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
		want   sendSummary // counts only
		bodies []string
	}{
		{name: "files", args: []string{"--body", dir}, status: 200, want: sendSummary{Notifications: 2, Sent: 2, Acknowledged: 2}, bodies: []string{odd, edgetest.StateChanged}},
		{
			name: "a file, several times", args: []string{"--body", filepath.Join(dir, "b.json"), "--count", "3"}, status: 200,
			want: sendSummary{Notifications: 3, Sent: 3, Acknowledged: 3}, bodies: []string{edgetest.StateChanged, edgetest.StateChanged, edgetest.StateChanged},
		},
		{name: "a type", args: []string{"--type", "incomingCall", "--count", "5", "--rate", "500"}, status: 200, want: sendSummary{Notifications: 5, Sent: 5, Acknowledged: 5}},
		{name: "a message type", args: []string{"--type", "incomingMessageReceived.textMessage", "--count", "4"}, status: 200, want: sendSummary{Notifications: 4, Sent: 4, Acknowledged: 4}},
		{
			name: "given up", args: []string{"--type", "incomingCall", "--count", "2", "--attempts", "3", "--pause", "1ms"}, status: 503, code: 1,
			want: sendSummary{Notifications: 2, Sent: 2, Lost: 2, Resent: 4},
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
			got := sendSummary{Notifications: s.Notifications, Sent: s.Sent, Acknowledged: s.Acknowledged, Lost: s.Lost, Resent: s.Resent}
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

// TestSendAsks: without --admin, only an edge on this machine is asked.
func TestSendAsks(t *testing.T) {
	for target, want := range map[string]bool{
		"http://127.0.0.1:8080/x": true, "http://localhost/x": true, "http://LOCALHOST:80": true, "https://[::1]:8443/": true, "http://127.9.9.9": true,
		"http://[::ffff:127.0.0.1]/": true, "https://hooks.example.com/": false, "http://10.0.0.1/": false, "http://localhost.example.com/": false, "%": false,
	} {
		if got := onLoopback(target); got != want {
			t.Errorf("%s: %v, want %v", target, got, want)
		}
	}
	if got := watchEnds("https://hooks.example.com/", "").end(1, nil); got.known || !errors.Is(got.why, errNobodyAsked) {
		t.Errorf("%+v", got)
	}
	if got := watchEnds("http://127.0.0.1:1/", "").address; got != caddy.DefaultAdminListen {
		t.Errorf("asks %q", got)
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

// TestListen: the other end prints what it gets and answers as it is told, by itself or by the URL
// that it hands on to.
func TestListen(t *testing.T) {
	var asked atomic.Int64
	up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(204)
	})
	for _, test := range []struct {
		args   []string
		status int
		body   string
		prints []string
	}{
		{nil, 200, edgetest.TextMessage, []string{"  200  incomingMessageReceived textMessage instance 1101000001 chat 79001234568@c.us id 3EB0C767D097B7C7C030\n", `"textMessage":"a canary sings"`}},
		{[]string{"--status", "503", "--delay", "10ms"}, 503, edgetest.StateChanged, []string{"  503  stateInstanceChanged instance 1101000001\n"}},
		{nil, 200, "no\x1b[31m JSON", []string{"  200  POST /hook\n", "no?[31m JSON"}},
		{[]string{"--forward", up.URL + "/webhook"}, 204, edgetest.TextMessage, []string{"  204  incomingMessageReceived"}},
		{[]string{"--forward", "http://127.0.0.1:" + edgetest.FreePort(t)}, 502, edgetest.TextMessage, []string{"  502: ", "connection refused"}},
	} {
		cmd := edgetest.Command(t, append([]string{"green-api", "listen", "--address", "127.0.0.1:0"}, test.args...)...)
		var out bytes.Buffer
		cmd.Stdout = &out
		url := listenURL(t, cmd)
		response, err := edgetest.Client.Post(url+"/hook", "application/json", strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != test.status {
			t.Errorf("%v: status %d, want %d", test.args, response.StatusCode, test.status)
		}
		cmd.Process.Signal(syscall.SIGINT)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v", test.args, err)
		}
		for _, part := range test.prints {
			if !strings.Contains(out.String(), part) {
				t.Errorf("%v: lacks %q:\n%s", test.args, part, out.String())
			}
		}
	}
	if asked.Load() != 1 || up.Requests()[0].Body != edgetest.TextMessage || up.Requests()[0].Path != "/webhook" {
		t.Errorf("handed on %d times: %v", asked.Load(), up.Requests())
	}
	for _, test := range []struct{ args, want string }{
		{"--status 99", "invalid --status 99; want 200 to 599"},
		{"--delay -1s", "invalid --delay -1s"},
		{"--forward handler:8080", `invalid --forward "handler:8080"; want a URL`},
		{"--address nowhere", "--address: "},
	} {
		if _, stderr, code := runCommand(t, "", "", append([]string{"green-api", "listen"}, strings.Fields(test.args)...)...); code != 2 || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: exit code %d, stderr %q", test.args, code, stderr)
		}
	}
}

// TestListenForward: what the other end did not take whole is not answered with a 2xx, and what is
// in hand is finished at the end.
func TestListenForward(t *testing.T) {
	target := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/login", http.StatusFound)
		case "/truncated":
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "half")
		case "/slow":
			time.Sleep(500 * time.Millisecond)
		}
	})
	for path, want := range map[string]int{"/moved": 302, "/truncated": 502} {
		url := listenURL(t, edgetest.Command(t, "green-api", "listen", "--address", "127.0.0.1:0", "--forward", target.URL+path))
		response, err := edgetest.Client.Post(url, "application/json", strings.NewReader(edgetest.TextMessage))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: status %d, want %d", path, response.StatusCode, want)
		}
	}
	cmd := edgetest.Command(t, "green-api", "listen", "--address", "127.0.0.1:0", "--forward", target.URL+"/slow")
	url := listenURL(t, cmd)
	answer := make(chan int)
	before := len(target.Requests())
	go func() {
		response, err := edgetest.Client.Post(url, "application/json", strings.NewReader(edgetest.TextMessage))
		if err != nil {
			t.Error(err)
			answer <- 0
			return
		}
		response.Body.Close()
		answer <- response.StatusCode
	}()
	edgetest.Eventually(t, "handed on", func() bool { return len(target.Requests()) > before })
	cmd.Process.Signal(syscall.SIGTERM)
	if status := <-answer; status != 200 {
		t.Errorf("in hand at the end: status %d", status)
	}
}

// listenURL starts listen and returns where it listens.
func listenURL(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	line, err := bufio.NewReader(stderr).ReadString('\n')
	address, _, ok := strings.Cut(strings.TrimPrefix(line, "listening on "), ",")
	if err != nil || !ok {
		t.Fatalf("%v: %q", err, line)
	}
	return "http://" + address
}
