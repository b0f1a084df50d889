package browsertest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// edgeToken lets notifications in.
const edgeToken = "browser-test-token"

// An edge is a process of Caddy that runs a config.
type edge struct {
	t      *testing.T
	dir    string
	config string // the file
	origin string // of its site
	cmd    *exec.Cmd
	output *output
}

// startEdge starts an edge. config is a Caddyfile in which DIR is a directory, PORT a free port, TOKEN what lets
// notifications in, and pairs replace more.
func startEdge(t *testing.T, config string, pairs ...string) *edge {
	t.Helper()
	needBrowser(t)
	dir, err := os.MkdirTemp("", "edge") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	port := freePort(t)
	e := &edge{t: t, dir: dir, config: filepath.Join(dir, "Caddyfile"), origin: "http://127.0.0.1:" + port}
	pairs = append(pairs, "DIR", dir, "PORT", port, "TOKEN", edgeToken, "OPTIONS", "", "GLOBAL", "", "SITE", "") // the first of a name counts
	replacer := strings.NewReplacer(pairs...)
	e.write(replacer.Replace(replacer.Replace(config))) // what is put in may name the others
	e.start()
	t.Cleanup(e.stop)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the edge said, in the end:\n%s", e.output.tail(6000))
		}
	})
	return e
}

func (e *edge) write(config string) {
	e.t.Helper()
	if err := os.WriteFile(e.config, []byte(config), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

// start starts the process, and returns when it serves.
func (e *edge) start() {
	e.t.Helper()
	e.output = newOutput()
	e.cmd = exec.Command(shared.caddy, "run", "--config", e.config)
	e.cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+e.dir, "XDG_CONFIG_HOME="+e.dir)
	e.cmd.Stdout, e.cmd.Stderr = e.output, e.output
	if err := e.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.output.await(e.t, "serving initial configuration")
}

// stop ends the process, which it may have done before.
func (e *edge) stop() { e.end(syscall.SIGTERM) }

func (e *edge) end(how os.Signal) {
	if e.cmd == nil {
		return
	}
	_ = e.cmd.Process.Signal(syscall.SIGCONT)
	_ = e.cmd.Process.Signal(how)
	endOrKill(e.cmd)
	e.cmd = nil
}

// endOrKill waits for a process that was told to end.
func endOrKill(cmd *exec.Cmd) {
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is its business
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		<-ended
	}
}

// reload loads a config into the process that runs, and returns how long that took.
func (e *edge) reload(config string) time.Duration {
	e.t.Helper()
	e.write(config)
	began := time.Now()
	cmd := exec.Command(shared.caddy, "reload", "--force", "--config", e.config)
	if said, err := cmd.CombinedOutput(); err != nil {
		e.t.Fatalf("reload: %v\n%s", err, said)
	}
	return time.Since(began)
}

// text is the config.
func (e *edge) text() string {
	e.t.Helper()
	text, err := os.ReadFile(e.config)
	if err != nil {
		e.t.Fatal(err)
	}
	return string(text)
}

// post sends a body as GREEN-API does, and returns the status.
func (e *edge) post(body string) int {
	e.t.Helper()
	status, err := e.tryPost(body)
	if err != nil {
		e.t.Fatal(err)
	}
	return status
}

func (e *edge) tryPost(body string) (int, error) { return e.tryPostTo("/green-api/webhook", body) }

func (e *edge) tryPostTo(path, body string) (int, error) {
	r, err := http.NewRequest(http.MethodPost, e.origin+path, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer "+edgeToken)
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

// admin asks the admin API of the edge.
func (e *edge) admin(method, path string, form url.Values) []byte {
	e.t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(e.dir, "admin.sock"))
		},
	}}
	r, err := http.NewRequest(method, "http://127.0.0.1/green_api/"+path, strings.NewReader(form.Encode()))
	if err != nil {
		e.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	response, err := client.Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		e.t.Fatalf("%s %s: %s %v\n%s", method, path, response.Status, err, text)
	}
	return text
}

// entries returns how many entries the quarantine has.
func (e *edge) entries() int {
	e.t.Helper()
	var s struct{ Quarantine struct{ Entries int } }
	if err := json.Unmarshal(e.admin(http.MethodGet, "status", nil), &s); err != nil {
		e.t.Fatal(err)
	}
	return s.Quarantine.Entries
}

// newest returns the ID of the newest entry.
func (e *edge) newest() string {
	e.t.Helper()
	var found struct{ Entries []struct{ ID string } }
	if err := json.Unmarshal(e.admin(http.MethodPost, "quarantine/search", url.Values{"limit": {"1"}}), &found); err != nil || len(found.Entries) == 0 {
		e.t.Fatalf("no entry: %v", err)
	}
	return found.Entries[0].ID
}

// A consoleProcess is a process of `caddy green-api console`.
type consoleProcess struct {
	cmd    *exec.Cmd
	output *output
	url    string // with the token
	origin string
}

