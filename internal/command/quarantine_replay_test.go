package command_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

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

// TestReplayFails: what no handler took stays, a second replay at the same time is harmless, and a
// body that is mended by a new schema leaves the quarantine with --recheck.
func TestReplayFails(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Green-Api-Replay") == "" {
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
