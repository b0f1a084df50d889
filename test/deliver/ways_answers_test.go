//go:build unix

package deliver

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// An act is what a handler does with a request whose header it has read. It returns false to close the connection.
type act func(c net.Conn, in *bufio.Reader, r *http.Request) bool

// says reads the request and answers with a text, as it is.
func says(text string) act {
	return func(c net.Conn, _ *bufio.Reader, r *http.Request) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		_, err := io.WriteString(c, text)
		return err == nil
	}
}

// then closes the connection after an act.
func (a act) thenCloses() act {
	return func(c net.Conn, in *bufio.Reader, r *http.Request) bool {
		a(c, in, r)
		return false
	}
}

// thenHangs says nothing more until the other side closes.
func (a act) thenHangs() act {
	return func(c net.Conn, in *bufio.Reader, r *http.Request) bool {
		a(c, in, r)
		_, _ = io.Copy(io.Discard, in)
		return false
	}
}

// answers is an answer with a status line, fields and a body.
func answers(status string, fields ...string) act {
	body := "because of " + status
	if strings.HasPrefix(status, "204") || strings.HasPrefix(status, "304") {
		return says("HTTP/1.1 " + status + "\r\n" + strings.Join(append(fields, "\r\n"), "\r\n"))
	}
	return says("HTTP/1.1 " + status + "\r\n" + strings.Join(append(fields, fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)), "\r\n"))
}

// chunked is an answer whose body comes as it is.
func chunked(status, body string) act {
	return says("HTTP/1.1 " + status + "\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
}

// early answers before it reads the body, which it never does.
func early(text string) act {
	return func(c net.Conn, _ *bufio.Reader, _ *http.Request) bool {
		_, _ = io.WriteString(c, text)
		return true
	}
}

// unread keeps the connection without reading from it, until the test ends.
func (a act) unread(t *testing.T) act {
	return func(c net.Conn, in *bufio.Reader, r *http.Request) bool {
		a(c, in, r)
		<-t.Context().Done()
		return false
	}
}

func zipped(text string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, text)
	_ = w.Close()
	return b.String()
}

// certificate is one that nobody trusts.
var certificate = sync.OnceValue(func() *tls.Config {
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	return &tls.Config{Certificates: server.TLS.Certificates}
})

// overTLS does an act inside TLS, with a connection that nothing was read from.
func overTLS(do act) act {
	return func(c net.Conn, in *bufio.Reader, _ *http.Request) bool {
		secure := tls.Server(buffered{c, in}, certificate())
		inside := bufio.NewReader(secure)
		for {
			r, err := http.ReadRequest(inside)
			if err != nil || !do(secure, inside, r) {
				return false
			}
		}
	}
}

// buffered is a connection that something was read from.
type buffered struct {
	net.Conn
	in *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

// notTLS answers the beginning of a handshake with a text.
func notTLS(text string) act {
	return func(c net.Conn, in *bufio.Reader, _ *http.Request) bool {
		_, _ = in.Peek(5) // or else it would not be read, and the connection reset
		_, _ = in.Discard(in.Buffered())
		_, _ = io.WriteString(c, text)
		return false
	}
}

// inTurn does one after the other, and repeats the last.
func inTurn(acts ...act) act {
	var mu sync.Mutex
	return func(c net.Conn, in *bufio.Reader, r *http.Request) bool {
		mu.Lock()
		do := acts[0]
		if len(acts) > 1 {
			acts = acts[1:]
		}
		mu.Unlock()
		return do(c, in, r)
	}
}

// acting starts a handler, and returns its address.
func acting(t *testing.T, do act) string {
	t.Helper()
	seen := new(connections)
	return connected(t, seen, seen.repeating(do))
}

// connections are those that a handler has: all that came, those that are open, and those that wait for a request.
type connections struct{ all, open, idle atomic.Int64 }

// settled reports whether each has had its request answered, and is closed if the handler closes it.
func (seen *connections) settled() bool { return seen.open.Load() == seen.idle.Load() }

// repeating does an act for each request of a connection.
func (seen *connections) repeating(do act) func(net.Conn, *bufio.Reader) {
	return func(conn net.Conn, in *bufio.Reader) {
		for {
			seen.idle.Add(1)
			r, err := http.ReadRequest(in)
			seen.idle.Add(-1)
			if err != nil || !do(conn, in, r) {
				return
			}
		}
	}
}

// connected starts what takes connections, with small buffers, and counts them.
func connected(t *testing.T, seen *connections, do func(net.Conn, *bufio.Reader)) string {
	t.Helper()
	small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
	}}
	listener, err := small.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return takes(t, listener, func(conn net.Conn) {
		seen.all.Add(1)
		seen.open.Add(1)
		defer seen.open.Add(-1)
		defer conn.Close()
		do(conn, bufio.NewReader(conn))
	})
}

