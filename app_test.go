package greenapi

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

func TestQuarantineKeeps(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Site("name sales\n"+edgetest.Loopback+"reverse_proxy "+up.Address))
	raw := "\x00\xff{" + edgetest.TextMessage
	if status := e.Post(edgetest.Broken("ONE")); status != 200 {
		t.Errorf("status %d", status)
	}
	e.WantRecord("outcome", "quarantined", "reason", "schema", "pointer", "[/messageData/textMessageData/textMessage]", "keyword", "[type]",
		"instance", "1101000001", "type", "incomingMessageReceived", "message", "textMessage", "id", "ONE")
	id := e.Record().Text("quarantine_id")
	if status := e.Post(raw, "Content-Encoding", "br"); status != 200 {
		t.Errorf("status %d", status)
	}
	store := edgetest.OpenWhenFree(t, e)
	defer store.Close()
	first, err := store.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	if string(first.Body) != edgetest.Broken("ONE") || first.Name != "sales" || first.Reason != "schema" || first.NotificationID != "ONE" ||
		first.Chat != "79001234568@c.us" || first.Client != "127.0.0.1" || len(first.Faults) != 1 || time.Since(first.Received) > time.Minute {
		t.Errorf("kept %+v", first)
	}
	if got := first.Header["Authorization"]; got != nil {
		t.Error("the token is kept")
	}
	entries, err := store.List("", 10)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	second, err := store.Get(entries[1].ID)
	if err != nil || string(second.Body) != raw || second.Reason != "encoding" || second.Header["Content-Encoding"][0] != "br" {
		t.Errorf("kept %+v, %v", second, err)
	}
	if len(up.Requests()) != 0 {
		t.Error("a handler was asked")
	}
}

// TestQuarantineReload: the quarantine is one over reloads, also while requests are in flight, and
// for several blocks.
func TestQuarantineReload(t *testing.T) {
	const guardOff = "validate {\ndrift_guard off\n}\n" // of one instance, twenty would be enough
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+guardOff))
	configs := []string{
		edgetest.SiteWith("", "green_api /green-api/webhook* {\nname a\n"+edgetest.Loopback+guardOff+"}\ngreen_api /other* {\nname b\n"+edgetest.Loopback+"}\nrespond 404\n"),
		edgetest.Site(edgetest.Loopback + "validate {\nmax_body_size 2MiB\ndrift_guard off\n}"),
	}
	stop, done := make(chan struct{}), make(chan int)
	for worker := range 4 {
		go func() {
			n := 0
			defer func() { done <- n }()
			for ; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				r, err := http.NewRequest(http.MethodPost, e.URL, strings.NewReader(edgetest.Broken(fmt.Sprintf("W%d-%d", worker, n))))
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("Authorization", "Bearer "+edgetest.Token)
				response, err := edgetest.Client.Do(r)
				if err != nil { // a connection in the backlog of the old config's socket
					n--
					continue
				}
				response.Body.Close()
				if response.StatusCode != 200 {
					t.Errorf("status %d", response.StatusCode)
				}
			}
		}()
	}
	for i := range 10 {
		if err := e.Load(configs[i%2]); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	sent := 0
	for range 4 {
		sent += <-done
	}
	store := edgetest.OpenWhenFree(t, e)
	defer store.Close()
	if kept := store.Stats().Entries; kept < sent || sent == 0 {
		t.Errorf("%d kept of %d acknowledged", kept, sent)
	}
}

// TestQuarantineUnavailable: what a handler might take goes on, the rest stays with the sender.
func TestQuarantineUnavailable(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	unknown := strings.Replace(edgetest.TextMessage, "incomingMessageReceived", "brandNew", 1)
	full := func(t *testing.T) *edgetest.Edge {
		config := strings.Replace(edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address), "quarantine DIR", "quarantine DIR {\nmax_size 1KiB\n}", 1)
		return edgetest.Start(t, config)
	}
	gone := func(t *testing.T) *edgetest.Edge {
		e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
		// The new config cannot open its quarantine when it is first needed: it was taken away.
		releaseQuarantine(e.Dir)
		path := filepath.Join(e.Dir, quarantine.FileName)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { holdQuarantine(e.Dir) }) // what Cleanup gives up
		return e
	}
	for name, begin := range map[string]func(*testing.T) *edgetest.Edge{"full": full, "failing": gone} {
		t.Run(name, func(t *testing.T) {
			e := begin(t)
			for _, test := range []struct {
				body    string
				status  int
				outcome string
				found   string
			}{
				{edgetest.Broken("ONE"), 200, "delivered", "schema"},
				{unknown, 200, "delivered", "unknown_type"},
				{"{", 503, "failed", "malformed"},
				{edgetest.TextMessage, 200, "delivered", ""},
			} {
				before := len(up.Requests())
				if status := e.Post(test.body); status != test.status {
					t.Errorf("%.20s: status %d, want %d", test.body, status, test.status)
				}
				why, level := "quarantine_unavailable", "error"
				if test.found == "" {
					why, level = "", "info"
				}
				e.WantRecord("outcome", test.outcome, "reason", why, "found", test.found, "level", level)
				if asked := len(up.Requests()) > before; asked != (test.outcome == "delivered") {
					t.Errorf("%.20s: a handler was asked: %t", test.body, asked)
				}
			}
		})
	}
}

// TestQuarantineLocked: two processes must not share a quarantine, and the second one says so.
func TestQuarantineLocked(t *testing.T) {
	dir := t.TempDir()
	store, err := quarantine.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	a := &App{Quarantine: &Quarantine{Path: dir, said: dir}}
	a.shared = holdQuarantine(dir)
	defer releaseQuarantine(dir)
	synctest.Test(t, func(*testing.T) { err = a.Start() }) // it waits for the other to end
	if err == nil {
		t.Fatal("starts")
	}
	if !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("message: %v", err)
	}
}

// TestValidateBesideServer: `caddy validate` with the same quarantine does not hang on its lock.
func TestValidateBesideServer(t *testing.T) {
	e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(t.TempDir(), "quarantine")}
	p := edgetest.StartProcess(t, e, edgetest.Site(edgetest.Loopback))
	defer func() {
		p.Process.Kill()
		p.Wait()
	}()
	began := time.Now()
	out, err := edgetest.Command(t, "validate", "--config", p.File).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
}