// startConsole starts the console of an edge.
func startConsole(t *testing.T, e *edge, flags ...string) *consoleProcess {
	t.Helper()
	c := &consoleProcess{output: newOutput()}
	c.cmd = exec.Command(shared.caddy, append([]string{"green-api", "console", "--no-open", "--format", "json", "--admin", "unix/" + filepath.Join(e.dir, "admin.sock")}, flags...)...)
	c.cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+e.dir, "XDG_CONFIG_HOME="+e.dir)
	c.cmd.Stderr = c.output
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.stop)
	var said struct{ URL string }
	if err := json.NewDecoder(out).Decode(&said); err != nil {
		c.stop()
		t.Fatalf("the console says no URL: %v\n%s", err, c.output.tail(2000))
	}
	c.url = said.URL
	c.origin, _, _ = strings.Cut(said.URL, "/#")
	return c
}

func (c *consoleProcess) stop() {
	if c.cmd == nil {
		return
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	endOrKill(c.cmd)
	c.cmd = nil
}

// A handler takes notifications, and answers as it is told to.
type handler struct {
	*httptest.Server
	status atomic.Int64

	mu     sync.Mutex
	bodies []string
	header []http.Header
}

func startHandler(t *testing.T) *handler {
	t.Helper()
	h := new(handler)
	h.status.Store(http.StatusOK)
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		h.mu.Lock()
		h.bodies = append(h.bodies, string(body))
		h.header = append(h.header, r.Header.Clone())
		h.mu.Unlock()
		status := int(h.status.Load())
		w.WriteHeader(status)
		if status >= 400 {
			fmt.Fprint(w, "the ledger is locked")
		}
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *handler) address() string { return strings.TrimPrefix(h.URL, "http://") }

// got returns the bodies that have come.
func (h *handler) got() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.bodies...)
}

// forget begins to count again.
func (h *handler) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bodies, h.header = nil, nil
}

// An output keeps what a process says.
type output struct {
	mu     sync.Mutex
	text   bytes.Buffer
	change chan struct{} // closed when there is more
}

func newOutput() *output { return &output{change: make(chan struct{})} }

func (o *output) Write(text []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.change)
	o.change = make(chan struct{})
	return o.text.Write(text)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) tail(most int) string {
	text := o.String()
	return text[max(0, len(text)-most):]
}

// await waits until a process has said something.
func (o *output) await(t *testing.T, what string) {
	t.Helper()
	late := time.After(patience)
	for {
		o.mu.Lock()
		said, change := bytes.Contains(o.text.Bytes(), []byte(what)), o.change
		o.mu.Unlock()
		if said {
			return
		}
		select {
		case <-change:
		case <-late:
			t.Fatalf("it does not say %q:\n%s", what, o.tail(4000))
		}
	}
}

// lines returns the lines that have all of some parts.
func (o *output) lines(parts ...string) (found []string) {
	lines := bufio.NewScanner(strings.NewReader(o.String()))
	lines.Buffer(nil, 4<<20)
next:
	for lines.Scan() {
		for _, part := range parts {
			if !strings.Contains(lines.Text(), part) {
				continue next
			}
		}
		found = append(found, lines.Text())
	}
	return found
}

// freePort returns a port that nobody listened on a moment ago. It is below those that systems give to connections.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := fmt.Sprint(10_000 + rand.N(20_000))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// A config with one site. HANDLERS are the handlers, OPTIONS is more of the block, GLOBAL more global options, SITE more
// of the site.
const oneSite = `{
	admin unix/DIR/admin.sock
	persist_config off
	auto_https off
	grace_period 10s
	log {
		format json
	}
	metrics
	green_api {
		quarantine DIR/quarantine
		GLOBAL
	}
}
http://127.0.0.1:PORT {
	bind 127.0.0.1
	log
	handle /metrics {
		metrics
	}
	SITE
	green_api /green-api/webhook* {
		ip_filter off
		auth {
			token TOKEN
		}
		OPTIONS
		reverse_proxy HANDLERS
	}
	respond 404
}
`

// message is a notification of an instance, from a chat, with a text.
func message(instance int, chat, text string) string {
	quoted, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return rawMessage(instance, chat, string(quoted))
}

// rawMessage is the same with any JSON, or no JSON, in the place of the text.
func rawMessage(instance int, chat, text string) string {
	return fmt.Sprintf(`{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":%d,"wid":"79001234567@c.us","typeInstance":"whatsapp"},`+
		`"timestamp":%d,"idMessage":"F7AEC1B7086ECDC7E6E45923F5EDB%03d","senderData":{"chatId":"%s@c.us","sender":"%[4]s@c.us","chatName":"Anna","senderName":"Anna","senderContactName":"Anna"},`+
		`"messageData":{"typeMessage":"textMessage","textMessageData":{"textMessage":%[5]s}}}`, instance, time.Now().Unix(), rand.N(1000), chat, text)
}
