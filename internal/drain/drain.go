// Package drain empties the connections to the servers of a config before they are shut down.
package drain

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A Drain empties the connections to the servers of a config that another one replaces.
//
// Go's server drops a request that it has read but not begun with when it is shut down, and closes
// connections that a request may be on its way to. GREEN-API would take either for a failure and
// pause for 60 seconds. So, when the new config listens already and before the old one's servers
// are shut down, every answer of the old one ends its connection: a sender that sends often comes again, and
// finds the new one. A sender that was silent for that time is unlikely to send in that very moment.
//
// At the end of the process it is the same where somebody else holds the socket, so that new connections
// can wait there for the process that comes next: see Listen.
type Drain struct {
	servers   map[Server]bool
	listeners []*listener

	on    atomic.Bool
	open  atomic.Int64 // connections
	fresh sync.Map     // those among them that have not sent a request: when each came, by net.Conn
	rests bool         // no more come
}

const (
	// Period is how long Wait waits for connections to end.
	Period = time.Second
	// freshPeriod is how much longer it waits for a moment in which none is about to send its first
	// request.
	freshPeriod = time.Second
	// silent is how old a connection is when it is not waited for, because it is likely to send nothing at
	// all. Go's server holds the same when it is shut down. Where no more come, all that are younger
	// are waited for.
	silent = 5 * time.Second
)

// New returns a drain that watches no server yet.
func New() *Drain { return &Drain{servers: make(map[Server]bool)} }

// Active reports whether every answer is to end its connection.
func (d *Drain) Active() bool { return d.on.Load() }

// A Server tells of its connections, as Caddy's HTTP server does.
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

// Wait drains.
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
