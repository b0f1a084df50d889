package exchange

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// pool has the limits of a block, and is closed at the end of the test.
func pool(t testing.TB, change func(*Config)) *Pool {
	config := Config{Dial: new(net.Dialer).DialContext, IdleTime: 4 * time.Second, MaxHeader: 64 << 10}
	if change != nil {
		change(&config)
	}
	p := NewPool(config)
	t.Cleanup(p.Close)
	return p
}

func soon() time.Time { return time.Now().Add(5 * time.Second) }

func post(address, body string) *Request {
	return &Request{Network: "tcp", Address: address, Method: http.MethodPost, URI: "/hook", Host: "hooks.test", Header: http.Header{}, Body: []byte(body)}
}

// handler takes connections, and gives each to do.
func handler(t testing.TB, do func(net.Conn)) (address string, connections *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	connections = new(atomic.Int64)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			go func() {
				defer c.Close()
				do(c)
			}()
		}
	}()
	return listener.Addr().String(), connections
}

// says answers each request with a text, as it is.
func says(text string) func(net.Conn) {
	return func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(c, text)
		}
	}
}

// TestAnswers has what handlers may say, and whether their connection is used again.
func TestAnswers(t *testing.T) {
	long := strings.Repeat("x", 3000)
	for _, test := range []struct {
		name, said string
		status     int
		text       string
		kept       bool
		err        string
	}{
		{"200", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", true, ""},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", 204, "", true, ""},
		{"304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", 304, "", true, ""},
		{"a 2xx with a body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "", true, ""},
		{"a text", "HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nhello", 500, "hello", true, ""},
		{"a long text", "HTTP/1.1 422 No\r\nContent-Length: 3000\r\n\r\n" + long, 422, long[:1024], true, ""},
		{"chunks", "HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", 400, "hello", true, ""},
		{"trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nhe\r\n0\r\nX: y\r\n\r\n", 200, "", true, ""},
		{"interim answers", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", 202, "", true, ""},
		{"to be closed", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 200, "", false, ""},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", false, ""},
		{"more than was asked for", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 Oops\r\n\r\n", 200, "", false, ""},
		{"upgrade", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", 0, "", false, "101"},
		{"no HTTP", "hello\r\n\r\n", 0, "", false, "malformed HTTP"},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 0, "", false, "Content-Length"},
		{"a long header", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 70<<10) + "\r\nContent-Length: 0\r\n\r\n", 0, "", false, ErrHeaderTooLong.Error()},
		{"many interim answers", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: "+long+"\r\n\r\n", 30) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, "", false, ErrHeaderTooLong.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			address, connections := handler(t, says(test.said))
			p := pool(t, nil)
			for range 2 {
				got, err := p.Do(soon(), post(address, "a body"))
				if test.err != "" {
					if unsent, truncated := new(NotSentError), new(TruncatedError); err == nil || !strings.Contains(err.Error(), test.err) || errors.As(err, &unsent) || errors.As(err, &truncated) {
						t.Errorf("%v, want %q", err, test.err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if got.Status != test.status || string(got.Text) != test.text {
					t.Errorf("%d %q, want %d %q", got.Status, got.Text, test.status, test.text)
				}
			}
			if n := connections.Load(); (n == 1) != test.kept {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// TestUntilTheEnd: an answer without a length ends with its connection.
func TestUntilTheEnd(t *testing.T) {
	address, _ := handler(t, func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 403 No\r\n\r\nuntil the end")
	})
	got, err := pool(t, nil).Do(soon(), post(address, ""))
	if err != nil || got.Status != 403 || string(got.Text) != "until the end" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestFaults says of each fault whether the handler can have seen anything of the request.
func TestFaults(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	hang := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	asked := func(then func(net.Conn)) func(net.Conn) {
		return func(c net.Conn) {
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
			}
			then(c)
		}
	}
	say := func(text string) func(net.Conn) { return func(c net.Conn) { _, _ = io.WriteString(c, text) } }
	long := strings.Repeat("x", 1<<20)
	for _, test := range []struct {
		name      string
		do        func(net.Conn) // nil: nobody is there
		body      string
		tls       bool
		unsent    bool
		truncated int // status
		timeout   bool
	}{
		{"nobody is there", nil, "a body", false, true, 0, false},
		{"TLS with one who does not speak it", asked(say("HTTP/1.1 400 Bad Request\r\n\r\n")), "a body", true, true, 0, false},
		{"TLS hangs", hang, "a body", true, true, 0, true},
		{"hangs", hang, "a body", false, false, 0, true},
		{"hangs at a long body", func(c net.Conn) { time.Sleep(time.Second) }, strings.Repeat(long, 16), false, false, 0, true},
		{"breaks off at once", asked(func(net.Conn) {}), "a body", false, false, 0, false},
		{"breaks off in the header", asked(say("HTTP/1.1 200 OK\r\nContent-")), "a body", false, false, 0, false},
		{"breaks off in the body", asked(say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")), "a body", false, false, 200, false},
		{"breaks off in a very long body", asked(func(c net.Conn) {
			say("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + strings.Repeat(long, 17))(c)
		}), "a body", false, false, 200, false},
		{"breaks off in the text", asked(say("HTTP/1.1 500 Oops\r\nContent-Length: 10\r\n\r\nhalf")), "a body", false, false, 500, false},
		{"breaks off in a chunk", asked(say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf")), "a body", false, false, 200, false},
		{"hangs in the body", asked(func(c net.Conn) { say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")(c); hang(c) }), "a body", false, false, 200, true},
		{"breaks off a long body", func(c net.Conn) { _, _ = io.ReadFull(c, make([]byte, 100)) }, long, false, false, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			address := gone.Addr().String()
			if test.do != nil {
				address, _ = handler(t, test.do)
			}
			p := pool(t, func(c *Config) {
				if test.tls {
					c.TLS = new(tls.Config)
				}
			})
			within := 10 * time.Second // or else a busy machine would be the fault
			if test.timeout {
				within = 200 * time.Millisecond
			}
			answer, err := p.Do(time.Now().Add(within), post(address, test.body))
			if answer.Status != test.truncated {
				t.Errorf("answer %+v, want %d", answer, test.truncated)
			}
			if err == nil {
				t.Fatal("no fault")
			}
			var unsent *NotSentError
			if errors.As(err, &unsent) != test.unsent {
				t.Errorf("%v: not sent %t, want %t", err, !test.unsent, test.unsent)
			}
			var truncated *TruncatedError
			if errors.As(err, &truncated); test.truncated != 0 && (truncated == nil || truncated.Status != test.truncated) || test.truncated == 0 && truncated != nil {
				t.Errorf("%v: %+v", err, truncated)
			}
			if over := errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded); over != test.timeout {
				t.Errorf("%v: by the deadline %t, want %t", err, over, test.timeout)
			}
		})
	}
}

// TestEarlyAnswer: a handler may answer before it has read a long body, and then need not read it.
func TestEarlyAnswer(t *testing.T) {
	for _, connection := range []string{"close", "keep-alive"} {
		t.Run(connection, func(t *testing.T) {
			over := make(chan struct{})
			address, _ := handler(t, func(c net.Conn) {
				_, _ = http.ReadRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nConnection: "+connection+"\r\nContent-Length: 2\r\n\r\nno")
				_, _ = io.Copy(io.Discard, io.LimitReader(c, 1<<10))
				<-over // the rest stays unread
			})
			began := time.Now()
			got, err := pool(t, nil).Do(soon(), post(address, strings.Repeat("x", 16<<20)))
			close(over)
			if err != nil || got.Status != 413 || string(got.Text) != "no" {
				t.Errorf("%+v, %v", got, err)
			}
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("the answer came after %s", took)
			}
		})
	}
}

// TestVeryLongAnswer: no more of an answer is read than is worth a connection.
func TestVeryLongAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range 64 {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	began := time.Now()
	got, err := pool(t, nil).Do(soon(), post(server.Listener.Addr().String(), "a body"))
	if err != nil || got.Status != 200 || time.Since(began) > 8*time.Second {
		t.Errorf("%+v, %v after %s", got, err, time.Since(began))
	}
}

// TestClosedWhileKept: a connection that the handler has closed, or on which it says what nobody asked for, is not
// used.
func TestClosedWhileKept(t *testing.T) {
	for _, last := range []string{"", "HTTP/1.1 408 Request Timeout\r\n\r\n"} {
		closed := make(chan struct{}, 10)
		address, connections := handler(t, func(c net.Conn) {
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			time.Sleep(10 * time.Millisecond) // it is kept by then
			_, _ = io.WriteString(c, last)
			c.Close()
			closed <- struct{}{}
		})
		p := pool(t, nil)
		for range 5 {
			if got, err := p.Do(soon(), post(address, "a body")); err != nil || got.Status != 200 || got.Reused {
				t.Errorf("%+v, %v", got, err)
			}
			<-closed
			time.Sleep(5 * time.Millisecond) // for the kernel, which hands it over
		}
		if n := connections.Load(); n != 5 {
			t.Errorf("%d connections", n)
		}
	}
}

// TestIdle: connections are closed when they were unused for so long, and when the pool is closed; the one that was
// used last is used next.
func TestIdle(t *testing.T) {
	var mu sync.Mutex
	open := make(map[net.Conn]bool)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(20 * time.Millisecond) }))
	server.Config.ConnState = func(c net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if open[c] = true; state == http.StateClosed {
			delete(open, c)
		}
	}
	server.Start()
	defer server.Close()
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(open)
	}
	until := func(n int) {
		t.Helper()
		for deadline := time.Now().Add(5 * time.Second); count() != n; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d connections, want %d", count(), n)
			}
		}
	}
	p := pool(t, func(c *Config) { c.IdleTime = 300 * time.Millisecond })
	do := func() {
		if _, err := p.Do(soon(), post(server.Listener.Addr().String(), "a body")); err != nil {
			t.Error(err)
		}
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(do)
	}
	all.Wait()
	if n := count(); n != 8 {
		t.Errorf("%d connections for 8 at once", n)
	}
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
		do()
	}
	until(1)
	until(0)
	if p.mu.Lock(); p.timer != nil || len(p.idle) > 0 {
		t.Errorf("something is left: %v", p.idle)
	}
	p.mu.Unlock()
	do()
	p.Close()
	until(0)
	do()
	until(0)
}

// TestIdleTooLong: a connection that is too old is not used before the timer comes, and is left to it.
func TestIdleTooLong(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	p, to := pool(t, func(c *Config) { c.IdleTime = time.Hour }), address{"tcp", "x"}
	p.put(newConn(ours, ours, to))
	p.idle[to][0].since = time.Now().Add(-2 * time.Hour)
	if c := p.takeIdle(to); c != nil || len(p.idle[to]) != 1 {
		t.Errorf("%v, %d left", c, len(p.idle[to]))
	}
	p.closeOld()
	_ = ours.SetDeadline(time.Now().Add(time.Second))
	if _, err := ours.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) || len(p.idle) > 0 {
		t.Errorf("not closed: %v, %d left", err, len(p.idle))
	}
}

// TestOnTheWire: a handler gets the very bytes that net/http's Transport sends, in one write.
func TestOnTheWire(t *testing.T) {
	long := strings.Repeat("y", 100<<10)
	for name, r := range map[string]*Request{
		"plain":        {Method: "POST", URI: "/hook?a=b%20c", Host: "hooks.example.com:8443", Header: http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer x"}}, Body: []byte(`{"a":1}`)},
		"empty":        {Method: "POST", URI: "/", Host: "h", Header: http.Header{}},
		"GET":          {Method: "GET", URI: "/", Host: "h", Header: http.Header{}},
		"PUT":          {Method: "PUT", URI: "/", Host: "h", Header: http.Header{}},
		"own agent":    {Method: "POST", URI: "/", Host: "h", Header: http.Header{"User-Agent": {" GREEN-API/1 "}}},
		"no agent":     {Method: "POST", URI: "/", Host: "h", Header: http.Header{"User-Agent": {""}}},
		"agent absent": {Method: "POST", URI: "/", Host: "h", Header: http.Header{"User-Agent": nil}},
		"own coding":   {Method: "POST", URI: "/", Host: "h", Header: http.Header{"Accept-Encoding": {"br"}}},
		"range":        {Method: "POST", URI: "/", Host: "h", Header: http.Header{"Range": {"bytes=0-1"}}},
		"many":         {Method: "POST", URI: "/", Host: "h", Header: http.Header{"X-Two": {"a", "b"}, "X-Empty": {""}, "lower-case": {"c"}, "Z": {"\tx y "}, "X-Utf8": {"Ж"}}},
		"own length":   {Method: "POST", URI: "/", Host: "h", Header: http.Header{"Content-Length": {"99"}, "Host": {"other"}, "Trailer": {"X"}}, Body: []byte("abc")},
		"a zone":       {Method: "POST", URI: "/", Host: "[fe80::1%eth0]:80", Header: http.Header{}},
		"bad host":     {Method: "POST", URI: "/", Host: "a b/c", Header: http.Header{}},
		"IDN":          {Method: "POST", URI: "/", Host: "пример.рф", Header: http.Header{}},
		"long":         {Method: "POST", URI: "/", Host: "h", Header: http.Header{}, Body: []byte(long)},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var got []string
			address, _ := handler(t, func(c net.Conn) {
				var text bytes.Buffer
				in := bufio.NewReader(io.TeeReader(c, &text))
				req, err := http.ReadRequest(in)
				if err == nil {
					_, _ = io.Copy(io.Discard, req.Body)
				}
				mu.Lock()
				got = append(got, text.String())
				mu.Unlock()
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			})
			to, err := url.ParseRequestURI(r.URI)
			if err != nil {
				t.Fatal(err)
			}
			to.Scheme, to.Host = "http", address
			theirs := &http.Request{Method: r.Method, URL: to, Host: r.Host, Header: r.Header.Clone(), ContentLength: int64(len(r.Body))}
			if len(r.Body) > 0 {
				theirs.Body = io.NopCloser(bytes.NewReader(r.Body))
			}
			transport := new(http.Transport)
			defer transport.CloseIdleConnections()
			response, err := transport.RoundTrip(theirs)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			r.Network, r.Address = "tcp", address
			if _, err := pool(t, nil).Do(soon(), r); err != nil {
				t.Fatal(err)
			}
			if len(got) != 2 || got[0] != got[1] {
				t.Errorf("net/http\n%q\nwe\n%q", got[0], got[len(got)-1])
			}
		})
	}
}

// TestRefused: what would be another request than was meant is not sent.
func TestRefused(t *testing.T) {
	address, connections := handler(t, says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	for name, change := range map[string]func(*Request){
		"method": func(r *Request) { r.Method = "POST /x HTTP/1.1\r\nX:" }, "URI": func(r *Request) { r.URI = "/ HTTP/1.1\r\nX: y" }, "no URI": func(r *Request) { r.URI = "" },
		"a space": func(r *Request) { r.URI = "/a b" }, "name": func(r *Request) { r.Header["X: y\r\nZ"] = []string{""} }, "value": func(r *Request) { r.Header["X"] = []string{"s3cret\r\nZ: y"} },
	} {
		r := post(address, "a body")
		change(r)
		_, err := pool(t, nil).Do(soon(), r)
		if invalid := new(InvalidError); !errors.As(err, &invalid) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := connections.Load(); n > 0 {
		t.Errorf("%d connections", n)
	}
}

// TestOnePiece: header and body leave together, also over TLS.
func TestOnePiece(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	for _, secure := range []bool{false, true} {
		pieces := make(chan string, 10)
		address, _ := handler(t, func(c net.Conn) {
			if secure {
				c = tls.Server(c, server.TLS)
			}
			buffer := make([]byte, 64<<10)
			for {
				n, err := c.Read(buffer)
				if err != nil {
					return
				}
				pieces <- string(buffer[:n])
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		})
		p := pool(t, func(c *Config) {
			if secure {
				c.TLS, c.TLSTimeout = &tls.Config{RootCAs: roots}, time.Second
			}
		})
		for i := range 3 {
			got, err := p.Do(soon(), post(address, strings.Repeat("x", 5000)))
			if err != nil || got.Reused != (i > 0) {
				t.Fatalf("TLS %t: %+v, %v", secure, got, err)
			}
			if piece := <-pieces; !strings.HasPrefix(piece, "POST /hook") || !strings.HasSuffix(piece, "xxx") {
				t.Errorf("TLS %t: %q", secure, piece)
			}
		}
	}
}

// TestClosedAfterTheLook: a kept connection to which nothing could be written says nothing about its handler, so another
// one is used.
func TestClosedAfterTheLook(t *testing.T) {
	address, connections := handler(t, says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	for _, body := range []string{"a body", strings.Repeat("x", 2*longBody)} {
		connections.Store(0)
		var broken atomic.Bool
		p := pool(t, func(c *Config) {
			dial := c.Dial
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := dial(ctx, network, address)
				return &fragile{Conn: conn, broken: &broken}, err
			}
		})
		if _, err := p.Do(soon(), post(address, body)); err != nil {
			t.Fatal(err)
		}
		broken.Store(true)
		got, err := p.Do(soon(), post(address, body))
		if n := connections.Load(); err != nil || got.Status != 200 || got.Reused || n != 2 {
			t.Errorf("%d bytes: %+v, %v, %d connections", len(body), got, err, n)
		}
	}
}

// fragile is a connection that once takes nothing any more.
type fragile struct {
	net.Conn
	broken *atomic.Bool
}

func (f *fragile) Write(p []byte) (int, error) {
	if f.broken.CompareAndSwap(true, false) {
		return 0, net.ErrClosed
	}
	return f.Conn.Write(p)
}

// TestGzip: the text of an answer is kept without its coding.
func TestGzip(t *testing.T) {
	var coded bytes.Buffer
	w := gzip.NewWriter(&coded)
	_, _ = io.WriteString(w, "cannot read it")
	w.Close()
	address, _ := handler(t, says(fmt.Sprintf("HTTP/1.1 422 No\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", coded.Len(), coded.String())))
	got, err := pool(t, nil).Do(soon(), post(address, ""))
	if err != nil || string(got.Text) != "cannot read it" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestUnixSocket: a handler may listen on a socket of this machine.
func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "handler.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Skip("no unix sockets here: ", err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		dump, _ := httputil.DumpRequest(r, true)
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(dump)
	}))
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	defer server.Close()
	r := post(path, "a body")
	r.Network = "unix"
	p := pool(t, nil)
	for i := range 3 {
		got, err := p.Do(soon(), r)
		if err != nil || got.Status != 418 || !strings.HasSuffix(string(got.Text), "\r\n\r\na body") || got.Reused != (i > 0) {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

// TestManyAtOnce: requests and answers are never mixed up, whatever breaks off.
func TestManyAtOnce(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if bytes.HasSuffix(body, []byte("7")) {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusConflict)
		_, _ = w.Write(body)
	}))
	defer server.Close()
	server.Config.ErrorLog = nil
	p := pool(t, nil)
	var all sync.WaitGroup
	for sender := range 20 {
		all.Go(func() {
			for i := range 50 {
				body := fmt.Sprintf("%d of %d", i, sender)
				got, err := p.Do(soon(), post(server.Listener.Addr().String(), body))
				if strings.HasSuffix(body, "7") {
					if err == nil {
						t.Errorf("%s: %+v", body, got)
					}
				} else if err != nil || string(got.Text) != body {
					t.Errorf("%s: %+v, %v", body, got, err)
				}
			}
		})
	}
	all.Wait()
}

// FuzzAnswer: whatever a handler says, it is an answer as net/http reads it or a fault, and a connection that is kept
// has nothing left on it.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 103 x\r\n\r\nHTTP/1.1 204 y\r\n\r\n", "HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nrest", "HTTP/1.1 101 x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", "\r\n", "HTTP/1.1 422 x\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = http.ReadRequest(bufio.NewReader(theirs))
			_, _ = theirs.Write(said)
			theirs.Close()
		}()
		p := NewPool(Config{Dial: func(context.Context, string, string) (net.Conn, error) { return ours, nil }, IdleTime: time.Minute, MaxHeader: 4 << 10})
		defer p.Close()
		got, err := p.Do(soon(), post("x", ""))
		if err != nil {
			return
		}
		if got.Status < 200 && got.Status/100 == 1 || len(got.Text) > maxText || got.Status/100 == 2 && len(got.Text) > 0 {
			t.Errorf("%+v", got)
		}
		in := bufio.NewReader(bytes.NewReader(said))
		var statuses []int
		for len(statuses) == 0 || statuses[len(statuses)-1]/100 == 1 {
			response, err := http.ReadResponse(in, request)
			if err != nil {
				t.Fatalf("net/http: %v, we %+v", err, got)
			}
			statuses = append(statuses, response.StatusCode)
		}
		if !slices.Contains(statuses, got.Status) || statuses[len(statuses)-1] != got.Status {
			t.Errorf("%v, we %d", statuses, got.Status)
		}
	})
}

func BenchmarkDo(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer server.Close()
	p := pool(b, nil)
	r := post(server.Listener.Addr().String(), strings.Repeat("x", 470))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Do(soon(), r); err != nil {
			b.Fatal(err)
		}
	}
}

// TestHandshakeTimeout: an operator learns what took too long.
func TestHandshakeTimeout(t *testing.T) {
	address, _ := handler(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	_, err := pool(t, func(c *Config) { c.TLS, c.TLSTimeout = new(tls.Config), 20*time.Millisecond }).Do(soon(), post(address, "a body"))
	var unsent *NotSentError
	if !errors.As(err, &unsent) || err.Error() != "TLS handshake timeout" {
		t.Errorf("%v", err)
	}
}
