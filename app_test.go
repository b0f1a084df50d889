package greenapi

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// broken is a notification that fails its schema, with a mark of its own.
func broken(mark string) string {
	return strings.Replace(strings.Replace(textMessage, "3EB0C767D097B7C7C030", mark, 1), `"a canary sings"`, "5", 1)
}

func TestQuarantineKeeps(t *testing.T) {
	up := newUpstream(t, 200, nil)
	e := start(t, site("name sales\n"+loopback+"reverse_proxy "+up.address))
	raw := "\x00\xff{" + textMessage
	if status := e.post(broken("ONE")); status != 200 {
		t.Errorf("status %d", status)
	}
	e.wantRecord("outcome", "quarantined", "reason", "schema", "pointer", "[/messageData/textMessageData/textMessage]", "keyword", "[type]",
		"instance", "1101000001", "type", "incomingMessageReceived", "message", "textMessage", "id", "ONE")
	id := e.record().text("quarantine_id")
	if status := e.post(raw, "Content-Encoding", "br"); status != 200 {
		t.Errorf("status %d", status)
	}
	store := openWhenFree(t, e)
	defer store.Close()
	first, err := store.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	if string(first.Body) != broken("ONE") || first.Name != "sales" || first.Reason != "schema" || first.NotificationID != "ONE" ||
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
	if len(up.requests()) != 0 {
		t.Error("a handler was asked")
	}
}

