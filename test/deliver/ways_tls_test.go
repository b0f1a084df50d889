package deliver

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestNothingInPlainText: a handler to whom TLS is to be spoken gets no byte without it, whatever the options of TLS, and
// nothing at all if its certificate is not trusted.
func TestNothingInPlainText(t *testing.T) {
	edgetest.Proof(t)
	for name, transport := range map[string]string{
		"https": "versions 1.1", "tls": "tls\nversions 1.1", "a timeout": "tls\ntls_timeout 2s\nversions 1.1", "HTTP/2": "tls",
	} {
		t.Run(name, func(t *testing.T) {
			heard := make(chan string, 100)
			to := listening(t, func(c net.Conn) {
				defer c.Close()
				first := make([]byte, 1<<10)
				n, _ := c.Read(first)
				heard <- string(first[:n])
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			})
			if name == "https" {
				to = "https://" + to
			}
			e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 400ms\n}\nreverse_proxy "+to+" {\ntransport http {\n"+transport+"\n}\n}"))
			if status := e.Post(edgetest.Numbered("TLS")); status != 503 {
				t.Errorf("status %d", status)
			}
			if first := <-heard; !strings.HasPrefix(first, "\x16\x03") {
				t.Errorf("the handler heard %q", first)
			}

			untrusted := make(chan bool, 1)
			to = secure(t, func(http.ResponseWriter, *http.Request) { untrusted <- true })
			if name == "https" {
				to = "https://" + to
			}
			e = edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 400ms\n}\nreverse_proxy "+to+" {\ntransport http {\n"+transport+"\n}\n}"))
			if status := e.Post(edgetest.Numbered("TLS")); status != 503 {
				t.Errorf("status %d with a certificate that nobody trusts", status)
			}
			select {
			case <-untrusted:
				t.Error("a handler without a trusted certificate got it")
			default:
			}
		})
	}
}

// TestNamesInTime: names that nobody resolves do not hold an attempt up beyond its time.
func TestNamesInTime(t *testing.T) {
	mute, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 1s\nattempt_timeout 300ms\n}\n"+
		"reverse_proxy {\ndynamic a handlers.test 80 {\nresolvers "+mute.LocalAddr().String()+"\n}\n}"))
	began := time.Now()
	status := e.Post(edgetest.Numbered("NAME"))
	if took := time.Since(began); status/100 != 5 || took > 3*time.Second {
		t.Errorf("status %d after %s", status, took)
	}
}
