package deliver

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestUpstreams: each kind of upstream that reverse_proxy knows works inside the block.
func TestUpstreams(t *testing.T) {
	plain := edgetest.NewUpstream(t, 200, nil)
	_, port, _ := strings.Cut(plain.Address, ":")
	secure := edgetest.NewUpstream(t, 200, nil)
	tls := httptest.NewTLSServer(secure.Config.Handler)
	t.Cleanup(tls.Close)
	socket := t.TempDir() + "/handler.sock"
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	local := edgetest.NewUpstream(t, 200, nil)
	go http.Serve(listener, local.Config.Handler)
	t.Cleanup(func() { listener.Close() })

	names := "resolvers " + nameServer(t, port)
	for _, test := range []struct {
		name, block string
		up          *edgetest.Upstream
	}{
		{"dynamic a", "{\ndynamic a handlers.test " + port + " {\n" + names + "\n}\n}", plain},
		{"dynamic srv", "{\ndynamic srv _webhook._tcp.handlers.test {\n" + names + "\n}\ntransport http {\n" + names + "\n}\n}", plain},
		{"https", "https://" + tls.Listener.Addr().String() + " {\ntransport http {\ntls_insecure_skip_verify\n}\n}", secure},
		{"unix socket", "unix/" + socket, local},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := len(test.up.Requests())
			e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 30s\n}\nreverse_proxy "+test.block))
			if status := e.Post(edgetest.TextMessage); status != 200 {
				t.Errorf("status %d: %s", status, e.Logs.All())
			}
			if n := len(test.up.Requests()) - before; n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

// nameServer is a name server that knows one handler, on this machine.
func nameServer(t *testing.T, port string) string {
	t.Helper()
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			var message dnsmessage.Message
			if message.Unpack(buffer[:n]) != nil || len(message.Questions) != 1 {
				continue
			}
			message.Response = true
			message.Additionals = nil
			question := message.Questions[0]
			answer := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 60}}
			switch question.Type {
			case dnsmessage.TypeSRV:
				answer.Body = &dnsmessage.SRVResource{Port: uint16(number), Target: dnsmessage.MustNewName("handler-1.test.")}
			case dnsmessage.TypeA:
				answer.Body = &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}
			}
			if answer.Body != nil {
				message.Answers = []dnsmessage.Resource{answer}
			}
			if answer, err := message.Pack(); err == nil {
				conn.WriteTo(answer, from)
			}
		}
	}()
	return conn.LocalAddr().String()
}

// TestHealthChecks: a handler that fails Caddy's active check is not asked, one that fails passively
// is asked only if no other is left.
func TestHealthChecks(t *testing.T) {
	var sick atomic.Bool
	checked := make(chan struct{}, 100)
	a := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			if sick.Load() {
				w.WriteHeader(500)
			}
			checked <- struct{}{}
		}
	})
	b := edgetest.NewUpstream(t, 200, nil)
	sick.Store(true)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+a.Address+" "+b.Address+" {\nlb_policy first\nhealth_uri /health\nhealth_interval 20ms\n}"))
	<-checked
	<-checked
	count := func() (n int) {
		for _, request := range a.Requests() {
			if request.Path != "/health" {
				n++
			}
		}
		return n
	}
	for i := range 5 {
		if status := e.Post(edgetest.Numbered(fmt.Sprint("SICK", i))); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	if n := count(); n != 0 {
		t.Errorf("a sick handler was asked %d times", n)
	}
	sick.Store(false)
	edgetest.Eventually(t, "asked again", func() bool {
		e.Post(edgetest.Numbered(fmt.Sprint("WELL", time.Now().UnixNano())))
		return count() > 0
	})

	down, flaky := edgetest.Script(t, "down"), edgetest.Script(t, "503", "503", "503", "200")
	e = edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+down.Address+" "+flaky.Address+" {\nfail_duration 1m\nmax_fails 1\n}"))
	for i := range 5 {
		if status := e.Post(edgetest.Numbered(fmt.Sprint("P", i))); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	sleeper := edgetest.Script(t, "break", "200")
	e = edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+sleeper.Address+" {\nfail_duration 1m\nmax_fails 1\n}"))
	if status := e.Post(edgetest.TextMessage); status != 200 {
		t.Errorf("the only handler, unhealthy: status %d", status)
	}
}
