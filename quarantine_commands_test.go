package greenapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// operate runs a quarantine command against the admin API.
func operate(t *testing.T, admin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return runCommand(t, "", "", append(append([]string{"green-api", "quarantine"}, args...), "--address", admin)...)
}

// putAll makes a quarantine with an entry for each body, and returns their ids.
func putAll(t *testing.T, dir string, entries ...quarantine.Entry) (ids []string) {
	t.Helper()
	store, err := quarantine.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, entry := range entries {
		if entry.Name == "" {
			entry.Name = defaultName
		}
		id, err := store.Put(entry, 0)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// flip changes a byte of the quarantine's file wherever the text stands in it.
func flip(t *testing.T, dir, text string) {
	t.Helper()
	path := filepath.Join(dir, quarantine.FileName)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.ReplaceAll(data, []byte(text), []byte("X"+text[1:]))
	if bytes.Equal(changed, data) {
		t.Fatalf("%q is not in the file", text)
	}
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestUnreadableEntries: what cannot be read is said where it stands in the list, and hides nothing
// that is behind it.
func TestUnreadableEntries(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(t.TempDir(), "quarantine"), Logs: edgetest.NewLogBuffer()}
	var entries []quarantine.Entry
	for i := range 5 {
		entries = append(entries, quarantine.Entry{
			Reason: reason.Schema, Instance: "1101000001", NotificationID: fmt.Sprint("HEADMARK", i), URI: "/green-api/webhook", Body: fmt.Appendf(nil, "BODYMARK%d", i),
		})
	}
	ids := putAll(t, e.Dir, entries...)
	flip(t, e.Dir, "BODYMARK1")
	flip(t, e.Dir, "HEADMARK3")
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Kept() })

	exported, stderr, code := operate(t, admin, "export")
	if code != 2 || strings.Count(exported, "\n") != 3 || strings.Contains(exported, "error") ||
		!strings.Contains(stderr, ids[1]) || !strings.Contains(stderr, ids[3]) || strings.Count(stderr, "quarantine is damaged") != 2 {
		t.Errorf("export: exit code %d, stdout %q, stderr %q", code, exported, stderr)
	}
	if got, _ := splitExport([]byte(exported)); len(got) != 3 {
		t.Errorf("exported %d entries", len(got))
	}
	// A list reads no bodies, so that it has the one whose body is damaged.
	for _, format := range []string{"json", "text"} {
		stdout, stderr, code := operate(t, admin, "list", "--format", format)
		if code != 2 || strings.Count(stdout, "\n") != 4 || !strings.Contains(stderr, ids[3]) {
			t.Errorf("list: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
		}
	}
	// It may be of any instance; but its id says when it came, and which it is.
	for args, want := range map[string]int{"--instance 1101000001": 2, "--since 1h": 2, "--until 1h": 0} {
		if _, stderr, code := operate(t, admin, append([]string{"list"}, strings.Fields(args)...)...); code != want {
			t.Errorf("list %s: exit code %d, want %d; stderr %q", args, code, want, stderr)
		}
	}

	if text := edgetest.ReadAllOf(t, "http://"+admin+"/green_api/quarantine?id="+ids[0]); strings.Count(text, "\n") != 1 || strings.Contains(text, "error") {
		t.Errorf("asked for another one: %s", text)
	}

	// In the API, no line about an error can be taken for an entry.
	text := edgetest.ReadAllOf(t, "http://"+admin+"/green_api/quarantine?body=true")
	for line := range strings.Lines(text) {
		var entry api.Entry
		if err := json.Unmarshal([]byte(line), &entry); err != nil || (entry.ID == "") != strings.HasPrefix(line, `{"error":`) {
			t.Errorf("%v: %s", err, line)
		}
	}
	if strings.Count(text, "\n") != 5 {
		t.Errorf("answer: %s", text)
	}

	stdout, stderr, code := operate(t, admin, "replay", "--all", "--format", "json")
	if code != 2 || strings.Count(stdout, `"outcome":"delivered"`) != 3 || strings.Count(stdout, "\n") != 3 ||
		!strings.Contains(stderr, ids[1]) || !strings.Contains(stderr, ids[3]) || !strings.Contains(stderr, "3 delivered, 0 failed") {
		t.Errorf("replay: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if n := len(up.Requests()); n != 3 {
		t.Errorf("%d delivered", n)
	}
	// It can be deleted.
	if stdout, stderr, code := operate(t, admin, "delete", ids[1], ids[3]); code != 0 || stdout != "2 deleted\n" {
		t.Errorf("delete: exit code %d, %q, %q", code, stdout, stderr)
	}
}

// TestCheckExport: check judges an exported entry by what it came with, and says what an export lacks.
func TestCheckExport(t *testing.T) {
	dir := t.TempDir()
	check := func(lines ...string) (stdout, stderr string, code int) {
		t.Helper()
		file := filepath.Join(dir, "kept.jsonl")
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return runCommand(t, "", "", "green-api", "check", file)
	}
	entry := func(body, name, value string) string {
		e := quarantine.Entry{ID: "20261121T034150123-0000002a", Received: time.Unix(1, 0), Body: []byte(body)}
		if name != "" {
			e.Header = map[string][]string{name: {value}}
		}
		line, err := json.Marshal(api.Show(e))
		if err != nil {
			t.Fatal(err)
		}
		return string(line)
	}
	for _, test := range []struct {
		line, want string
		code       int
	}{
		{entry(edgetest.TextMessage, "", ""), "pass", 0},
		{entry(edgetest.TextMessage, "Content-Type", notification.ContentType), "pass", 0},
		{entry(edgetest.TextMessage, "content-type", "application/x-www-form-urlencoded"), "(encoding)", 1},
		{entry(edgetest.TextMessage, "Content-Type", "application/json; charset=utf-16"), "(encoding)", 1},
		{entry(edgetest.TextMessage, "Content-Encoding", "gzip"), "(encoding)", 1},
		{entry(edgetest.TextMessage+strings.Repeat(" ", 1<<20), "", ""), "(too_large)", 1},
	} {
		if stdout, stderr, code := check(test.line); code != test.code || !strings.Contains(stdout, test.want) || stderr != "" {
			t.Errorf("%.300s: exit code %d, want %d and %q; stdout %q, stderr %q", test.line, code, test.code, test.want, stdout, stderr)
		}
	}
	stdout, stderr, code := check(entry(edgetest.TextMessage, "", ""), `{"error":"entry \"x\": quarantine is damaged","entry":"x"}`, entry(edgetest.TextMessage, "", ""))
	if code != 2 || strings.Count(stdout, "pass") != 2 || !strings.Contains(stderr, "quarantine is damaged") {
		t.Errorf("with an entry that could not be read: exit code %d, %q, %q", code, stdout, stderr)
	}
	if stdout, _, code := check(`{"error":"x"}`); code != 1 || !strings.Contains(stdout, "(malformed)") {
		t.Errorf("a body that looks like an error: exit code %d, %q", code, stdout)
	}
}

// TestRecheck: with --recheck, only what would pass if it came now is delivered.
func TestRecheck(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"validate {\nmax_body_size 2KiB\n}\nreverse_proxy "+up.Address))
	e := edgetest.Start(t, config)
	for _, header := range [][]string{
		{"Content-Type", "application/x-www-form-urlencoded"}, {"Content-Type", "application/json; charset=utf-16"}, {"Content-Encoding", "gzip"},
	} {
		e.Post(edgetest.TextMessage, header...)
	}
	e.Post(edgetest.TextMessage + strings.Repeat(" ", 2<<10))
	named := []string{"replay", "--reason", reason.Encoding, "--reason", reason.TooLarge}
	stdout, _, code := operate(t, admin, append(named, "--recheck", "--format", "json")...)
	if code != 1 || strings.Count(stdout, `"outcome":"kept"`) != 4 || len(up.Requests()) != 0 {
		t.Errorf("exit code %d, %s; %d delivered", code, stdout, len(up.Requests()))
	}
	if err := e.Load(strings.Replace(config, "2KiB", "4KiB", 1)); err != nil {
		t.Fatal(err)
	}
	stdout, _, code = operate(t, admin, append(named, "--recheck")...)
	if code != 1 || strings.Count(stdout, "delivered") != 1 || len(up.Requests()) != 1 {
		t.Errorf("after max_body_size was raised: exit code %d, %s", code, stdout)
	}
}

