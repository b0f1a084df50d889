package greenapi

import (
	"bytes"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// beside is called when the apps of a config have been provisioned that has the app test_beside.
var beside atomic.Value

type testBeside struct{}

func init() { caddy.RegisterModule(testBeside{}) }

func (testBeside) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "test_beside", New: func() caddy.Module { return new(testBeside) }}
}

func (testBeside) Start() error { return nil }
func (testBeside) Stop() error  { return nil }

func (testBeside) Provision(ctx caddy.Context) error {
	_, err := ctx.App("http")
	if err == nil {
		beside.Load().(func(caddy.Context))(ctx)
	}
	return err
}

// passedOn are sockets that Caddy keeps for good by their number, so nobody else may close them.
var passedOn []*os.File

// inheritedSocket is a socket as a supervisor passes it, and its number.
func inheritedSocket(t *testing.T) (net.Listener, string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Skip(err) // Windows has no such thing
	}
	passedOn = append(passedOn, file)
	return listener, strconv.Itoa(int(file.Fd()))
}

// TestListenerWrapper: only a listener on a socket that was passed to this process is another one
// afterwards, and only beside a handler.
func TestListenerWrapper(t *testing.T) {
	passed, number := inheritedSocket(t)
	_, otherNumber := inheritedSocket(t)
	own, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	const handler = "green_api {\nauth off\n}\n"
	for _, test := range []struct {
		name, bind, directive string
		listener              net.Listener
		wrapped               bool
	}{
		{"passed", "fd/" + number, handler, passed, true},
		{"passed, among others", "127.0.0.1 fd/" + otherNumber + " fd/" + number, handler, passed, true},
		{"passed, not for this config", "fd/" + otherNumber, handler, passed, false},
		{"passed, without a handler", "fd/" + number, "respond 200\n", passed, false},
		{"a number of no socket", "fd/987654", handler, passed, false},
		{"an address", "127.0.0.1", handler, own, false},
		{"an address, beside one that is passed", "127.0.0.1 fd/" + number, handler, own, false},
	} {
		text, err := edgetest.Adapt("{\nadmin off\npersist_config off\n}\nhttp://:8080 {\nbind " + test.bind + "\n" + test.directive + "}\n")
		if err != nil {
			t.Fatal(err)
		}
		seen := false
		beside.Store(func(ctx caddy.Context) {
			seen = true
			wrapper := new(ListenerWrapper)
			if err := wrapper.Provision(ctx); err != nil {
				t.Error(err)
			}
			if got := wrapper.WrapListener(test.listener) != test.listener; got != test.wrapped {
				t.Errorf("%s: wrapped %t, want %t", test.name, got, test.wrapped)
			}
		})
		if err := validate(bytes.Replace(text, []byte(`"apps":{`), []byte(`"apps":{"test_beside":{},`), 1)); err != nil || !seen {
			t.Errorf("%s: looked at %t: %v", test.name, seen, err)
		}
		if n := caddy.ListenerUsage("fd", number); n != 0 {
			t.Errorf("%s: Caddy counts %d uses of the socket, want none but its own", test.name, n)
		}
	}
}
