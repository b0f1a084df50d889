package deliver

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// listening is the address of something that takes connections and gives them to do.
func listening(t *testing.T, do func(net.Conn)) string {
	t.Helper()
	return takes(t, listen(t), do)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// takes gives the connections of a listener to do, until the test ends.
func takes(t *testing.T, listener net.Listener, do func(net.Conn)) (address string) {
	t.Helper()
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go do(conn)
		}
	}()
	return listener.Addr().String()
}

// silent takes connections and says nothing.
func silent(t *testing.T) string {
	t.Helper()
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	return listening(t, func(conn net.Conn) {
		<-end
		conn.Close()
	})
}

// secure starts a handler that speaks TLS, with HTTP/2 if that is wanted.
func secure(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		answer(w, r)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// TestNeverReached: while no byte of the body has left the edge, a handler is one that is not connected.
func TestNeverReached(t *testing.T) {
	plain := edgetest.NewUpstream(t, 200, nil).Address
	refuses := listening(t, func(conn net.Conn) {
		_, _ = io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		conn.Close()
	})
	hangs := silent(t)
	var names []string
	var routes strings.Builder
	for _, test := range []struct{ name, handler, transport string }{
		{"TLS fails", plain, ""},
		{"TLS fails, HTTP/2", plain, "versions 2"},
		{"TLS fails, own dialer", plain, "tls_server_name {http.green_api.instance}.example.com"},
		{"TLS, not trusted", secure(t, nil), "versions 1.1 2"},
		{"TLS hangs", hangs, "tls_timeout 50ms"},
		{"TLS hangs, HTTP/2", hangs, "versions 2\ntls_timeout 50ms"},
		{"TLS hangs, own dialer", hangs, "tls_server_name {http.green_api.instance}.example.com\ntls_timeout 50ms"},
		{"TLS hangs beyond the attempt", hangs, "tls_timeout 1m"},
		{"PROXY protocol, then TLS fails", plain, "proxy_protocol v2"},
		{"a proxy refuses", plain, "network_proxy url http://" + refuses},
		{"a proxy hangs", plain, "network_proxy url http://" + hangs},
		{"SOCKS fails", plain, "network_proxy url socks5://" + refuses},
		{"SOCKS hangs", plain, "network_proxy url socks5://" + hangs},
		{"no such name", "handler.invalid:443", "resolvers " + strings.TrimPrefix(hangs, "tcp/") + "\ndial_timeout 50ms"},
		{"HTTP/3", hangs, "versions 3"},
	} {
		trust := "tls_insecure_skip_verify\n"
		if test.name == "TLS, not trusted" {
			trust = ""
		}
		gone := "127.0.0.1:" + edgetest.FreePort(t)
		proxy := "reverse_proxy https://" + test.handler + " https://" + gone + " {\nlb_policy first\ntransport http {\n" + trust + test.transport + "\n}\n}\n"
		block := edgetest.Loopback + "deliver {\ntimeout 700ms\nattempt_timeout 200ms\n}\n"
		for where, route := range map[string]string{"in the block": block + proxy + "}\n", "behind it": block + "}\n" + proxy} {
			n := fmt.Sprint(len(names))
			names = append(names, test.name+", "+where)
			fmt.Fprintf(&routes, "handle /n%s {\ngreen_api {\nname n%s\n%s}\n", n, n, route)
		}
	}
	e := edgetest.Start(t, edgetest.SiteWith("", routes.String()))
	var posting sync.WaitGroup
	for n := range names {
		posting.Go(func() {
			url := fmt.Sprintf("http://127.0.0.1:%s/n%d", e.Port, n)
			if response := e.Send(http.MethodPost, url, strings.NewReader(edgetest.Numbered(fmt.Sprint("N", n)))); response.StatusCode != 503 {
				t.Errorf("%s: status %d, want 503", names[n], response.StatusCode)
			}
		})
	}
	posting.Wait()
	for _, r := range e.Logs.Records(t) {
		var n int
		_, _ = fmt.Sscanf(r.Text("id"), "N%d", &n)
		if tried := r.Text("tried"); r.Text("reason") != "not_now" || strings.Contains(tried, "in time") || !strings.Contains(tried, delivery.ErrNotConnected.Error()) {
			t.Errorf("%s: %s, tried %s", names[n], r.Text("reason"), tried)
		}
	}
}

// TestNeverReachedAsksOthers: two handlers cannot be reached, and the third is asked at once.
func TestNeverReachedAsksOthers(t *testing.T) {
	well := secure(t, func(http.ResponseWriter, *http.Request) {})
	hangs := silent(t)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy https://"+hangs+" https://"+silent(t)+" https://"+well+" {\nlb_policy first\ntransport http {\ntls_insecure_skip_verify\ntls_timeout 50ms\n}\n}"))
	began := time.Now()
	if status := e.Post(edgetest.TextMessage); status != 200 {
		t.Errorf("status %d", status)
	}
	if took := time.Since(began); took > edgetest.Patient(3*time.Second) {
		t.Errorf("after %s", took)
	}
}

// TestReachedAndBrokenOff: what breaks off or hangs once the body may be there is no failed connection.
func TestReachedAndBrokenOff(t *testing.T) {
	broken := secure(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	hung := secure(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for _, version := range []string{"1.1", "2"} {
		for _, test := range []struct{ handler, reason string }{{broken, "broken_off"}, {hung, "attempt_timeout"}} {
			t.Run(version+" "+test.reason, func(t *testing.T) {
				e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\nattempt_timeout 300ms\n}\nreverse_proxy https://"+test.handler+" {\ntransport http {\ntls_insecure_skip_verify\nversions "+version+"\n}\n}"))
				e.Post(edgetest.TextMessage)
				e.WantRecord("reason", test.reason)
			})
		}
	}
}

// TestReachedOnce: what breaks off is not sent again unseen, and a handler that is gone afterwards was
// reached all the same.
func TestReachedOnce(t *testing.T) {
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		t.Run(name, func(t *testing.T) {
			var up *edgetest.Upstream
			up = edgetest.NewUpstream(t, 0, func(_ http.ResponseWriter, r *http.Request) {
				if r.Header.Get(name) == "SECOND" {
					up.Listener.Close()
					panic(http.ErrAbortHandler)
				}
			})
			e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 300ms\n}\nreverse_proxy "+up.Address+" {\nheader_up "+name+" {http.green_api.id}\n}"))
			e.Post(edgetest.Numbered("FIRST")) // the connection stays
			if status := e.Post(edgetest.Numbered("SECOND")); status != 502 {
				t.Errorf("status %d", status)
			}
			e.WantRecord("reason", "broken_off")
			if n := len(up.Requests()); n != 2 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

// TestCanceled: reverse_proxy answers 499 when its request was canceled. Here nobody has.
func TestCanceled(t *testing.T) {
	e := edgetest.Start(t, edgetest.SiteWith("", "green_api {\n"+edgetest.Loopback+"}\nrespond 499\n"))
	if status := e.Post(edgetest.TextMessage); status != 502 {
		t.Errorf("status %d", status)
	}
	e.WantRecord("reason", "broken_off")
}
