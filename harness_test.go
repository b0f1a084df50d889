package greenapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// TestMain gives the tests directories of their own, and can be Caddy itself: tests that kill a
// real process start the test binary again.
func TestMain(m *testing.M) {
	if os.Getenv("GREEN_API_TEST_CADDY") != "" {
		caddycmd.Main()
		return
	}
	dir, err := os.MkdirTemp("", "green-api-test-")
	if err != nil {
		panic(err)
	}
	os.Setenv("XDG_DATA_HOME", filepath.Join(dir, "data"))
	os.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "config"))
	caddy.DefaultStorage.Path = filepath.Join(dir, "data", "caddy") // it was set before
	caddy.RegisterModule(logBuffer{})
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// caddyProcess is the command of a Caddy process of its own.
func caddyProcess(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "GREEN_API_TEST_CADDY=1")
	return cmd
}

// A text that every test may use: a whole, valid notification.
const textMessage = `{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1101000001,` +
	`"wid":"79001234567@c.us","typeInstance":"whatsapp"},"timestamp":1700000000,"idMessage":"3EB0C767D097B7C7C030",` +
	`"senderData":{"chatId":"79001234568@c.us","sender":"79001234568@c.us","senderName":"Test Sender"},` +
	`"messageData":{"typeMessage":"textMessage","textMessageData":{"textMessage":"a canary sings"}}}`

const stateChanged = `{"typeWebhook":"stateInstanceChanged","instanceData":{"idInstance":1101000001,` +
	`"wid":"79001234567@c.us","typeInstance":"whatsapp"},"timestamp":1700000000,"stateInstance":"authorized"}`

const testToken = "s3cret-canary-token"

// edge is a whole Caddy with green_api in it.
type edge struct {
	t    *testing.T
	port string
	url  string // of the webhook
	logs *logBuffer
	dir  string // of the quarantine
}

// site wraps the inside of a green_api block in a config that listens on PORT. In the block and in
// the rest, PORT, DIR and TOKEN are replaced.
func site(block string) string {
	return siteWith("", "green_api /green-api/webhook* {\n"+block+"\n}\nrespond 404\n")
}

func siteWith(global, body string) string {
	return `{
	admin off
	persist_config off
	auto_https off
	log {
		output test_buffer
		format json
		level DEBUG
	}
	green_api {
		quarantine DIR
	}
	` + global + `
}
http://:PORT {
	bind 127.0.0.1
	` + body + `
}
`
}

// loopback is the start of a block that this machine may send to.
const loopback = "ip_filter {\nallow 127.0.0.1\n}\nauth {\ntoken TOKEN\n}\n"

