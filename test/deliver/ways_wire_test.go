package deliver

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/standin"
)

// A sent is a request that is sent both ways.
type sent struct {
	name string
	from string   // the site that it comes to; "" for plain HTTP/1.1
	line string   // "" for POST PATHhook HTTP/1.1
	head []string // "Host: hooks.test" and the token are added, unless it has them; "-Host" for none
	body string   // "" for a short one with its length, or chunked, expect, or a number of bytes

	before, inside, options string // of the block
	to                      string // the kind of upstream; "" for TCP
	block                   int    // its number

	differs bool   // on purpose; see the list above
	want    string // a part of what the handler gets directly, to see that the row does what it is for; "-" for nothing
}

// wireRows are requests whose way to the handler is compared, byte for byte.
var wireRows = []sent{
	{name: "plain", want: "POST /BLOCK/hook HTTP/1.1"},
	{name: "HTTP/1.0", line: "POST PATHhook HTTP/1.0", want: "Via: 1.0 Caddy"},
	{name: "HTTP/1.0 without Host", line: "POST PATHhook HTTP/1.0", head: []string{"-Host"}, want: "Host: UP1"},
	{name: "HTTP/1.0 with an empty Host", line: "POST PATHhook HTTP/1.0", head: []string{"Host:"}, want: "Host: UP1"},
	{name: "HTTP/1.1 with an empty Host", head: []string{"Host:"}, want: "-"},
	{name: "a Host with a port", head: []string{"Host: hooks.test:8080"}, want: "Host: hooks.test:8080"},
	{name: "a Host in upper case", head: []string{"Host: HOOKS.Test"}},
	{name: "a Host that is an IPv6 address", head: []string{"Host: [::1]:80"}},
	{name: "a Host with a zone", head: []string{"Host: [fe80::1%25eth0]:80"}},
	{name: "a Host in punycode", head: []string{"Host: xn--e1afmkfd.test"}},
	{name: "a Host of odd characters", head: []string{"Host: a!$&'()*+,;=b.test"}},
	{name: "absolute form", line: "POST http://other.test/BLOCK/hook?x=1 HTTP/1.1", want: "Host: other.test"},
	{name: "absolute form with a user", line: "POST http://user@other.test:81/BLOCK/hook HTTP/1.1"},

	{name: "a query", line: "POST PATHhook?a=1&b=%20&c=%2F&d HTTP/1.1", want: "hook?a=1&b=%20&c=%2F&d HTTP"},
	{name: "an empty query", line: "POST PATHhook? HTTP/1.1", want: "hook? HTTP"},
	{name: "a query with semicolons", line: "POST PATHhook?a;b=%zz&\"<>{}|\\^` HTTP/1.1"},
	{name: "a fragment", line: "POST PATHhook#part HTTP/1.1"},
	{name: "escapes in the path", line: "POST PATHa%2Fb%20c%41%7e/%E2%82%AC/;x=1,2/@:!$&'()*+= HTTP/1.1", want: "a%2Fb%20c%41%7e"},
	{name: "the bytes of a letter in the path", line: "POST PATHя HTTP/1.1"},
	{name: "dots and slashes in the path", line: "POST PATH./a/../b//c/ HTTP/1.1", want: "./a/../b//c/"},
	{name: "two slashes at the beginning", before: "uri strip_prefix /BLOCK", line: "POST /BLOCK//hook HTTP/1.1"},
	{name: "strip_prefix", before: "uri strip_prefix /BLOCK", line: "POST PATHhook?x=1 HTTP/1.1", want: "POST /hook?x=1 HTTP"},
	{name: "strip_prefix, escaped", before: "uri strip_prefix /BLOCK", line: "POST PATHa%2Fb%20c HTTP/1.1", want: "POST /a%2Fb%20c HTTP"},
	{name: "strip_prefix, all of it", before: "uri strip_prefix /BLOCK/hook", want: "POST / HTTP"},
	{name: "rewrite", before: "rewrite * /new{path}?x={query}&y", line: "POST PATHhook?a=b HTTP/1.1", want: "/new/BLOCK/hook?x=a%3Db&y HTTP"},
	{name: "rewrite to a colon", before: "rewrite * /a:b", want: "POST /a:b"},

	{name: "repeated fields", head: []string{"X-A: 1", "X-a: 2", "x-A: 3", "X-B: 1, 2"}, want: "X-A: 1\r\nX-A: 2\r\nX-A: 3"},
	{name: "empty values", head: []string{"X-Empty:", "X-Blank: \t ", "X-Empty: "}, want: "X-Empty: \r\nX-Empty: "},
	{name: "a long value", head: []string{"X-Long: " + strings.Repeat("long ", 2_000)}, want: "long long"},
	{name: "many fields", head: manyFields(300), want: "X-Field-299: "},
	{name: "names in any case", head: []string{"x-lower: 1", "X-UPPER: 1", "x-MiXed-cAse: 1", "X_Under: 1", "1num: 1", "!#$%&'*+-.^_`|~: 1"}},
	{name: "odd characters in values", head: []string{"X-Latin: caf\xe9", "X-Utf8: кафе ☕", "X-Tab: a\tb", "X-Quotes: \"a\\\"b\" 'c'", "X-Marks: <>{}[]()@,;:\\/?="}, want: "X-Latin: caf\xe9"},
	{name: "spaces around values", head: []string{"X-A:1", "X-B:   2  ", "X-C: \t3\t"}, want: "X-A: 1"},
	{name: "cookies", head: []string{"Cookie: a=b; c=d", "Cookie: e=\"f\""}},
	{name: "Content-Type and others", head: []string{"Content-Type: application/json; charset=utf-8", "Content-Language: en", "Content-MD5: x", "Date: now", "Referer: http://x.test/", "Origin: null"}},
	{name: "Content-Type twice", head: []string{"Content-Type: application/json", "Content-Type: text/plain"}, want: "-"},
	{name: "fields of green_api's", head: []string{"X-Green-Api-Id: forged", "X-Green-Api-Replay: 1", "X-Green-Api-Attempt: 9"}},

	{name: "User-Agent", head: []string{"User-Agent: Sender/1.0 (x; y)"}, want: "User-Agent: Sender/1.0 (x; y)"},
	{name: "User-Agent, empty", head: []string{"User-Agent:"}},
	{name: "User-Agent, twice", head: []string{"User-Agent: one", "User-Agent: two"}},
	{name: "User-Agent, named by Connection", head: []string{"User-Agent: one", "Connection: User-Agent"}},
	{name: "no User-Agent, named by Connection", head: []string{"Connection: User-Agent"}},
	{name: "Accept-Encoding", head: []string{"Accept-Encoding: br, gzip;q=0.5"}, want: "Accept-Encoding: br, gzip;q=0.5"},
	{name: "Accept-Encoding, empty", head: []string{"Accept-Encoding:"}},
	{name: "Accept-Encoding, identity", head: []string{"Accept-Encoding: identity"}},
	{name: "Range", head: []string{"Range: bytes=0-10"}},
	{name: "Authorization twice", head: []string{"Authorization: Bearer " + edgetest.Token, "Authorization: Basic eDp5"}, want: "-"},
	{name: "If-Match and the like", head: []string{"If-Match: *", "If-None-Match: \"x\"", "Cache-Control: no-store", "Pragma: no-cache", "Max-Forwards: 3", "Early-Data: 1"}},
	{name: "Idempotency-Key", head: []string{"Idempotency-Key: one", "X-Idempotency-Key: two"}, want: "Idempotency-Key: one"},
	{name: "Incremental", head: []string{"Incremental: ?1"}, want: "Incremental: ?1"},
	{name: "Incremental, off", head: []string{"Incremental: ?0"}},
	{name: "websocket fields", head: []string{"Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"}},

	{name: "Connection: close", head: []string{"Connection: close"}},
	{name: "Connection names fields", head: []string{"Connection: X-Hop, keep-alive,, x-other", "Connection: X-Third", "X-Hop: 1", "X-Other: 1", "X-Third: 1", "X-Stays: 1"}, want: "X-Stays: 1"},
	{name: "Connection names what is the edge's", head: []string{"Connection: Via, X-Forwarded-For, X-Forwarded-Host, Host, Content-Length, Content-Type, Accept-Encoding", "Via: 1.1 one", "X-Forwarded-For: 10.1.1.1", "Content-Type: application/json", "Accept-Encoding: br"}},
	{name: "Connection names Te", head: []string{"Connection: TE", "TE: trailers"}},
	{name: "Te: trailers", head: []string{"TE: trailers"}, want: "Te: trailers"},
	{name: "Te with more", head: []string{"TE: deflate, Trailers;q=0.5", "TE: trailers"}},
	{name: "Te without trailers", head: []string{"TE: deflate"}},
	{name: "Keep-Alive and others", head: []string{"Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "Proxy-Authorization: Basic eDp5", "Proxy-Authenticate: Basic", "Alt-Svc: h3=\":443\"", "Trailer: X-T"}},
	{name: "Upgrade", head: []string{"Connection: Upgrade", "Upgrade: websocket"}},
	{name: "Upgrade without Connection", head: []string{"Upgrade: h2c"}},
	{name: "Upgrade: h2c", head: []string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"}},

	{name: "X-Forwarded, not trusted", head: []string{"X-Forwarded-For: 10.1.1.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: real.test"}, want: "X-Forwarded-For: 127.0.0.1"},
	{name: "X-Forwarded, trusted", from: "trusting", head: []string{"X-Forwarded-For: 10.1.1.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: real.test"}, want: "X-Forwarded-For: 10.1.1.1, 127.0.0.1"},
	{name: "X-Forwarded, twice, trusted", from: "trusting", head: []string{"X-Forwarded-For: 10.1.1.1", "X-Forwarded-For: 10.1.1.2", "X-Forwarded-Proto: https", "X-Forwarded-Proto: ftp", "X-Forwarded-Host: a", "X-Forwarded-Host: b"}, want: "10.1.1.1, 10.1.1.2, 127.0.0.1"},
	{name: "X-Forwarded, empty, trusted", from: "trusting", head: []string{"X-Forwarded-For:", "X-Forwarded-Proto:", "X-Forwarded-Host:"}},
	{name: "none, trusted", from: "trusting"},
	{name: "X-Forwarded, trusted by reverse_proxy", options: "trusted_proxies 10.0.0.0/8 127.0.0.1", head: []string{"X-Forwarded-For: 10.1.1.1, 10.1.1.3", "X-Forwarded-Proto: https", "X-Forwarded-Host: real.test"}, want: "10.1.1.1, 10.1.1.3, 127.0.0.1"},
	{name: "X-Forwarded, trusted by a prefix", options: "trusted_proxies private_ranges", head: []string{"X-Forwarded-For: 10.1.1.1"}, want: "10.1.1.1, 127.0.0.1"},
	{name: "X-Forwarded, not trusted by reverse_proxy", options: "trusted_proxies 10.0.0.0/8 ::1", head: []string{"X-Forwarded-For: 10.1.1.1"}, want: "X-Forwarded-For: 127.0.0.1"},
	{name: "X-Real-IP, Forwarded, Via", head: []string{"X-Real-IP: 10.1.1.1", "Forwarded: for=10.1.1.1;proto=https", "Via: 1.0 one, 1.1 two", "Via: 2 three"}, want: "Via: 2 three\r\nVia: 1.1 Caddy"},
	{name: "a unix socket", from: "unix", head: []string{"X-Forwarded-For: 10.1.1.1", "X-Forwarded-Proto: https"}},
	{name: "a unix socket, trusted", from: "unix trusting", head: []string{"X-Forwarded-For: 10.1.1.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: real.test"}, want: "X-Forwarded-For: 10.1.1.1\r\n"},
	{name: "a unix socket, trusted, with none", from: "unix trusting"},

	{name: "Expect", body: "expect", head: []string{"Expect: 100-continue"}},
	{name: "chunked", body: "chunked"},
	{name: "chunked, with a trailer", body: "trailer", head: []string{"Trailer: X-T"}},
	{name: "gzip coded", head: []string{"Content-Encoding: gzip"}, want: "-"},
	{name: "16 KiB", body: "16384"},
	{name: "32 KiB", body: "32768"},
	{name: "1 MiB", body: "1048576", inside: "validate {\nmax_body_size 2MiB\n}"},
	{name: "1 MiB, chunked", body: "chunked 1048576", inside: "validate {\nmax_body_size 2MiB\n}"},

	{name: "HTTPS", from: "h1", head: []string{"X-A: 1"}, want: "X-Forwarded-Proto: https"},
	{name: "HTTP/2", from: "h2", head: []string{"X-A: 1", "X-A: 2", "User-Agent: x", "Cookie: a=b; c=d"}, want: "Via: 2.0 Caddy"},
	{name: "HTTP/2, Te", from: "h2", head: []string{"TE: trailers"}},
	{name: "HTTP/2, escapes", from: "h2", line: "POST PATHa%2Fb%20c?x=%20&;y HTTP/2", want: "a%2Fb%20c?x=%20&;y"},
	{name: "HTTP/2, a space in the query", from: "h2", line: "POST PATHhook?a b HTTP/2", want: "-", differs: true},
	{name: "HTTP/2, 1 MiB", from: "h2", body: "1048576"},
	{name: "HTTP/3", from: "h3", head: []string{"X-A: 1"}, want: "Via: 3.0 Caddy"},

	{name: "header_up: set", options: "header_up X-Set {http.green_api.instance}-{http.green_api.type}-{http.green_api.chat}-{http.green_api.id}\nheader_up X-Up {upstream_hostport}\nheader_up X-Address {http.reverse_proxy.upstream.address} {http.reverse_proxy.upstream.host}\nheader_up X-Counts {http.reverse_proxy.upstream.requests}/{http.reverse_proxy.upstream.max_requests}/{http.reverse_proxy.upstream.fails}\nheader_up X-Unknown \"[{http.reverse_proxy.upstream.latency}{http.reverse_proxy.retries}{http.reverse_proxy.duration}{http.reverse_proxy.status_code}{http.reverse_proxy.header.X}]\"", want: "X-Up: UP1"},
	{name: "header_up: of the request", head: []string{"X-A: 1", "Cookie: a=b"}, line: "POST PATHhook?q=1 HTTP/1.1", options: "header_up X-Copy {http.request.header.X-A}{header.X-A}{cookie.a}\nheader_up X-Client {client_ip}{remote_host}\nheader_up X-Uri {uri}{path}{query}{query.q}{method}{scheme}{host}{proto}\nheader_up X-Via {header.Via}{header.X-Forwarded-For}{header.Content-Length}", want: "X-Copy: 11b"},
	{name: "header_up: the body", options: "header_up X-Body {http.request.body}"},
	{name: "header_up: add and delete", head: []string{"X-A: 1", "X-Ab: 1", "X-B: 1"}, options: "header_up +X-B 2\nheader_up -X-A\nheader_up -X-A*\nheader_up -Authorization\nheader_up -Via", want: "X-B: 1\r\nX-B: 2"},
	{name: "header_up: replace", head: []string{"X-A: abc abc", "X-B: 12"}, options: "header_up X-A b x\nheader_up X-B ([0-9]) <$1>\nheader_up Host hooks {http.green_api.instance}", want: "X-A: axc axc"},
	{name: "header_up: Host", options: "header_up Host {upstream_hostport}", want: "Host: UP1"},
	{name: "header_up: Host of its own", options: "header_up Host handler.test", want: "Host: handler.test"},
	{name: "header_up: no Host", options: "header_up -Host"},
	{name: "header_up: X-Forwarded", options: "header_up X-Forwarded-Host {header.Host}\nheader_up X-Forwarded-For {client_ip}\nheader_up -X-Forwarded-Proto"},
	{name: "header_up: no User-Agent", head: []string{"User-Agent: x"}, options: "header_up -User-Agent"},
	{name: "header_up: User-Agent", options: "header_up User-Agent edge"},
	{name: "header_up: Accept-Encoding", options: "header_up Accept-Encoding identity", want: "Accept-Encoding: identity"},
	{name: "header_up: no Accept-Encoding", head: []string{"Accept-Encoding: br"}, options: "header_up -Accept-Encoding"},
	{name: "header_up: Idempotency-Key", options: "header_up Idempotency-Key {http.green_api.id}"},
	{name: "header_up: Connection", options: "header_up Connection close", want: "Connection: close"},
	{name: "header_up: framing", options: "header_up Content-Length 5\nheader_up Transfer-Encoding chunked\nheader_up Trailer X-T"},
	{name: "header_up: empty values", options: "header_up X-Empty {http.request.header.None}\nheader_up User-Agent {http.request.header.None}"},
	{name: "header_up: a value from a header", head: []string{"X-Odd: caf\xe9 \t x"}, options: "header_up X-Copy {header.X-Odd}"},
	{name: "header_up: a bad value", options: "header_up X-Bad \"a\nb\"", want: "-"},

	{name: "a second attempt", head: []string{"X-Later: 1", "Via: 1.1 one", "Connection: X-A", "X-A: 1", "TE: trailers"}},
	{name: "a second attempt, trusted", from: "trusting", head: []string{"X-Later: 1", "X-Forwarded-For: 10.1.1.1"}},
	{name: "a second attempt, rewritten", before: "rewrite * /new{uri}", head: []string{"X-Later: 1"}},
	{name: "a second attempt, header_up", head: []string{"X-Later: 1", "X-A: 1"}, options: "header_up +X-A 2\nheader_up X-B b\nheader_up X-A 1 one\nheader_up X-Up \"{upstream_hostport} {http.reverse_proxy.status_code} {http.reverse_proxy.duration} {http.reverse_proxy.retries} {http.reverse_proxy.header.Content-Length} {http.reverse_proxy.upstream.latency}\"\nheader_up Host {upstream_hostport}"},
	{name: "a second attempt, dynamic", to: "dynamic", head: []string{"X-Later: 1"}},
	{name: "a second attempt, of another", to: "two", head: []string{"X-Later: 1"}, options: "lb_policy first\nheader_up X-Up {upstream_hostport}"},
	{name: "client_ip, trusted", from: "trusting", head: []string{"X-Forwarded-For: 10.1.1.1"}, options: "header_up X-Client {client_ip}|{remote_host}|{http.vars.client_ip}|{http.vars.trusted_proxy}"},

	{name: "policy: instance", options: "lb_policy green_api instance", to: "two"},
	{name: "policy: chat", options: "lb_policy green_api chat", to: "two"},
	{name: "policy: first", options: "lb_policy first", to: "two"},
	{name: "policy: round_robin", options: "lb_policy round_robin", to: "two"},
	{name: "policy: weighted_round_robin", options: "lb_policy weighted_round_robin 2 1", to: "two"},
	{name: "policy: ip_hash", options: "lb_policy ip_hash", to: "two"},
	{name: "policy: client_ip_hash", options: "lb_policy client_ip_hash", to: "two"},
	{name: "policy: header", options: "lb_policy header X-Key", head: []string{"X-Key: TURN"}, to: "two"},
	{name: "policy: header Host", options: "lb_policy header Host", to: "two"},
	{name: "policy: header that the edge sets", options: "lb_policy header X-Forwarded-For", to: "two"},
	{name: "policy: query", options: "lb_policy query key", line: "POST PATHhook?key=TURN HTTP/1.1", to: "two"},
	{name: "policy: query, first", options: "lb_policy query other {\nfallback first\n}", to: "two"},
	{name: "policy: cookie", options: "lb_policy cookie lb secret {\nfallback first\n}", head: []string{"Cookie: lb=x"}, to: "two"},
	{name: "policy: random", options: "lb_policy random", to: "either"},
	{name: "policy: uri_hash", options: "lb_policy uri_hash", to: "either"},

	{name: "unix upstream", to: "unix"},
	{name: "unix upstream, HTTP/1.0 without Host", to: "unix", line: "POST PATHhook HTTP/1.0", head: []string{"-Host"}},
	{name: "unix upstream, placeholders", to: "unix", options: "header_up X-Up {upstream_hostport}|{http.reverse_proxy.upstream.address}|{http.reverse_proxy.upstream.host}|{http.reverse_proxy.upstream.port}\nheader_up Host {upstream_hostport}"},
	{name: "TLS upstream", to: "tls", options: "transport http {\ntls_insecure_skip_verify\nversions 1.1\n}", want: "Host: UP1"},
	{name: "TLS upstream, HTTP/1.0 without Host", to: "tls", options: "transport http {\ntls_insecure_skip_verify\nversions 1.1\n}", line: "POST PATHhook HTTP/1.0", head: []string{"-Host"}, want: "Host: UP1"},
	{name: "TLS upstream, Host", to: "tls", options: "header_up Host {host}\nheader_up X-Up {upstream_hostport}\ntransport http {\ntls_insecure_skip_verify\nversions 1.1\n}", want: "Host: hooks.test"},
	{name: "TLS upstream, server name", to: "tls", options: "transport http {\ntls_insecure_skip_verify\ntls_server_name example.com\nversions 1.1\n}"},
	{name: "TLS upstream, 1 MiB", to: "tls", body: "1048576", options: "transport http {\ntls_insecure_skip_verify\nversions 1.1\n}"},
	{name: "dynamic upstream", to: "dynamic"},
	{name: "dynamic upstream, header_up", to: "dynamic", options: "header_up X-Up {upstream_hostport}|{http.reverse_proxy.upstream.fails}", want: "X-Up: UP1|0"},
	{name: "compression off", options: "transport http {\ncompression off\n}"},
	{name: "compression off, Accept-Encoding", head: []string{"Accept-Encoding: gzip"}, options: "transport http {\ncompression off\n}"},
	{name: "keepalive off", options: "transport http {\nkeepalive 1s\nkeepalive_idle_conns_per_host 20000\n}"},
	{name: "buffers and timeouts", options: "transport http {\nread_buffer 8KiB\nwrite_buffer 8KiB\ndial_timeout 1s\nexpect_continue_timeout 1s\n}\nflush_interval -1"},
}

func manyFields(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("X-Field-%d: %d", i, i))
	}
	return lines
}

