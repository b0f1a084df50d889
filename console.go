package greenapi

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/console"
	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/doctor"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

func init() {
	caddy.RegisterModule(Console{})
	httpcaddyfile.RegisterHandlerDirective("green_api_console", parseConsole)
	httpcaddyfile.RegisterDirectiveOrder("green_api_console", httpcaddyfile.After, "forward_auth")
}

// Console serves the operator's page: which instance stands still and why, what arrives, the quarantine, the queue. It
// answers every request that reaches it; without a login, 401.
type Console struct {
	// Who gets in. Required.
	Auth *ConsoleAuth `json:"auth,omitempty"`

	// Names under which the page is asked for, such as `edge.example.com`, or with a port. The header `Host` of a
	// request must be one of them, so that no page of a stranger, whose name points to this machine, can ask in the
	// name of its visitor. Default: the names of the site; `localhost`, `127.0.0.1` and `[::1]` if the site has no
	// name and listens on the loopback only. Otherwise required.
	Hosts []string `json:"hosts,omitempty"`

	// Shows everything, and changes nothing: no replay, no deletion, no export, no order to the queue.
	ReadOnly bool `json:"read_only,omitempty"`

	// Shows no body, and no phone number in full, to anyone.
	BodiesOff bool `json:"bodies_off,omitempty"`

	app    *App
	server *caddyhttp.Server
	token  string
	site   doctor.Site
	page   *atomic.Pointer[console.Console]
	logger *zap.Logger
}

