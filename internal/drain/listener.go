package drain

import (
	"io"
	"net"
	"sync"
	"time"
)

// quietPeriod is how long Rest waits for a server to come back for its next connection.
const quietPeriod = time.Second

// A listener accepts from Begin to Rest, within the life of another listener. Its socket is one that
// somebody else holds, too: before and after, connections wait in the kernel's queue of that socket for
// the config or the process that accepts next.
type listener struct {
	net.Listener
	again func() (net.Listener, error) // listens on the same socket once more

	begun   chan struct{} // may accept
	resting chan struct{} // must not accept any longer
	quiet   chan struct{} // all that was accepted is known to the server
	closed  chan struct{}

	begin    func()
	beQuiet  func()
	mu       sync.Mutex
	held     io.Closer // what Close closes, nil for nothing
	rests    bool
	isClosed bool
}

// Listen returns a listener on the same socket that accepts nothing before Begin and nothing after Rest.
// The function again listens on that socket once more: in place of the one that Rest closes, so that the
// socket stays in use for as long as the server does.
func (d *Drain) Listen(inner net.Listener, again func() (net.Listener, error)) net.Listener {
	l := &listener{
		Listener: inner, again: again, held: inner,
		begun: make(chan struct{}), resting: make(chan struct{}), quiet: make(chan struct{}), closed: make(chan struct{}),
	}
	l.begin = sync.OnceFunc(func() { close(l.begun) })
	l.beQuiet = sync.OnceFunc(func() { close(l.quiet) })
	d.listeners = append(d.listeners, l)
	return l
}

// Begin lets the listeners accept.
func (d *Drain) Begin() {
	for _, l := range d.listeners {
		l.begin()
	}
}

// Rest lets the listeners accept no more, and reports whether there are any. When it returns, the servers
// know of all connections that were accepted, and Wait can wait for these.
func (d *Drain) Rest() bool {
	for _, l := range d.listeners {
		l.rest()
	}
	d.rests = len(d.listeners) > 0
	late := time.After(quietPeriod) // as when the server has given up to accept
	for _, l := range d.listeners {
		select {
		case <-l.quiet:
		case <-late:
			return true
		}
	}
	return d.rests
}

// Accept waits for a connection. A server that calls it knows of all connections that it returned before.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.begun:
	case <-l.resting:
	case <-l.closed:
	}
	select {
	case <-l.resting:
	case <-l.closed:
	default:
		conn, err := l.Listener.Accept()
		if err == nil || !l.hasEnded() {
			return conn, err
		}
	}
	l.beQuiet()
	<-l.closed
	return nil, net.ErrClosed
}

// hasEnded reports whether an error of Accept is that of a listener that was closed here.
func (l *listener) hasEnded() bool {
	select {
	case <-l.resting:
		return true
	case <-l.closed:
		return true
	default:
		return false
	}
}

// rest ends accepting. Only to close the listener wakes an Accept that waits, without a connection
// that would then have to be served.
func (l *listener) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed || l.rests {
		return
	}
	l.rests, l.held = true, nil
	if another, err := l.again(); err == nil {
		l.held = another
	}
	close(l.resting)
	l.Listener.Close()
}

// Close closes the listener, also while it rests.
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed {
		return net.ErrClosed
	}
	l.isClosed = true
	close(l.closed)
	if l.held == nil {
		return nil
	}
	return l.held.Close()
}
