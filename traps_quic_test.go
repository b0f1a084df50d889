package greenapi

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// lazy is a client's socket that can be made to send its first flight only, for a while: then the
// server has its request and no end of the handshake.
type lazy struct {
	net.PacketConn
	on       atomic.Bool
	answered atomic.Int64 // when the first packet came, in nanoseconds
}

func (l *lazy) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := l.PacketConn.ReadFrom(p)
	l.answered.CompareAndSwap(0, time.Now().UnixNano())
	return n, from, err
}

func (l *lazy) WriteTo(p []byte, to net.Addr) (int, error) {
	if at := l.answered.Load(); l.on.Load() && at != 0 && time.Now().UnixNano()-at < int64(500*time.Millisecond) {
		return len(p), nil // lost on the way; QUIC sends it again
	}
	return l.PacketConn.WriteTo(p, to)
}

// TestTrapEarlyDataQUIC: a request that really comes in 0-RTT, before the address of its sender is
// verified, is refused; the same one after the handshake is not early.
func TestTrapEarlyDataQUIC(t *testing.T) {
	up := newWitness(t)
	e := start(t, strings.NewReplacer("auto_https off", "auto_https disable_redirects\nskip_install_trust", "http://:PORT {", "https://localhost:PORT {\ntls internal").
		Replace(site(loopback+"reverse_proxy "+up.address)))
	server, err := net.ResolveUDPAddr("udp", "127.0.0.1:"+e.port)
	if err != nil {
		t.Fatal(err)
	}
	sessions := tls.NewLRUClientSessionCache(1)
	get := func(method string, isLazy bool) int {
		t.Helper()
		socket, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		conn := &lazy{PacketConn: socket}
		conn.on.Store(isLazy)
		dialer := &quic.Transport{Conn: conn}
		defer dialer.Close()
		client := &http3.Transport{
			TLSClientConfig: &tls.Config{ServerName: "localhost", InsecureSkipVerify: true, ClientSessionCache: sessions},
			Dial: func(ctx context.Context, _ string, config *tls.Config, settings *quic.Config) (*quic.Conn, error) {
				return dialer.DialEarly(ctx, server, config, settings)
			},
		}
		defer client.Close()
		r, err := http.NewRequest(method, "https://localhost:"+e.port+"/green-api/webhook", nil)
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
	eventually(t, "certificate", func() bool {
		conn, err := tls.Dial("tcp", "127.0.0.1:"+e.port, &tls.Config{ServerName: "localhost", InsecureSkipVerify: true})
		return err == nil && conn.Close() == nil
	})
	if status := get(http.MethodGet, false); status != 401 {
		t.Fatalf("after the handshake: %d", status)
	}
	if status := get(http3.MethodGet0RTT, true); status != 425 {
		t.Errorf("in 0-RTT: %d, want 425", status)
	}
	e.wantRecord("outcome", "refused", "reason", reasonEarlyData)
	if seen := up.seen(); seen > 0 {
		t.Errorf("the handlers saw %d connections and requests", seen)
	}
}