func openWhenFree(t *testing.T, e *edge) *quarantine.Store {
	t.Helper()
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	store, err := quarantine.Open(e.dir)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// TestQuarantineReload: the quarantine is one over reloads, also while requests are in flight, and
// for several blocks.
func TestQuarantineReload(t *testing.T) {
	const guardOff = "validate {\ndrift_guard off\n}\n" // of one instance, twenty would be enough
	e := start(t, site(loopback+guardOff))
	configs := []string{
		siteWith("", "green_api /green-api/webhook* {\nname a\n"+loopback+guardOff+"}\ngreen_api /other* {\nname b\n"+loopback+"}\nrespond 404\n"),
		site(loopback + "validate {\nmax_body_size 2MiB\ndrift_guard off\n}"),
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
				r, err := http.NewRequest(http.MethodPost, e.url, strings.NewReader(broken(fmt.Sprintf("W%d-%d", worker, n))))
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("Authorization", "Bearer "+testToken)
				response, err := testClient.Do(r)
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
	for i := range 20 {
		if err := e.load(configs[i%2]); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	sent := 0
	for range 4 {
		sent += <-done
	}
	store := openWhenFree(t, e)
	defer store.Close()
	if kept := store.Stats().Entries; kept < sent || sent == 0 {
		t.Errorf("%d kept of %d acknowledged", kept, sent)
	}
}

// TestQuarantineUnavailable: what a handler might take goes on, the rest stays with the sender.
func TestQuarantineUnavailable(t *testing.T) {
	up := newUpstream(t, 200, nil)
	unknown := strings.Replace(textMessage, "incomingMessageReceived", "brandNew", 1)
	full := func(t *testing.T) *edge {
		config := strings.Replace(site(loopback+"reverse_proxy "+up.address), "quarantine DIR", "quarantine DIR {\nmax_size 1KiB\n}", 1)
		return start(t, config)
	}
	gone := func(t *testing.T) *edge {
		e := start(t, site(loopback+"reverse_proxy "+up.address))
		// The new config cannot open its quarantine when it is first needed: it was taken away.
		releaseQuarantine(e.dir)
		path := filepath.Join(e.dir, quarantine.FileName)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { holdQuarantine(e.dir) }) // what Cleanup gives up
		return e
	}
	for name, begin := range map[string]func(*testing.T) *edge{"full": full, "failing": gone} {
		t.Run(name, func(t *testing.T) {
			e := begin(t)
			for _, test := range []struct {
				body    string
				status  int
				outcome string
				found   string
			}{
				{broken("ONE"), 200, "delivered", "schema"},
				{unknown, 200, "delivered", "unknown_type"},
				{"{", 503, "failed", "malformed"},
				{textMessage, 200, "delivered", ""},
			} {
				before := len(up.requests())
				if status := e.post(test.body); status != test.status {
					t.Errorf("%.20s: status %d, want %d", test.body, status, test.status)
				}
				reason, level := "quarantine_unavailable", "error"
				if test.found == "" {
					reason, level = "", "info"
				}
				e.wantRecord("outcome", test.outcome, "reason", reason, "found", test.found, "level", level)
				if asked := len(up.requests()) > before; asked != (test.outcome == "delivered") {
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
	e := &edge{t: t, port: freePort(t), dir: dir, logs: newLogBuffer()}
	err = e.load(site(loopback))
	if err == nil {
		caddy.Stop()
		t.Fatal("loads")
	}
	if !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("message: %v", err)
	}
}

// process is a Caddy of its own that runs a config.
type process struct {
	*exec.Cmd
	file   string
	output *bytes.Buffer
}

func startProcess(t *testing.T, e *edge, config string) *process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "Caddyfile")
	config = strings.NewReplacer("PORT", e.port, "DIR", e.dir, "TOKEN", testToken, "output test_buffer", "output stderr").Replace(config)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: caddyProcess(t, "run", "--config", file), file: file, output: new(bytes.Buffer)}
	stderr, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	serving := make(chan bool, 1)
	go func() {
		lines := bufio.NewReader(io.TeeReader(stderr, p.output))
		for {
			line, err := lines.ReadString('\n')
			if strings.Contains(line, "serving initial configuration") {
				serving <- true
			}
			if err != nil {
				serving <- false
				return
			}
		}
	}()
	if !<-serving {
		p.Wait()
		t.Fatalf("Caddy ended:\n%s", p.output)
	}
	return p
}

// TestKill9: whenever the process is killed, it starts again, and what was answered 200 is in the
// quarantine or with a handler. `make crash` kills it a hundred times.
func TestKill9(t *testing.T) {
	rounds := 3
	if text := os.Getenv("GREEN_API_CRASHES"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	acknowledged, taken := make(map[string]bool), make(map[string]bool)
	handler := newUpstream(t, 200, nil)
	e := &edge{t: t, port: freePort(t), dir: filepath.Join(t.TempDir(), "quarantine")}
	e.url = "http://127.0.0.1:" + e.port + "/green-api/webhook"
	config := site(loopback + "validate {\ndrift_guard off\n}\nreverse_proxy " + handler.address)
	send := func(mark, body string) bool {
		r, err := http.NewRequest(http.MethodPost, e.url, strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return false
		}
		r.Header.Set("Authorization", "Bearer "+testToken)
		response, err := testClient.Do(r)
		if err != nil {
			return false // killed
		}
		response.Body.Close()
		mu.Lock()
		defer mu.Unlock()
		acknowledged[mark] = response.StatusCode == 200
		return true
	}
	for round := range rounds {
		p := startProcess(t, e, config)
		moment := rand.N(200 * time.Millisecond)
		time.AfterFunc(moment, func() { p.Process.Kill() })
		var workers sync.WaitGroup
		for worker := range 4 {
			workers.Go(func() {
				for n, goesOn := 0, true; goesOn; n++ {
					mark := fmt.Sprintf("R%d-W%d-%d", round, worker, n)
					body := broken(mark)
					if n%2 == 0 {
						body = strings.Replace(textMessage, "3EB0C767D097B7C7C030", mark, 1)
					}
					goesOn = send(mark, body)
				}
			})
		}
		workers.Wait()
		p.Wait()
		// And while it starts.
		starting := caddyProcess(t, "run", "--config", p.file)
		if err := starting.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rand.N(300 * time.Millisecond))
		starting.Process.Kill()
		starting.Wait()
	}
	kept := make(map[string]bool)
	for _, entry := range readQuarantineWhole(t, e.dir) {
		kept[entry.NotificationID] = true
	}
	for _, got := range handler.requests() {
		n, err := notification.Parse([]byte(got.body))
		if err != nil {
			t.Fatal(err)
		}
		taken[n.ID] = true
	}
	if len(acknowledged) < 10*rounds {
		t.Fatalf("only %d acknowledged", len(acknowledged))
	}
	for mark, ok := range acknowledged {
		if !ok || !kept[mark] && !taken[mark] {
			t.Errorf("%s: answered 200: %t, kept: %t, taken: %t", mark, ok, kept[mark], taken[mark])
		}
	}
	t.Logf("killed %d times under load and %d times at its start; %d acknowledged, %d kept, %d taken", rounds, rounds, len(acknowledged), len(kept), len(taken))
}

// TestValidateBesideServer: `caddy validate` with the same quarantine does not hang on its lock.
func TestValidateBesideServer(t *testing.T) {
	e := &edge{t: t, port: freePort(t), dir: filepath.Join(t.TempDir(), "quarantine")}
	p := startProcess(t, e, site(loopback))
	defer func() {
		p.Process.Kill()
		p.Wait()
	}()
	began := time.Now()
	out, err := caddyProcess(t, "validate", "--config", p.file).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
}
