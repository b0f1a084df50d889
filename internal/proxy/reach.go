package proxy

import (
	"context"
	"net/http/httptrace"
	"sync/atomic"
)

// reach records how far an attempt's request got on its way to a handler. Every transport built on net/http
// or quic-go reports this: `http` in all its versions, in the block's own proxy or in one further down the
// route. If an attempt sends several requests, as with forward_auth, the last one counts.
type reach struct{ stage atomic.Int32 }

const (
	untold     int32 = iota // the transport does not report, or was never reached
	connecting              // resolving, connecting, TLS, a proxy handshake, or waiting for a free connection
	underWay                // the header has been written, the body follows
)

// watch returns a context that traces the requests sent with it.
func (p *reach) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:      func(string) { p.stage.Store(connecting) },
		WroteHeaders: func() { p.stage.Store(underWay) },
	})
}

// never reports whether it is certain that no byte of the body has reached a handler.
func (p *reach) never() bool { return p.stage.Load() == connecting }
