package proxy

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// optionRows are options of reverse_proxy, as a path into its JSON, with values and why notifications cannot go
// directly with them. "" means that they can.
var optionRows = []struct{ path, value, why string }{
	{"transport", `{"protocol": "green_api"}`, ""},
	{"transport", `{"protocol": "fastcgi", "root": "/srv"}`, "transport fastcgi"},
	{"transport", `{"protocol": "http"}`, "transport http"}, // Config has made it ours
	{"circuit_breaker", `{"type": "x"}`, "circuit_breaker"},
	{"load_balancing", `{}`, ""},
	{"health_checks", `{"passive": {}}`, ""},
	{"upstreams", `[{"dial": "127.0.0.1:9001"}, {"dial": "localhost:9002"}, {"dial": "[::1]:9003"}, {"dial": "tcp4/127.0.0.1:1"}, {"dial": "unix//run/h.sock"}]`, ""},
	{"upstreams", `[{"dial": "{http.request.header.X}:80"}]`, "upstreams: a placeholder in the address"},
	{"upstreams", `[{"dial": "127.0.0.1:9001-9002"}]`, "upstreams: address"},
	{"upstreams", `[{"dial": "127.0.0.1:9001"}, {"dial": "127.0.0.1:9002", "brand_new": 1}]`, "upstreams: brand_new"},
	{"upstreams", `[{"dial": "udp/127.0.0.1:443"}]`, "upstreams: network udp"},
	{"upstreams", `{}`, ""},
	{"upstreams", `"x"`, "upstreams"},
	{"dynamic_upstreams", `{"source": "a", "name": "x", "port": "1"}`, ""},
	{"dynamic_upstreams", `{"source": "srv", "name": "{http.request.header.X}"}`, ""},
	{"flush_interval", `-1`, ""},
	{"trusted_proxies", `["10.0.0.0/8", "::1"]`, ""},
	{"headers", `{}`, ""},
	{"request_buffers", `4096`, "request_buffers"},
	{"response_buffers", `-1`, "response_buffers"},
	{"proxy_status_name", `"edge"`, "proxy_status_name"},
	{"stream_timeout", `1000`, ""},
	{"stream_buffer_size", `1000`, ""},
	{"stream_close_delay", `1000`, ""},
	{"rewrite", `{"method": "PUT"}`, "rewrite"},
	{"handle_response", `[{"status_code": 200}]`, "handle_response"},
	{"verbose_logs", `true`, "verbose_logs"},
	{"brand_new", `1`, "brand_new"},
	{"brand_new", `null`, ""},
	{"brand_new", `{}`, ""},

	{"load_balancing.selection_policy", `{"policy": "green_api", "by": "chat"}`, ""},
	{"load_balancing.retries", `1`, "load_balancing: retries"},
	{"load_balancing.try_duration", `1`, "load_balancing: try_duration"},
	{"load_balancing.try_interval", `1`, "load_balancing: try_interval"},
	{"load_balancing.retry_match", `[{"method": ["POST"]}]`, "load_balancing: retry_match"},

	{"health_checks.active", `{"uri": "/health", "headers": {"Host": ["x"]}}`, ""},
	{"health_checks.passive", `{}`, ""},
	{"health_checks.brand_new", `1`, "health_checks: brand_new"},
	{"health_checks.passive.fail_duration", `1`, ""},
	{"health_checks.passive.max_fails", `1`, ""},
	{"health_checks.passive.unhealthy_request_count", `1`, ""},
	{"health_checks.passive.unhealthy_status", `[5, 429]`, ""},
	{"health_checks.passive.unhealthy_latency", `1`, ""},
	{"health_checks.passive.brand_new", `1`, "health_checks: passive: brand_new"},

	{"headers.request", `{}`, ""},
	{"headers.response", `{"set": {"X": ["1"]}}`, "header_down"},
	{"headers.request.add", `{"X-A": ["{http.request.uuid}"]}`, ""},
	{"headers.request.set", `{"Host": ["x"], "Connection": ["close"]}`, ""},
	{"headers.request.set", `{"upgrade": ["websocket"]}`, "headers: request: set: Upgrade"},
	{"headers.request.add", `{"Incremental": ["?1"]}`, "headers: request: add: Incremental"},
	{"headers.request.set", `{"{http.request.header.X}": ["1"]}`, "headers: request: set: a placeholder in a name"},
	{"headers.request.delete", `["X-A", "*", "Upgrade"]`, ""},
	{"headers.request.replace", `{"X-A": [{"search_regexp": "a", "replace": "b"}]}`, ""},
	{"headers.request.replace", `{"Upgrade": [{"search": "a", "replace": "b"}]}`, "headers: request: replace: Upgrade"},
	{"headers.request.brand_new", `1`, "headers: request: brand_new"},

	{"transport.resolver", `{"addresses": ["127.0.0.1:53"]}`, ""},
	{"transport.tls", `{"insecure_skip_verify": true}`, ""},
	{"transport.tls", `{}`, ""},
	{"transport.keep_alive", `{}`, ""},
	{"transport.compression", `false`, ""},
	{"transport.max_conns_per_host", `1`, "transport: max_conns_per_host"},
	{"transport.proxy_protocol", `"v2"`, "transport: proxy_protocol"},
	{"transport.forward_proxy_url", `"http://x"`, "transport: forward_proxy_url"},
	{"transport.dial_timeout", `1`, ""},
	{"transport.dial_fallback_delay", `-1`, ""},
	{"transport.response_header_timeout", `1`, "transport: response_header_timeout"},
	{"transport.expect_continue_timeout", `1`, ""},
	{"transport.max_response_header_size", `1`, ""},
	{"transport.max_response_header_size", `-1`, "transport: max_response_header_size: -1"},
	{"transport.max_response_header_size", `0`, ""},
	{"transport.write_buffer_size", `1`, ""},
	{"transport.read_buffer_size", `1`, ""},
	{"transport.read_timeout", `1`, "transport: read_timeout"},
	{"transport.write_timeout", `1`, "transport: write_timeout"},
	{"transport.versions", `["1.1"]`, ""},
	{"transport.versions", `["1.1", "2"]`, ""}, // in plain text, that is 1.1
	{"transport.versions", `["h2c", "2"]`, "transport: versions"},
	{"transport.versions", `["3"]`, "transport: versions"},
	{"transport.local_address", `"127.0.0.2"`, ""},
	{"transport.network_proxy", `{"from": "none"}`, "transport: network_proxy"},
	{"transport.brand_new", `1`, "transport: brand_new"},

	{"transport.tls.ca", `{"provider": "inline"}`, ""},
	{"transport.tls.root_ca_pool", `["x"]`, ""},
	{"transport.tls.root_ca_pem_files", `["x"]`, ""},
	{"transport.tls.client_certificate_file", `"x"`, ""},
	{"transport.tls.client_certificate_key_file", `"x"`, ""},
	{"transport.tls.client_certificate_automate", `"x"`, ""},
	{"transport.tls.insecure_skip_verify", `true`, ""},
	{"transport.tls.handshake_timeout", `1`, ""},
	{"transport.tls.server_name", `"example.com"`, ""},
	{"transport.tls.server_name", `"{http.request.host}"`, "transport: tls: server_name: a placeholder"},
	{"transport.tls.renegotiation", `"once"`, ""},
	{"transport.tls.except_ports", `["80"]`, "transport: tls: except_ports"},
	{"transport.tls.curves", `["x25519"]`, ""},
	{"transport.tls.brand_new", `1`, "transport: tls: brand_new"},

	{"transport.keep_alive.enabled", `false`, "transport: keep_alive: enabled"},
	{"transport.keep_alive.probe_interval", `1`, ""},
	{"transport.keep_alive.max_idle_conns", `1`, "transport: keep_alive: max_idle_conns"},
	{"transport.keep_alive.max_idle_conns_per_host", `20000`, ""},
	{"transport.keep_alive.max_idle_conns_per_host", `32`, "transport: keep_alive: max_idle_conns_per_host: 32"},
	{"transport.keep_alive.idle_timeout", `1`, ""},
	{"transport.keep_alive.idle_timeout", `-1`, "transport: keep_alive: idle_timeout: -1"},
	{"transport.keep_alive.idle_timeout", `"-1s"`, `transport: keep_alive: idle_timeout: "-1s"`},
	{"transport.keep_alive.brand_new", `1`, "transport: keep_alive: brand_new"},
}

