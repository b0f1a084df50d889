package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/exchange"
)

// notDirectly returns why notifications cannot go directly to the upstreams of a reverse_proxy with this
// config, "" if they can. They can if all that is configured is something that the direct way does as well,
// or that has no effect on a notification. What this list does not know, such as an option of a later Caddy,
// is left to Caddy.
func notDirectly(config json.RawMessage) string {
	if !exchange.CanLook {
		return "this system: it cannot be seen whether a handler has closed a connection that is kept"
	}
	if why := policyOfDynamic(config); why != "" {
		return why
	}
	return unknownIn("", config, checks{
		"transport": transportDirectly,
		"load_balancing": within(checks{
			"selection_policy": policyDirectly,
		}),
		"health_checks": within(checks{
			"active": anything, // reverse_proxy does them
			"passive": within(checks{ // it hears of every failure, status and latency that it counts
				"fail_duration": anything, "max_fails": anything,
				"unhealthy_request_count": anything, "unhealthy_status": anything, "unhealthy_latency": anything,
			}),
		}),
		"upstreams":         upstreamsDirectly,
		"dynamic_upstreams": dynamicDirectly,
		"trusted_proxies":   anything,
		"headers": within(checks{
			"request":  operationsDirectly,
			"response": func(string, json.RawMessage) string { return "header_down" },
		}),

		// These are for streams and for answers that go on to a client.
		"flush_interval": anything, "stream_timeout": anything, "stream_buffer_size": anything, "stream_close_delay": anything,
	})
}

// policyOfDynamic: with dynamic upstreams only our policy. Caddy's do not see that such an upstream fails, as
// reverse_proxy alone can tell an Upstream so.
func policyOfDynamic(config json.RawMessage) string {
	var rp struct {
		Dynamic json.RawMessage `json:"dynamic_upstreams"`
		Load    struct {
			Policy struct {
				Name string `json:"policy"`
			} `json:"selection_policy"`
		} `json:"load_balancing"`
	}
	if err := json.Unmarshal(config, &rp); err != nil {
		return err.Error()
	}
	if len(rp.Dynamic) == 0 || isNothing(rp.Dynamic) || rp.Load.Policy.Name == "green_api" {
		return ""
	}
	return "dynamic_upstreams: policy " + rp.Load.Policy.Name
}

// transportDirectly: HTTP/1.1 in plain text, over TCP or a unix socket, or over TLS if nothing else is spoken.
func transportDirectly(name string, config json.RawMessage) string {
	var t struct {
		Protocol string          `json:"protocol"`
		TLS      json.RawMessage `json:"tls"`
		Versions []string        `json:"versions"`
	}
	if err := json.Unmarshal(config, &t); err != nil || t.Protocol != transportName {
		return "transport " + t.Protocol
	}
	secure := len(t.TLS) > 0 && string(t.TLS) != "null"
	switch {
	case slices.Contains(t.Versions, "h2c"), slices.Contains(t.Versions, "3"):
		return name + ": versions"
	case secure && (len(t.Versions) != 1 || t.Versions[0] != "1.1"):
		return name + ": tls, and versions is not 1.1 alone: the handler may speak HTTP/2"
	}
	return unknownIn(name, config, checks{
		"protocol": anything,
		"versions": anything,
		"tls": within(checks{
			"ca": anything, "root_ca_pool": anything, "root_ca_pem_files": anything,
			"client_certificate_file": anything, "client_certificate_key_file": anything, "client_certificate_automate": anything,
			"insecure_skip_verify": anything, "handshake_timeout": anything, "renegotiation": anything, "curves": anything,
			"server_name": withoutPlaceholder,
		}),
		"keep_alive": within(checks{
			"idle_timeout":            isDuration,
			"probe_interval":          anything,
			"max_idle_conns_per_host": isManyConns,
		}),
		"dial_timeout": anything, "dial_fallback_delay": anything, "resolver": anything, "local_address": anything,
		"max_response_header_size": isSize,
		"compression":              anything,

		// The body is in memory, and an Expect has been answered.
		"write_buffer_size": anything, "read_buffer_size": anything, "expect_continue_timeout": anything,
	})
}

// policyDirectly: ours, and those of Caddy's that do not count the requests that reverse_proxy has in flight.
// A count of Caddy's is not to be had for others.
func policyDirectly(name string, config json.RawMessage) string {
	var p struct {
		Policy   string          `json:"policy"`
		Fallback json.RawMessage `json:"fallback"`
	}
	if err := json.Unmarshal(config, &p); err != nil {
		return name
	}
	switch p.Policy {
	case "green_api", "random", "round_robin", "weighted_round_robin", "first", "ip_hash", "client_ip_hash", "uri_hash":
		return ""
	case "query", "header", "cookie":
		if p.Fallback == nil {
			return ""
		}
		return policyDirectly(name+": "+p.Policy+": fallback", p.Fallback)
	}
	return "policy " + p.Policy
}

