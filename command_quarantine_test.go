package greenapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/address"
	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
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
	entries, _ := splitExport([]byte(exported))
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
			request.Header.Get(replayHeader) != all[i].ID || request.Header.Get("Content-Type") != "application/json; charset=utf-8" {
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

// TestReplayFails: what no handler took stays, a second replay at the same time is harmless, and a
// body that is mended by a new schema leaves the quarantine with --recheck.
func TestReplayFails(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(replayHeader) == "" {
			return
		}
		once.Do(func() { close(began) })
		<-goOn
	})
	sick := edgetest.NewUpstream(t, 422, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.SiteWith("", "green_api /green-api/webhook* {\n"+edgetest.Loopback+"reverse_proxy "+up.Address+"\n}\n"+
		"green_api /sick {\nname sick\n"+edgetest.Loopback+"reverse_proxy "+sick.Address+"\n}\ngreen_api /next {\nname next\n"+edgetest.Loopback+"}\nrespond 404\n"))
	e := edgetest.Start(t, config)
	e.Post(edgetest.Broken("ONE"))
	for _, path := range []string{"/sick", "/next"} {
		e.Send(http.MethodPost, "http://127.0.0.1:"+e.Port+path, strings.NewReader(edgetest.Broken(path)))
	}
	replay := func(query string) (results []api.Result) {
		t.Helper()
		response, err := edgetest.Client.Post("http://"+admin+"/green_api/quarantine/replay?"+query, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		for decoder := json.NewDecoder(response.Body); decoder.More(); {
			var result api.Result
			if err := decoder.Decode(&result); err != nil {
				t.Fatal(err)
			}
			results = append(results, result)
		}
		return results
	}
	if got := replay("name=sick&name=next"); len(got) != 2 || got[0].Outcome != "failed" || got[1].Outcome != "failed" {
		t.Errorf("%+v", got)
	} else if text := fmt.Sprint(got); !strings.Contains(text, "handler_refused") || !strings.Contains(text, "no reverse_proxy") {
		t.Errorf("%s", text)
	}
	first := make(chan []api.Result)
	go func() { first <- replay("name=default") }()
	<-began
	if got := replay("name=default"); len(got) != 0 {
		t.Errorf("a second replay: %+v", got)
	}
	close(goOn)
	if got := <-first; len(got) != 1 || got[0].Outcome != "delivered" {
		t.Errorf("%+v", got)
	}
	if n := len(up.Requests()); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if err := e.Load(strings.Replace(config, "name sick\n"+edgetest.Loopback, "name sick\n"+edgetest.Loopback+"validate {\nschemas "+laxSchemas(t)+"\n}\n", 1)); err != nil {
		t.Fatal(err)
	}
	sick.Config.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	if got := replay("name=sick&recheck=true"); len(got) != 1 || got[0].Outcome != "delivered" {
		t.Errorf("with a schema that is met: %+v", got)
	}
	// What the gates would drop now was taken by nobody.
	e.Post(edgetest.Broken("DROP"))
	if err := e.Load(strings.Replace(config, edgetest.Loopback+"reverse_proxy "+up.Address, edgetest.Loopback+"validate {\ninvalid drop\n}\nreverse_proxy "+up.Address, 1)); err != nil {
		t.Fatal(err)
	}
	if got := replay("name=default&recheck=true"); len(got) != 1 || got[0].Outcome != "kept" || got[0].Reason != "schema" {
		t.Errorf("with invalid drop: %+v", got)
	}
	if got := replay("name=default"); len(got) != 1 || got[0].Outcome != "delivered" {
		t.Errorf("with invalid drop, without a check: %+v", got)
	}
	if kept := e.Kept(); len(kept) != 1 || kept[0].Name != "next" {
		t.Errorf("kept %+v", kept)
	}
}

// laxSchemas is a directory of schemas that takes the broken notification.
func laxSchemas(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "messageData.textMessage.json"), []byte(`{"type": "object"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestStatus(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	e := edgetest.Start(t, config)
	e.Post(edgetest.TextMessage)
	e.Post(edgetest.Broken("B"))
	e.Post(strings.Replace(edgetest.TextMessage, "1101000001", "1101000002", 1))
	var s api.Status
	if err := json.Unmarshal([]byte(edgetest.ReadAllOf(t, "http://"+admin+"/green_api/status")), &s); err != nil {
		t.Fatal(err)
	}
	if s.Version == "" || !strings.HasPrefix(s.Caddy, "v2.") && s.Caddy == "" || s.Addresses.Date != address.VendorDate || len(s.Addresses.List) != 12 ||
		s.Quarantine.Entries != 1 || s.Quarantine.MaxBytes != defaultMaxQuarantine || s.Quarantine.Path != e.Dir {
		t.Errorf("%+v", s)
	}
	if len(s.Instances) != 2 || s.Instances[0].Instance != "1101000002" || s.Instances[1].Outcomes[outcome.Delivered] != 1 || s.Instances[1].Outcomes[outcome.Quarantined] != 1 ||
		time.Since(s.Instances[0].Last) > time.Minute {
		t.Errorf("instances %+v", s.Instances)
	}
	for request, want := range map[string]int{"DELETE status": 405, "GET quarantine/replay": 405, "GET quarantine?limt=1": 400, "DELETE quarantine": 400, "GET quarantine/none": 404} {
		method, path, _ := strings.Cut(request, " ")
		r, err := http.NewRequest(method, "http://"+admin+"/green_api/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := edgetest.Client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: status %d, want %d", request, response.StatusCode, want)
		}
	}
}

func TestAddressesCommand(t *testing.T) {
	for format, want := range map[string]string{
		"text": "\n51.250.84.44\n", "json": `"date":"2026-07-15"`, "nft": "\t\t51.250.84.44,\n", "ufw": "ufw allow proto tcp from 51.250.84.44 to any port 443 ", "nginx": "allow 51.250.84.44;\n",
	} {
		stdout, stderr, code := runCommand(t, "", "", "green-api", "addresses", "--format", format)
		if code != 0 || stderr != "" || !strings.Contains(stdout, want) || !strings.Contains(stdout, address.VendorDate) {
			t.Errorf("%s: exit code %d, %q, %q", format, code, stdout, stderr)
		}
	}
	if _, stderr, code := runCommand(t, "", "", "green-api", "addresses", "--format", "iptables"); code != 2 || !strings.Contains(stderr, "want text, json, nft, ufw or nginx") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}