// policyRows are the policies, and why notifications cannot go directly with them.
var policyRows = map[string]string{
	`{"policy": "green_api"}`:                                    "",
	`{"policy": "random"}`:                                       "",
	`{"policy": "round_robin"}`:                                  "",
	`{"policy": "weighted_round_robin"}`:                         "",
	`{"policy": "first"}`:                                        "",
	`{"policy": "ip_hash"}`:                                      "",
	`{"policy": "client_ip_hash"}`:                               "",
	`{"policy": "uri_hash"}`:                                     "",
	`{"policy": "query"}`:                                        "",
	`{"policy": "header"}`:                                       "",
	`{"policy": "cookie"}`:                                       "",
	`{"policy": "least_conn"}`:                                   "policy least_conn",
	`{"policy": "random_choose"}`:                                "policy random_choose",
	`{"policy": "somebody_elses"}`:                               "policy somebody_elses",
	`{"policy": "query", "fallback": {"policy": "first"}}`:       "",
	`{"policy": "cookie", "fallback": {"policy": "least_conn"}}`: "policy least_conn",
	`{"policy": "header", "fallback": {"policy": "header", "fallback": {"policy": "random_choose"}}}`: "policy random_choose",
}

// defaults returns the config of a reverse_proxy in which nothing is set but an upstream.
func defaults(t *testing.T) map[string]any {
	t.Helper()
	text, err := Config(&reverseproxy.Handler{Upstreams: reverseproxy.UpstreamPool{{Dial: "127.0.0.1:9001"}}})
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	return config
}