// TestReplayNamed: nothing is replayed that was not asked for, and what no handler may be able to
// read only by name.
func TestReplayNamed(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site("validate {\nmax_body_size 2KiB\n}\n"+edgetest.Loopback+"reverse_proxy "+up.Address))
	e := edgetest.Start(t, config)
	post := func() (ids map[string]string) {
		t.Helper()
		e.Post(edgetest.Broken("ONE"))
		e.Post("no JSON")
		e.Post(edgetest.TextMessage, "Content-Type", "text/plain")
		e.Post(edgetest.TextMessage + strings.Repeat(" ", 2<<10))
		ids = make(map[string]string)
		stdout, _, _ := operate(t, admin, "list", "--format", "json")
		for line := range strings.Lines(stdout) {
			var entry api.Entry
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				t.Fatal(err)
			}
			ids[entry.Reason] = entry.ID
		}
		return ids
	}
	ids := post()
	for _, args := range [][]string{{"replay"}, {"replay", "--recheck"}, {"replay", "--to", "default"}} {
		if _, stderr, code := operate(t, admin, args...); code != 2 || !strings.Contains(stderr, "want ids, a filter, or --all") {
			t.Errorf("%v: exit code %d, %q", args, code, stderr)
		}
	}
	if status := ask(t, http.MethodPost, "http://"+admin+"/green_api/quarantine/replay", ""); status != 400 {
		t.Errorf("API without a filter: %d", status)
	}
	if len(up.Requests()) != 0 {
		t.Errorf("%d delivered before anybody asked", len(up.Requests()))
	}
	stdout, stderr, code := operate(t, admin, "replay", "--all")
	if code != 0 || strings.Count(stdout, "\n") != 1 || !strings.Contains(stderr, "3 skipped: malformed, encoding and too_large are replayed only when named") || len(up.Requests()) != 1 {
		t.Errorf("--all: exit code %d, %q, %q, %d delivered", code, stdout, stderr, len(up.Requests()))
	}
	if _, stderr, code := operate(t, admin, "replay", "--since", "1h", "--name", "default"); code != 0 || len(up.Requests()) != 1 {
		t.Errorf("other filters: exit code %d, %q, %d delivered", code, stderr, len(up.Requests()))
	}
	if _, stderr, code := operate(t, admin, "replay", ids[reason.Malformed], "--all"); code != 0 || len(up.Requests()) != 2 {
		t.Errorf("by id: exit code %d, %q, %d delivered", code, stderr, len(up.Requests()))
	}
	if _, stderr, code := operate(t, admin, "replay", "--reason", "encoding,too_large"); code != 0 || len(up.Requests()) != 4 {
		t.Errorf("by reason: exit code %d, %q, %d delivered", code, stderr, len(up.Requests()))
	}
}

