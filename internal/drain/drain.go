// Package drain empties the connections to the servers of a config before they are shut down.
package drain

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A Drain empties the connections to the servers of a config that is being replaced.
//
// When Go's server is shut down, it drops a request that it has read but not started on, and closes
// connections on which a request may be on its way. GREEN-API would take either for a failure and pause for
// 60 seconds. So, while the new config already listens and before the old one's servers are shut down,
// every answer of the old one ends its connection: a sender that sends often comes back and finds the new
// config. A sender that was silent for that time is unlikely to send at that very moment.
//
// The same happens at the end of the process if a supervisor holds the socket, so that new connections can
// wait there for the next process: see Listen.
type Drain struct {
	servers   map[Server]bool
	listeners []*listener

	on    atomic.Bool
	open  atomic.Int64 // connections
	fresh sync.Map     // connections that have not sent a request yet: when each came, by net.Conn
	rests bool         // no more connections come
}

const (
	// Period is how long Wait waits for connections to end.
	Period = time.Second
	// freshPeriod is how much longer it waits for a moment in which no connection is about to send its
	// first request.
	freshPeriod = time.Second
	// silent is the age at which a connection is no longer waited for, because it is likely never to send
	// anything. Go's server does the same when it is shut down. If no more connections come, all younger
	// ones are waited for.
	silent = 5 * time.Second
)

// New returns a drain that does not watch any server yet.
func New() *Drain { return &Drain{servers: make(map[Server]bool)} }

// Active reports whether every answer has to end its connection.
func (d *Drain) Active() bool { return d.on.Load() }

// A Server reports its connections, as Caddy's HTTP server does.
type Server interface {
	RegisterConnState(func(net.Conn, http.ConnState))
}

// Watch counts the connections of a server.
func (d *Drain) Watch(server Server) {
	if !d.servers[server] {
		d.servers[server] = true
		server.RegisterConnState(d.connState)
	}
}

func (d *Drain) connState(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		d.open.Add(1)
		d.fresh.Store(conn, time.Now())
		return
	case http.StateClosed, http.StateHijacked:
		d.open.Add(-1)
	case http.StateIdle:
		return
	}
	d.fresh.Delete(conn)
}

// Wait waits until the connections have been drained.
func (d *Drain) Wait() {
	d.on.Store(true)
	const poll = time.Millisecond
	for end := time.Now().Add(Period); d.open.Load() > 0 && time.Now().Before(end); {
		time.Sleep(poll)
	}
	limit := freshPeriod
	if d.rests {
		limit = silent
	}
	for end := time.Now().Add(limit); d.awaitsFirst() && time.Now().Before(end); {
		time.Sleep(poll / 10)
	}
}

// awaitsFirst reports whether a connection may yet send its first request.
func (d *Drain) awaitsFirst() (found bool) {
	d.fresh.Range(func(_, came any) bool {
		found = time.Since(came.(time.Time)) < silent
		return !found
	})
	return found
}
