// Package exchange sends one HTTP/1.1 request to a handler and reads its answer, on the goroutine of the caller. It
// keeps connections, writes header and body together, and knows for every fault whether the handler can have seen
// anything of the request.
//
// net/http's Transport does the same for any request of any client, and pays for that with two goroutines a
// connection. Here the whole body is in memory, nobody cancels a request, and there is one deadline.
package exchange

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"time"
)

// A Request is what a handler gets.
type Request struct {
	Network string // of the handler's address: tcp or unix
	Address string // host and port, or the path of a socket

	Method string
	URI    string // path and query, as it stands in the request line
	Host   string
	Header http.Header // Host, Content-Length and hop-by-hop fields are not taken from it
	Body   []byte
}

// An Answer is what the handler said.
type Answer struct {
	Status int
	Line   string // the status with the handler's words for it, such as "200 OK"; "" without an answer
	Header http.Header
	Text   []byte // the first maxText bytes of the body, unless the status is 2xx
	Reused bool   // it came over a connection that was kept

	Latency time.Duration // from the call until the header was read
	read    time.Time     // when that was
}

const (
	maxText  = 1 << 10  // bytes of an answer that are kept
	maxDrain = 16 << 20 // bytes of an answer other than a 2xx that are read so that its connection can be kept

	// A handler may answer before it has read a long body, and then not read the rest. So a body from this
	// length on is written while the answer is awaited. A shorter one fits into the buffers of a connection.
	longBody = 32 << 10

	// How long to wait after an answer until such a body is written, so that the connection can be kept. net/http
	// waits as long.
	longestRest = 50 * time.Millisecond
)

// ErrHeaderTooLong is the cause if an answer's header, with all interim answers before it, exceeds
// Config.MaxHeader.
var ErrHeaderTooLong = errors.New("header of the answer is too long")

// errUpgrade is the cause if a handler wants to speak another protocol.
var errUpgrade = errors.New("handler answered 101, which nobody asked for")

// A NotSentError is a fault before anything of the request left: the handler was not reached.
type NotSentError struct{ Err error }

func (e *NotSentError) Error() string { return e.Err.Error() }

func (e *NotSentError) Unwrap() error { return e.Err }

// An InvalidError is what is wrong with a request that no handler can be sent.
type InvalidError struct{ Err error }

func (e *InvalidError) Error() string { return e.Err.Error() }

func (e *InvalidError) Unwrap() error { return e.Err }

// A TruncatedError is a fault after the header of the answer: its body broke off. Its status means nothing then.
type TruncatedError struct {
	Status int
	Err    error
}

func (e *TruncatedError) Error() string {
	return fmt.Sprintf("answer %d broke off: %s", e.Status, e.Err)
}

func (e *TruncatedError) Unwrap() error { return e.Err }

// Do sends a request and reads the answer, until deadline at the latest. It sends it once: what breaks off is not
// sent again. The error is a *NotSentError if the handler could not be reached and cannot have seen anything of it, and
// a *TruncatedError if its answer broke off in the body; the beginning of the answer is returned as well then. An
// *InvalidError means that the request cannot be written. Any other fault may have come before or after the handler
// worked at it. A fault of the deadline matches os.ErrDeadlineExceeded.
func (p *Pool) Do(deadline time.Time, r *Request) (Answer, error) {
	began := time.Now()
	head := p.buffer()
	defer p.recycle(head)
	if err := writeHead(head, r, p.config.NoGzip); err != nil {
		return Answer{}, &InvalidError{err}
	}
	length := head.Len()
	for {
		c, err := p.get(deadline, r.Network, r.Address)
		if err != nil {
			return Answer{}, &NotSentError{err}
		}
		reused := c.used
		head.Truncate(length)
		answer, err := p.over(c, deadline, r, head)
		if _, unsent := errors.AsType[*NotSentError](err); unsent && reused && time.Now().Before(deadline) {
			continue // it was closed after the look at it
		}
		answer.Reused = reused
		if answer.Line != "" {
			answer.Latency = answer.read.Sub(began)
		}
		return answer, err
	}
}

