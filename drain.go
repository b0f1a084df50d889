package greenapi

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// A drain empties the connections to the servers of a config that a reload replaces.
//
// Go's server drops a request that it has read but not begun with when it is shut down, and closes
// connections that a request may be on its way to. GREEN-API would take either for a failure and
// pause for 60 seconds. So, when the new config listens already and before the old one's servers
// are shut down, every answer of the old one ends its connection: who sends often comes again, and
// finds the new one. Who has not sent for that time will hardly send in that very moment.
type drain struct {
	servers map[*caddyhttp.Server]bool

	on    atomic.Bool
	open  atomic.Int64 // connections
	fresh atomic.Int64 // those among them that have not sent a request
	news  sync.Map     // of net.Conn, the fresh ones
}

const (
	// drainFor is how long a reload waits for connections to end.
	drainFor = time.Second
	// drainFresh is how much longer it waits for a moment in which none is about to send its first
	// request.
	drainFresh = time.Second
)

// watch counts the connections of a server.
func (d *drain) watch(server *caddyhttp.Server) {
	if server != nil && !d.servers[server] {
		d.servers[server] = true
		server.RegisterConnState(d.connState)
	}
}

func (d *drain) connState(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		d.open.Add(1)
		d.fresh.Add(1)
		d.news.Store(conn, nil)
		return
	case http.StateClosed, http.StateHijacked:
		d.open.Add(-1)
	case http.StateIdle:
		return
	}
	if _, was := d.news.LoadAndDelete(conn); was {
		d.fresh.Add(-1)
	}
}

// wait drains.
func (d *drain) wait() {
	d.on.Store(true)
	const poll = time.Millisecond
	for end := time.Now().Add(drainFor); d.open.Load() > 0 && time.Now().Before(end); {
		time.Sleep(poll)
	}
	for end := time.Now().Add(drainFresh); d.fresh.Load() > 0 && time.Now().Before(end); {
		time.Sleep(poll / 10)
	}
}
