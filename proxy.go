package greenapi

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
)

func init() {
	caddy.RegisterModule(wholeBody{})
}

// Defaults of the nested reverse_proxy, where Caddy's own do not fit.
const (
	defaultFailDuration = 5 * time.Second
	defaultMaxFails     = 3
	defaultDialTimeout  = 2 * time.Second
	defaultTLSTimeout   = 5 * time.Second
	defaultKeepAlive    = 4 * time.Second
)

// maxAnswerHeader is how long the header of a handler's answer may be, in bytes.
const maxAnswerHeader = 64 << 10

var errOwnLoop = errors.New("lb_retries, lb_try_duration, lb_try_interval and lb_retry_match do not go with green_api, " +
	"which decides itself what is asked again; want none of them")

var errNoUpstream = errors.New("no upstream; want one or more, such as 127.0.0.1:9001, or 'dynamic'")

// provisionProxy loads the nested reverse_proxy with our defaults. It is loaded as a module of its
// own, so that Caddy gives it its logger and cleans it up.
func (h *Handler) provisionProxy(ctx caddy.Context) error {
	if h.ReverseProxy == nil {
		return nil
	}
	config, err := proxyConfig(h.ReverseProxy)
	if err != nil {
		return err
	}
	proxy, err := ctx.LoadModuleByID("http.handlers.reverse_proxy", config)
	if err != nil {
		return err
	}
	rp := proxy.(*reverseproxy.Handler)
	if len(rp.Upstreams) == 0 && rp.DynamicUpstreams == nil {
		return errNoUpstream
	}
	if _, ours := rp.LoadBalancing.SelectionPolicy.(*Affinity); !ours {
		rp.LoadBalancing.SelectionPolicy = askedOnce{rp.LoadBalancing.SelectionPolicy}
	}
	h.proxy = rp
	return nil
}

// wholeBody is the transport `http`, which is shown that a notification's body is in memory: net/http
// then writes it together with the header. Behind the wrappers of reverse_proxy it cannot see that,
// and writes the header first, in case that the body is long in coming. It is a module for Caddy to
// load: active health checks begin to use a transport as soon as it is loaded.
type wholeBody struct{ reverseproxy.HTTPTransport }

// CaddyModule returns the Caddy module information.
func (wholeBody) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.reverse_proxy.transport.green_api", New: func() caddy.Module { return new(wholeBody) }}
}

// RoundTrip sends a notification.
func (t *wholeBody) RoundTrip(r *http.Request) (*http.Response, error) {
	a := delivery.TryOf(r.Context())
	if a == nil || r.Body == nil || r.ContentLength != int64(len(a.Case.Body)) {
		return t.HTTPTransport.RoundTrip(r)
	}
	whole := r.WithContext(r.Context()) // a RoundTripper must not change the request
	whole.Body = io.NopCloser(bytes.NewReader(a.Case.Body))
	whole.Header = notIdempotent(r.Header)
	return t.HTTPTransport.RoundTrip(whole)
}

// notIdempotent is a header by which net/http does not see that a request could be sent again. It would do
// that by itself, unseen and to the same handler, when one breaks off; and if that is gone by then, it
// would look as if it had never been reached. A name in lower case is the same to a handler.
func notIdempotent(header http.Header) http.Header {
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values, there := header[name]; there {
			header = header.Clone()
			delete(header, name)
			header[strings.ToLower(name)] = values
		}
	}
	return header
}

// proxyConfig is the JSON of rp with our defaults where rp says nothing. rp stays as the user wrote
// it.
func proxyConfig(rp *reverseproxy.Handler) (json.RawMessage, error) {
	text, err := json.Marshal(rp)
	if err != nil {
		return nil, err
	}
	rp = new(reverseproxy.Handler)
	if err := json.Unmarshal(text, rp); err != nil {
		return nil, err
	}

	if rp.LoadBalancing == nil {
		rp.LoadBalancing = new(reverseproxy.LoadBalancing)
	}
	lb := rp.LoadBalancing
	if lb.Retries != 0 || lb.TryDuration != 0 || lb.TryInterval != 0 || len(lb.RetryMatchRaw) > 0 {
		return nil, errOwnLoop
	}
	if lb.SelectionPolicyRaw == nil {
		lb.SelectionPolicyRaw = json.RawMessage(`{"policy": "green_api"}`)
	}

	if rp.HealthChecks == nil {
		rp.HealthChecks = new(reverseproxy.HealthChecks)
	}
	if rp.HealthChecks.Passive == nil {
		rp.HealthChecks.Passive = new(reverseproxy.PassiveHealthChecks)
	}
	passive := rp.HealthChecks.Passive
	passive.FailDuration = cmp.Or(passive.FailDuration, caddy.Duration(defaultFailDuration))
	passive.MaxFails = cmp.Or(passive.MaxFails, defaultMaxFails)

	if rp.TransportRaw, err = transportConfig(rp.TransportRaw); err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	return json.Marshal(rp)
}

