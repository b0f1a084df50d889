package greenapi

import (
	"context"
	"fmt"
	"net"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(ListenerWrapper{})
}

// ListenerWrapper prevents broken connections across restarts and reloads when Caddy listens on a socket
// that a supervisor such as systemd holds (`bind fd/3`). A config that is ending first stops accepting, so
// that new connections wait in the socket for the next config or process. Then each connection ends with
// its next answer, and only then does the server shut down. A config accepts nothing until all of it has
// started. Other listeners are left alone: closing them resets the connections that wait there.
type ListenerWrapper struct {
	ctx caddy.Context
}

// CaddyModule returns the Caddy module information.
func (ListenerWrapper) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.listeners.green_api",
		New: func() caddy.Module { return new(ListenerWrapper) },
	}
}

// Provision keeps the config's context, through which the apps are found once all have been provisioned.
func (w *ListenerWrapper) Provision(ctx caddy.Context) error {
	w.ctx = ctx
	return nil
}

// WrapListener returns a listener that knows when to accept if the socket is a supervisor's, and otherwise
// the listener itself. Without a green_api handler in the config there is nothing to protect.
func (w *ListenerWrapper) WrapListener(listener net.Listener) net.Listener {
	app, err := w.ctx.AppIfConfigured("green_api")
	if err != nil {
		return listener
	}
	address, ok := w.inherited(listener.Addr())
	if !ok {
		return listener
	}
	return app.(*App).drain.Listen(listener, func() (net.Listener, error) { return listen(address) })
}

// inherited returns the address, such as fd/3, at which the config listens on an inherited socket.
func (w *ListenerWrapper) inherited(bound net.Addr) (caddy.NetworkAddress, bool) {
	app, err := w.ctx.AppIfConfigured("http")
	if err != nil {
		return caddy.NetworkAddress{}, false
	}
	for _, server := range app.(*caddyhttp.App).Servers {
		for _, text := range server.Listen {
			address, err := caddy.ParseNetworkAddress(text)
			if err != nil || address.Network != "fd" {
				continue
			}
			another, err := listen(address)
			if err != nil {
				continue
			}
			addr := another.Addr()
			_ = another.Close()
			if addr.Network() == bound.Network() && addr.String() == bound.String() {
				return address, true
			}
		}
	}
	return caddy.NetworkAddress{}, false
}

// listen listens on an existing socket, alongside any other listeners on it.
func listen(address caddy.NetworkAddress) (net.Listener, error) {
	listener, err := address.Listen(context.Background(), 0, net.ListenConfig{})
	if err != nil {
		return nil, err
	}
	if listener, ok := listener.(net.Listener); ok {
		return listener, nil
	}
	return nil, fmt.Errorf("%s: a %T is no listener", address, listener)
}

// UnmarshalCaddyfile sets up the wrapper from Caddyfile tokens. Syntax:
//
//	listener_wrappers {
//	    green_api
//	    tls
//	}
func (w *ListenerWrapper) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // green_api
	name := d.Val()
	if d.NextArg() {
		return d.Errf("%s takes no argument as a listener wrapper", name)
	}
	if d.NextBlock(d.Nesting()) {
		return d.Errf("%s takes no block as a listener wrapper; want the word alone, and 'tls' in the line below", name)
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*ListenerWrapper)(nil)
	_ caddy.ListenerWrapper = (*ListenerWrapper)(nil)
	_ caddyfile.Unmarshaler = (*ListenerWrapper)(nil)
)
