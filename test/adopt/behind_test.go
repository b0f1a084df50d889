package adopt

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

const behindPage = "docs/behind.md"

// behind is an edge with a config of docs/behind.md, whose proxies are at 127.0.0.1.
func behind(t *testing.T, title string, replace ...string) (*bench, *edgetest.Edge) {
	t.Helper()
	b := newBench(t)
	b.mu.Lock()
	b.steps = []string{"200"}
	b.mu.Unlock()
	config := configOf(t, page(t, behindPage), title)
	config = strings.Replace(config, "hooks.example.com {\n", "hooks.example.com {\n\ttls /etc/ssl/hooks.pem /etc/ssl/hooks.key\n", 1)
	config = strings.NewReplacer(append(replace, "http://:8080", "http://:"+b.http, "10.0.0.0/16", "127.0.0.1/32", "173.245.48.0/20", "127.0.0.1/32")...).Replace(config)
	config = strings.Replace(config, "{\n\tservers {", "{\n\tgreen_api {\n\t\tquarantine "+b.dir+"/quarantine\n\t}\n\tservers {", 1)
	e, stop := b.startEdge(config)
	t.Cleanup(stop)
	return b, e
}

// judged sends a message with the right token and a header, and returns the answer, and which address was judged
// if it was refused.
func (b *bench) judged(e *edgetest.Edge, r request) (status int, clientIP, remoteIP string) {
	b.t.Helper()
	before := len(e.Logs.Records(b.t))
	status = b.send(r)
	if records := e.Logs.Records(b.t); status == 403 && len(records) > before {
		last := records[len(records)-1]
		return status, last.Text("client_ip"), last.Text("remote_ip")
	}
	return status, "", ""
}

// TestBehind holds the configs of docs/behind.md to the addresses that they judge by.
func TestBehind(t *testing.T) {
	none := []string{"X-Forwarded-For", ""}
	for _, test := range []struct {
		title, what    string
		request        request
		status         int
		client, remote string
	}{
		{"behind Cloudflare", "genuine", request{header: []string{"CF-Connecting-IP", fromGreenAPI, "X-Forwarded-For", ""}}, 200, "", ""},
		{"behind Cloudflare", "stranger", request{header: []string{"CF-Connecting-IP", stranger, "X-Forwarded-For", fromGreenAPI}}, 403, stranger, "127.0.0.1"},
		{"behind Cloudflare", "past Cloudflare", request{direct: true, header: []string{"CF-Connecting-IP", fromGreenAPI}}, 403, "127.0.0.9", "127.0.0.9"},
		{"behind Cloudflare", "no header", request{header: none}, 403, "127.0.0.1", "127.0.0.1"},
		{"behind an ALB", "genuine", request{scheme: "http", from: fromGreenAPI}, 200, "", ""},
		{"behind an ALB", "stranger", request{scheme: "http", from: stranger}, 403, stranger, "127.0.0.1"},
		{"behind an ALB", "a claim, appended to", request{scheme: "http", from: fromGreenAPI + ", " + stranger}, 403, stranger, "127.0.0.1"},
		{"behind an ALB", "past it", request{scheme: "http", direct: true, from: fromGreenAPI}, 403, "127.0.0.9", "127.0.0.9"},
		{"behind an ALB", "health", request{scheme: "http", method: "GET", path: "/healthz"}, 200, "", ""},
	} {
		t.Run(test.title+"/"+test.what, func(t *testing.T) {
			b, e := behind(t, test.title)
			if status, client, remote := b.judged(e, test.request); status != test.status || client != test.client || remote != test.remote {
				t.Errorf("%d, judged %q of %q; want %d, %q of %q", status, client, remote, test.status, test.client, test.remote)
			}
		})
	}
}

// TestBehindShows: the log has what the page's command prints, and the command's filter fits.
func TestBehindShows(t *testing.T) {
	b, e := behind(t, "behind an ALB")
	b.send(request{scheme: "http", from: "203.0.113.50", body: " "})
	record := e.Record()
	if record.Text("reason") != "unlisted_sender" || record.Text("level") != "warn" {
		t.Fatalf("%v", record)
	}
	for _, found := range fences.FindAllStringSubmatch(page(t, behindPage), -1) {
		var shown map[string]string
		if found[2] != "json" || json.Unmarshal([]byte(found[3]), &shown) != nil {
			continue
		}
		for name := range shown {
			if record.Text(name) == "" {
				t.Errorf("the record has no %s: %v", name, record)
			}
		}
		if record.Text("client_ip") != shown["client_ip"] {
			t.Errorf("judged %s, want %s", record.Text("client_ip"), shown["client_ip"])
		}
		return
	}
	t.Error("the page does not show what the command prints")
}