// start runs a Caddyfile until the test ends.
func start(t *testing.T, config string) *edge {
	t.Helper()
	e := &edge{t: t, port: freePort(t), dir: filepath.Join(t.TempDir(), "quarantine"), logs: newLogBuffer()}
	e.url = "http://127.0.0.1:" + e.port + "/green-api/webhook"
	if err := e.load(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// load loads or reloads a Caddyfile.
func (e *edge) load(config string) error {
	config = strings.NewReplacer("PORT", e.port, "DIR", e.dir, "TOKEN", testToken).Replace(config)
	text, err := adapt(config)
	if err != nil {
		return err
	}
	return caddy.Load(text, true)
}

func adapt(config string) ([]byte, error) {
	text, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
	return text, err
}

func freePort(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
}

// post sends a body as GREEN-API does and returns the status of the answer.
func (e *edge) post(body string, headers ...string) int {
	e.t.Helper()
	return e.send(http.MethodPost, e.url, strings.NewReader(body), headers...).StatusCode
}

// send sends a request with a right token unless headers, in pairs, say otherwise. An empty value
// takes the header away.
func (e *edge) send(method, url string, body io.Reader, headers ...string) *http.Response {
	e.t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		e.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+testToken)
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	for i := 0; i < len(headers); i += 2 {
		switch {
		case headers[i] == "Host":
			r.Host = headers[i+1]
		case headers[i+1] == "":
			r.Header.Del(headers[i])
		default:
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	response, err := testClient.Do(r)
	// Right after a reload, the old config's server may drop a connection before it handles it.
	for tries := 0; (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) && r.GetBody != nil && tries < 10; tries++ {
		time.Sleep(10 * time.Millisecond)
		if r.Body, err = r.GetBody(); err != nil {
			e.t.Fatal(err)
		}
		response, err = testClient.Do(r)
	}
	if err != nil {
		e.t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil {
		e.t.Fatal(err)
	}
	if len(text) > 0 && strings.HasPrefix(url, e.url) {
		e.t.Errorf("answer has a body: %q", text)
	}
	return response
}

var testClient = &http.Client{
	Timeout:       30 * time.Second,
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// record returns the last record of green_api.
func (e *edge) record() record {
	e.t.Helper()
	records := e.logs.records(e.t)
	if len(records) == 0 {
		e.t.Fatal("no record")
	}
	return records[len(records)-1]
}

// wantRecord fails the test unless the last record has the fields, in pairs.
func (e *edge) wantRecord(fields ...string) {
	e.t.Helper()
	got := e.record()
	for i := 0; i < len(fields); i += 2 {
		if value := got.text(fields[i]); value != fields[i+1] {
			e.t.Errorf("record: %s = %q, want %q (%v)", fields[i], value, fields[i+1], got)
		}
	}
}

// kept returns what the quarantine holds. Nothing may use it any longer.
func (e *edge) kept() []quarantine.Entry {
	e.t.Helper()
	if err := caddy.Stop(); err != nil {
		e.t.Fatal(err)
	}
	return readQuarantine(e.t, e.dir)
}

func readQuarantine(t *testing.T, dir string) []quarantine.Entry {
	t.Helper()
	store, err := quarantine.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	entries, err := store.List("", 1000)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// upstream is a handler on a socket of its own that remembers what it was asked.
type upstream struct {
	*httptest.Server
	address string
	mu      sync.Mutex
	asked   []asked
}

type asked struct {
	method string
	path   string
	uri    string
	header http.Header
	length int64
	coding []string
	body   string
}

// newUpstream starts a handler that answers status, or as answer says if that is not nil.
func newUpstream(t *testing.T, status int, answer http.HandlerFunc) *upstream {
	t.Helper()
	u := new(upstream)
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			body = []byte("broken: " + err.Error())
		}
		u.mu.Lock()
		u.asked = append(u.asked, asked{r.Method, r.URL.Path, r.RequestURI, r.Header.Clone(), r.ContentLength, r.TransferEncoding, string(body)})
		u.mu.Unlock()
		if answer != nil {
			answer(w, r)
			return
		}
		w.WriteHeader(status)
	}))
	u.address = u.Listener.Addr().String()
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) requests() []asked {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]asked(nil), u.asked...)
}

// A record is one line of the JSON log.
type record map[string]any

func (r record) text(key string) string {
	switch value := r[key].(type) {
	case nil:
		return ""
	case string:
		return value
	default:
		return fmt.Sprint(value)
	}
}

// logBuffer is a log output that keeps what is written.
type logBuffer struct {
	mu   *sync.Mutex
	text *bytes.Buffer
}

var currentLog = logBuffer{new(sync.Mutex), new(bytes.Buffer)}

func newLogBuffer() *logBuffer {
	currentLog.mu.Lock()
	defer currentLog.mu.Unlock()
	currentLog.text.Reset()
	return &currentLog
}

func (logBuffer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.logging.writers.test_buffer", New: func() caddy.Module { return new(logBuffer) }}
}
func (logBuffer) String() string                                { return "test_buffer" }
func (logBuffer) WriterKey() string                             { return "test_buffer" }
func (logBuffer) OpenWriter() (io.WriteCloser, error)           { return currentLog, nil }
func (logBuffer) UnmarshalCaddyfile(*caddyfile.Dispenser) error { return nil }
func (logBuffer) Close() error                                  { return nil }

// panicAt is a text at which a log panics, "" for none.
var panicAt atomic.Value

func (b logBuffer) Write(p []byte) (int, error) {
	if text, _ := panicAt.Load().(string); text != "" && bytes.Contains(p, []byte(text)) {
		panic("a log with a fault")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// all returns everything that was logged.
func (b logBuffer) all() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// records returns what green_api's handlers logged.
func (b logBuffer) records(t *testing.T) []record {
	t.Helper()
	var records []record
	for line := range strings.Lines(b.all()) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("log line is no JSON: %q", line)
		}
		if r["logger"] == "http.handlers.green_api" {
			records = append(records, r)
		}
	}
	return records
}

// eventually waits for what happens on its own.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

func readerText(t *testing.T, r io.Reader) string {
	t.Helper()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
