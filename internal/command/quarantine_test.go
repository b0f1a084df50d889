package command_test

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

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/command"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// TestQuarantineCommands takes what is kept from the list to the handlers, as an operator would.
func TestQuarantineCommands(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site("name sales\n"+edgetest.Loopback+"reverse_proxy "+up.Address))
	e := edgetest.Start(t, config)
	odd := "\x00\xff{no JSON"
	for _, body := range []string{edgetest.Broken("ONE"), edgetest.Broken("TWO"), strings.Replace(edgetest.Broken("OTHER"), "1101000001", "1101000002", 1), odd} {
		if status := e.Post(body); status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	run := func(wantCode int, args ...string) (string, string) {
		t.Helper()
		stdout, stderr, code := runCommand(t, "", "", append(append([]string{"green-api", "quarantine"}, args...), "--address", admin)...)
		if code != wantCode {
			t.Fatalf("%v: exit code %d, want %d; stdout %q, stderr %q", args, code, wantCode, stdout, stderr)
		}
		return stdout, stderr
	}
	list := func(args ...string) (entries []api.Entry) {
		t.Helper()
		stdout, _ := run(0, append([]string{"list", "--format", "json"}, args...)...)
		for line := range strings.Lines(stdout) {
			var entry api.Entry
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				t.Fatal(err)
			}
			entries = append(entries, entry)
		}
		return entries
	}

	all := list()
	if len(all) != 4 || all[0].NotificationID != "ONE" || all[0].Body != "" || all[3].Reason != "malformed" {
		t.Fatalf("%+v", all)
	}
	for _, test := range []struct {
		args []string
		want int
	}{
		{[]string{"--reason", "schema"}, 3},
		{[]string{"--instance", "1101000002"}, 1},
		{[]string{"--instance", "1101000002", "--instance", "1101000001"}, 3},
		{[]string{"--reason", "malformed", "--instance", "1101000001"}, 0},
		{[]string{"--type", "incomingMessageReceived", "--message", "textMessage"}, 3},
		{[]string{"--chat", "79001234568@c.us"}, 3},
		{[]string{"--name", "sales"}, 4},
		{[]string{"--since", "1h"}, 4},
		{[]string{"--until", "1h"}, 0},
		{[]string{"--limit", "2"}, 2},
		{[]string{"--limit", "2", "--after", all[2].ID}, 1},
	} {
		if got := len(list(test.args...)); got != test.want {
			t.Errorf("%v: %d entries, want %d", test.args, got, test.want)
		}
	}
	text, _ := run(0, "list", "--reason", "schema", "--limit", "1")
	for _, part := range []string{all[0].ID, "schema  incomingMessageReceived  textMessage  instance 1101000001", "/messageData/textMessageData/textMessage: type"} {
		if !strings.Contains(text, part) {
			t.Errorf("list lacks %q: %s", part, text)
		}
	}
	if text, _ = run(0, "show", all[0].ID); !strings.Contains(text, edgetest.Broken("ONE")) || !strings.Contains(text, "from 127.0.0.1, for block sales") {
		t.Errorf("show: %s", text)
	}

	// What is exported can be checked, every byte of it.
	exported, _ := run(0, "export")
	file := filepath.Join(t.TempDir(), "kept.jsonl")
	if err := os.WriteFile(file, []byte(exported), 0o600); err != nil {
		t.Fatal(err)
	}
	entries, _ := command.SplitExport([]byte(exported))
	if len(entries) != 4 || string(entries[0].Bytes()) != edgetest.Broken("ONE") || string(entries[3].Bytes()) != odd {
		t.Errorf("exported %q", exported)
	}
	checked, _, code := runCommand(t, "", "", "green-api", "check", "--format", "json", file)
	if code != 1 || strings.Count(checked, `"reason":"schema"`) != 3 || strings.Count(checked, `"reason":"malformed"`) != 1 {
		t.Errorf("check: exit code %d, %s", code, checked)
	}

	// With --recheck what is still at fault stays; without it the handler decides.
	if text, _ = run(1, "replay", "--all", "--recheck"); strings.Count(text, "kept") != 3 || len(up.Requests()) != 0 {
		t.Errorf("replay --recheck: %s, %d delivered", text, len(up.Requests()))
	}
	text, said := run(0, "replay", "--instance", "1101000001")
	if strings.Count(text, "delivered") != 2 || !strings.HasPrefix(said, "2 delivered, 0 failed, 0 still at fault in ") {
		t.Errorf("replay: %s, %s", text, said)
	}
	for i, request := range up.Requests() {
		if request.Body != edgetest.Broken([]string{"ONE", "TWO"}[i]) || request.Path != "/green-api/webhook" || request.Header.Get("Authorization") != "Bearer "+edgetest.Token ||
			request.Header.Get("X-Green-Api-Replay") != all[i].ID || request.Header.Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("handler got %+v", request)
		}
	}
	if left := list(); len(left) != 2 {
		t.Errorf("%d left", len(left))
	}

	// Nothing is deleted by accident, and what is leaves nothing behind.
	if _, said := run(2, "delete"); !strings.Contains(said, "want ids, a filter, or --all") {
		t.Errorf("delete: %s", said)
	}
	for args, want := range map[string]string{
		"list --since yesterday": `since: invalid time`, "list --format xml": "invalid --format", "show": "want the id of one entry",
	} {
		if _, said := run(2, strings.Fields(args)...); !strings.Contains(said, want) {
			t.Errorf("%s: %s", args, said)
		}
	}
	if _, said := run(1, "show", "nothing"); said != "caddy green-api quarantine show: entry \"nothing\": no such entry in quarantine\n" {
		t.Errorf("show: %s", said)
	}
	if text, _ = run(0, "delete", "--chat", "79001234568@c.us"); text != "1 deleted\n" {
		t.Errorf("delete: %s", text)
	}
	if text, _ = run(0, "delete", "--all"); text != "1 deleted\n" {
		t.Errorf("delete: %s", text)
	}
	if log := e.Logs.All(); strings.Contains(log, "79001234568@c.us") || strings.Contains(log, "79001234568%40") {
		t.Error("the chat that was asked for is in the log")
	}
	if _, said := run(0, "list"); !strings.Contains(said, "nothing is kept") {
		t.Errorf("list: %s", said)
	}
	e.Kept()
	raw, err := os.ReadFile(filepath.Join(e.Dir, quarantine.FileName))
	if err != nil {
		t.Fatal(err)
	}
	for _, trace := range []string{"79001234568", "OTHER", "Test Sender", "no JSON", edgetest.Token} {
		if bytes.Contains(raw, []byte(trace)) {
			t.Errorf("the file still has %q", trace)
		}
	}
}

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
			entry.Name = "default"
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
	if got, _ := command.SplitExport([]byte(exported)); len(got) != 3 {
		t.Errorf("exported %d entries", len(got))
	}
	// A list reads no bodies, so that it has the one whose body is damaged.
	for _, args := range []string{"--format json", "--format text", "--newest --format json", "--newest --format text"} {
		stdout, stderr, code := operate(t, admin, append([]string{"list"}, strings.Fields(args)...)...)
		if code != 2 || strings.Count(stdout, "\n") != 4 || strings.Count(stderr, ids[3]) != 1 {
			t.Errorf("list %s: exit code %d, stdout %q, stderr %q", args, code, stdout, stderr)
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
		{[]string{"list", "--reason", "shcema"}, 2, `unknown reason "shcema"; want one of too_large, encoding, malformed, unknown_type, unknown_message, schema, undeliverable, retention, expired, skipped`},
		{[]string{"list", "--limit", "-1"}, 2, "invalid --limit -1; want 1 or more, or 0 for all"},
		{[]string{"list", "--after", ""}, 2, "--after: empty"},
		{[]string{"list", "--newest", "--after", none}, 2, "--newest and --after: want one of them"},
		{[]string{"list", "--newest", "--limit", "-1"}, 2, "invalid --limit -1"},
		{[]string{"list", "--newest", "--instance", ""}, 2, "--instance: empty"},
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
		{"POST", "/search", "reason=shcema", 400},
		{"POST", "/search", "limit=501", 400},
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

// TestListNewest: newest first lists what oldest first does, the other way round, however many pages it takes.
func TestListNewest(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(t.TempDir(), "quarantine"), Logs: edgetest.NewLogBuffer()}
	var entries []quarantine.Entry
	for i := range 2*api.MostFound + 1 {
		entries = append(entries, quarantine.Entry{Reason: reason.Schema, Instance: fmt.Sprint(1101000001 + i%2), Chat: "79001234568@c.us", URI: "/<green-api>", Body: []byte("{}")})
	}
	putAll(t, e.Dir, entries...)
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Kept() })
	for _, args := range [][]string{{}, {"--instance", "1101000002"}, {"--chat", "79001234568@c.us", "--format", "json"}, {"--chat", "79001234569@c.us"}} {
		oldest, stderr, code := operate(t, admin, append([]string{"list"}, args...)...)
		lines := slices.Collect(strings.Lines(oldest))
		slices.Reverse(lines)
		for limit, want := range map[string]int{"": len(lines), "0": len(lines), "1": 1, "500": 500, "501": 501, "2000": len(lines)} {
			asked := append([]string{"list", "--newest"}, args...)
			if limit != "" {
				asked = append(asked, "--limit", limit)
			}
			newest, stderrToo, codeToo := operate(t, admin, asked...)
			if newest != strings.Join(lines[:min(want, len(lines))], "") || codeToo != code || stderrToo != stderr {
				t.Errorf("%q: exit code %d, %q; %d lines, want %d", asked, codeToo, stderrToo, strings.Count(newest, "\n"), min(want, len(lines)))
			}
		}
	}
}