// proxyHeader is the header of the PROXY protocol, in a version of it.
func proxyHeader(version int, from string) string {
	if version == 1 {
		return "PROXY TCP4 " + from + " 127.0.0.1 40000 443\r\n"
	}
	address := netip.MustParseAddr(from).As4()
	header := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), address[:]...)
	header = append(header, 127, 0, 0, 1)
	header = binary.BigEndian.AppendUint16(header, 40000)
	return string(binary.BigEndian.AppendUint16(header, 443))
}

// sendThrough posts a message over TLS, from an address of this machine, with a text in front of it all.
func (b *bench) sendThrough(local net.IP, front string) int {
	b.t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: local}}
	conn, err := dialer.Dial("tcp", "127.0.0.1:"+b.https)
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, front)
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "hooks.example.com"})
	io.WriteString(secure, strings.NewReplacer("localhost", "hooks.example.com", edgetest.Token, newToken).Replace(
		edgetest.Request(edgetest.TextMessage, "Content-Type: application/json; charset=utf-8")))
	response, err := http.ReadResponse(bufio.NewReader(secure), nil)
	if err != nil {
		return 0
	}
	return response.StatusCode
}

func TestBehindProxyProtocol(t *testing.T) {
	balancer, other := net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 9)
	without := []string{"\t\t\t\tallow 10.0.0.0/16\n\t\t\t\tfallback_policy reject\n", ""}
	lax := []string{"\t\t\t\tfallback_policy reject\n", ""}
	for _, test := range []struct {
		what    string
		replace []string
		from    net.IP
		front   string
		status  int
		client  string
	}{
		{"version 1", nil, balancer, proxyHeader(1, fromGreenAPI), 200, ""},
		{"version 2", nil, balancer, proxyHeader(2, fromGreenAPI), 200, ""},
		{"version 1, stranger", nil, balancer, proxyHeader(1, stranger), 403, stranger},
		{"version 2, stranger", nil, balancer, proxyHeader(2, stranger), 403, stranger},
		{"no header", nil, balancer, "", 403, "127.0.0.1"},
		{"claimed past the balancer", nil, other, proxyHeader(2, fromGreenAPI), 0, ""},
		{"past the balancer without a header", nil, other, "", 403, "127.0.0.9"},
		{"claimed past the balancer, and not rejected", lax, other, proxyHeader(2, fromGreenAPI), 403, "127.0.0.9"},
		{"without allow", without, balancer, proxyHeader(2, fromGreenAPI), 403, "127.0.0.1"},
	} {
		t.Run(test.what, func(t *testing.T) {
			b, e := behind(t, "PROXY protocol", test.replace...)
			status := b.sendThrough(test.from, test.front)
			client := ""
			if records := e.Logs.Records(t); status == 403 && len(records) > 0 {
				client = records[len(records)-1].Text("client_ip")
				if remote := records[len(records)-1].Text("remote_ip"); remote != "" && remote != client {
					t.Errorf("remote_ip %s", remote)
				}
			}
			if status != test.status || client != test.client {
				t.Errorf("%d, judged %q; want %d, %q", status, client, test.status, test.client)
			}
		})
	}
}

func TestBehindNginx(t *testing.T) {
	edgetest.Proof(t)
	binary := needs(t, "nginx", "nginx-light")
	b, e := behind(t, "behind nginx")
	// The edge has the port for http; here nginx has the one for https.
	front := strings.ReplaceAll(configOf(t, page(t, behindPage), "in front of the edge"), "127.0.0.1:8080", "127.0.0.1:"+b.http)
	stop := b.startNginx(binary, b.place(front), b.https)
	defer func() { stop() }()
	status, client, remote := b.judged(e, request{from: fromGreenAPI}) // claimed, and replaced by nginx
	if status != 403 || client != "127.0.0.1" {
		t.Errorf("a claim: %d, judged %q of %q", status, client, remote)
	}
	for _, set := range []string{"$http_x_sender", "$http_x_claim, $http_x_sender"} { // who connects is always this machine here
		stop()
		stop = b.startNginx(binary, b.place(strings.Replace(front, "X-Forwarded-For $remote_addr", `X-Forwarded-For "`+set+`"`, 1)), b.https)
		for sender, want := range map[string]int{fromGreenAPI: 200, stranger: 403} {
			status, client, _ := b.judged(e, request{header: []string{"X-Sender", sender, "X-Claim", fromGreenAPI}})
			if status != want || want == 403 && client != sender {
				t.Errorf("%s of %s: %d, judged %q", set, sender, status, client)
			}
		}
	}
	if status := b.send(request{header: []string{"X-Sender", fromGreenAPI}, body: strings.Replace(edgetest.TextMessage, "a canary sings", strings.Repeat("a canary sings ", 105_000), 1)}); status != 200 {
		t.Errorf("a long body: %d", status)
	}
}
