//go:build unix

package restarts

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

const (
	kept    = 16 // connections of HTTP/1.1, half of them by TLS
	keptTLS = 4  // connections of HTTP/2
	streams = 4  // requests at once on each of these

	// So many new connections may be under way. Above that the machine cannot keep up, and they come as
	// fast as others end.
	most = 1500

	// A client that keeps its connection sends at least twice a second. One that came later, as on a busy
	// machine it may, has no promise.
	restless = 500 * time.Millisecond
	patience = time.Minute
)

// A load is clients that count what becomes of their requests.
type load struct {
	plain, secure string // addresses
	config        *tls.Config
	rate          int // new connections a second, of one request each; of every four, one by HTTP/2

	// One in four clients with a new connection lets up to so much time pass before it sends.
	hesitation time.Duration

	underWay    atomic.Int64
	connections atomic.Int64 // new ones, of one request each
	requests    atomic.Int64
	again       atomic.Int64 // requests that HTTP/2 sent once more, as a GOAWAY allows
	late        atomic.Int64 // failures on kept connections that had rested for too long
	done        chan struct{}
	running     sync.WaitGroup

	mu           sync.Mutex
	failures     map[string]int
	longest      time.Duration
	acknowledged []string
}

func newLoad(plain, secure string, config *tls.Config, rate int) *load {
	return &load{
		plain: plain, secure: secure, config: config, rate: rate, hesitation: 500 * time.Millisecond,
		done: make(chan struct{}), failures: make(map[string]int),
	}
}

// start lets all clients run until stop.
func (l *load) start() {
	l.running.Go(l.each)
	for n := range kept {
		l.running.Go(func() { l.keep(n%2 == 0) })
	}
	for range keptTLS {
		client := l.http2()
		for range streams {
			l.running.Go(func() {
				for l.pause() {
					l.count("kept HTTP/2", l.post(client))
				}
				client.CloseIdleConnections()
			})
		}
	}
}

func (l *load) stop() {
	close(l.done)
	l.running.Wait()
}

// each makes new connections, and catches up when it is late.
func (l *load) each() {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	began, made := time.Now(), 0
	for {
		select {
		case <-l.done:
			return
		case now := <-tick.C:
			for due := int(now.Sub(began).Seconds() * float64(l.rate)); made < due && l.underWay.Load() < most; made++ {
				l.make(made%4 == 0)
			}
		}
	}
}

func (l *load) make(secure bool) {
	once := l.once
	if secure {
		once = l.onceHTTP2
	}
	l.underWay.Add(1)
	l.connections.Add(1)
	l.running.Go(func() {
		defer l.underWay.Add(-1)
		once()
	})
}

// pause is what a client that keeps its connection waits between two requests.
func (l *load) pause() bool {
	select {
	case <-l.done:
		return false
	case <-time.After(restless*6/10 + rand.N(restless*2/10)):
		return true
	}
}

// once is a client of HTTP/1.1 that makes a connection for one request.
func (l *load) once() {
	l.count("HTTP/1.1", func() error {
		conn, err := net.DialTimeout("tcp", l.plain, patience)
		if err != nil {
			return err
		}
		defer conn.Close()
		if rand.N(4) == 0 {
			time.Sleep(rand.N(l.hesitation))
		}
		_, err = l.exchange(conn, bufio.NewReader(conn), l.plain, "Connection: close\r\n")
		return err
	}())
}

// onceHTTP2 is a client of HTTP/2 that does the same.
func (l *load) onceHTTP2() {
	client := l.http2()
	l.count("HTTP/2", l.post(client))
	client.CloseIdleConnections()
}