// refusing returns the address of a socket that takes no connections, and that nobody else gets meanwhile.
func refusing(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
}

// A scene is what handlers do, and what is made of it.
type scene struct {
	name     string
	handlers func(t *testing.T) []act // nil for one that cannot be connected to
	posts    int                      // one after the other; 0 for two, or for one if it takes long
	size     int                      // of the body; 0 for a short one
	fields   []string                 // of the request
	options  string                   // of the reverse_proxy
	upstream string                   // before the address, such as https://
	deliver  string                   // replaces the block's options
	want     string                   // the record's outcome and reason, to see that the row does what it is for
	unknown  bool                     // the handler's name is
	secure   bool                     // the act is done before a request is read
	kept     bool                     // it is kept after the first failure, so that the quarantine shows the texts of answers
	differs  bool                     // on purpose; see the list in ways_test.go
}

// turns returns how many notifications are posted. The second shows whether a connection is used again.
func (s *scene) turns() int {
	if s.posts == 0 && s.deliver == "" && !s.kept {
		return 2
	}
	return max(1, s.posts)
}

// waits reports whether a handler is asked again and again. When the time runs out, the last attempt may have been one
// that found no handler that may be asked.
func (s *scene) waits() bool { return s.deliver == few && s.want == "failed not_now" }

// ofProxy matches what an access log shows of an attempt.
var ofProxy = regexp.MustCompile(`(?m)^http\.reverse_proxy\..*$`)

func one(do act) func(*testing.T) []act { return func(*testing.T) []act { return []act{do} } }

// few is for scenes whose notification is asked for until its time runs out, or that hang.
var few = briefly(time.Second) + "\nsecond_opinion 0"

// briefly returns options with a short attempt_timeout.
func briefly(timeout time.Duration) string {
	return fmt.Sprintf("timeout %s\nattempt_timeout %s", edgetest.Patient(timeout), edgetest.Patient(400*time.Millisecond))
}