// ask makes a request with a body and returns the status of the answer.
func ask(t *testing.T, method, url, body string) int {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := edgetest.Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}

// TestFilterRefuses: what was meant as a filter and is none does nothing, instead of everything.
func TestFilterRefuses(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	e := edgetest.Start(t, config)
	e.Post(edgetest.Broken("ONE"))
	const none = "20260101T000000000-00000001"
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"delete", "--instance", "", "--since", "24h"}, 2, "--instance: empty; want a value"},
		{[]string{"delete", "--instance", "1101000001,", "--since", "24h"}, 2, "--instance: empty"},
		{[]string{"delete", "--all", "--chat="}, 2, "--chat: empty"},
		{[]string{"delete", "--type", "x", "--since", ""}, 2, "--since: empty"},
		{[]string{"delete", ""}, 2, "an id is empty"},
		{[]string{"replay", "", "--all"}, 2, "an id is empty"},
		{[]string{"replay", "--until", "", "--all"}, 2, "--until: empty"},
		{[]string{"replay", "--all", "--to", ""}, 2, "--to: empty"},
		{[]string{"replay", "--all", "--to", "gone"}, 2, `no green_api block named "gone"; want one of default`},
		{[]string{"list", "--name", ""}, 2, "--name: empty"},
		{[]string{"export", "--message", ""}, 2, "--message: empty"},
		{[]string{"list", "--reason", "shcema"}, 2, `unknown reason "shcema"; want one of too_large, encoding, malformed, unknown_type, unknown_message, schema, undeliverable, retention`},
		{[]string{"list", "--limit", "-1"}, 2, "invalid --limit -1; want 1 or more, or 0 for all"},
		{[]string{"list", "--after", ""}, 2, "--after: empty"},
		{[]string{"list", none}, 2, "want filters such as --reason or --instance, and no id"},
		{[]string{"export", none}, 2, "want filters such as --reason or --instance, and no id"},
		{[]string{"show", ""}, 2, "an id is empty"},
		{[]string{"replay", none}, 1, "0 delivered, 1 failed"},
		{[]string{"delete", none}, 1, "no entry has the id " + none},
		{[]string{"delete", none, "--format", "json"}, 1, "no entry has the id " + none},
	} {
		if _, stderr, code := operate(t, admin, test.args...); code != test.code || !strings.Contains(stderr, test.want) {
			t.Errorf("%q: exit code %d, want %d; stderr %q, want %q", test.args, code, test.code, stderr, test.want)
		} else if strings.Contains(stderr, "elsewhere") || strings.Contains(stderr, `{"error"`) || strings.Contains(stderr, "HTTP 4") {
			t.Errorf("%q: the server has answered, and it reads as if it had not: %q", test.args, stderr)
		}
	}
	at := "http://" + admin + "/green_api/quarantine"
	for _, test := range []struct {
		method, path, body string
		want               int
	}{
		{"DELETE", "?instance=", "", 400},
		{"DELETE", "", "since=24h&instance=", 400},
		{"DELETE", "/" + none, "", 404},
		{"DELETE", "?all=yes", "", 400},
		{"DELETE", "?all=false", "", 400},
		{"GET", "?body=1", "", 400},
		{"GET", "?reason=schema&reason=shcema", "", 400},
		{"POST", "/replay?all=true&recheck=yes", "", 400},
		{"POST", "/replay?all=true&to=", "", 400},
		{"POST", "/replay?recheck=true&limit=5", "", 400},
		// Of parameters that are cut off, some would be obeyed, and half a value.
		{"DELETE", "", "id=" + none + strings.Repeat("&id="+none, 1<<20/len("&id="+none)), 400},
		{"DELETE", "", "instance=" + strings.Repeat("1", 1<<20), 400},
		{"DELETE", "", "instance=" + strings.Repeat("1", 1<<20-len("instance=")), 200},
	} {
		if got := ask(t, test.method, at+test.path, test.body); got != test.want {
			t.Errorf("%s %s %.50s: status %d, want %d", test.method, test.path, test.body, got, test.want)
		}
	}
	if len(up.Requests()) != 0 {
		t.Errorf("%d delivered", len(up.Requests()))
	}
	if kept := e.Kept(); len(kept) != 1 {
		t.Errorf("%d kept of 1", len(kept))
	}
}

