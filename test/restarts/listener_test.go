//go:build unix

package restarts

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// passedOn are sockets that Caddy keeps for good by their number, so nobody else may close them.
var passedOn []*os.File

// onSocket starts a Caddy in this process on a socket that is passed to it, with listener wrappers and
// global options, and returns its config.
func onSocket(t *testing.T, wrappers, global string) (e *edgetest.Edge, config string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	passedOn = append(passedOn, file)
	h := newHandler(t)
	config = edgetest.SiteWith(global+"\nservers {\nprotocols h1\nlistener_wrappers {\n"+wrappers+"\n}\n}\n",
		"green_api /green-api/webhook* {\n"+edgetest.Loopback+"reverse_proxy "+h.address+"\n}\nrespond 404\n")
	config = strings.Replace(config, "bind 127.0.0.1", "bind fd/"+strconv.Itoa(int(file.Fd())), 1)
	e = edgetest.Start(t, config)
	e.URL = "http://" + listener.Addr().String() + "/green-api/webhook"
	return e, config
}

// during sends one notification after the other, on a connection each, while do runs, more than once if it must. None
// may fail.
func during(t *testing.T, e *edgetest.Edge, do func()) {
	t.Helper()
	l := newLoad(strings.TrimSuffix(strings.TrimPrefix(e.URL, "http://"), "/green-api/webhook"), "", nil, 0)
	l.hesitation = 50 * time.Millisecond // each reload waits for those who hesitate
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for {
				select {
				case <-l.done:
					return
				default:
					l.once()
				}
			}
		})
	}
	do()
	for rounds := 1; l.requests.Load() < 20 && rounds < 10; rounds++ { // it was so fast that it met hardly any
		do()
	}
	if n := l.requests.Load(); n < 20 {
		t.Errorf("only %d requests", n)
	}
	close(l.done)
	senders.Wait()
	for what, n := range l.failures {
		t.Errorf("%d %s", n, what)
	}
}

// TestBrokenReload: a config that does not start to its end has accepted nothing.
func TestBrokenReload(t *testing.T) {
	e, config := onSocket(t, "green_api\ntls", "")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	broken := strings.Replace(config, "quarantine DIR", "quarantine "+file+"/below", 1)
	during(t, e, func() {
		for range 20 { // of which in some the server starts first
			if err := e.Load(broken); err == nil {
				t.Error("a quarantine below a file has started")
			}
		}
	})
}

// TestReloadStorm: reloads one upon the other lose nothing either.
func TestReloadStorm(t *testing.T) {
	e, config := onSocket(t, "green_api\ntls", "")
	during(t, e, func() {
		var reloads sync.WaitGroup
		for range 10 {
			reloads.Go(func() {
				if err := e.Load(config); err != nil {
					t.Error(err)
				}
			})
		}
		reloads.Wait()
	})
}

// TestChains: beside other wrappers, in any order, and said twice.
func TestChains(t *testing.T) {
	const other = "proxy_protocol {\nallow 192.0.2.0/24\n}\n"
	for name, wrappers := range map[string]string{
		"after another":  other + "green_api\ntls",
		"before another": "green_api\n" + other + "tls",
		"after tls":      other + "tls\ngreen_api",
		"alone":          "green_api",
		"twice":          "green_api\ngreen_api\ntls",
	} {
		t.Run(name, func(t *testing.T) {
			e, config := onSocket(t, wrappers, "")
			during(t, e, func() {
				for range 3 {
					if err := e.Load(config); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

// TestShutdownDelay: Caddy sees that a socket stays in use over a reload, and does not wait as it does before
// a listener is closed.
func TestShutdownDelay(t *testing.T) {
	const delay = 10 * time.Second
	e, config := onSocket(t, "green_api\ntls", "shutdown_delay "+delay.String())
	began := time.Now()
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > delay/2 {
		t.Errorf("the reload took %s", took)
	}
	if err := e.Load(strings.Replace(config, "shutdown_delay "+delay.String(), "", 1)); err != nil { // or the test's end would wait
		t.Fatal(err)
	}
}
