package greenapi

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/proxy"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/receiver"
	"github.com/greenapi-community/caddy-green-api/internal/token"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/vendorapi"
)

// Receive fetches the notifications of one instance from GREEN-API's HTTP API, which needs no public
// address. They go through `validate` and `deliver` like posted ones, and are deleted from the instance's
// queue where a posted one would be answered 200.
//
// The instance must have no `webhookUrl` (GREEN-API docs: "HTTP API technology", read 2026-07).
type Receive struct {
	// The instance's ID, `idInstance` in the console.
	Instance string `json:"instance"`

	// The instance's API token, `apiTokenInstance` in the console. Placeholders `{env.*}` and `{file.*}`
	// are resolved at load.
	Token string `json:"token"`

	// The API's address, `apiUrl` in the console. Default: https://api.green-api.com.
	APIURL string `json:"api_url,omitempty"`

	// Path, and query if any, of the request that a handler gets. Default: `/`.
	URI string `json:"uri,omitempty"`

	handler *Handler
	config  *receiver.Config
}

func (c *Receive) provision(ctx caddy.Context, h *Handler) error {
	if !notification.IsInstanceID(c.Instance) {
		return errReceiveID // does not quote the ID: it may be a token in the wrong place
	}
	secret, err := c.resolveToken()
	if err != nil {
		return fmt.Errorf("instance %s: token: %w", c.Instance, err)
	}
	address, api, err := c.resolveAPI()
	if err != nil {
		return fmt.Errorf("instance %s: api_url: %w", c.Instance, err)
	}
	if api.Scheme == "http" && !isLocal(api.Hostname()) {
		ctx.Logger().Warn("api_url is not https, the API's token can be read on the way", zap.String("instance", c.Instance))
	}
	if c.URI == "" {
		c.URI = "/"
	}
	if target, err := url.ParseRequestURI(c.URI); err != nil || target.IsAbs() || !strings.HasPrefix(c.URI, "/") {
		return fmt.Errorf("instance %s: uri: invalid value %q; want a path, such as /green-api/webhook", c.Instance, c.URI)
	}
	said := cmp.Or(c.APIURL, vendorapi.DefaultURL)
	c.handler = h
	c.config = &receiver.Config{
		Block: h.Name, Client: &vendorapi.Client{URL: address, Instance: c.Instance, Token: secret}, APIURL: said, Store: h.app.store,
		Take: func(body []byte) bool { return h.receive(c, body).Status == http.StatusOK },
		Hide: func(err error) error { return hideURL(err, said, address) },
		Log:  h.logger, Tell: h.app.operator.desk.Tell,
	}
	return nil
}

func (c *Receive) resolveToken() (string, error) {
	if token.IsVariable(c.Token) {
		return "", token.ErrDollar
	}
	secret, err := resolve(c.Token)
	if err != nil {
		return "", err
	}
	if strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("/?#%", r) }) {
		return "", errors.New("invalid; want apiTokenInstance as in the console")
	}
	return secret, nil
}

// resolveAPI returns the API's address, both as text and parsed.
func (c *Receive) resolveAPI() (address string, api *url.URL, err error) {
	if address, err = resolve(cmp.Or(c.APIURL, vendorapi.DefaultURL)); err != nil {
		return "", nil, err
	}
	api, err = url.Parse(address)
	if err != nil || api.Host == "" || api.Scheme != "https" && api.Scheme != "http" || api.User != nil || api.RawQuery != "" {
		return "", nil, fmt.Errorf("invalid; want apiUrl as in the console, such as %s", vendorapi.DefaultURL)
	}
	return address, api, nil
}

var errReceiveID = errors.New("the id is not 1 to 20 digits; want an instance and its apiTokenInstance, as in 'receive 1101000001 {env.API_TOKEN}'")