// ConsoleAuth says who gets into the console. One of its fields is set.
type ConsoleAuth struct {
	// What has to be typed into the page, at least 22 characters. Placeholders `{env.*}` and `{file.*}` are
	// resolved at load.
	Token string `json:"token,omitempty"`

	// A placeholder with the name of who is logged in, such as `{http.auth.user.id}` behind `basic_auth` or
	// `forward_auth`. Who has none is answered 403.
	User string `json:"user,omitempty"`

	// Lets everybody in. Every listener of the server must be a unix socket, or on the loopback.
	Off bool `json:"off,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (Console) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.green_api_console",
		New: func() caddy.Module { return new(Console) },
	}
}

// parseConsole sets up a Console from Caddyfile tokens. Syntax:
//
//	green_api_console [<matcher>] {
//	    auth off
//	    auth {
//	        token <token>
//	        user  <placeholder>
//	    }
//	    host <names...>
//	    read_only
//	    bodies off
//	}
func parseConsole(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	d := helper.Dispenser
	d.Next() // green_api_console
	if d.NextArg() {
		return nil, d.Errf("green_api_console takes no argument but a matcher: '%s'; for a path, put it into 'handle_path /console/*'", d.Val())
	}
	c := new(Console)
	err := eachOption(d, "green_api_console", []option{
		{name: "auth", parse: func() error {
			c.Auth = new(ConsoleAuth)
			if d.NextArg() {
				if d.Val() != "off" || d.NextArg() {
					return d.Errf("auth: invalid argument '%s'; want off, or a block", d.Val())
				}
				c.Auth.Off = true
				return nil
			}
			return eachOption(d, "auth", []option{
				{name: "token", parse: func() error { return textArg(d, &c.Auth.Token) }},
				{name: "user", parse: func() error { return textArg(d, &c.Auth.User) }},
			})
		}},
		{name: "host", parse: func() error { return listArgs(d, &c.Hosts) }},
		{name: "read_only", parse: func() error { return flagArg(d, &c.ReadOnly) }},
		{name: "bodies", parse: func() error {
			c.BodiesOff = true
			var off string
			return choiceArg(d, &off, "off")
		}},
	})
	return c, err
}

// Provision checks the settings.
func (c *Console) Provision(ctx caddy.Context) error {
	c.logger = ctx.Logger()
	c.page = new(atomic.Pointer[console.Console])
	c.server, _ = ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if c.server == nil {
		return errors.New("want a place in a server of Caddy's")
	}
	app, err := ctx.App("green_api")
	if err != nil {
		return err
	}
	c.app = app.(*App)
	if err := c.provisionAuth(); err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	c.app.consoles = append(c.app.consoles, c)
	return nil
}

func (c *Console) provisionAuth() (err error) {
	a := c.Auth
	switch {
	case a == nil || a.Token == "" && a.User == "" && !a.Off:
		return errors.New("who may see it? want 'token', 'user', or 'auth off' on a listener that only this machine reaches")
	case a.Token != "" && a.User != "" || a.Off && a.Token+a.User != "":
		return errors.New("want one of 'token', 'user' and off")
	case a.User != "" && !strings.Contains(caddy.NewReplacer().ReplaceKnown(a.User, ""), "{"): // {env.*} is no better
		return fmt.Errorf("user: %q is the same for everybody; want a placeholder such as {http.auth.user.id}", a.User)
	case a.Off:
		if listener := c.publicListener(); listener != "" {
			return fmt.Errorf("off: others than this machine reach %s; want 'bind 127.0.0.1' in the site, or 'token' or 'user'", listener)
		}
	case a.Token != "":
		if c.token, err = resolve(a.Token); err != nil {
			return fmt.Errorf("token: %w", err)
		}
		if len(c.token) < console.MinToken {
			return fmt.Errorf("token: %d characters are too short; want at least %d, such as from 'openssl rand -base64 24'", len(c.token), console.MinToken)
		}
	}
	return nil
}

// publicListener returns a listener of the server that others than this machine reach, "" if there is none.
func (c *Console) publicListener() string {
	for _, listen := range c.server.Listen {
		address, err := caddy.ParseNetworkAddress(listen)
		if err != nil || !address.IsUnixNetwork() && !isLocal(address.Host) {
			return listen
		}
	}
	return ""
}

// open builds the page, once all of the server is known.
func (c *Console) open() error {
	site := doctor.SiteOf(c.server, c)
	hosts := c.Hosts
	if len(hosts) == 0 {
		for _, name := range site.Names {
			if ip, err := netip.ParseAddr(name); err == nil && ip.Is6() {
				name = "[" + name + "]" // as a browser writes it
			}
			hosts = append(hosts, name)
		}
		if site.Any || len(hosts) == 0 {
			if hosts = append(hosts, c.localHosts()...); c.publicListener() != "" || len(hosts) == 0 {
				return errors.New("green_api_console: its site takes any name; want 'host NAME', the name that is typed into the browser")
			}
		}
	}
	options := console.Options{
		API:   api.Handler(c.app.edge),
		Hosts: hosts, Prefix: site.Prefix, ReadOnly: c.ReadOnly, Bodies: !c.BodiesOff,
		Sessions: c.app.operator.sessions,
		Refused:  c.refused, Client: clientOf,
		Door: console.DoorSite, Version: api.Version(),
	}
	switch {
	case c.Auth.Off:
		options.Access = console.Access{Off: true}
	case c.Auth.User != "":
		options.Access = console.Access{User: c.user}
	default:
		options.Access = console.Access{Token: c.token}
	}
	page, err := console.New(options)
	if err != nil {
		return fmt.Errorf("green_api_console: %w", err)
	}
	c.site = site
	c.page.Store(page)
	return nil
}

// localHosts returns what a browser on this machine calls the server.
func (c *Console) localHosts() (hosts []string) {
	for _, listen := range c.server.Listen {
		address, err := caddy.ParseNetworkAddress(listen)
		if err != nil || address.IsUnixNetwork() {
			continue
		}
		for port := address.StartPort; port <= address.EndPort; port++ {
			for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
				hosts = append(hosts, net.JoinHostPort(name, strconv.Itoa(int(port))))
			}
		}
	}
	return hosts
}

// user returns who is logged in, "" if a placeholder is empty: what stands beside it is no name.
func (c *Console) user(r *http.Request) string {
	replacer, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return ""
	}
	name, err := replacer.ReplaceOrErr(c.Auth.User, true, true)
	if err != nil {
		return ""
	}
	return name
}

// clientOf returns the address of who asks, as Caddy has found it.
func clientOf(r *http.Request) string {
	client, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return client
}

// refused tells of a login that failed.
func (c *Console) refused(client string) {
	c.logger.Warn("login to the console refused", zap.String("client_ip", client))
	c.app.operator.desk.Tell(outcome.Note{
		Reason: reason.ConsoleRefused, Kind: notification.KindNone, Level: zap.WarnLevel, More: "From " + client + ".", At: time.Now(),
	})
}

// ServeHTTP serves the page, and what it asks for.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	page := c.page.Load()
	if page == nil { // the server listens, and the app has not started yet
		return caddyhttp.Error(http.StatusServiceUnavailable, errors.New("green_api has not started yet"))
	}
	page.ServeHTTP(w, c.asSent(r))
	return nil
}

// asSent returns a request with the prefix that was taken off, because a cookie is for the path that a browser sees.
func (c *Console) asSent(r *http.Request) *http.Request {
	if c.site.Prefix == "/" {
		return r
	}
	before := strings.TrimSuffix(c.site.Prefix, "/")
	original, _ := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request)
	r = r.Clone(r.Context())
	switch {
	case original.URL != nil && original.URL.Path == before: // without the slash, which Caddy has added
		r.URL.Path, r.URL.RawPath = before, ""
	case r.URL.RawPath != "":
		r.URL.Path, r.URL.RawPath = before+r.URL.Path, before+r.URL.RawPath
	default:
		r.URL.Path = before + r.URL.Path
	}
	return r
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Console)(nil)
	_ caddyhttp.MiddlewareHandler = (*Console)(nil)
)
