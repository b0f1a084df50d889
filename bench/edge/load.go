package main

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

// load is what one run of the generator has seen.
type load struct {
	requests int
	took     time.Duration
	waited   []time.Duration // sorted
}

// quantile of the waits; 0 if there are none.
func (l *load) quantile(q float64) time.Duration {
	if len(l.waited) == 0 {
		return 0
	}
	return l.waited[min(len(l.waited)-1, int(q*float64(len(l.waited))))]
}

// send keeps one request on its way over each connection for a time. The requests are finished
// bytes, one for each connection: the same bytes at the same time would be the same notification.
// rate is how many a second are sent in all, 0 for as many as there can be.
//
// At a rate, a wait counts from the moment that the request was due, so that one that is held up
// by the answer before it counts in full.
func send(address string, requests [][]byte, status int, rate float64, length time.Duration) (*load, error) {
	var wg sync.WaitGroup
	waits := make([][]time.Duration, len(requests))
	errs := make([]error, len(requests))
	started := time.Now()
	for i, request := range requests {
		c := client{address: address, request: request, status: status, end: started.Add(length)}
		if rate > 0 {
			c.every = time.Duration(float64(len(requests)) / rate * float64(time.Second))
			c.first = started.Add(c.every * time.Duration(i) / time.Duration(len(requests)))
		}
		wg.Go(func() { waits[i], errs[i] = c.run() })
	}
	wg.Wait()
	l := &load{took: time.Since(started)}
	for i := range requests {
		if errs[i] != nil {
			return nil, errs[i]
		}
		l.waited = append(l.waited, waits[i]...)
	}
	l.requests = len(l.waited)
	slices.Sort(l.waited)
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
				start = time.Now() // the generator's own delay is not the edge's
			} else {
				start = due
			}
			due = due.Add(c.every)
		}
		if !start.Before(c.end) {
			return waits, nil
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
	if status != c.status && (c.status != anyRefusal || status/100 != 4) {
		return fmt.Errorf("answered %d, want %d", status, c.status)
	}
	if !stays {
		// A reset: closed connections that linger would use up the ports within seconds.
		_ = c.conn.(*net.TCPConn).SetLinger(0)
		c.conn.Close()
		c.conn = nil
	}
	return nil
}

// anyRefusal stands for any status of 4xx.
const anyRefusal = 400

var (
	lengthName     = []byte("content-length:")
	connectionName = []byte("connection:")
	encodingName   = []byte("transfer-encoding:")
)

// readAnswer reads one answer, its body included. stays reports whether the connection does.
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
