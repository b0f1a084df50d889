package drain

import (
	"io"
	"net"
	"sync"
	"time"
)

// quietPeriod is how long Rest waits for a server to come back for its next connection.
const quietPeriod = time.Second

// A listener accepts from Begin to Rest, within the life of another listener. A supervisor holds its
// socket, too: before and after, connections wait in the kernel's queue of that socket for the config or
// process that accepts next.
type listener struct {
	net.Listener
	again func() (net.Listener, error) // listens on the same socket again

	begun   chan struct{} // closed when it may accept
	resting chan struct{} // closed when it must not accept any longer
	quiet   chan struct{} // closed when the server knows of everything accepted
	closed  chan struct{}

	begin    func()
	beQuiet  func()
	mu       sync.Mutex
	held     io.Closer // what Close closes, nil for nothing
	rests    bool
	isClosed bool
}

// Listen returns a listener on the same socket that accepts nothing before Begin and nothing after Rest.
// again listens on that socket once more, to replace the listener that Rest closes, so that the socket
// stays in use as long as the server does.
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

// Rest stops the listeners from accepting, and reports whether there are any. When it returns, the servers
// know of all accepted connections, and Wait can wait for them.
func (d *Drain) Rest() bool {
	for _, l := range d.listeners {
		l.rest()
	}
	d.rests = len(d.listeners) > 0
	late := time.After(quietPeriod) // for a server that has stopped accepting
	for _, l := range d.listeners {
		select {
		case <-l.quiet:
		case <-late:
			return true
		}
	}
	return d.rests
}

// Accept waits for a connection. Its call shows that the server knows of all connections returned before.
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

// hasEnded reports whether an error of Accept comes from a listener that was closed here.
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

// rest ends accepting. Only closing the listener wakes a waiting Accept without a connection that would
// then have to be served.
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
	_ = l.Listener.Close() // another one holds the socket
}

// Close closes the listener, even while it rests.
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