// over sends a request and reads the answer over a connection, and then keeps or closes that.
func (p *Pool) over(c *conn, deadline time.Time, r *Request, head *bytes.Buffer) (answer Answer, err error) {
	keep := false
	defer func() {
		if keep {
			p.put(c)
		} else {
			_ = c.Close() // what was to be read has been
		}
	}()
	if err := c.SetDeadline(deadline); err != nil {
		return Answer{}, &NotSentError{err}
	}
	c.used = true

	sending := c.send(head, r.Body)
	if sending.running == nil && sending.err != nil && sending.n == 0 {
		return Answer{}, &NotSentError{sending.err}
	}
	response, err := c.readHeader(p.config.MaxHeader) //nolint:bodyclose // readBody reads it to its end
	if err != nil {
		_ = c.Close() // so that sending ends
		if sending.end(); sending.err != nil && sending.n == 0 {
			return Answer{}, &NotSentError{sending.err}
		}
		return Answer{}, err
	}
	answer.Status, answer.Line, answer.Header, answer.read = response.StatusCode, response.Status, response.Header, time.Now()
	whole, err := answer.readBody(response)
	if asksForGzip(r, p.config.NoGzip) && response.ContentLength != 0 && isGzip(answer.Header) {
		answer.Header.Del("Content-Encoding") // only we have asked for it
		answer.Header.Del("Content-Length")
	}
	if err != nil {
		_ = c.Close()
		sending.end()
		return answer, &TruncatedError{answer.Status, err}
	}
	keep = whole && !response.Close && c.buffered() == 0 && response.StatusCode >= 200
	if keep && len(r.Body) >= longBody { // a handler that has answered may leave the rest unread, and the connection open
		rest := time.Now().Add(longestRest)
		keep = rest.Before(deadline) && c.SetWriteDeadline(rest) == nil
	}
	if !keep {
		_ = c.Close() // a body that is not wanted may never be read to its end
	}
	keep = sending.end().err == nil && keep
	return answer, nil
}

// A sending is how the writing of a request goes.
type sending struct {
	running chan struct{} // closed at its end; nil if that was awaited
	n       int64         // bytes written
	err     error
}

// send writes a request. One with a long body is still being written when send returns.
func (c *conn) send(head *bytes.Buffer, body []byte) *sending {
	s := &c.sending
	*s = sending{}
	if len(body) < longBody {
		head.Write(body) // one piece costs less than two
		n, err := c.Write(head.Bytes())
		s.n, s.err = int64(n), err
		return s
	}
	s.running = make(chan struct{})
	go func() {
		defer close(s.running)
		parts := net.Buffers{head.Bytes(), body}
		if s.n, s.err = parts.WriteTo(c.Conn); s.err != nil && s.n == 0 {
			_ = c.SetReadDeadline(time.Now()) // there is nothing to wait for
		}
	}()
	return s
}

// end waits until it has ended.
func (s *sending) end() *sending {
	if s.running != nil {
		<-s.running
		s.running = nil
	}
	return s
}

// readBody reads the body of an answer. It reports whether it was read to its end, which is not so if it is very
// long.
func (a *Answer) readBody(response *http.Response) (whole bool, err error) {
	body := response.Body
	if body == http.NoBody {
		return true, nil
	}
	rest := int64(math.MaxInt64) // a 2xx counts only if it is complete
	if a.Status/100 != 2 {
		rest = maxDrain
		kept := make([]byte, 0, maxText)
		for len(kept) < maxText {
			n, err := body.Read(kept[len(kept):maxText])
			kept, rest = kept[:len(kept)+n], rest-int64(n)
			if err == io.EOF {
				a.Text = plain(kept, response.Header)
				return true, nil
			}
			if err != nil {
				a.Text = plain(kept, response.Header)
				return false, err
			}
		}
		a.Text = plain(kept, response.Header)
	}
	n, err := io.Copy(io.Discard, io.LimitReader(body, rest))
	if err != nil {
		return false, err
	}
	if n < rest {
		return true, nil
	}
	_, err = io.CopyN(io.Discard, body, 1)
	if err == io.EOF { //nolint:errorlint // readers return it as it is
		return true, nil
	}
	return false, err
}

// plain returns the beginning of a body without its coding.
func plain(text []byte, header http.Header) []byte {
	if !isGzip(header) {
		return text
	}
	r, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		return nil
	}
	decoded, _ := io.ReadAll(io.LimitReader(r, maxText)) // the rest of it is missing
	return decoded
}

func isGzip(header http.Header) bool {
	return strings.EqualFold(header.Get("Content-Encoding"), "gzip")
}