// set sets an option by its path.
func set(config map[string]any, path string, value json.RawMessage) {
	name, rest, inside := strings.Cut(path, ".")
	if !inside {
		config[name] = value
		return
	}
	object, _ := config[name].(map[string]any)
	if object == nil {
		object = make(map[string]any)
		config[name] = object
	}
	set(object, rest, value)
}

func whyNot(t *testing.T, config map[string]any) string {
	t.Helper()
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return notDirectly(text)
}

// TestNotDirectly: each option of reverse_proxy leaves the direct way open, or closes it.
func TestNotDirectly(t *testing.T) {
	if why := whyNot(t, defaults(t)); why != "" {
		t.Fatalf("the defaults: %s", why)
	}
	for _, row := range optionRows {
		config := defaults(t)
		if strings.HasPrefix(row.path, "transport.tls") {
			set(config, "transport.versions", json.RawMessage(`["1.1"]`))
		}
		set(config, row.path, json.RawMessage(row.value))
		if why := whyNot(t, config); why != row.why {
			t.Errorf("%s %s: %q, want %q", row.path, row.value, why, row.why)
		}
	}
	for policy, want := range policyRows {
		config := defaults(t)
		set(config, "load_balancing.selection_policy", json.RawMessage(policy))
		if why := whyNot(t, config); why != want {
			t.Errorf("%s: %q, want %q", policy, why, want)
		}
	}
	for _, versions := range []string{`null`, `["1.1", "2"]`, `["2"]`} {
		config := defaults(t)
		set(config, "transport.tls", json.RawMessage(`{}`))
		set(config, "transport.versions", json.RawMessage(versions))
		if why := whyNot(t, config); !strings.HasPrefix(why, "transport: tls, and versions") {
			t.Errorf("TLS, versions %s: %q", versions, why)
		}
	}
	t.Setenv("HTTPS_PROXY", "http://proxy.test")
	config := defaults(t)
	set(config, "dynamic_upstreams", json.RawMessage(`{"source": "a"}`))
	if why := whyNot(t, config); why != errProxied {
		t.Errorf("dynamic upstreams behind a proxy: %q", why)
	}
}

