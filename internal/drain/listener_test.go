package drain

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A queue is a listener without a socket, so that tests run in fake time.
type queue struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
	closes atomic.Int64
}

func newQueue() *queue {
	q := &queue{conns: make(chan net.Conn), closed: make(chan struct{})}
	q.close = sync.OnceFunc(func() { close(q.closed) })
	return q
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error   { q.closes.Add(1); q.close(); return nil }
func (q *queue) Addr() net.Addr { return &net.TCPAddr{} }

func (q *queue) isClosed() bool {
	select {
	case <-q.closed:
		return true
	default:
		return false
	}
}

// accepting is a server: it accepts until it is told to end.
func accepting(l net.Listener) (accepted chan net.Conn, ended chan error) {
	accepted, ended = make(chan net.Conn, 9), make(chan error, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- conn
		}
	}()
	return accepted, ended
}

// connect reports whether a listener takes a connection within a minute.
func connect(q *queue) bool {
	client, server := net.Pipe()
	client.Close()
	select {
	case q.conns <- server:
		return true
	case <-time.After(time.Minute):
		return false
	}
}

// TestListener: nothing is accepted before Begin and after Rest, and the socket stays in use to the end.
func TestListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, first, second := New(), newQueue(), newQueue()
		l := d.Listen(first, func() (net.Listener, error) { return second, nil })
		_, ended := accepting(l)
		if connect(first) {
			t.Fatal("accepted before Begin")
		}
		d.Begin()
		d.Begin()                               // as when Caddy says it late
		if !connect(first) || !connect(first) { //nolint:staticcheck // twice
			t.Fatal("not accepted after Begin")
		}
		synctest.Wait()             // it accepts already when it is told to rest
		if !d.Rest() || !d.Rest() { //nolint:staticcheck // as above
			t.Error("no listener rests")
		}
		if !first.isClosed() || second.isClosed() {
			t.Error("the socket must be in use by another listener while this one rests")
		}
		if connect(second) {
			t.Error("accepted after Rest")
		}
		select {
		case err := <-ended:
			t.Errorf("while it rests, the server is told %v", err)
		default:
		}
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v, which Caddy would log", err)
		}
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		if !second.isClosed() {
			t.Error("Close leaves the socket in use")
		}
		if !errors.Is(l.Close(), net.ErrClosed) {
			t.Error("closed twice without an error")
		}
	})
}

// TestListenerEnds: a config may end before it has begun, without a rest, and without a second listener.
func TestListenerEnds(t *testing.T) {
	no := func() (net.Listener, error) { return nil, errors.New("no") }
	for name, end := range map[string]func(d *Drain, l net.Listener){
		"closed before Begin":           func(_ *Drain, l net.Listener) { l.Close() },
		"closed without Rest":           func(d *Drain, l net.Listener) { d.Begin(); l.Close() },
		"rests before Begin":            func(d *Drain, l net.Listener) { d.Rest(); l.Close() },
		"rests without second listener": func(d *Drain, l net.Listener) { d.Begin(); d.Rest(); l.Close() },
		"rests after Close":             func(d *Drain, l net.Listener) { d.Begin(); l.Close(); d.Rest() },
	} {
		synctest.Test(t, func(t *testing.T) {
			d, q := New(), newQueue()
			l := d.Listen(q, no)
			_, ended := accepting(l)
			synctest.Wait()
			began := time.Now()
			end(d, l)
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
			if n := q.closes.Load(); n != 1 { // Caddy counts the uses of a socket by that
				t.Errorf("%s: the listener is closed %d times", name, n)
			}
			if took := time.Since(began); took > 0 {
				t.Errorf("%s: took %s", name, took)
			}
		})
	}
	if New().Rest() {
		t.Error("rests without a listener")
	}
}

// TestRestWaits: Rest returns when the server knows of what was accepted, but does not wait for ever for a
// server that accepts no longer.
func TestRestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := New(), newQueue()
		l := d.Listen(q, func() (net.Listener, error) { return newQueue(), nil })
		d.Begin()
		const known = 300 * time.Millisecond
		go func() {
			for {
				if _, err := l.Accept(); err != nil {
					return
				}
				time.Sleep(known) // before the server tells of the connection
			}
		}()
		connect(q)
		began := time.Now()
		d.Rest()
		if took := time.Since(began); took != known {
			t.Errorf("rests after %s, want %s", took, known)
		}
		l.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		d := New()
		d.Listen(newQueue(), func() (net.Listener, error) { return newQueue(), nil })
		d.Listen(newQueue(), func() (net.Listener, error) { return newQueue(), nil })
		began := time.Now()
		if !d.Rest() {
			t.Error("no listener rests")
		}
		if took := time.Since(began); took != quietPeriod {
			t.Errorf("gave up after %s, want %s", took, quietPeriod)
		}
	})
}

// TestListenerLosesNothing: a connection that is accepted in the moment of the rest belongs to the server.
func TestListenerLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, q := New(), newQueue()
		l := d.Listen(late{q}, func() (net.Listener, error) { return newQueue(), nil })
		accepted, _ := accepting(l)
		d.Begin()
		synctest.Wait()
		d.Rest()
		if len(accepted) != 1 {
			t.Errorf("the server got %d connections, want the one that had come", len(accepted))
		}
		l.Close()
	})
}

// late accepts one connection although it is closed.
type late struct{ *queue }

func (l late) Accept() (net.Conn, error) {
	<-l.closed
	conn, _ := net.Pipe()
	return conn, nil
}

// TestListenerPassesErrors: what goes wrong before the rest is for the server, which tries again.
func TestListenerPassesErrors(t *testing.T) {
	d, broken := New(), errors.New("too many open files")
	l := d.Listen(faulty{newQueue(), broken}, nil)
	d.Begin()
	if _, err := l.Accept(); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

type faulty struct {
	*queue
	err error
}

func (f faulty) Accept() (net.Conn, error) { return nil, f.err }

// TestListenerOnSocket: with a real server on a socket that another process would hold, a connection that
// comes while the server rests waits for the next one, and none is lost.
func TestListenerOnSocket(t *testing.T) {
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Skip(err)
	}
	file, err := held.(*net.TCPListener).File()
	held.Close()
	if err != nil {
		t.Skip(err) // Windows has no such thing
	}
	defer file.Close()
	again := func() (net.Listener, error) { return net.FileListener(file) }
	serve := func(name string) (*Drain, *http.Server) {
		inner, err := again()
		if err != nil {
			t.Skip(err)
		}
		d := New()
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if d.Active() {
				w.Header().Set("Connection", "close")
			}
			io.WriteString(w, name)
		})}
		server.ConnState = d.connState
		go server.Serve(d.Listen(inner, again))
		return d, server
	}
	url := "http://" + held.Addr().String()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	asked := func() chan string {
		answer := make(chan string, 1)
		go func() {
			response, err := client.Get(url)
			if err != nil {
				answer <- err.Error()
				return
			}
			defer response.Body.Close()
			text, err := io.ReadAll(response.Body)
			if err != nil {
				answer <- err.Error()
				return
			}
			answer <- string(text)
		}()
		return answer
	}
	old, oldServer := serve("old")
	old.Begin()
	if got := <-asked(); got != "old" {
		t.Fatal(got)
	}
	old.Rest()
	waiting := asked()
	old.Wait()
	if err := oldServer.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	select {
	case got := <-waiting:
		t.Errorf("answered by nobody: %s", got)
	case <-time.After(50 * time.Millisecond):
	}
	next, nextServer := serve("next")
	next.Begin()
	if got := <-waiting; got != "next" {
		t.Error(got)
	}
	if err := nextServer.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
