package greenapi

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/proxy"
)

// TestProxyConfig compares what a user writes as reverse_proxy with what is loaded.
func TestProxyConfig(t *testing.T) {
	const (
		policy    = `"load_balancing": {"selection_policy": {"policy": "green_api"}}`
		checks    = `"health_checks": {"passive": {"fail_duration": 5000000000, "max_fails": 3}}`
		keep      = `"keep_alive": {"idle_timeout": 4000000000, "max_idle_conns_per_host": 10000}, "max_response_header_size": 65536`
		transport = `"transport": {"protocol": "green_api", "dial_timeout": 2000000000,` + keep + `}`
		upstreams = `"upstreams": [{"dial": "127.0.0.1:9001", "max_requests": 10}]`
	)
	for _, test := range []struct{ name, config, want string }{
		{"nothing", `{}`, `{` + policy + `,` + checks + `,` + transport + `}`},
		{"upstreams", `{` + upstreams + `}`, `{` + upstreams + `,` + policy + `,` + checks + `,` + transport + `}`},
		{
			"policy", `{"load_balancing": {"selection_policy": {"policy": "green_api", "by": "chat"}}}`,
			`{"load_balancing": {"selection_policy": {"policy": "green_api", "by": "chat"}},` + checks + `,` + transport + `}`,
		},
		{
			"stock policy", `{"load_balancing": {"selection_policy": {"policy": "random_choose", "choose": 2}}}`,
			`{"load_balancing": {"selection_policy": {"policy": "random_choose", "choose": 2}},` + checks + `,` + transport + `}`,
		},
		{
			"fail_duration", `{"health_checks": {"passive": {"fail_duration": "1m"}}}`,
			`{` + policy + `,"health_checks": {"passive": {"fail_duration": 60000000000, "max_fails": 3}},` + transport + `}`,
		},
		{
			"max_fails and the rest", `{"health_checks": {"passive": {"max_fails": 1, "unhealthy_status": [503], "unhealthy_latency": "1s", "unhealthy_request_count": 9}}}`,
			`{` + policy + `,"health_checks": {"passive": {"fail_duration": 5000000000, "max_fails": 1, "unhealthy_status": [503], "unhealthy_latency": 1000000000, "unhealthy_request_count": 9}},` + transport + `}`,
		},
		{
			"active checks", `{"health_checks": {"active": {"uri": "/health", "interval": "10s"}}}`,
			`{` + policy + `,"health_checks": {"active": {"uri": "/health", "interval": 10000000000}, "passive": {"fail_duration": 5000000000, "max_fails": 3}},` + transport + `}`,
		},
		{"dial_timeout", `{"transport": {"protocol": "http", "dial_timeout": "7s"}}`, `{` + policy + `,` + checks + `,"transport": {"protocol": "green_api", "dial_timeout": "7s",` + keep + `}}`},
		{"keep_alive", `{"transport": {"protocol": "http", "dial_timeout": 0, "keep_alive": {"enabled": false}}}`, `{` + policy + `,` + checks + `,"transport": {"protocol": "green_api", "dial_timeout": 0, "keep_alive": {"enabled": false, "idle_timeout": 4000000000, "max_idle_conns_per_host": 10000}, "max_response_header_size": 65536}}`},
		{"keep_alive, its own time", `{"transport": {"protocol": "http", "dial_timeout": 0, "keep_alive": {"max_idle_conns": 100, "idle_timeout": "9s"}}}`, `{` + policy + `,` + checks + `,"transport": {"protocol": "green_api", "dial_timeout": 0, "keep_alive": {"max_idle_conns": 100, "idle_timeout": "9s", "max_idle_conns_per_host": 10000}, "max_response_header_size": 65536}}`},
		{"null", `{"transport": {"protocol": "http", "keep_alive": null, "tls": null}}`, `{` + policy + `,` + checks + `,"transport": {"protocol": "green_api", "tls": null, "dial_timeout": 2000000000,` + keep + `}}`},
		{"tls on", `{"transport": {"protocol": "http", "tls": {}}}`, `{` + policy + `,` + checks + `,"transport": {"protocol": "green_api", "tls": {"handshake_timeout": 5000000000}, "dial_timeout": 2000000000,` + keep + `}}`},
		{"tls_timeout", `{"transport": {"protocol": "http", "tls": {"handshake_timeout": "1s"}}}`, `{` + policy + `,` + checks + `,"transport": {"protocol": "green_api", "tls": {"handshake_timeout": "1s"}, "dial_timeout": 2000000000,` + keep + `}}`},
		{"dial_timeout off", `{"transport": {"protocol": "http", "dial_timeout": 0}}`, `{` + policy + `,` + checks + `,"transport": {"protocol": "green_api", "dial_timeout": 0,` + keep + `}}`},
		{
			"transport http", `{"transport": {"protocol": "http", "tls": {"server_name": "handler.example.com"}, "versions": ["1.1"]}}`,
			`{` + policy + `,` + checks + `,"transport": {"protocol": "green_api", "tls": {"server_name": "handler.example.com", "handshake_timeout": 5000000000}, "versions": ["1.1"], "dial_timeout": 2000000000,` + keep + `}}`,
		},
		{"transport green_api", `{"transport": {"protocol": "green_api"}}`, `{` + policy + `,` + checks + `,` + transport + `}`},
		{
			"another transport", `{"transport": {"protocol": "fastcgi", "root": "/srv"}}`,
			`{` + policy + `,` + checks + `,"transport": {"protocol": "fastcgi", "root": "/srv"}}`,
		},
		{
			"what has no default", `{"flush_interval": -1, "headers": {"request": {"delete": ["Authorization"]}}, "rewrite": {"uri": "/hook"}, ` +
				`"dynamic_upstreams": {"source": "a", "name": "example.com", "port": "80"}, "handle_response": [{"match": {"status_code": [5]}, "status_code": 503}]}`,
			`{"flush_interval": -1, "headers": {"request": {"delete": ["Authorization"]}}, "rewrite": {"uri": "/hook"}, ` +
				`"dynamic_upstreams": {"source": "a", "name": "example.com", "port": "80"}, "handle_response": [{"match": {"status_code": [5]}, "status_code": 503}],` +
				policy + `,` + checks + `,` + transport + `}`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			rp := new(reverseproxy.Handler)
			if err := json.Unmarshal([]byte(test.config), rp); err != nil {
				t.Fatal(err)
			}
			before, err := json.Marshal(rp)
			if err != nil {
				t.Fatal(err)
			}
			got, err := proxy.Config(rp)
			if err != nil {
				t.Fatal(err)
			}
			if !sameJSON(t, got, []byte(test.want)) {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			after, err := json.Marshal(rp)
			if err != nil {
				t.Fatal(err)
			}
			if string(after) != string(before) {
				t.Errorf("what the user wrote has changed:\n%s\n%s", before, after)
			}
		})
	}
}