func scenes() (all []scene) {
	add := func(s scene) { all = append(all, s) }
	for _, row := range []struct{ status, want string }{
		{"200 OK", "delivered"},
		{"200 Fine with me", "delivered"},
		{"200", "delivered"},
		{"201 Created", "delivered"},
		{"204 No Content", "delivered"},
		{"206 Partial Content", "delivered"},
		{"299 X", "delivered"},
		{"301 Moved", "failed misrouted"},
		{"304 Not Modified", "failed misrouted"},
		{"400 Bad Request", "failed handler_refused"},
		{"401 Unauthorized", "failed misrouted"},
		{"403 Forbidden", "failed misrouted"},
		{"404 Not Found", "failed misrouted"},
		{"405 Method Not Allowed", "failed misrouted"},
		{"409 Conflict", "failed handler_refused"},
		{"413 Too Large", "failed handler_refused"},
		{"422 Unprocessable Entity", "failed handler_refused"},
		{"451 X", "failed handler_refused"},
		{"500 Internal Server Error", "failed handler_error"},
		{"501 Not Implemented", "failed handler_error"},
		{"599 X", "failed handler_error"},
		{"600 X", "failed broken_off"},
		{"999 X", "failed broken_off"},
		{"1000 X", "failed broken_off"},
		{"99 X", "failed broken_off"},
		{"099 X", "failed broken_off"},
		{"000 X", "failed broken_off"},
		{"004 X", "failed broken_off"},
		{"abc X", "failed broken_off"},
		{"-20 X", "failed broken_off"},
	} {
		add(scene{name: row.status, handlers: one(answers(row.status, "Location: /x", "Content-Type: text/plain", "X-Answer: a", "X-Answer: b")), want: row.want})
	}
	for _, status := range []string{"408 Request Timeout", "425 Too Early", "429 Too Many Requests", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"} {
		add(scene{name: status, handlers: one(answers(status)), deliver: few, want: "failed not_now"})
		add(scene{name: status + ", Retry-After", handlers: one(answers(status, "Retry-After: 60")), want: "failed not_now"})
	}
	add(scene{name: "429, Retry-After a date", handlers: one(answers("429 X", "Retry-After: "+time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))), want: "failed not_now"})
	add(scene{name: "503, Retry-After nonsense", handlers: one(answers("503 X", "Retry-After: soon")), deliver: few, want: "failed not_now"})
	for name, row := range map[string]struct {
		act  act
		want string
	}{
		"100 before it":            {says("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"), "delivered"},
		"102 before it":            {says("HTTP/1.1 102 Processing\r\nX-A: 1\r\n\r\nHTTP/1.1 422 No\r\nContent-Length: 2\r\n\r\nno"), "failed handler_refused"},
		"103 before it, 20 times":  {says(strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 20) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), "delivered"},
		"100 and nothing":          {says("HTTP/1.1 100 Continue\r\n\r\n").thenCloses(), "failed broken_off"},
		"closes":                   {says("").thenCloses(), "failed broken_off"},
		"closes unread":            {early("").thenCloses(), "failed broken_off"},
		"half a status line":       {says("HTTP/1.1 20").thenCloses(), "failed broken_off"},
		"half a header":            {says("HTTP/1.1 200 OK\r\nContent-Le").thenCloses(), "failed broken_off"},
		"no blank line":            {says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n").thenCloses(), "failed broken_off"},
		"half a body":              {says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").thenCloses(), "failed broken_off"},
		"half a body of 500":       {says("HTTP/1.1 500 Oh no\r\nContent-Length: 100\r\nX-Answer: 1\r\n\r\nhalf of it").thenCloses(), "failed broken_off"},
		"half a body of 503":       {says("HTTP/1.1 503 Later\r\nContent-Length: 100\r\nRetry-After: 60\r\n\r\nhalf").thenCloses(), "failed broken_off"},
		"chunked":                  {chunked("200 OK", "5\r\nhello\r\n0\r\n\r\n"), "delivered"},
		"chunked 422":              {chunked("422 No", "5;x=y\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"), "failed handler_refused"},
		"chunked, a trailer":       {chunked("422 No", "5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"), "failed handler_refused"},
		"chunked, announced":       {says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n0\r\nX-T: 1\r\n\r\n"), "delivered"},
		"chunked, broken size":     {chunked("200 OK", "zz\r\nhello\r\n0\r\n\r\n"), "failed broken_off"},
		"chunked, broken off":      {chunked("200 OK", "64\r\nhalf").thenCloses(), "failed broken_off"},
		"chunked, no last chunk":   {chunked("422 No", "5\r\nhello\r\n").thenCloses(), "failed broken_off"},
		"chunked, no last line":    {chunked("200 OK", "5\r\nhello\r\n0\r\n").thenCloses(), "failed broken_off"},
		"chunked and a length":     {says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "delivered"},
		"two lengths":              {says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n").thenCloses(), "failed broken_off"},
		"the same length twice":    {says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n"), "delivered"},
		"a length below 0":         {says("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n").thenCloses(), "failed broken_off"},
		"an odd coding":            {says("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n").thenCloses(), "failed broken_off"},
		"until it closes":          {says("HTTP/1.1 200 OK\r\n\r\nall of it").thenCloses(), "delivered"},
		"until it closes, 422":     {says("HTTP/1.1 422 No\r\n\r\nall of it").thenCloses(), "failed handler_refused"},
		"HTTP/1.0":                 {says("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").thenCloses(), "delivered"},
		"HTTP/1.0, keep-alive":     {says("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"), "delivered"},
		"HTTP/0.9":                 {says("ok\n").thenCloses(), "failed broken_off"},
		"HTTP/2.0":                 {says("HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"), "delivered"},
		"HTTP/3":                   {says("HTTP/3 200 OK\r\nContent-Length: 0\r\n\r\n").thenCloses(), "failed broken_off"},
		"garbage":                  {says("\x00\x01\xff\r\n\r\n").thenCloses(), "failed broken_off"},
		"lines end with LF":        {says("HTTP/1.1 200 OK\nContent-Length: 2\n\nok"), "delivered"},
		"a folded field":           {says("HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n"), "delivered"},
		"a field without a colon":  {says("HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 0\r\n\r\n").thenCloses(), "failed broken_off"},
		"a space before the colon": {says("HTTP/1.1 200 OK\r\nX-A : 1\r\nContent-Length: 0\r\n\r\n").thenCloses(), ""},
		"a field without a name":   {says("HTTP/1.1 200 OK\r\n: 1\r\nContent-Length: 0\r\n\r\n").thenCloses(), ""},
		"a NUL in a value":         {says("HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 0\r\n\r\n").thenCloses(), ""},
		"a header of 60 KiB":       {answers("200 OK", "X-Long: "+strings.Repeat("x", 60<<10)), "delivered"},
		"a header of 1 MiB":        {answers("200 OK", "X-Long: "+strings.Repeat("x", 1<<20)).thenCloses(), "failed broken_off"},
		"a body of 1 MiB":          {says(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", 1<<20, strings.Repeat("x", 1<<20))), "delivered"},
		"a text of 1 MiB":          {says(fmt.Sprintf("HTTP/1.1 500 OK\r\nContent-Length: %d\r\n\r\n%s", 1<<20, strings.Repeat("x", 1<<20))), "failed handler_error"},
		"a text with the token":    {says(fmt.Sprintf("HTTP/1.1 400 X\r\nContent-Length: %d\r\n\r\nno %s!", len(edgetest.Token)+4, edgetest.Token)), "failed handler_refused"},
		"more than its length":     {says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n"), "delivered"},
		"204 with a body":          {says("HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok"), "delivered"},
		"304 with a body":          {says("HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok"), "failed misrouted"},
		"101":                      {says("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").thenCloses(), ""},
		"101 without Upgrade":      {says("HTTP/1.1 101 Switching Protocols\r\n\r\n").thenCloses(), ""},
		"gzip":                     {says("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + zipped("fine")).thenCloses(), "delivered"},
		"gzip, 422":                {says("HTTP/1.1 422 No\r\nContent-Encoding: gzip\r\n\r\n" + zipped("because")).thenCloses(), "failed handler_refused"},
		"Connection: close":        {answers("200 OK", "Connection: close").thenCloses(), "delivered"},
		"Keep-Alive and others":    {answers("200 OK", "Keep-Alive: timeout=1", "Connection: X-Hop", "X-Hop: 1", "Upgrade: h2c", "Server: x", "Via: 1.1 y"), "delivered"},
	} {
		add(scene{name: name, handlers: one(row.act), want: row.want, differs: strings.HasPrefix(name, "101")})
		if row.want != "delivered" && row.want != "" {
			add(scene{name: name + ", kept", handlers: one(row.act), kept: true, want: "quarantined undeliverable"})
		}
	}
	for name, row := range map[string]struct {
		act  act
		want string
	}{
		"hangs":                    {says("").thenHangs(), "failed attempt_timeout"},
		"hangs unread":             {early("").thenHangs(), "failed attempt_timeout"},
		"hangs in the status line": {says("HTTP/1.1 2").thenHangs(), "failed attempt_timeout"},
		"hangs in the header":      {says("HTTP/1.1 200 OK\r\nX-A: 1\r\n").thenHangs(), "failed attempt_timeout"},
		"hangs after 100":          {says("HTTP/1.1 100 Continue\r\n\r\n").thenHangs(), "failed attempt_timeout"},
		"hangs in the body":        {says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").thenHangs(), "failed attempt_timeout"},
		"hangs in the body of 500": {says("HTTP/1.1 500 X\r\nContent-Length: 100\r\n\r\nhalf").thenHangs(), "failed attempt_timeout"},
		"hangs in the body of 503": {says("HTTP/1.1 503 X\r\nContent-Length: 100\r\nRetry-After: 60\r\n\r\nhalf").thenHangs(), "failed attempt_timeout"},
		"hangs in a chunk":         {chunked("200 OK", "5\r\nhe").thenHangs(), "failed attempt_timeout"},
		"hangs before the end":     {says("HTTP/1.1 200 OK\r\n\r\nall of it, maybe").thenHangs(), "failed attempt_timeout"},
	} {
		add(scene{name: name, handlers: one(row.act), deliver: few, want: row.want})
	}
	add(scene{
		name: "gzip, 422, asked for by the sender", fields: []string{"Accept-Encoding", "gzip"}, kept: true, differs: true, want: "quarantined undeliverable",
		handlers: one(says("HTTP/1.1 422 No\r\nContent-Encoding: gzip\r\n\r\n" + zipped("because")).thenCloses()),
	})
	add(scene{
		name: "gzip, broken", differs: true, want: "delivered",
		handlers: one(says("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello")),
	})
	add(scene{
		name: "103 before it, 100 KiB", differs: true, want: "failed broken_off",
		handlers: one(says(strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: "+strings.Repeat("x", 10<<10)+"\r\n\r\n", 10) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").thenCloses()),
	})

	const long = 4 << 20
	early413 := "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n"
	add(scene{
		name: "early, kept open", size: long, posts: 1, want: "failed handler_refused",
		handlers: func(t *testing.T) []act { return []act{early(early413 + "\r\nno").unread(t)} },
	})
	add(scene{
		name: "early, close, kept open", size: long, posts: 1, want: "failed handler_refused",
		handlers: func(t *testing.T) []act {
			return []act{early(early413 + "Connection: close\r\n\r\nno").unread(t)}
		},
	})
	add(scene{
		name: "early 200, kept open", size: long, posts: 1, want: "delivered",
		handlers: func(t *testing.T) []act {
			return []act{early("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unread(t)}
		},
	})
	add(scene{
		name: "early, then read", size: long, want: "failed handler_refused",
		handlers: one(act(func(c net.Conn, in *bufio.Reader, r *http.Request) bool {
			_, _ = io.WriteString(c, early413+"\r\nno")
			_, err := io.Copy(io.Discard, r.Body)
			return err == nil
		})),
	})
	add(scene{name: "reads all of 4 MiB", size: long, posts: 2, handlers: one(answers("200 OK")), want: "delivered"})

	add(scene{name: "kept and used again", posts: 3, handlers: one(answers("200 OK")), want: "delivered"})
	add(scene{name: "004 without a body", handlers: one(says("HTTP/1.1 004 X\r\nContent-Length: 0\r\n\r\n")), want: "failed broken_off"})
	add(scene{name: "closed while kept", posts: 3, handlers: one(answers("200 OK").thenCloses()), want: "delivered"})
	add(scene{name: "kept after a refusal", posts: 2, handlers: one(answers("422 No")), want: "failed handler_refused"})
	add(scene{name: "speaks unasked while kept", posts: 2, handlers: one(says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 408 Bye\r\n\r\n")), want: "delivered"})
	add(scene{name: "refused connection", handlers: func(*testing.T) []act { return []act{nil} }, deliver: few, want: "failed not_now"})
	add(scene{
		name: "an unknown name", unknown: true, handlers: func(*testing.T) []act { return []act{nil} }, deliver: few, want: "failed not_now",
		options: "transport http {\nresolvers 127.0.0.1:1\ndial_timeout 300ms\n}\nlb_policy first",
	})
	add(scene{name: "refused connection, twice", handlers: func(*testing.T) []act { return []act{nil, nil} }, deliver: few, want: "failed not_now"})

	const plain = "transport http {\nversions 1.1\ntls_insecure_skip_verify\ntls_timeout 300ms\n}\nlb_policy first"
	const careful = "transport http {\nversions 1.1\ntls_server_name handler.test\n}\nlb_policy first"
	for name, row := range map[string]struct {
		act     act
		options string
		want    string
	}{
		"TLS":                            {overTLS(answers("200 OK")), plain, "delivered"},
		"TLS, 422":                       {overTLS(answers("422 No")), plain, "failed handler_refused"},
		"TLS, closes":                    {overTLS(says("").thenCloses()), plain, "failed broken_off"},
		"TLS, half a body":               {overTLS(says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").thenCloses()), plain, "failed broken_off"},
		"TLS, until it closes":           {overTLS(says("HTTP/1.1 200 OK\r\n\r\nall of it").thenCloses()), plain, ""},
		"TLS, not spoken":                {notTLS("HTTP/1.1 400 Bad Request\r\n\r\n"), plain, "failed not_now"},
		"TLS, garbage":                   {notTLS("hello"), plain, "failed not_now"},
		"TLS, closes in the handshake":   {notTLS(""), plain, "failed not_now"},
		"TLS, hangs in the handshake":    {notTLS("").thenHangs(), plain, "failed not_now"},
		"TLS, a certificate of nobody's": {overTLS(answers("200 OK")), careful, "failed not_now"},
	} {
		add(scene{name: name, upstream: "https://", handlers: one(row.act), options: row.options, deliver: few, want: row.want, secure: true})
	}

	well := answers("200 OK", "X-Answer: well")
	for name, bad := range map[string]act{
		"503":          answers("503 X"),
		"429 for long": answers("429 X", "Retry-After: 60"),
		"500":          answers("500 X"),
		"404":          answers("404 X"),
		"422":          answers("422 X"),
		"closes":       says("").thenCloses(),
		"half a body":  says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").thenCloses(),
		"garbage":      says("hello\r\n\r\n").thenCloses(),
		"hangs":        says("").thenHangs(),
		"too slow":     says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").thenHangs(),
		"a connection": nil,
	} {
		add(scene{name: "two, the first: " + name, handlers: func(*testing.T) []act { return []act{bad, well} }, deliver: briefly(3 * time.Second), want: "delivered", posts: 2})
		add(scene{name: "two, no second opinion: " + name, handlers: func(*testing.T) []act { return []act{bad, well} }, deliver: few + "\ndead_letter off", options: "lb_policy first", posts: 1})
		if bad != nil {
			add(scene{name: "one, then well: " + name, handlers: func(*testing.T) []act { return []act{inTurn(bad, well)} }, deliver: briefly(3 * time.Second), posts: 1})
		}
	}
	slices.SortStableFunc(all, func(a, b scene) int { return strings.Compare(a.name, b.name) })
	return all
}

// placeholders are what the access log shows.
var placeholders = []string{
	"http.reverse_proxy.upstream.address", "http.reverse_proxy.upstream.hostport", "http.reverse_proxy.upstream.host", "http.reverse_proxy.upstream.port",
	"http.reverse_proxy.upstream.requests", "http.reverse_proxy.upstream.max_requests", "http.reverse_proxy.upstream.fails",
	"http.reverse_proxy.upstream.latency", "http.reverse_proxy.upstream.latency_ms", "http.reverse_proxy.upstream.duration", "http.reverse_proxy.upstream.duration_ms",
	"http.reverse_proxy.duration", "http.reverse_proxy.duration_ms", "http.reverse_proxy.retries", "http.reverse_proxy.is_transport_error",
	"http.reverse_proxy.status_code", "http.reverse_proxy.status_text", "http.reverse_proxy.header.X-Answer", "http.reverse_proxy.header.Content-Length",
	"http.reverse_proxy.header.Content-Encoding", "http.reverse_proxy.header.Connection", "http.reverse_proxy.header.Upgrade", "http.reverse_proxy.header.Retry-After",
	"http.green_api.type", "http.green_api.message", "http.green_api.instance", "http.green_api.chat", "http.green_api.id", "http.green_api.outcome", "http.green_api.reason",
}

// TestSameAnswers: what handlers do means the same both ways, to the sender and to the operator.
func TestSameAnswers(t *testing.T) {
	all := scenes()
	var b blocks
	numbers := make([]int, len(all))
	addresses := make(map[string]string) // what they are called
	seen := map[way][]connections{directly: make([]connections, len(all)), throughCaddy: make([]connections, len(all))}
	for i, s := range all {
		// Both ways have handlers of their own: they are not to see what the others did.
		of := make(map[way]string)
		for _, w := range ways {
			for at, do := range s.handlers(t) {
				address := refusing(t)
				switch {
				case s.secure:
					address = connected(t, &seen[w][i], func(c net.Conn, in *bufio.Reader) { do(c, in, nil) })
				case do != nil:
					address = connected(t, &seen[w][i], seen[w][i].repeating(do))
				}
				if s.unknown {
					address = strings.Replace(address, "127.0.0.1", "handler.invalid", 1)
				}
				of[w] += " " + s.upstream + address
				addresses[address] = fmt.Sprintf("UP%d", at+1)
			}
		}
		deliver := cmp.Or(s.deliver, "timeout 5s\nattempt_timeout 4s\nsecond_opinion 0")
		if s.kept {
			deliver += "\ndead_letter 1"
		}
		numbers[i] = b.add("", "", "deliver {\n"+deliver+"\n}\nvalidate {\nmax_body_size 8MiB\n}", of, cmp.Or(s.options, "lb_policy first"))
	}
	site := "metrics /metrics\nlog\n"
	for _, name := range placeholders {
		site += "log_append " + name + " {" + name + "}\n"
	}
	e := edgetest.Start(t, edgetest.SiteWith("", site+b.routes[""]))
	wantWays(t, e)
	play := newPlay(t, e, all, numbers, addresses, seen)
	counts := make(map[way]map[string]string)
	for _, w := range ways {
		before := play.counts()
		play.run(w, false)
		counts[w] = since(before, play.counts())
		play.run(w, true)
	}
	got := make(map[way][]string)
	for _, w := range ways {
		got[w] = play.texts[w]
	}
	for _, entry := range e.Kept() {
		w, i := way(entry.NotificationID[3]), 0
		_, _ = fmt.Sscanf(entry.NotificationID[4:], "%d", &i)
		for _, answer := range entry.Answers {
			got[w][i] += play.same(w.masked(i, numbers[i], fmt.Sprintf("kept: %+v\n", answer)))
		}
	}
	for i, s := range all {
		t.Run(s.name, func(t *testing.T) {
			if same := got[directly][i] == got[throughCaddy][i]; same == s.differs {
				t.Errorf("same: %t%s", same, difference(got[directly][i], got[throughCaddy][i]))
			}
			if d, c := seen[directly][i].all.Load(), seen[throughCaddy][i].all.Load(); d != c && !s.waits() && !s.differs && !strings.HasPrefix(s.name, "early") {
				t.Errorf("%d connections directly, %d through Caddy", d, c)
			}
			if !strings.Contains(got[directly][i], strings.TrimSpace("record "+s.want)) {
				t.Errorf("directly\n%s\nwant %s", got[directly][i], s.want)
			}
		})
	}
	for _, name := range slices.Sorted(maps.Keys(counts[directly])) {
		if d, c := counts[directly][name], counts[throughCaddy][name]; d != c {
			t.Errorf("%s: directly %s, through Caddy %s", name, d, c)
		}
	}
}

// difference returns the lines in which two texts differ.
func difference(directly, throughCaddy string) string {
	d, c := strings.Split(directly, "\n"), strings.Split(throughCaddy, "\n")
	var text strings.Builder
	for i := range max(len(d), len(c)) {
		if i >= len(d) || i >= len(c) || d[i] != c[i] {
			for name, lines := range map[string][]string{"directly": d, "through Caddy": c} {
				if i < len(lines) {
					fmt.Fprintf(&text, "\n%s: %s", name, lines[i])
				}
			}
		}
	}
	return text.String()
}

// A play runs scenes.
type play struct {
	t       *testing.T
	edge    *edgetest.Edge
	scenes  []scene
	numbers []int // of the blocks
	mask    *strings.Replacer
	texts   map[way][]string // what is known of each scene
	posted  map[way]int
	seen    map[way][]connections
}

func newPlay(t *testing.T, e *edgetest.Edge, all []scene, numbers []int, addresses map[string]string, seen map[way][]connections) *play {
	var pairs []string
	for address, name := range addresses {
		_, port, _ := strings.Cut(address, ":")
		pairs = append(pairs, address, name, `"`+port+`"`, `"PORT of `+name+`"`)
	}
	texts := map[way][]string{directly: make([]string, len(all)), throughCaddy: make([]string, len(all))}
	return &play{t, e, all, numbers, strings.NewReplacer(pairs...), texts, make(map[way]int), seen}
}

// run plays the scenes that differ, or all others.
func (p *play) run(w way, differ bool) {
	p.t.Helper()
	got := make([]strings.Builder, len(p.scenes))
	var playing sync.WaitGroup
	places := make(chan struct{}, 10) // more would be slow, which some scenes measure; what waits needs none
	for i, s := range p.scenes {
		if s.differs != differ {
			continue
		}
		p.posted[w] += s.turns()
		playing.Go(func() {
			if s.deliver != few {
				places <- struct{}{}
				defer func() { <-places }()
			}
			for n := range s.turns() {
				url := fmt.Sprintf("http://127.0.0.1:%s/%c%d/hook", p.edge.Port, w, p.numbers[i])
				answer := p.post(url, bodyOf(w.markOf(i, n), s.size), s.fields)
				if n+1 < s.turns() {
					edgetest.Eventually(p.t, "the end of the connection", p.seen[w][i].settled)
				}
				fmt.Fprintln(&got[i], "status", answer.StatusCode, strings.Join(slices.Sorted(maps.Keys(answer.Header)), " "))
			}
		})
	}
	playing.Wait()
	var lines map[string][]string
	defer func() {
		for i, s := range p.scenes {
			for n := range s.turns() {
				if s.differs == differ && len(lines[w.markOf(i, n)]) != 2 {
					p.t.Errorf("way %c, %s: %q", w, s.name, lines[w.markOf(i, n)])
				}
			}
		}
	}()
	edgetest.Eventually(p.t, "records and access logs", func() bool {
		var n int
		lines, n = p.logged(w)
		return n >= 2*p.posted[w]
	})
	for i := range p.scenes {
		if p.scenes[i].differs != differ {
			continue
		}
		for n := range p.scenes[i].turns() {
			for _, line := range lines[w.markOf(i, n)] {
				if p.scenes[i].waits() {
					line = ofProxy.ReplaceAllString(line, "")
				}
				got[i].WriteString(w.masked(i, p.numbers[i], line) + "\n")
			}
		}
		p.texts[w][i] = got[i].String()
	}
}

// client asks for no compression.
var client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}

// post sends a notification with fields, given as pairs.
func (p *play) post(url, body string, fields []string) *http.Response {
	r, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		p.t.Error(err)
		return new(http.Response)
	}
	r.Header.Set("Authorization", "Bearer "+edgetest.Token)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	answer, err := client.Do(r)
	if err != nil {
		p.t.Error(err)
		return new(http.Response)
	}
	answer.Body.Close()
	return answer
}

// logged returns the records and the access logs of one way by idMessage, and how many they are.
func (p *play) logged(w way) (lines map[string][]string, n int) {
	lines = make(map[string][]string)
	for line := range strings.Lines(p.edge.Logs.All()) {
		var said map[string]any
		if json.Unmarshal([]byte(line), &said) != nil {
			continue
		}
		logger, _ := said["logger"].(string)
		switch {
		case logger == "http.handlers.green_api" && said["outcome"] != nil:
			id, _ := said["id"].(string)
			if id == "" || id[3] != byte(w) {
				continue
			}
			n++
			lines[id] = append(lines[id], p.record(said))
		case strings.HasPrefix(logger, "http.log.access"):
			id, _ := said["http.green_api.id"].(string)
			if id == "" || id[3] != byte(w) {
				continue
			}
			n++
			lines[id] = append(lines[id], p.access(said))
		}
	}
	for _, of := range lines {
		slices.SortStableFunc(of, func(a, b string) int { return strings.Compare(b[:3], a[:3]) }) // records first
	}
	return lines, n
}

// words are those of errors that differ on purpose.
var words = strings.NewReplacer("net/http: HTTP/1.x transport connection broken: ", "", "unexpected EOF", "EOF",
	"net/http: TLS handshake timeout", "TLS handshake timeout", // whichever comes first at the end
	"context deadline exceeded", "TLS handshake timeout",
	"net/http: server response headers exceeded 65536 bytes; aborted", "header of the answer is too long")

var (
	ofCaddy = regexp.MustCompile(`\{id=\w+\} reverseproxy\.statusError \(reverseproxy\.go:\d+\): HTTP \d+: `)
	late    = regexp.MustCompile(`127\.0\.0\.1:\d+: handler could not be connected to: http: server closed idle connection`)
	sender  = regexp.MustCompile(`127\.0\.0\.1:\d+->`)
	times   = regexp.MustCompile(`\(\d+ times\)`)
)

// same masks what differs between two runs, and what differs on purpose.
func (p *play) same(text string) string {
	return p.mask.Replace(words.Replace(sender.ReplaceAllString(ofCaddy.ReplaceAllString(text, ""), "")))
}

// record returns a record without what differs between two runs.
func (p *play) record(said map[string]any) string {
	tried := fmt.Sprint(said["tried"])
	n, _ := said["attempts"].(float64)
	if closed := late.FindString(tried); closed != "" {
		tried = strings.NewReplacer("["+closed+"]", "<nil>", closed+" ", "", " "+closed, "").Replace(tried)
		n--
	}
	attempts := fmt.Sprint(n)
	if n > 2 || n > 1 && p.sceneOf(said).waits() {
		attempts = "many"
		tried = times.ReplaceAllString(tried, "(many times)")
	}
	text := fmt.Sprintln("record", said["outcome"], said["reason"]) +
		fmt.Sprintln("level", said["level"], "status", said["status"], "handler_status", said["handler_status"], "handler", said["handler"], "attempts", attempts) +
		fmt.Sprintln("tried", tried) + fmt.Sprintln("error", said["error"])
	var others []string
	for key := range said {
		if key != "tried" {
			others = append(others, key)
		}
	}
	slices.Sort(others)
	return p.same(text + strings.Join(others, " "))
}

// sceneOf returns the scene that a log record is about.
func (p *play) sceneOf(said map[string]any) *scene {
	var i, n int
	id, _ := said["id"].(string)
	if _, err := fmt.Sscanf(id[len("WAYd"):], "%d-%d", &i, &n); err != nil {
		p.t.Error(err)
	}
	return &p.scenes[i]
}

// access returns the placeholders of an access log without what differs between two runs.
func (p *play) access(said map[string]any) string {
	var text strings.Builder
	for _, name := range placeholders {
		value := said[name]
		if n, ok := value.(float64); ok && n > 0 && (strings.Contains(name, "latency") || strings.Contains(name, "duration")) {
			value = "some"
		}
		encoded, _ := json.Marshal(value)
		fmt.Fprintf(&text, "%s %s\n", name, encoded)
	}
	fmt.Fprintln(&text, said["status"], said["size"], said["bytes_read"], said["resp_headers"], slices.Sorted(maps.Keys(said)))
	return p.mask.Replace("access\n" + text.String())
}

// counts returns the metrics of green_api.
func (p *play) counts() map[string]float64 {
	counts := make(map[string]float64)
	for line := range strings.Lines(p.edge.Scrape()) {
		name, value, found := strings.Cut(strings.TrimSpace(line), "} ")
		if !found || !strings.HasPrefix(name, "caddy_green_api_") || strings.Contains(name, "_seconds") {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			p.t.Fatal(err)
		}
		counts[name] = n
	}
	return counts
}

// since returns by how much metrics have grown.
func since(before, now map[string]float64) map[string]string {
	grown := make(map[string]string)
	for name, n := range now {
		grown[name] = fmt.Sprint(n - before[name])
		if strings.Contains(name, `result="not_now"`) { // until the time runs out
			grown[name] = fmt.Sprint(n > before[name])
		}
	}
	return grown
}