// TestManyIDs: a command takes more ids than a query has parameters.
func TestManyIDs(t *testing.T) {
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback))
	e := edgetest.Start(t, config)
	for _, id := range []string{"ONE", "TWO", "LAST"} {
		e.Post(edgetest.Broken(id))
	}
	stdout, _, _ := operate(t, admin, "list", "--format", "json")
	var real []string
	for line := range strings.Lines(stdout) {
		var entry api.Entry
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		real = append(real, entry.ID)
	}
	ids := []string{real[0]}
	for i := range 12_000 {
		ids = append(ids, fmt.Sprintf("20260101T000000000-%08x", i))
	}
	query := url.Values{"id": append(ids, real[1])}
	if status := ask(t, http.MethodPost, "http://"+admin+"/green_api/quarantine/replay", query.Encode()); status != 200 {
		t.Errorf("API: status %d", status)
	}
	stdout, stderr, code := operate(t, admin, append([]string{"delete"}, append(slices.Clone(ids), real[1])...)...)
	if code != 1 || stdout != "2 deleted\n" || strings.Count(stderr, "no entry has the id") != 12_000 {
		t.Errorf("exit code %d, %q, %.300s", code, stdout, stderr)
	}
	if kept := e.Kept(); len(kept) != 1 || kept[0].ID != real[2] {
		t.Errorf("kept %+v", kept)
	}
}

// TestReplayTo: entries of a block that is no longer there are delivered through another.
func TestReplayTo(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site("name sales\n"+edgetest.Loopback+"reverse_proxy "+up.Address))
	e := edgetest.Start(t, config)
	e.Post(edgetest.Broken("ONE"))
	if err := e.Load(strings.Replace(config, "name sales\n"+edgetest.Loopback, "name support\nip_filter {\nallow 127.0.0.1\n}\nauth {\ntoken other-token\n}\n", 1)); err != nil {
		t.Fatal(err)
	}
	if stdout, _, code := operate(t, admin, "replay", "--name", "sales"); code != 1 || !strings.Contains(stdout, `no green_api block named "sales"; add --to NAME, one of: support`) {
		t.Errorf("without: exit code %d, %q", code, stdout)
	}
	if stdout, stderr, code := operate(t, admin, "replay", "--name", "sales", "--to", "support"); code != 0 {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	if got := up.Requests(); len(got) != 1 || got[0].Header.Get("Authorization") != "Bearer other-token" || got[0].Body != edgetest.Broken("ONE") {
		t.Errorf("handler got %+v", got)
	}
	if kept := e.Kept(); len(kept) != 0 {
		t.Errorf("%d kept", len(kept))
	}
}