// TestProxyConfigOfBoth takes the same reverse_proxy as a Caddyfile and as JSON.
func TestProxyConfigOfBoth(t *testing.T) {
	text, err := edgetest.Adapt("http://:8080 {\ngreen_api {\nauth off\nreverse_proxy 127.0.0.1:9001 {\nmax_fails 5\n}\n}\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	var adapted struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes []struct {
						Handle []struct {
							ReverseProxy reverseproxy.Handler `json:"reverse_proxy"`
						} `json:"handle"`
					} `json:"routes"`
				} `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(text, &adapted); err != nil {
		t.Fatal(err)
	}
	fromCaddyfile, err := proxy.Config(&adapted.Apps.HTTP.Servers["srv0"].Routes[0].Handle[0].ReverseProxy)
	if err != nil {
		t.Fatal(err)
	}
	written := new(reverseproxy.Handler)
	if err := json.Unmarshal([]byte(`{"upstreams": [{"dial": "127.0.0.1:9001"}], "health_checks": {"passive": {"max_fails": 5}}}`), written); err != nil {
		t.Fatal(err)
	}
	fromJSON, err := proxy.Config(written)
	if err != nil {
		t.Fatal(err)
	}
	if !sameJSON(t, fromCaddyfile, fromJSON) {
		t.Errorf("Caddyfile %s\nJSON      %s", fromCaddyfile, fromJSON)
	}
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var left, right any
	if err := json.Unmarshal(a, &left); err != nil {
		t.Fatalf("%v: %s", err, a)
	}
	if err := json.Unmarshal(b, &right); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return reflect.DeepEqual(left, right)
}
