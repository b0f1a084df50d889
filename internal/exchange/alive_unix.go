//go:build unix && !aix

package exchange

import "syscall"

// CanLook is whether it can be seen that a handler has closed a connection that is kept.
const CanLook = true

// A look is what is needed to look at a connection that was kept. It is made once a connection: each look would
// allocate it anew.
type look struct {
	raw   syscall.RawConn // nil if the connection has none
	peek  func(fd uintptr)
	quiet bool
}

func (l *look) at(plain any) {
	socket, ok := plain.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	l.raw = raw
	var one [1]byte
	l.peek = func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		l.quiet = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
	}
}

// alive reports whether a connection that was kept can be used: the handler has neither closed it nor said anything
// that nobody asked for. What it does a moment later is not known, of course.
func (c *conn) alive() bool {
	if c.buffered() > 0 {
		return false
	}
	if c.look.raw == nil {
		return true
	}
	c.look.quiet = false
	return c.look.raw.Control(c.look.peek) == nil && c.look.quiet
}