// keep is a client of HTTP/1.1 that keeps its connection until it is told to end it.
func (l *load) keep(secure bool) {
	var conn net.Conn
	var reader *bufio.Reader
	var answered time.Time
	for l.pause() {
		err := func() (err error) {
			if conn == nil {
				if conn, err = l.dial(secure); err != nil {
					conn = nil
					return err
				}
				reader, answered = bufio.NewReader(conn), time.Now()
			}
			rested := time.Since(answered)
			ends, err := l.exchange(conn, reader, l.plain, "")
			if err != nil && rested > restless {
				l.late.Add(1)
				err = errLate
			}
			if err != nil || ends {
				conn.Close()
				conn = nil
			}
			answered = time.Now()
			return err
		}()
		if !errors.Is(err, errLate) {
			l.count("kept HTTP/1.1", err)
		}
	}
	if conn != nil {
		conn.Close()
	}
}

var errLate = errors.New("this client came too late")

func (l *load) dial(secure bool) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: patience}
	if !secure {
		return dialer.Dial("tcp", l.plain)
	}
	return tls.DialWithDialer(dialer, "tcp", l.secure, l.config)
}

// exchange sends a notification and reads the answer, without a second try. It reports whether the answer
// ends the connection.
func (l *load) exchange(conn net.Conn, reader *bufio.Reader, host, header string) (ends bool, err error) {
	began := time.Now()
	conn.SetDeadline(began.Add(patience))
	mark, body := l.next()
	_, err = fmt.Fprintf(conn, "POST /green-api/webhook HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s",
		host, edgetest.Token, len(body), header, body)
	if err != nil {
		return true, err
	}
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return true, err
	}
	return response.Close, l.answered(mark, response, began)
}

// http2 returns a client with connections of its own.
func (l *load) http2() *http.Client {
	config := l.config.Clone()
	config.NextProtos = nil
	return &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}
}

// post sends a notification by HTTP/2.
func (l *load) post(client *http.Client) error {
	began := time.Now()
	mark, body := l.next()
	conns := 0
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { conns++ }}
	r, err := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), http.MethodPost, "https://"+l.secure+"/green-api/webhook", strings.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+edgetest.Token)
	r.Header.Set("Content-Type", "application/json")
	response, err := client.Do(r)
	if err != nil {
		return err
	}
	if response.ProtoMajor != 2 {
		return errors.New(response.Proto)
	}
	l.again.Add(int64(conns - 1))
	return l.answered(mark, response, began)
}

var marks atomic.Int64

// next is a notification and its id.
func (l *load) next() (mark, body string) {
	l.requests.Add(1)
	mark = fmt.Sprintf("RESTART%09d", marks.Add(1))
	return mark, edgetest.Numbered(mark)
}

func (l *load) answered(mark string, response *http.Response, began time.Time) error {
	_, err := io.Copy(io.Discard, response.Body)
	response.Body.Close()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.longest = max(l.longest, time.Since(began))
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	l.acknowledged = append(l.acknowledged, mark)
	return nil
}

// count counts a failure under what a sender would call it.
func (l *load) count(kind string, err error) {
	if err == nil {
		return
	}
	if request, ok := errors.AsType[*url.Error](err); ok {
		err = request.Err
	}
	what := err.Error()
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		what = "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		what = "reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		what = "closed without an answer (" + what + ")"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		what = "unanswered"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures[kind+": "+what]++
}

// report says how it went, and how many failed.
func (l *load) report(t *testing.T, ends ends) (failed int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines bytes.Buffer
	for _, what := range slices.SortedFunc(maps.Keys(l.failures), func(a, b string) int { return cmp.Compare(l.failures[b], l.failures[a]) }) {
		fmt.Fprintf(&lines, "\n  %d %s", l.failures[what], what)
		failed += l.failures[what]
	}
	t.Logf("%d restarts (%d with a reload in flight, and %d more that were broken off), %d reloads: %d new connections, %d requests, longest %s; %d sent again after a GOAWAY, %d failed after a rest of over %s; failed: %d%s",
		ends.restarts, ends.both, ends.early, ends.reloads, l.connections.Load(), l.requests.Load(), l.longest.Round(time.Millisecond), l.again.Load(), l.late.Load(), restless, failed, lines.String())
	return failed
}