// lowerCase are names that come in lower case through Caddy.
var lowerCase = strings.NewReplacer("\r\nidempotency-key:", "\r\nIdempotency-Key:", "\r\nx-idempotency-key:", "\r\nX-Idempotency-Key:")

// ownID matches the id that green_api makes of a body.
var ownID = regexp.MustCompile(`(X-Green-Api-Id: )[0-9a-f]{32}`)

// sorted returns a request with its fields in a fixed order. Those of one name stay in theirs.
func sorted(raw string) string {
	head, body, _ := strings.Cut(ownID.ReplaceAllString(lowerCase.Replace(raw), "${1}ID"), "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	name := func(line string) string {
		name, _, _ := strings.Cut(line, ":")
		return strings.ToLower(name)
	}
	slices.SortStableFunc(lines[1:], func(a, b string) int { return strings.Compare(name(a), name(b)) })
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

// wires are the handlers of the rows, and how their requests get to the edge.
type wires struct {
	wire
	blocks
	edge    *edgetest.Edge
	mask    *strings.Replacer // of what differs between two runs
	sockets map[string]string // of sites on unix sockets
	h2      *http.Transport
	h3      *http3.Transport
}

// TestWire: a handler gets the same bytes both ways, but for the order of the fields.
func TestWire(t *testing.T) {
	s := newWires(t)
	for i, row := range wireRows {
		t.Run(row.name, func(t *testing.T) {
			if (row.from == "h1" || row.from == "h2" || row.from == "h3") && edgetest.RaceDetector {
				t.Skip("Caddy v2.11.9 has a race of its own when it begins to manage a certificate")
			}
			got := make(map[way]string)
			for _, w := range ways {
				got[w] = s.send(t, w, i, row)
			}
			if same := got[directly] == got[throughCaddy]; same == row.differs {
				t.Errorf("same: %t; directly\n%s\n\nthrough Caddy\n%s", same, short(got[directly]), short(got[throughCaddy]))
			}
			if nothing := !strings.Contains(got[directly], "HTTP/1.1\r\n"); nothing != (row.want == "-") || row.want != "-" && !strings.Contains(got[directly], row.want) {
				t.Errorf("the handler got\n%s\nwant in it %s", short(got[directly]), row.want)
			}
		})
	}
}

func short(text string) string {
	const most = 4000
	return strings.ReplaceAll(text[:min(len(text), most)], "\r", "")
}

// newWires starts an edge with the blocks of all rows.
func newWires(t *testing.T) *wires {
	t.Helper()
	s := &wires{sockets: make(map[string]string)}
	first, second := s.on(t, listen(t)), s.on(t, listen(t))
	_, port, _ := strings.Cut(first, ":")
	dir := t.TempDir()
	socket := filepath.Join(dir, "handler.sock")
	local, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s.on(t, local)
	certified := httptest.NewUnstartedServer(nil)
	certified.StartTLS()
	certified.Close()
	overTLS := s.on(t, tls.NewListener(listen(t), &tls.Config{Certificates: certified.TLS.Certificates}))
	names := nameServer(t, port)

	for i := range wireRows {
		row := &wireRows[i]
		upstreams, options := first, row.options
		switch row.to {
		case "two", "either":
			upstreams = first + " " + second
		case "unix":
			upstreams = "unix/" + socket
		case "tls":
			upstreams = "https://" + overTLS
		case "dynamic":
			upstreams = ""
			options = "dynamic a handlers.test " + port + " {\nresolvers " + names + "\n}\n" + options
		}
		site := row.from
		if site == "h2" || site == "h3" {
			site = "h1"
		}
		row.block = s.add(site, row.before, row.inside, map[way]string{directly: upstreams, throughCaddy: upstreams}, options)
	}
	config := edgetest.SiteWith("servers 127.0.0.1:PORT1 {\ntrusted_proxies static 127.0.0.1\n}\nservers unix/"+dir+"/trusting.sock {\ntrusted_proxies_unix\n}", s.routes[""])
	config = strings.Replace(config, "auto_https off", "auto_https disable_redirects\nskip_install_trust", 1)
	config += "http://:PORT1 {\nbind 127.0.0.1\n" + s.routes["trusting"] + "}\n"
	for _, name := range []string{"unix", "unix trusting"} {
		s.sockets[name] = filepath.Join(dir, strings.TrimPrefix(name, "unix ")+".sock")
		config += "http://" + strings.ReplaceAll(name, " ", "-") + ".test {\nbind unix/" + s.sockets[name] + "\n" + s.routes[name] + "}\n"
	}
	if !edgetest.RaceDetector {
		config += "https://localhost:PORT2 {\ntls internal\nbind 127.0.0.1\n" + s.routes["h1"] + "}\n"
	}
	s.edge = edgetest.Start(t, config)
	s.mask = strings.NewReplacer(first, "UP1", second, "UP2", overTLS, "UP1", socket, "UP1", ":"+s.edge.More[1], ":PORT")
	wantWays(t, s.edge)

	trust := &tls.Config{ServerName: "localhost", InsecureSkipVerify: true}
	s.h2 = &http.Transport{TLSClientConfig: trust.Clone(), ForceAttemptHTTP2: true}
	s.h3 = &http3.Transport{TLSClientConfig: trust.Clone()}
	t.Cleanup(func() {
		s.h2.CloseIdleConnections()
		s.h3.Close()
	})
	return s
}

// send sends a row one way, and returns what the handlers and the sender got.
func (s *wires) send(t *testing.T, w way, i int, row sent) string {
	t.Helper()
	var got strings.Builder
	turns := 1
	later := slices.Contains(row.head, "X-Later: 1")
	if (row.to == "two" || row.to == "either") && !later {
		turns = 6
	}
	for n := range turns {
		mark := w.markOf(i, n)
		row := row
		row.line = cmp.Or(row.line, "POST PATHhook HTTP/1.1")
		row.line = strings.ReplaceAll(w.in(row.block, row.line), "TURN", strconv.Itoa(n))
		row.head = slices.Clone(row.head)
		for at, line := range row.head {
			row.head[at] = strings.ReplaceAll(line, "TURN", strconv.Itoa(n))
		}
		var answer *http.Response
		switch row.from {
		case "h2":
			answer = s.overHTTP(t, s.h2, row, mark)
		case "h3":
			answer = s.overHTTP(t, s.h3, row, mark)
		default:
			answer = s.raw(t, row, mark)
		}
		fmt.Fprintln(&got, "status", answer.StatusCode, strings.Join(slices.Sorted(maps.Keys(answer.Header)), " "))
		if later && len(s.of(mark)) != 2 {
			t.Errorf("way %c: %d attempts", w, len(s.of(mark)))
		}
		for _, request := range s.of(mark) {
			if row.to != "either" {
				fmt.Fprintln(&got, "to", s.mask.Replace(request.at))
			}
			got.WriteString(sorted(s.mask.Replace(w.masked(i, row.block, request.raw))) + "\n")
		}
	}
	return got.String()
}

// bodyOf returns a valid body that is size bytes long, or as long as it happens to be if size is 0.
func bodyOf(mark string, size int) string {
	body := edgetest.Numbered(mark)
	if size == 0 {
		return body
	}
	return strings.Replace(body, "a canary sings", strings.Repeat("x", size-len(body)+len("a canary sings")), 1)
}

// raw sends a request of HTTP/1 as it is.
func (s *wires) raw(t *testing.T, row sent, mark string) *http.Response {
	t.Helper()
	form, length, _ := strings.Cut(row.body, " ")
	if size, err := strconv.Atoi(form); err == nil {
		form, length = "", strconv.Itoa(size)
	}
	size, _ := strconv.Atoi(length)
	body := bodyOf(mark, size)
	lines := []string{row.line}
	has := func(name string) bool {
		return slices.ContainsFunc(row.head, func(line string) bool { return strings.HasPrefix(line, name) })
	}
	if !has("Host:") && !has("-Host") {
		lines = append(lines, "Host: "+s.hostOf(row.from))
	}
	if !has("Authorization:") {
		lines = append(lines, "Authorization: Bearer "+edgetest.Token)
	}
	for _, line := range row.head {
		if line != "-Host" {
			lines = append(lines, line)
		}
	}
	switch form {
	case "chunked":
		lines, body = append(lines, "Transfer-Encoding: chunked"), edgetest.Chunks(body, 10_000)
	case "trailer":
		lines, body = append(lines, "Transfer-Encoding: chunked"), strings.TrimSuffix(edgetest.Chunks(body, 100), "\r\n")+"X-T: 1\r\n\r\n"
	default:
		lines = append(lines, "Content-Length: "+strconv.Itoa(len(body)))
	}
	conn := s.dial(t, row.from)
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	in := bufio.NewReader(conn)
	send := func(text string) {
		if _, err := io.WriteString(conn, text); err != nil {
			t.Error(err)
		}
	}
	send(strings.Join(lines, "\r\n") + "\r\n\r\n")
	if form == "expect" {
		for range 2 { // 100 Continue, and an empty line
			if _, err := in.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(body)
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// hostOf returns the host of a site.
func (s *wires) hostOf(from string) string {
	switch from {
	case "h1":
		return "localhost:" + s.edge.More[1]
	case "unix", "unix trusting":
		return strings.ReplaceAll(from, " ", "-") + ".test"
	}
	return "hooks.test"
}

// dial connects to a site.
func (s *wires) dial(t *testing.T, from string) (conn net.Conn) {
	t.Helper()
	var err error
	switch from {
	case "":
		conn, err = net.Dial("tcp", "127.0.0.1:"+s.edge.Port)
	case "trusting":
		conn, err = net.Dial("tcp", "127.0.0.1:"+s.edge.More[0])
	case "h1":
		s.certified(t)
		conn, err = tls.Dial("tcp", "127.0.0.1:"+s.edge.More[1], &tls.Config{ServerName: "localhost", InsecureSkipVerify: true})
	default:
		conn, err = net.Dial("unix", s.sockets[from])
	}
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// certified waits until the site has a certificate.
func (s *wires) certified(t *testing.T) {
	t.Helper()
	edgetest.Eventually(t, "certificate", func() bool {
		conn, err := tls.Dial("tcp", "127.0.0.1:"+s.edge.More[1], &tls.Config{ServerName: "localhost", InsecureSkipVerify: true})
		return err == nil && conn.Close() == nil
	})
}

// overHTTP sends a request over HTTP/2 or HTTP/3.
func (s *wires) overHTTP(t *testing.T, over http.RoundTripper, row sent, mark string) *http.Response {
	t.Helper()
	s.certified(t)
	target := row.line[len("POST "):strings.LastIndex(row.line, " HTTP/")]
	size, _ := strconv.Atoi(row.body)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://localhost:"+s.edge.More[1]+target, strings.NewReader(bodyOf(mark, size)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+edgetest.Token)
	for _, line := range row.head {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	answer, err := over.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer
}

// TestWireReplayed: notifications that are replayed from the quarantine are the same both ways, too.
func TestWireReplayed(t *testing.T) {
	var h wire
	address := h.on(t, listen(t))
	var b blocks
	n := b.add("", "", "", map[way]string{directly: address, throughCaddy: address}, addedToThem)
	e := edgetest.Start(t, strings.Replace(edgetest.SiteWith("", b.routes[""]), "admin off", "admin 127.0.0.1:PORT1", 1))
	admin := "127.0.0.1:" + e.More[0]
	wantWays(t, e)
	got := make(map[way]string)
	for _, w := range ways {
		mark := w.markOf(0, 0)
		e.Send(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%s/%c%d/hook%%2Fa?x=1", e.Port, w, n), strings.NewReader(edgetest.Broken(mark)),
			"Host", "hooks.test", "X-A", "1", "User-Agent", "Sender", "X-Forwarded-For", "10.1.1.1", "Accept-Encoding", "br")
		entry := e.Record().Text("quarantine_id")
		response, err := edgetest.Client.Post("http://"+admin+"/green_api/quarantine/replay?id="+entry, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if text := edgetest.ReaderText(t, response.Body); !strings.Contains(text, `"delivered"`) {
			t.Errorf("replay: %s", text)
		}
		response.Body.Close()
		for _, request := range h.of(mark) {
			got[w] += sorted(strings.ReplaceAll(w.masked(0, n, request.raw), entry, "ENTRY"))
		}
	}
	if got[directly] != got[throughCaddy] || !strings.Contains(got[directly], "X-Green-Api-Replay: ENTRY") {
		t.Errorf("directly\n%s\nthrough Caddy\n%s", got[directly], got[throughCaddy])
	}
}

// addedToThem shows a handler what placeholders say of a notification that nobody posted.
const addedToThem = "header_up X-Set {http.green_api.id}|{uri}|{host}|{client_ip}|{method}|{remote_host}|{scheme}"

// TestWireReceived: nor does a handler see a difference in what is received from the HTTP API. A receiver takes seconds
// to begin.
func TestWireReceived(t *testing.T) {
	edgetest.Proof(t)
	var h wire
	address := h.on(t, listen(t))
	v := edgetest.NewVendor(t, standin.Options{}, directly.instance(), throughCaddy.instance())
	var b blocks
	b.add("", "", v.Receives("INSTANCE"), map[way]string{directly: address, throughCaddy: address}, addedToThem)
	e := edgetest.Start(t, edgetest.SiteWith("", b.routes[""]))
	wantWays(t, e)
	got := make(map[way]string)
	for _, w := range ways {
		mark := w.markOf(0, 0)
		v.Notify(w.instance(), []byte(strings.Replace(edgetest.Numbered(mark), directly.instance(), w.instance(), 1)))
		edgetest.Eventually(t, "received", func() bool { return len(h.of(mark)) == 1 })
		got[w] = sorted(strings.ReplaceAll(w.masked(0, 0, h.of(mark)[0].raw), w.instance(), "INSTANCE"))
	}
	if got[directly] != got[throughCaddy] || !strings.Contains(got[directly], "via=api") {
		t.Errorf("directly\n%s\nthrough Caddy\n%s", got[directly], got[throughCaddy])
	}
}
