package proxy

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
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
)

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

// Config is the JSON of rp with our defaults where rp says nothing. rp stays as the user wrote
// it.
func Config(rp *reverseproxy.Handler) (json.RawMessage, error) {
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

// RefuseOptions looks for what the stock directive knows and a nested one must not have: a matcher,
// which would silently become an upstream, and a loop of retries beside ours. refuse is asked about every
// other option, too.
func RefuseOptions(d *caddyfile.Dispenser, refuse func(option string) error) error {
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
		if err := refuse(option); err != nil {
			return err
		}
		if args := d.RemainingArgs(); len(args) == 1 && option == "lb_policy" && (args[0] == ByChat || args[0] == ByInstance) {
			return d.Errf("unknown lb_policy '%s'; want 'lb_policy green_api %s'", args[0], args[0])
		}
		for nesting := d.Nesting(); d.NextBlock(nesting); {
			d.RemainingArgs()
		}
	}
	return nil
}

// InOnePiece returns a request that shows net/http that the body of a notification is in memory.
func InOnePiece(r *http.Request) *http.Request {
	t := delivery.TryOf(r.Context())
	if t == nil || r.Body == nil || r.ContentLength != int64(len(t.Case.Body)) {
		return r
	}
	whole := r.WithContext(r.Context()) // a RoundTripper must not change the request
	whole.Body = io.NopCloser(bytes.NewReader(t.Case.Body))
	whole.Header = notIdempotent(r.Header)
	return whole
}

// What the policy green_api keeps together.
const (
	ByInstance = "instance"
	ByChat     = "chat"
)
