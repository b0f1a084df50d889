package edgetest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Upstream is a handler on its own socket that remembers the requests it got.
type Upstream struct {
	*httptest.Server
	Address string
	mu      sync.Mutex
	asked   []asked
}

type asked struct {
	Method string
	Path   string
	Uri    string
	Header http.Header
	Length int64
	Coding []string
	Body   string
}

// NewUpstream starts a handler that answers with status, or calls answer if that is not nil.
func NewUpstream(t *testing.T, status int, answer http.HandlerFunc) *Upstream {
	t.Helper()
	u := new(Upstream)
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
	u.Address = u.Listener.Addr().String()
	t.Cleanup(u.Close)
	return u
}

func (u *Upstream) Requests() []asked {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]asked(nil), u.asked...)
}

// Script returns a handler that goes through its steps and repeats the last one. A step is a status,
// "break" to break off, "hang", or "down" for an upstream that does not exist at all.
func Script(t *testing.T, steps ...string) *Upstream {
	t.Helper()
	if steps[0] == "down" {
		return &Upstream{Address: "127.0.0.1:" + FreePort(t)}
	}
	var at atomic.Int64
	return NewUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
		step := steps[min(int(at.Add(1)), len(steps))-1]
		status, header, _ := strings.Cut(step, " ")
		if name, value, ok := strings.Cut(header, ": "); ok {
			w.Header().Set(name, value)
		}
		switch status {
		case "break":
			panic(http.ErrAbortHandler)
		case "hang":
			<-r.Context().Done()
		default:
			var code int
			fmt.Sscan(status, &code)
			w.WriteHeader(code)
		}
	})
}

// Witness is a handler that notices everything that reaches it, even a mere connection.
type Witness struct {
	*Upstream
	connections atomic.Int64
}

func NewWitness(t *testing.T) *Witness {
	t.Helper()
	w := &Witness{Upstream: new(Upstream)}
	w.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			body = []byte("broken: " + err.Error())
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.asked = append(w.asked, asked{r.Method, r.URL.Path, r.RequestURI, r.Header.Clone(), r.ContentLength, r.TransferEncoding, string(body)})
	}))
	w.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			w.connections.Add(1)
		}
	}
	w.Start()
	w.Address = w.Listener.Addr().String()
	t.Cleanup(w.Close)
	return w
}

// Seen returns the number of connections and requests so far.
func (w *Witness) Seen() int64 { return w.connections.Load() + int64(len(w.Requests())) }