// TestStaticBehindProxy runs in a process of its own, as net/http reads the environment once.
func TestStaticBehindProxy(t *testing.T) {
	const scheme = "HTTPS_PROXY"
	if os.Getenv(scheme) == "" {
		self := exec.Command(os.Args[0], "-test.run=^TestStaticBehindProxy$", "-test.v")
		self.Env = append(os.Environ(), scheme+"=http://proxy.test", "NO_PROXY=inside.test")
		if out, err := self.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	for dial, want := range map[string]string{"handler.test:443": errProxied, "inside.test:443": "", "127.0.0.1:443": "", "unix//run/h.sock": ""} {
		config := defaults(t)
		set(config, "upstreams", json.RawMessage(`[{"dial": "`+dial+`"}]`))
		if why := whyNot(t, config); why != want {
			t.Errorf("%s: %q, want %q", dial, why, want)
		}
	}
}

// TestPolicyOfDynamic: with dynamic upstreams, only our policy goes directly.
func TestPolicyOfDynamic(t *testing.T) {
	for policy, want := range map[string]string{`{"policy": "green_api"}`: "", `{"policy": "first"}`: "dynamic_upstreams: policy first"} {
		config := defaults(t)
		set(config, "dynamic_upstreams", json.RawMessage(`{"source": "a"}`))
		set(config, "load_balancing.selection_policy", json.RawMessage(policy))
		if why := whyNot(t, config); why != want {
			t.Errorf("%s: %q, want %q", policy, why, want)
		}
	}
}

// TestEveryOption: a row says of each option that this Caddy has which way notifications go with it. An option that a
// later Caddy adds needs one.
func TestEveryOption(t *testing.T) {
	for path, object := range map[string]any{
		"":                       reverseproxy.Handler{},
		"load_balancing.":        reverseproxy.LoadBalancing{},
		"health_checks.":         reverseproxy.HealthChecks{},
		"health_checks.passive.": reverseproxy.PassiveHealthChecks{},
		"headers.":               headers.Handler{},
		"headers.request.":       headers.HeaderOps{},
		"transport.":             reverseproxy.HTTPTransport{},
		"transport.tls.":         reverseproxy.TLSConfig{},
		"transport.keep_alive.":  reverseproxy.KeepAlive{},
	} {
		for _, name := range namesOf(reflect.TypeOf(object)) {
			if !slices.ContainsFunc(optionRows, func(row struct{ path, value, why string }) bool { return row.path == path+name }) {
				t.Errorf("no row about %s%s", path, name)
			}
		}
	}
	if got, want := namesOf(reflect.TypeFor[reverseproxy.Upstream]()), []string{"dial", "max_requests"}; !slices.Equal(got, want) {
		t.Errorf("an upstream has %q, want %q: does the direct way know them all?", got, want)
	}
	policies := 0
	for _, module := range caddy.GetModules("http.reverse_proxy.selection_policies") {
		policies++
		if _, there := policyRows[`{"policy": "`+module.ID.Name()+`"}`]; !there {
			t.Errorf("no row about the policy %s", module.ID.Name())
		}
	}
	if policies < 10 {
		t.Errorf("%d policies", policies)
	}
}

// namesOf returns the names of a struct's fields in JSON.
func namesOf(of reflect.Type) (names []string) {
	for field := range of.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name != "" && name != "-" {
			names = append(names, name)
		}
	}
	return names
}