// isLocal reports whether a host is this machine.
func isLocal(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

var errNoProxyToReceive = errors.New("want a reverse_proxy in the same block, which delivers what is received")

// provisionReceive checks what the block receives and registers it with the app: an instance is received in
// only one place.
func (h *Handler) provisionReceive(ctx caddy.Context) error {
	if len(h.Receive) > 0 && h.ReverseProxy == nil {
		return errNoProxyToReceive
	}
	said := make(map[string]bool)
	for _, c := range h.Receive {
		if err := c.provision(ctx, h); err != nil {
			return err
		}
		id := notification.SameInstance(c.Instance)
		if said[id] {
			return fmt.Errorf("instance %s is already specified; want it once", c.Instance)
		}
		said[id] = true
		if other, taken := h.app.receives[id]; taken && other.handler.Name != h.Name {
			return fmt.Errorf("instance %s is received in the green_api blocks %q and %q; want it in one", c.Instance, other.handler.Name, h.Name)
		}
		h.app.receives[id] = c
	}
	return nil
}

// startReceivers starts the receivers of this config. Those already running switch to it.
func (a *App) startReceivers() {
	if a.receiving {
		return
	}
	a.receiving = true
	for _, c := range a.receives {
		receivers.Use(c.config)
	}
}

// stopReceivers releases the receivers. Those that no other config uses end with the notification in hand.
func (a *App) stopReceivers() {
	if !a.receiving {
		return
	}
	a.receiving = false
	for _, c := range a.receives {
		receivers.Drop(c.config)
	}
}

// viaHTTPAPI marks the records of notifications that were received, not posted.
const viaHTTPAPI = "http_api"

// receive takes a notification from the HTTP API through the same steps as a posted one.
func (h *Handler) receive(c *Receive, body []byte) (end *outcome.Verdict) {
	header := http.Header{"Content-Type": {notification.ContentType}}
	v := h.unposted(outcome.Case{Via: viaHTTPAPI, URI: c.URI, Header: header, Body: body})
	v.Body = nil                                         // until a step reads it, which may refuse to
	v.N.Instance = notification.SameInstance(c.Instance) // unless the body names another
	v.Admitted = true                                    // the instance's own token fetched it
	if token := h.Auth.headerFor(v.N.Instance); token != "" {
		v.Header.Set("Authorization", token)
	}
	if h.survive(func() { end = h.walk(v, h.received, noNext) }) {
		end = &outcome.Verdict{Outcome: outcome.Failed, Reason: reason.Panic, Status: http.StatusInternalServerError, Level: zap.ErrorLevel, Err: errGatePanic}
	}
	h.survive(func() { h.record(v, end) }) // a panic here does not undo a delivery
	return end
}

var errGatePanic = errors.New("panic in the gates of green_api")

// noNext is the next handler where there is no route.
var noNext caddyhttp.Handler = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })

// configuredInstances returns the instances that the config names, with tokens of their own or to be
// received.
func (h *Handler) configuredInstances() []string {
	all := h.Auth.configuredInstances()
	for _, c := range h.Receive {
		all = append(all, notification.SameInstance(c.Instance))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// configured reports whether the config names an instance.
func (h *Handler) configured(instance string) bool {
	if h.Auth.configured(instance) {
		return true
	}
	return slices.ContainsFunc(h.Receive, func(c *Receive) bool { return notification.SameInstance(c.Instance) == instance })
}

// unmarshalCaddyfile sets up receiving from Caddyfile tokens. Syntax:
//
//	receive <instance> <token> {
//	    api_url <url>
//	    uri     <path>
//	}
func (c *Receive) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Err("receive: want an instance and its apiTokenInstance") // does not quote the arguments: they may be a token
	}
	if !notification.IsInstanceID(args[0]) {
		return d.Errf("receive: %w", errReceiveID)
	}
	c.Instance, c.Token = args[0], args[1]
	return eachOption(d, "receive", []option{
		{name: "api_url", parse: func() error { return textArg(d, &c.APIURL) }},
		{name: "uri", parse: func() error { return textArg(d, &c.URI) }},
	})
}

// isFor reports whether the block receives notifications of an instance, or lets them in if their token is
// right. A body that names no instance is for any block.
func (h *Handler) isFor(instance string) bool {
	return instance == "" || h.Auth.hasTokenFor(instance) || h.receives(instance)
}

func (h *Handler) receives(instance string) bool {
	return slices.ContainsFunc(h.Receive, func(c *Receive) bool { return notification.SameInstance(c.Instance) == instance })
}

// unposted returns a visit for a notification that nobody posted.
func (h *Handler) unposted(c outcome.Case) *visit {
	c.Kind, c.Started, c.N = notification.KindNone, time.Now(), new(notification.Notification)
	return h.made(c)
}

// made returns a visit with a request that is made for a case. No client can cut it short by hanging up.
func (h *Handler) made(c outcome.Case) *visit {
	v := &visit{Case: c}
	v.of(proxy.NewRequest(&v.Case, h.server))
	v.Host, v.URI = v.r.Host, v.r.RequestURI
	return v
}
