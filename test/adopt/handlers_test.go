package adopt

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// An example is a handler of examples/handlers.
type example struct {
	name    string
	command func(t *testing.T) []string // in the directory of the handler
}

var examples = []example{
	{"node", func(t *testing.T) []string {
		return []string{needs(t, "node", "nodejs"), sourceOf(t, "node/handler.mjs")}
	}},
	{"python", func(t *testing.T) []string {
		return []string{needs(t, "python3", "python3"), sourceOf(t, "python/handler.py")}
	}},
	{"go", func(t *testing.T) []string {
		binary := filepath.Join(t.TempDir(), "handler")
		if out, err := exec.Command("go", "build", "-o", binary, sourceOf(t, "go/main.go")).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return []string{binary}
	}},
	{"php", func(t *testing.T) []string {
		return []string{needs(t, "php", "php-cli"), sourceOf(t, "php/handler.php")}
	}},
	{"express", express},
}

func sourceOf(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs("../../examples/handlers/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// express installs the vendor's client and express, if the registry serves them. Two packages that the client
// names and does not use when it runs (a build tool, and a name that npm holds for nobody) stay empty.
func express(t *testing.T) []string {
	if edgetest.RaceDetector {
		t.Skip("once is enough")
	}
	node := needs(t, "node", "nodejs")
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("npm is not installed")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"handler.js": page(t, "examples/handlers/express/handler.js"),
		"package.json": strings.Replace(page(t, "examples/handlers/express/package.json"), "{",
			`{"overrides": {"fs": "file:./fs", "rollup": "file:./rollup"},`, 1),
		"fs/package.json":     `{"name": "fs", "version": "0.0.1"}`,
		"rollup/package.json": `{"name": "rollup", "version": "2.79.1"}`,
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	install := exec.CommandContext(ctx, npm, "install", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("the vendor's client cannot be installed: %v: %s", err, out)
	}
	return []string{node, filepath.Join(dir, "handler.js")}
}

// probeClient holds what docs/handlers.md says of the vendor's client for Node.
func probeClient(t *testing.T, command []string) {
	probe := filepath.Join(filepath.Dir(command[1]), "client.mjs")
	copyFile(t, "testdata/client.mjs", probe)
	h := newHandler(t, []string{command[0], probe})
	post := func(body string, header ...string) int {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, "http://"+h.address+"/webhooks", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json; charset=utf-8")
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		response, err := edgetest.Client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}
	example := func(name string) string {
		return page(t, "notification/examples/incomingMessageReceived."+name+".json")
	}
	for _, test := range []struct {
		what   string
		status int
	}{
		{"a wrong token", post(edgetest.TextMessage, "Authorization", "Bearer wrong-token")},
		{"no function for it", post(edgetest.StateChanged)},
		{"a type of no use", post(`{"typeWebhook":"neverHeardOf"}`)},
		{"an image", post(example("imageMessage.whatsapp"))},
		{"a document, no function is called", post(example("documentMessage.whatsapp"))},
		{"an extended text", post(example("extendedTextMessage.whatsapp"))},
	} {
		if test.status != 200 {
			t.Errorf("%s: %d", test.what, test.status)
		}
	}
	if status := post(edgetest.TextMessage[:100]); status != 400 {
		t.Errorf("broken JSON: %d", status)
	}
	if status := post(strings.Replace(edgetest.TextMessage, "a canary sings", "throw", 1)); status != 500 {
		t.Errorf("a function that throws: %d", status)
	}
	if status := post(strings.Replace(edgetest.TextMessage, "a canary sings", strings.Repeat("long ", 25_000), 1)); status != 413 {
		t.Errorf("125 KB: %d", status)
	}
	began := time.Now()
	if status := post(edgetest.TextMessage); status != 200 || time.Since(began) >= 1500*time.Millisecond {
		t.Errorf("a function that takes 1.5 s: %d after %s", status, time.Since(began))
	}
	time.Sleep(2 * time.Second)
	if status := post(strings.Replace(edgetest.TextMessage, "a canary sings", "reject", 1)); status != 200 {
		t.Errorf("a promise that is rejected: %d", status)
	}
	if err := h.cmd.Wait(); err == nil {
		t.Error("a rejected promise did not end the process")
	}
	var said []string
	for line := range strings.Lines(h.output.String()) {
		if strings.HasPrefix(line, "[") {
			said = append(said, strings.TrimSpace(line))
		}
	}
	want := []string{`["file","imageMessage",true]`, `["extended",true]`, `["text","a canary sings"]`, `["text","a canary sings"]`}
	slices.Sort(said)
	slices.Sort(want)
	if !slices.Equal(said, want) {
		t.Errorf("called with %q, want %q\n%s", said, want, h.output)
	}
}

// A handler is one that runs as a process, and the file that it keeps notifications in.
type handler struct {
	t       *testing.T
	command []string
	address string
	file    string
	env     []string

	cmd    *exec.Cmd
	output *bytes.Buffer
}

func newHandler(t *testing.T, command []string, env ...string) *handler {
	h := &handler{t: t, command: command, address: "127.0.0.1:" + edgetest.FreePort(t), file: filepath.Join(t.TempDir(), "notifications.jsonl")}
	h.env = append(os.Environ(), append(env, "ADDRESS="+h.address, "FILE="+h.file)...)
	h.start(t.Context())
	t.Cleanup(func() {
		if h.cmd.ProcessState == nil {
			h.cmd.Process.Kill()
			h.cmd.Wait()
		}
	})
	return h
}

func (h *handler) start(ctx context.Context) {
	h.cmd, h.output = exec.Command(h.command[0], h.command[1:]...), new(bytes.Buffer)
	h.cmd.Env, h.cmd.Stdout, h.cmd.Stderr = h.env, h.output, h.output
	if err := h.cmd.Start(); err != nil {
		h.t.Error(err)
		return
	}
	edgetest.WaitForPort(ctx, h.address)
}

// stop ends it as a supervisor does, and wants it to end by itself.
func (h *handler) stop() {
	h.t.Helper()
	if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		h.t.Error(err)
	}
	late := time.AfterFunc(10*time.Second, func() { h.cmd.Process.Kill() })
	if err := h.cmd.Wait(); err != nil || !late.Stop() {
		h.t.Errorf("at SIGTERM: %v\n%s", err, h.output)
	}
}

// kept returns what is in its file: a notification a line.
func (h *handler) kept() (bodies []string) {
	h.t.Helper()
	text, err := os.ReadFile(h.file)
	if err != nil {
		h.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSuffix(line, "\n"); line != "" {
			bodies = append(bodies, line)
		}
	}
	return bodies
}

// TestHandlers holds each handler of examples/handlers to what docs/handlers.md says of it.
func TestHandlers(t *testing.T) {
	edgetest.Proof(t)
	for _, example := range examples {
		t.Run(example.name, func(t *testing.T) {
			command := example.command(t)
			t.Run("restarted under load", func(t *testing.T) { restartUnderLoad(t, command) })
			t.Run("full", func(t *testing.T) { fill(t, command) })
			t.Run("unknown type", func(t *testing.T) { sendUnknown(t, command) })
			t.Run("finishes at SIGTERM", func(t *testing.T) {
				if example.name == "php" {
					t.Skip("PHP's own server drops a request that it has not read to the end, and the edge asks again")
				}
				stopMidway(t, command)
			})
			if example.name == "php" {
				t.Run("without pcntl", func(t *testing.T) { interruptPHP(t, command) })
			}
			if example.name == "express" {
				t.Run("the client as its own page shows it", func(t *testing.T) { probeClient(t, command) })
			}
		})
	}
}

// restartUnderLoad sends an example of every kind through an edge, restarts the handler meanwhile, and wants all of
// them in its file.
func restartUnderLoad(t *testing.T, command []string) {
	h := newHandler(t, command)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+h.address))
	l := edgetest.NewLedger(t)
	options := edgetest.ChaosOptions(e)
	options.Rate = 120
	restarts := 0
	report := l.Send(options, l.Queues(2, len(notification.Examples()), time.Time{}), func(ctx context.Context) {
		for restarts < 3 && edgetest.Pauses(ctx, 250*time.Millisecond) {
			h.stop()
			h.start(context.WithoutCancel(ctx))
			restarts++
		}
	})
	h.stop()
	for _, body := range h.kept() {
		mark := edgetest.MarkOf([]byte(body))
		if string(l.Sent[mark]) != body {
			t.Errorf("kept what nobody sent: %q", body)
		}
		l.Taken[mark]++
	}
	e.Kept()
	l.Verify(e.Dir, report)
	if restarts < 2 {
		t.Errorf("restarted %d times under load", restarts)
	}
}