// transportConfig gives the transport `http` our time-outs for connecting, and closes connections before
// a handler does: 5 s of rest are too long for Node's. To meet a closed one would cost a second opinion.
// The header of an answer is bounded. Other transports keep their own.
func transportConfig(raw json.RawMessage) (json.RawMessage, error) {
	if raw == nil {
		raw = json.RawMessage(`{"protocol": "http"}`)
	}
	var transport map[string]json.RawMessage
	if err := json.Unmarshal(raw, &transport); err != nil {
		return nil, err
	}
	if !bytes.Equal(transport["protocol"], []byte(`"http"`)) {
		return raw, nil
	}
	transport["protocol"] = json.RawMessage(`"green_api"`)
	fillIn(transport, "dial_timeout", int64(defaultDialTimeout))
	// Nothing of it is used but Retry-After, and Go's own limit is 10 MB an attempt.
	fillIn(transport, "max_response_header_size", maxAnswerHeader)
	if err := fillInside(transport, "keep_alive", "idle_timeout", int64(defaultKeepAlive)); err != nil {
		return nil, err
	}
	if tls, set := transport["tls"]; set && string(tls) != "null" { // an empty one turns TLS on
		if err := fillInside(transport, "tls", "handshake_timeout", int64(defaultTLSTimeout)); err != nil {
			return nil, err
		}
	}
	return json.Marshal(transport)
}

// fillIn sets an option that is not set.
func fillIn(options map[string]json.RawMessage, name string, value int64) {
	if _, set := options[name]; !set {
		options[name] = strconv.AppendInt(nil, value, 10)
	}
}

// fillInside sets an option inside an object, and leaves the object's others as they are.
func fillInside(options map[string]json.RawMessage, object, name string, value int64) error {
	inside := make(map[string]json.RawMessage)
	if raw, set := options[object]; set {
		if err := json.Unmarshal(raw, &inside); err != nil {
			return fmt.Errorf("%s: %w", object, err)
		}
	}
	if inside == nil { // null
		inside = make(map[string]json.RawMessage)
	}
	fillIn(inside, name, value)
	text, err := json.Marshal(inside)
	options[object] = text
	return err
}

// unmarshalProxy parses the nested reverse_proxy with Caddy's own parser.
func unmarshalProxy(h httpcaddyfile.Helper, segment *caddyfile.Dispenser) (*reverseproxy.Handler, error) {
	if err := refuseInProxy(segment); err != nil {
		return nil, err
	}
	segment.Reset()
	rp := new(reverseproxy.Handler)
	if err := rp.UnmarshalCaddyfile(segment); err != nil {
		return nil, err
	}
	return rp, rp.FinalizeUnmarshalCaddyfile(h)
}

// refuseInProxy looks for what the stock directive knows and a nested one must not have: a matcher,
// which would silently become an upstream, and a loop of retries beside ours.
func refuseInProxy(d *caddyfile.Dispenser) error {
	d.Next() // reverse_proxy
	for d.NextArg() {
		if arg := d.Val(); strings.Contains(arg, ",") {
			return d.Errf("invalid upstream '%s'; want spaces between upstreams, no commas", arg)
		} else if arg == "*" || strings.HasPrefix(arg, "@") || strings.HasPrefix(arg, "/") {
			return d.Errf("reverse_proxy inside green_api takes no matcher: '%s'; put the matcher on green_api; want upstreams such as 127.0.0.1:9001", arg)
		}
	}
	for d.NextBlock(0) {
		option := d.Val()
		switch option {
		case "lb_retries", "lb_try_duration", "lb_try_interval", "lb_retry_match":
			return d.Errf("reverse_proxy inside green_api takes no '%s': green_api decides itself what is asked again", option)
		}
		if args := d.RemainingArgs(); len(args) == 1 && option == "lb_policy" && (args[0] == affinityChat || args[0] == affinityInstance) {
			return d.Errf("unknown lb_policy '%s'; want 'lb_policy green_api %s'", args[0], args[0])
		}
		for nesting := d.Nesting(); d.NextBlock(nesting); {
			d.RemainingArgs()
		}
	}
	return nil
}
