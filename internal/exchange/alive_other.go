//go:build !unix || aix

package exchange

// CanLook is whether it can be seen that a handler has closed a connection that is kept.
const CanLook = false

// A look has nothing to look with here.
type look struct{}

func (*look) at(any) {}

// alive reports whether a connection that was kept can be used. Here it cannot be looked at, and the idle time must
// do.
func (c *conn) alive() bool { return c.buffered() == 0 }