func (h *handler) post(body string) *http.Response {
	h.t.Helper()
	response, err := edgetest.Client.Post("http://"+h.address+"/green-api/webhook", "application/json; charset=utf-8", strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	response.Body.Close()
	return response
}

// fill: a handler that has no room says so, and keeps nothing half.
func fill(t *testing.T, command []string) {
	h := newHandler(t, command, "MAX_BYTES=1500")
	statuses := make(map[int]int)
	for range 8 {
		response := h.post(edgetest.TextMessage)
		statuses[response.StatusCode]++
		if response.StatusCode == http.StatusServiceUnavailable && response.Header.Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
	}
	kept := h.kept()
	if statuses[200] != len(kept) || statuses[200] == 0 || statuses[503] == 0 || len(statuses) != 2 {
		t.Errorf("answers %v, %d kept", statuses, len(kept))
	}
	for _, body := range kept {
		if body != edgetest.TextMessage {
			t.Errorf("kept %q", body)
		}
	}
	h.stop()
}

// interruptPHP starts PHP's own server by hand and ends it by SIGINT, as docs/handlers.md says for a PHP without pcntl.
func interruptPHP(t *testing.T, command []string) {
	address, file := "127.0.0.1:"+edgetest.FreePort(t), filepath.Join(t.TempDir(), "notifications.jsonl")
	cmd := exec.Command(command[0], "-S", address, command[1])
	cmd.Env = append(os.Environ(), "FILE="+file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &handler{t: t, address: address, file: file, cmd: cmd}
	edgetest.WaitForPort(t.Context(), address)
	status := h.post(edgetest.TextMessage).StatusCode
	cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil || status != 200 || len(h.kept()) != 1 {
		t.Errorf("%v, answered %d, kept %q", err, status, h.kept())
	}
}

// sendUnknown: a type that a handler cannot know, in a body of several lines, is one line, and answered 200.
func sendUnknown(t *testing.T, command []string) {
	h := newHandler(t, command)
	status := h.post("{\r\n\t\"typeWebhook\": \"neverHeardOf\",\n  \"text\": \"é ж 😀\"\n}").StatusCode
	if kept := h.kept(); status != 200 || len(kept) != 1 || kept[0] != "{ \t\"typeWebhook\": \"neverHeardOf\",   \"text\": \"é ж 😀\" }" {
		t.Errorf("%d, kept %q", status, kept)
	}
	h.stop()
}

// stopMidway: what has begun before SIGTERM has its answer after it.
func stopMidway(t *testing.T, command []string) {
	h := newHandler(t, command)
	conn, err := net.Dial("tcp", h.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	request := edgetest.Request(edgetest.TextMessage, "Content-Type: application/json; charset=utf-8")
	io.WriteString(conn, request[:len(request)-100])
	time.Sleep(200 * time.Millisecond)
	if err := h.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	io.WriteString(conn, request[len(request)-100:])
	answer, _ := io.ReadAll(conn)
	if line, _, _ := strings.Cut(string(answer), "\r\n"); !strings.HasSuffix(line, " 200 OK") {
		t.Errorf("answered %q", line)
	}
	if err := h.cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, h.output)
	}
	if kept := h.kept(); len(kept) != 1 || kept[0] != edgetest.TextMessage {
		t.Errorf("kept %q", kept)
	}
}
