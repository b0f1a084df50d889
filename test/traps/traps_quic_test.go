package traps

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// deaf is a client's socket that hears nothing until it may: then the server has a request and no end
// of the handshake.
type deaf struct {
	net.PacketConn
	until chan struct{}
}

func (d *deaf) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := d.PacketConn.ReadFrom(p)
	<-d.until
	return n, from, err
}

// TestTrapEarlyDataQUIC: a request that really comes in 0-RTT, before the address of its sender is
// verified, is refused; the same one after the handshake is not early.
func TestTrapEarlyDataQUIC(t *testing.T) {
	if edgetest.RaceDetector {
		t.Skip("Caddy v2.11.9 has a race of its own when it begins to manage a certificate")
	}
	up := edgetest.NewWitness(t)
	e := edgetest.Start(t, strings.NewReplacer("auto_https off", "auto_https disable_redirects\nskip_install_trust", "http://:PORT {", "https://localhost:PORT {\ntls internal").
		Replace(edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address)))
	server, err := net.ResolveUDPAddr("udp", "127.0.0.1:"+e.Port)
	if err != nil {
		t.Fatal(err)
	}
	sessions := tls.NewLRUClientSessionCache(1)
	get := func(method string) int {
		t.Helper()
		socket, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		conn := &deaf{socket, make(chan struct{})}
		if method != http3.MethodGet0RTT {
			close(conn.until)
		} else {
			before := len(e.Logs.Records(t))
			go func() { // the server has judged it
				defer close(conn.until)
				for deadline := time.Now().Add(10 * time.Second); len(e.Logs.Records(t)) == before && time.Now().Before(deadline); {
					time.Sleep(5 * time.Millisecond)
				}
			}()
		}
		dialer := &quic.Transport{Conn: conn}
		defer dialer.Close()
		client := &http3.Transport{
			TLSClientConfig: &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, ClientSessionCache: sessions},
			Dial: func(ctx context.Context, _ string, config *tls.Config, settings *quic.Config) (*quic.Conn, error) {
				return dialer.DialEarly(ctx, server, config, settings)
			},
		}
		defer client.Close()
		r, err := http.NewRequest(method, "https://localhost:"+e.Port+"/green-api/webhook", nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		response, err := client.RoundTrip(r.WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		return response.StatusCode
	}
	// The certificate is made while the first of them come.
	edgetest.Eventually(t, "certificate", func() bool {
		conn, err := tls.Dial("tcp", "127.0.0.1:"+e.Port, &tls.Config{ServerName: "localhost", InsecureSkipVerify: true})
		return err == nil && conn.Close() == nil
	})
	if status := get(http.MethodGet); status != 401 {
		t.Fatalf("after the handshake: %d", status)
	}
	if status := get(http3.MethodGet0RTT); status != 425 {
		t.Errorf("in 0-RTT: %d, want 425", status)
	}
	e.WantRecord("outcome", "refused", "reason", reason.EarlyData)
	if seen := up.Seen(); seen > 0 {
		t.Errorf("the handlers saw %d connections and requests", seen)
	}
}
