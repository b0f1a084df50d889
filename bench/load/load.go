// Package load has what the benchmarks need around an edge: a generator of requests, an upstream, and what a process
// has used.
package load

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Load is the result of one run of the generator.
type Load struct {
	Requests int
	Took     time.Duration
	Waited   []time.Duration // sorted
}

// Quantile returns a quantile of the waits, 0 if there are none.
func (l *Load) Quantile(q float64) time.Duration {
	if len(l.Waited) == 0 {
		return 0
	}
	return l.Waited[min(len(l.Waited)-1, int(q*float64(len(l.Waited))))]
}

// Send keeps one request in flight on each connection for a time. The requests are complete bytes, one per
// connection: the same bytes at the same time would be the same notification. rate is how many are sent per
// second in total, 0 for as many as possible.
//
// A request that has to differ each time is changed by next, which may be nil, before it is sent: its connection's
// index, and the bytes.
//
// With a rate, a wait counts from the moment when the request was due, so that a request delayed by the
// answer before it counts in full.
func Send(address string, requests [][]byte, next func(i int, request []byte), status int, rate float64, length time.Duration) (*Load, error) {
	var wg sync.WaitGroup
	waits := make([][]time.Duration, len(requests))
	errs := make([]error, len(requests))
	started := time.Now()
	for i, request := range requests {
		c := client{address: address, request: request, status: status, end: started.Add(length)}
		if next != nil {
			c.next = func() { next(i, request) }
		}
		if rate > 0 {
			c.every = time.Duration(float64(len(requests)) / rate * float64(time.Second))
			c.first = started.Add(c.every * time.Duration(i) / time.Duration(len(requests)))
		}
		wg.Go(func() { waits[i], errs[i] = c.run() })
	}
	wg.Wait()
	l := &Load{Took: time.Since(started)}
	for i := range requests {
		if errs[i] != nil {
			return nil, errs[i]
		}
		l.Waited = append(l.Waited, waits[i]...)
	}
	l.Requests = len(l.Waited)
	slices.Sort(l.Waited)
	return l, nil
}

// client is one connection.
type client struct {
	address string
	request []byte
	status  int
	end     time.Time
	every   time.Duration // 0 for at once
	first   time.Time
	next    func() // nil for the same again

	conn   net.Conn
	answer *bufio.Reader
}

func (c *client) run() (waits []time.Duration, err error) {
	defer func() {
		if c.conn != nil {
			c.conn.Close()
		}
	}()
	waits = make([]time.Duration, 0, 1<<16)
	due := c.first
	for {
		start := time.Now()
		if c.every > 0 {
			if pause := due.Sub(start); pause > 0 {
				time.Sleep(pause)
				start = time.Now() // do not blame the edge for the generator's own delay
			} else {
				start = due
			}
			due = due.Add(c.every)
		}
		if !start.Before(c.end) {
			return waits, nil
		}
		if c.next != nil {
			c.next()
		}
		if err := c.once(); err != nil {
			return nil, err
		}
		waits = append(waits, time.Since(start))
	}
}

// once sends the request and reads the answer.
func (c *client) once() error {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.address)
		if err != nil {
			return err
		}
		if c.conn = conn; c.answer == nil {
			c.answer = bufio.NewReaderSize(conn, 16<<10)
		}
		c.answer.Reset(conn)
	}
	_ = c.conn.SetDeadline(time.Now().Add(30 * time.Second)) // a real failure shows in the Write
	if _, err := c.conn.Write(c.request); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	status, stays, err := readAnswer(c.answer)
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if status != c.status && (c.status != AnyRefusal || status/100 != 4) {
		return fmt.Errorf("answered %d, want %d", status, c.status)
	}
	if !stays {
		// Reset the connection: lingering closed ones would use up the ports within seconds.
		_ = c.conn.(*net.TCPConn).SetLinger(0)
		c.conn.Close()
		c.conn = nil
	}
	return nil
}

// AnyRefusal stands for any 4xx status.
const AnyRefusal = 400

var (
	lengthName     = []byte("content-length:")
	connectionName = []byte("connection:")
	encodingName   = []byte("transfer-encoding:")
)

// readAnswer reads one answer with its body. stays reports whether the connection stays open.
func readAnswer(r *bufio.Reader) (status int, stays bool, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, false, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, false, fmt.Errorf("no HTTP: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, false, err
	}
	length := 0
	stays = line[7] == '1'
	for {
		line, err = r.ReadSlice('\n')
		if err != nil {
			return 0, false, err
		}
		switch {
		case len(line) <= 2:
			_, err = r.Discard(length)
			return status, stays, err
		case is(line, lengthName):
			length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(lengthName):])))
			if err != nil {
				return 0, false, err
			}
		case is(line, connectionName):
			stays = !bytes.EqualFold(bytes.TrimSpace(line[len(connectionName):]), []byte("close"))
		case is(line, encodingName):
			return 0, false, fmt.Errorf("an answer of unknown length: %q", line)
		}
	}
}

func is(line, name []byte) bool {
	return len(line) > len(name) && bytes.EqualFold(line[:len(name)], name)
}
