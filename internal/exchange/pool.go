package exchange

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// Config is how handlers are connected to.
type Config struct {
	// Dial connects to a handler. Its context is over when the connection must be there.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	TLS        *tls.Config   // nil for none; without a ServerName, the host of the address is used
	TLSTimeout time.Duration // for the handshake; 0 for no limit of its own

	IdleTime  time.Duration // how long a connection is kept unused; it must be shorter than a handler keeps it
	MaxHeader int           // bytes of an answer's header, interim answers included
	NoGzip    bool          // do not ask for a compressed answer
}

// A Pool keeps connections to handlers, by address. Its methods may be called at the same time.
type Pool struct {
	config Config

	buffers sync.Pool // of *bytes.Buffer

	mu     sync.Mutex
	idle   map[address][]*conn // the one that was used last is at the end
	timer  *time.Timer         // closes what was idle for too long; nil while there is none
	closed bool
}

type address struct{ network, address string }

// NewPool returns a pool without connections.
func NewPool(config Config) *Pool {
	if config.TLS != nil {
		config.TLS = config.TLS.Clone()
		config.TLS.DynamicRecordSizingDisabled = true // a request would begin with a record for its header alone
	}
	return &Pool{config: config, idle: make(map[address][]*conn), buffers: sync.Pool{New: func() any { return new(bytes.Buffer) }}}
}

// Close closes the connections that are not in use, and has the others closed after their request.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, conns := range p.idle {
		for _, c := range conns {
			_ = c.Close() // it is idle
		}
	}
	clear(p.idle)
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}

// get returns a connection that was kept and is still open, or else a new one.
func (p *Pool) get(deadline time.Time, network, addr string) (*conn, error) {
	to := address{network, addr}
	for {
		c := p.takeIdle(to)
		if c == nil {
			return p.dial(deadline, to)
		}
		if c.alive() {
			return c, nil
		}
		_ = c.Close()
	}
}

// takeIdle returns the connection that was used last, nil if there is none: the others may then grow old and be
// closed.
func (p *Pool) takeIdle(to address) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	conns := p.idle[to]
	if len(conns) == 0 {
		return nil
	}
	c := conns[len(conns)-1]
	if time.Since(c.since) > p.config.IdleTime {
		return nil // all others are older still; the timer closes them
	}
	conns[len(conns)-1] = nil
	p.idle[to] = conns[:len(conns)-1]
	return c
}

// put keeps a connection.
func (p *Pool) put(c *conn) {
	c.since = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.config.IdleTime <= 0 {
		_ = c.Close()
		return
	}
	p.idle[c.to] = append(p.idle[c.to], c)
	if p.timer == nil {
		p.timer = time.AfterFunc(p.config.IdleTime, p.closeOld)
	}
}

// closeOld closes what was idle for too long, and comes again as long as there is something.
func (p *Pool) closeOld() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	oldest := time.Now()
	for to, conns := range p.idle {
		old := 0
		for old < len(conns) && time.Since(conns[old].since) >= p.config.IdleTime {
			_ = conns[old].Close()
			old++
		}
		if old == len(conns) {
			delete(p.idle, to)
			continue
		}
		p.idle[to] = append(conns[:0], conns[old:]...)
		clear(conns[len(conns)-old:])
		if since := p.idle[to][0].since; since.Before(oldest) {
			oldest = since
		}
	}
	if len(p.idle) == 0 {
		p.timer = nil
		return
	}
	p.timer.Reset(time.Until(oldest.Add(p.config.IdleTime)))
}

// dial connects to a handler.
func (p *Pool) dial(deadline time.Time, to address) (*conn, error) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	plain, err := p.config.Dial(ctx, to.network, to.address)
	if err != nil {
		return nil, err
	}
	if p.config.TLS == nil {
		return newConn(plain, plain, to), nil
	}
	secure, err := p.handshake(ctx, plain, to)
	if err != nil {
		_ = plain.Close()
		return nil, err
	}
	return newConn(secure, plain, to), nil
}

var errHandshake = errors.New("TLS handshake timeout")

func (p *Pool) handshake(ctx context.Context, plain net.Conn, to address) (*tls.Conn, error) {
	config := p.config.TLS
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName = to.address
		if host, _, err := net.SplitHostPort(to.address); err == nil {
			config.ServerName = host
		}
	}
	if p.config.TLSTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, p.config.TLSTimeout, errHandshake)
		defer cancel()
	}
	secure := tls.Client(plain, config)
	err := secure.HandshakeContext(ctx)
	if err != nil && context.Cause(ctx) == errHandshake { //nolint:errorlint // it is the cause as it is
		err = errHandshake
	}
	return secure, err
}

// buffer returns an empty buffer for the header of a request.
func (p *Pool) buffer() *bytes.Buffer { return p.buffers.Get().(*bytes.Buffer) }

// recycle takes a buffer back.
func (p *Pool) recycle(b *bytes.Buffer) {
	const most = 64 << 10
	if b.Cap() <= most {
		b.Reset()
		p.buffers.Put(b)
	}
}
