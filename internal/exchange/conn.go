package exchange

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"time"
)

// A conn is a connection to a handler. It has one request at a time.
type conn struct {
	net.Conn
	look look
	to   address

	in      limited
	r       *bufio.Reader // of in
	used    bool
	sending sending   // of the request in hand
	since   time.Time // unused, while it is kept
}

func newConn(c, plain net.Conn, to address) *conn {
	n := &conn{Conn: c, to: to}
	n.look.at(plain)
	n.in.from = c
	n.r = bufio.NewReader(&n.in)
	return n
}

// buffered returns how many bytes were read that belong to no answer.
func (c *conn) buffered() int { return c.r.Buffered() }

// request is what http.ReadResponse wants to know of a request: an answer to a HEAD would have no body.
var request = &http.Request{Method: http.MethodPost}

// readHeader reads the header of an answer, after those of interim answers.
func (c *conn) readHeader(most int) (*http.Response, error) {
	c.in.limit(most - c.r.Buffered())
	for {
		response, err := http.ReadResponse(c.r, request)
		switch {
		case c.in.over:
			return nil, ErrHeaderTooLong
		case err != nil:
			return nil, err
		case response.StatusCode == http.StatusSwitchingProtocols:
			return nil, errUpgrade
		case response.StatusCode/100 != 1:
			c.in.unlimit()
			return response, nil
		}
	}
}

// limited reads no more than a number of bytes while it is limited.
type limited struct {
	from    io.Reader
	left    int
	limited bool
	over    bool // more was asked for
}

func (l *limited) limit(n int) { l.left, l.limited, l.over = n, true, false }

func (l *limited) unlimit() { l.limited = false }

func (l *limited) Read(p []byte) (int, error) {
	if !l.limited {
		return l.from.Read(p)
	}
	if l.left <= 0 {
		l.over = true
		return 0, ErrHeaderTooLong
	}
	n, err := l.from.Read(p[:min(len(p), l.left)])
	l.left -= n
	return n, err
}
