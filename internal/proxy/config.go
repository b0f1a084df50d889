package proxy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
)

// Defaults of the nested reverse_proxy where Caddy's do not fit.
const (
	defaultFailDuration = 5 * time.Second
	defaultMaxFails     = 3
	defaultDialTimeout  = 2 * time.Second
	defaultTLSTimeout   = 5 * time.Second
	defaultKeepAlive    = 4 * time.Second
)

// maxIdleConns is how many connections to a handler are kept. Caddy keeps 32, and the others of a busy edge would
// be opened and closed for each notification. They do not pile up: the idle time is short.
const maxIdleConns = 10_000

// transportName is the module that stands for Caddy's `http`.
const transportName = "green_api"

// maxAnswerHeader limits the header of a handler's answer, in bytes.
const maxAnswerHeader = 64 << 10

var errOwnLoop = errors.New("lb_retries, lb_try_duration, lb_try_interval and lb_retry_match do not go with green_api, " +
	"which decides itself what is asked again; want none of them")

// notIdempotent returns the header in a form that hides from net/http that the request is idempotent.
// Otherwise net/http would silently send a broken-off request to the same handler again, and if that
// handler had gone by then, it would look as if it had never been reached. Handlers see no difference: the
// name is only in lower case.
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

// Config returns the JSON of rp with our defaults for everything that rp leaves unset. It does not modify
// rp.
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

// transportConfig gives the `http` transport our timeouts for connecting, and an idle timeout that closes
// connections before the handler does: Node closes them after 5 s. Reusing a connection that the handler
// has just closed would use up the second opinion. It also limits the header of an answer. Other transports
// keep their own settings.
func transportConfig(raw json.RawMessage) (json.RawMessage, error) {
	if raw == nil {
		raw = json.RawMessage(`{"protocol": "http"}`)
	}
	var transport map[string]json.RawMessage
	if err := json.Unmarshal(raw, &transport); err != nil {
		return nil, err
	}
	if name := string(transport["protocol"]); name != `"http"` && name != `"`+transportName+`"` {
		return raw, nil
	}
	transport["protocol"] = json.RawMessage(`"` + transportName + `"`)
	fillIn(transport, "dial_timeout", int64(defaultDialTimeout))
	// Only Retry-After is read from it, and Go's own limit is 10 MB per attempt.
	fillIn(transport, "max_response_header_size", maxAnswerHeader)
	if err := fillInside(transport, "keep_alive", "idle_timeout", int64(defaultKeepAlive)); err != nil {
		return nil, err
	}
	if err := fillInside(transport, "keep_alive", "max_idle_conns_per_host", maxIdleConns); err != nil {
		return nil, err
	}
	if tls, set := transport["tls"]; set && string(tls) != "null" { // an empty object turns TLS on
		if err := fillInside(transport, "tls", "handshake_timeout", int64(defaultTLSTimeout)); err != nil {
			return nil, err
		}
	}
	return json.Marshal(transport)
}

// fillIn sets an option unless it is already set.
func fillIn(options map[string]json.RawMessage, name string, value int64) {
	if _, set := options[name]; !set {
		options[name] = strconv.AppendInt(nil, value, 10)
	}
}

// fillInside does the same for an option inside an object, whose other options stay as they are.
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

// RefuseOptions rejects what the stock directive allows but a nested one must not have: a matcher, which
// would silently become an upstream, and a retry loop of its own. It also passes every other option, and words of an
// nginx server line, to refuse.
func RefuseOptions(d *caddyfile.Dispenser, refuse func(option string) error) error {
	d.Next() // reverse_proxy
	for d.NextArg() {
		if arg := d.Val(); strings.Contains(arg, ",") {
			return d.Errf("invalid upstream '%s'; want spaces between upstreams, no commas", arg)
		} else if arg == "*" || strings.HasPrefix(arg, "@") || strings.HasPrefix(arg, "/") {
			return d.Errf("reverse_proxy inside green_api takes no matcher: '%s'; put the matcher on green_api; want upstreams such as 127.0.0.1:9001", arg)
		} else if err := refuse(serverWord(arg)); err != nil {
			return err
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
		args := d.RemainingArgsAsTokens()
		if len(args) == 1 && option == "lb_policy" && (args[0].Text == ByChat || args[0].Text == ByInstance) {
			return d.Errf("unknown lb_policy '%s'; want 'lb_policy green_api %s'", args[0].Text, args[0].Text)
		}
		for _, arg := range args {
			if arg.Quoted() {
				continue
			}
			if found := ofNginx.FindString(arg.Text); found != "" && option == "header_up" {
				return d.Errf("header_up: %s is nginx's; want a placeholder, such as {client_ip}, {host} or {header.X-Name}", found)
			}
			if option == "to" {
				if err := refuse(serverWord(arg.Text)); err != nil {
					return err
				}
			}
		}
		for nesting := d.Nesting(); d.NextBlock(nesting); {
			d.RemainingArgs()
		}
	}
	return nil
}

// ofNginx matches variables of nginx's that stand in a proxy_set_header.
var ofNginx = regexp.MustCompile(`\$(?:remote_addr|realip_remote_addr|proxy_add_x_forwarded_for|proxy_host|host|http_\w+|scheme|request_uri|request_id|uri|server_name|server_port|ssl_\w+)\b`)

// serverWord returns the word of an nginx server line that stands among the upstreams, such as `weight=` of
// `weight=3`, "" if none does.
func serverWord(arg string) string {
	if word, _, found := strings.Cut(arg, "="); found {
		return word + "="
	}
	if arg == "backup" || arg == "down" {
		return arg
	}
	return ""
}

// InOnePiece returns a request that lets net/http see that the notification's body is in memory.
func InOnePiece(r *http.Request) *http.Request {
	t := delivery.TryOf(r.Context())
	if t == nil || r.Body == nil || r.ContentLength != int64(len(t.Case.Body)) {
		return r
	}
	whole := r.WithContext(r.Context()) // a RoundTripper must not modify the request
	whole.Body = io.NopCloser(bytes.NewReader(t.Case.Body))
	whole.Header = notIdempotent(r.Header)
	return whole
}

// What the green_api policy can keep on one upstream.
const (
	ByInstance = "instance"
	ByChat     = "chat"
)
