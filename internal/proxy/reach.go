package proxy

import (
	"context"
	"net/http/httptrace"
	"sync/atomic"
)

// reach is how far the request of an attempt has come on its way to a handler. Every transport tells that
// is made of net/http or quic-go, so `http` with all its versions, of the proxy in the block or of
// one further on. Of several requests in one attempt, as of forward_auth, it is the last one's.
type reach struct{ stage atomic.Int32 }

const (
	untold     int32 = iota // the transport does not tell, or was not come to
	connecting              // name, connection, TLS, a proxy's handshake, or waiting for a place in a connection
	underWay                // its header is written, and the body follows
)

// watch returns a context in which requests are followed.
func (p *reach) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:      func(string) { p.stage.Store(connecting) },
		WroteHeaders: func() { p.stage.Store(underWay) },
	})
}

// never reports whether no byte of the body can have reached a handler.
func (p *reach) never() bool { return p.stage.Load() == connecting }
