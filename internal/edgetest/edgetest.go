// Package edgetest starts a whole Caddy with green_api, in this process or in one of its own, and what
// surrounds it: senders, handlers, alert endpoints, the vendor. A test package imports the module for its
// side effects and calls Main from its TestMain.
package edgetest

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// Main gives the tests their own directories, and can be Caddy itself: tests that kill a real process start
// the test binary again.
func Main(m *testing.M) {
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
	caddy.DefaultStorage.Path = filepath.Join(dir, "data", "caddy") // the variables are read too late for it
	caddy.RegisterModule(LogBuffer{})
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// Edge is a whole Caddy with green_api.
type Edge struct {
	T    *testing.T
	Port string
	More [2]string // the ports PORT1 and PORT2 of a config that listens on several
	URL  string    // of the webhook
	Logs *LogBuffer
	Dir  string // of the quarantine
}

// Start runs a Caddyfile until the test ends.
func Start(t *testing.T, config string) *Edge {
	t.Helper()
	e := &Edge{T: t, Dir: filepath.Join(t.TempDir(), "quarantine")}
	for tries := 0; ; tries++ {
		e.Port, e.More, e.Logs = FreePort(t), [2]string{FreePort(t), FreePort(t)}, NewLogBuffer()
		e.URL = "http://127.0.0.1:" + e.Port + "/green-api/webhook"
		err := e.Load(config)
		if err == nil {
			break
		}
		// Another process may have got the port meanwhile, if only for a connection of its own.
		if tries == 5 || !strings.Contains(err.Error(), "address already in use") {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// Load loads or reloads a Caddyfile, and waits until a config that was replaced takes no more connections: Caddy closes
// its listeners a moment later.
func (e *Edge) Load(config string) error {
	config = strings.NewReplacer("PORT1", e.More[0], "PORT2", e.More[1], "PORT", e.Port, "DIR", e.Dir, "TOKEN", Token).Replace(config)
	text, err := Adapt(config)
	if err != nil {
		return err
	}
	reload := e.listeners() > 0
	if err := caddy.Load(text, true); err != nil {
		return err
	}
	if !reload {
		return nil
	}
	for deadline := time.Now().Add(10 * time.Second); e.listeners() > 1 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond) // Caddy counts a listener as gone a moment before it closes it, which resets who has just come
	return nil
}

// listeners returns how many configs listen on one of the edge's ports.
func (e *Edge) listeners() (most int) {
	for _, port := range []string{e.Port, e.More[0], e.More[1]} {
		most = max(most, caddy.ListenerUsage("tcp", net.JoinHostPort("127.0.0.1", port)))
	}
	return most
}

// Post sends a body as GREEN-API does and returns the status of the answer.
func (e *Edge) Post(body string, headers ...string) int {
	e.T.Helper()
	return e.Send(http.MethodPost, e.URL, strings.NewReader(body), headers...).StatusCode
}

// Send sends a request with a right token unless headers, given as pairs, say otherwise. An empty value
// removes the header.
func (e *Edge) Send(method, url string, body io.Reader, headers ...string) *http.Response {
	e.T.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		e.T.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+Token)
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
	response, err := Client.Do(r)
	// Right after a reload, the old config's server may drop a connection before it handles it.
	for tries := 0; (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) && r.GetBody != nil && tries < 10; tries++ {
		time.Sleep(10 * time.Millisecond)
		if r.Body, err = r.GetBody(); err != nil {
			e.T.Fatal(err)
		}
		response, err = Client.Do(r)
	}
	if err != nil {
		e.T.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil {
		e.T.Fatal(err)
	}
	if len(text) > 0 && strings.HasPrefix(url, e.URL) {
		e.T.Errorf("answer has a body: %q", text)
	}
	return response
}

var Client = &http.Client{
	Timeout:       30 * time.Second,
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Record returns the last log record of green_api.
func (e *Edge) Record() Record {
	e.T.Helper()
	records := e.Logs.Records(e.T)
	if len(records) == 0 {
		e.T.Fatal("no record")
	}
	return records[len(records)-1]
}

// WantRecord fails the test unless the last record has the fields, in pairs.
func (e *Edge) WantRecord(fields ...string) {
	e.T.Helper()
	got := e.Record()
	for i := 0; i < len(fields); i += 2 {
		if value := got.Text(fields[i]); value != fields[i+1] {
			e.T.Errorf("record: %s = %q, want %q (%v)", fields[i], value, fields[i+1], got)
		}
	}
}

// Kept returns the content of the quarantine. It stops Caddy, so that nothing else uses the file.
func (e *Edge) Kept() []quarantine.Entry {
	e.T.Helper()
	if err := caddy.Stop(); err != nil {
		e.T.Fatal(err)
	}
	return ReadQuarantine(e.T, e.Dir)
}

// PanicAt is a text at which a log output panics, "" for none.
var PanicAt atomic.Value
