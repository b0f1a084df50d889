package command_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

// TestSendChats: the notifications of an instance go to several chats in turn, and are as valid as ever.
func TestSendChats(t *testing.T) {
	schemas, err := notification.LoadSchemas("")
	if err != nil {
		t.Fatal(err)
	}
	example := make(map[string]*notification.Notification) // by type and message type, which send has one of each
	for _, e := range notification.Examples() {
		n, err := notification.Parse(e.Body)
		if err != nil {
			t.Fatal(err)
		}
		if kind := n.Type + "." + n.Message; example[kind] == nil {
			example[kind] = n
		}
	}
	for _, chats := range []int{1, 3} {
		up := edgetest.NewUpstream(t, 200, nil)
		_, stderr, code := runCommand(t, t.TempDir(), "", "green-api", "send", up.URL, "--instances", "2", "--chats", fmt.Sprint(chats), "--count", fmt.Sprint(2*len(example)))
		if code != 0 || stderr != "" {
			t.Fatalf("exit code %d, stderr %q", code, stderr)
		}
		seen := make(map[string][]string) // the chats, by the instance and the example's chat
		for _, request := range up.Requests() {
			n, err := notification.Parse([]byte(request.Body))
			if err != nil {
				t.Fatal(err)
			}
			if faults := schemas.Validate(n); len(faults) > 0 {
				t.Errorf("%s %s: %v", n.Type, n.Message, faults)
			}
			was := example[n.Type+"."+n.Message].Chat
			if was == "" || chats == 1 {
				if n.Chat != was {
					t.Errorf("%s %s: chat %q, want %q", n.Type, n.Message, n.Chat, was)
				}
				continue
			}
			if strings.Contains(request.Body, `"79007654321@c.us"`) {
				t.Errorf("something of the old chat is left: %s", request.Body)
			}
			key := n.Instance + " " + was
			if turn := seen[key]; len(turn) < chats {
				if slices.Contains(turn, n.Chat) {
					t.Errorf("%s: %s comes after %s", key, n.Chat, turn)
				}
			} else if want := turn[len(turn)-chats]; n.Chat != want {
				t.Errorf("%s: %s comes after %s, want %s", key, n.Chat, turn, want)
			}
			seen[key] = append(seen[key], n.Chat)
		}
		if want := map[int]int{1: 0, 3: 10}[chats]; len(seen) != want {
			t.Errorf("%d kinds of chats, want %d: %v", len(seen), want, seen)
		}
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

// queueEdge stands in for an edge with a queue, and for its admin API.
type queueEdge struct {
	edge, admin *edgetest.Upstream

	mu    sync.Mutex
	taken int           // answered 200
	began time.Time     // when the first was
	works time.Duration // how long until the handlers have all
	fails int           // the number of the question that is not answered
	asked int
}

func newQueueEdge(t *testing.T) *queueEdge {
	q := new(queueEdge)
	q.edge = edgetest.NewUpstream(t, 200, func(http.ResponseWriter, *http.Request) {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.taken++; q.began.IsZero() {
			q.began = time.Now()
		}
	})
	q.admin = edgetest.NewUpstream(t, 200, func(w http.ResponseWriter, _ *http.Request) {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.asked++; q.asked == q.fails {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		entries := 0
		if time.Since(q.began) < q.works {
			entries = q.taken
		}
		fmt.Fprintf(w, `{"outcomes": {"delivered": %d}, "waiting": 0, "queue": {"entries": %d, "put_total": %d}}`, q.taken-entries, entries, q.taken)
	})
	return q
}

// TestSendHandled: send says how long it was until no handler had anything to do any more.
func TestSendHandled(t *testing.T) {
	dir := t.TempDir()
	send := func(url, admin string, args ...string) (command.SendSummary, string) {
		t.Helper()
		args = append([]string{"green-api", "send", url, "--type", "incomingCall", "--count", "5", "--format", "json", "--token", edgetest.Token, "--admin", admin}, args...)
		stdout, stderr, code := runCommand(t, dir, "", args...)
		if code != 0 {
			t.Errorf("exit code %d, stderr %q", code, stderr)
		}
		return summaryOf(t, stdout), stderr
	}

	// An edge without a queue: the time of the last 200.
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	e := edgetest.Start(t, config)
	if s, stderr := send(e.URL, admin); s.HandledSeconds == nil || *s.HandledSeconds <= 0 || *s.HandledSeconds > s.Seconds || stderr != "" {
		t.Errorf("without a queue: %+v, stderr %q", s, stderr)
	}
	stdout, _, _ := runCommand(t, dir, "", "green-api", "send", e.URL, "--token", edgetest.Token, "--type", "incomingCall", "--admin", admin)
	if !strings.Contains(stdout, "\nfrom first attempt until all acknowledged ones were handled: ") {
		t.Errorf("without a queue: %s", stdout)
	}

	// With a queue: when it is empty. A question may go unanswered meanwhile.
	q := newQueueEdge(t)
	q.works, q.fails = 400*time.Millisecond, 4
	s, stderr := send(q.edge.URL, q.admin.Address)
	if s.HandledSeconds == nil || *s.HandledSeconds < 0.4 || *s.HandledSeconds < s.Seconds || s.Delivered == nil || *s.Delivered != 5 || stderr != "" {
		t.Errorf("with a queue: %+v, stderr %q", s, stderr)
	}

	// What takes too long is not waited for.
	q = newQueueEdge(t)
	q.works = time.Hour
	for _, wait := range []string{"50ms", "0s"} {
		began := time.Now()
		s, stderr = send(q.edge.URL, q.admin.Address, "--wait", wait)
		if s.HandledSeconds != nil || s.Delivered != nil || !strings.Contains(stderr, "the edge's queue still has ") || time.Since(began) > time.Minute {
			t.Errorf("a long queue, --wait %s: %+v, stderr %q", wait, s, stderr)
		}
	}
	stdout, _, _ = runCommand(t, dir, "", "green-api", "send", q.edge.URL, "--type", "incomingCall", "--admin", q.admin.Address, "--wait", "1ms")
	if !strings.Contains(stdout, "the edge's queue still has 12 notifications") || strings.Contains(stdout, "were handled") {
		t.Errorf("a long queue: %s", stdout)
	}

	// The queue of another edge has nothing to do with it.
	began := time.Now()
	if s, _ = send(up.URL, q.admin.Address, "--wait", "5s"); s.HandledSeconds != nil || time.Since(began) >= 5*time.Second {
		t.Errorf("another edge: %+v", s)
	}

	// Nobody to ask, which is not worth a word of its own.
	if s, stderr = send(e.URL, "127.0.0.1:"+edgetest.FreePort(t)); s.HandledSeconds != nil || strings.Contains(stderr, "handled") {
		t.Errorf("without an admin API: %+v, stderr %q", s, stderr)
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
		{"http://127.0.0.1:1 --chats 0", "invalid --chats 0; want 1 or more"},
		{"http://127.0.0.1:1 --chats 1000001", "invalid --chats 1000001; want at most 1000000"},
		{"http://127.0.0.1:1 --chats 2 --body good.json", "--chats goes with the built-in examples; want it without --body"},
		{"http://127.0.0.1:1 --wait -1s", "invalid --wait -1s; want 0s or more"},
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