// operationsDirectly: all but those of fields that say how reverse_proxy is to pass a request on.
func operationsDirectly(name string, config json.RawMessage) string {
	return unknownIn(name, config, checks{"add": fieldsDirectly, "set": fieldsDirectly, "replace": fieldsDirectly, "delete": anything})
}

func fieldsDirectly(name string, config json.RawMessage) string {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(config, &fields); err != nil {
		return name
	}
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		canonical := http.CanonicalHeaderKey(field)
		switch {
		case strings.Contains(field, "{"):
			return name + ": a placeholder in a name"
		case canonical == "Upgrade", canonical == "Incremental":
			return name + ": " + canonical
		}
	}
	return ""
}

// upstreamsDirectly: those whose address is known at load, and to which no proxy of the environment leads.
func upstreamsDirectly(name string, config json.RawMessage) string {
	var upstreams []json.RawMessage
	if err := json.Unmarshal(config, &upstreams); err != nil {
		return name
	}
	for _, text := range upstreams {
		if why := unknownIn(name, text, checks{"dial": anything, "max_requests": anything}); why != "" {
			return why
		}
		var up struct {
			Dial string `json:"dial"`
		}
		if err := json.Unmarshal(text, &up); err != nil {
			return name
		}
		if strings.Contains(up.Dial, "{") {
			return name + ": a placeholder in the address"
		}
		addr, err := caddy.ParseNetworkAddress(up.Dial)
		if err != nil || addr.PortRangeSize() != 1 {
			return name + ": address"
		}
		switch addr.Network {
		case "tcp", "tcp4", "tcp6":
			if isProxied(addr.JoinHostPort(0)) {
				return errProxied
			}
		case "unix":
		default:
			return name + ": network " + addr.Network
		}
	}
	return ""
}

// isProxied reports whether the environment names a proxy that leads to an address, for HTTP or HTTPS.
func isProxied(address string) bool {
	for _, scheme := range []string{"http", "https"} {
		r := &http.Request{URL: &url.URL{Scheme: scheme, Host: address}}
		if proxy, err := http.ProxyFromEnvironment(r); proxy != nil || err != nil {
			return true
		}
	}
	return false
}

// dynamicDirectly: any source. Where the environment names a proxy, it may lead to any address.
func dynamicDirectly(string, json.RawMessage) string {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		if os.Getenv(name) != "" {
			return errProxied
		}
	}
	return ""
}

const errProxied = "the environment names a proxy"

// A check returns what speaks against a value, "" if nothing does. name is for that.
type check func(name string, value json.RawMessage) string

type checks map[string]check

// unknownIn returns what speaks against one of an object's values.
func unknownIn(name string, object json.RawMessage, known checks) string {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(object, &values); err != nil {
		return name
	}
	if name != "" {
		name += ": "
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		value := values[key]
		if isNothing(value) {
			continue
		}
		check := known[key]
		if check == nil {
			return name + key
		}
		if why := check(name+key, value); why != "" {
			return why
		}
	}
	return ""
}

func within(known checks) check {
	return func(name string, value json.RawMessage) string { return unknownIn(name, value, known) }
}

func isNothing(value json.RawMessage) bool {
	return slices.ContainsFunc([]string{"null", "{}", "[]", `""`}, func(s string) bool { return bytes.Equal(value, []byte(s)) })
}

func anything(string, json.RawMessage) string { return "" }

func withoutPlaceholder(name string, value json.RawMessage) string {
	if bytes.Contains(value, []byte("{")) {
		return name + ": a placeholder"
	}
	return ""
}

// isDuration: above 0, as 0 and less have another meaning to net/http.
func isDuration(name string, value json.RawMessage) string {
	var d caddy.Duration
	if err := json.Unmarshal(value, &d); err != nil || d <= 0 {
		return fmt.Sprintf("%s: %s", name, value)
	}
	return ""
}

// isSize: of 0 bytes means net/http's own limit.
func isSize(name string, value json.RawMessage) string {
	var n int64
	if err := json.Unmarshal(value, &n); err != nil || n < 0 {
		return fmt.Sprintf("%s: %s", name, value)
	}
	return ""
}

// isManyConns: the direct way keeps as many connections as were in use at once.
func isManyConns(name string, value json.RawMessage) string {
	var n int
	if err := json.Unmarshal(value, &n); err != nil || n < maxIdleConns {
		return fmt.Sprintf("%s: %s", name, value)
	}
	return ""
}
