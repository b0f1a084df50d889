package greenapi

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestWholeBody: a handler gets a notification in one piece, with one write. In two, the first would
// end with the header.
func TestWholeBody(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var mu sync.Mutex
	var pieces [][]byte
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buffer := make([]byte, 64<<10)
				for {
					n, err := conn.Read(buffer)
					if err != nil {
						return
					}
					mu.Lock()
					pieces = append(pieces, bytes.Clone(buffer[:n]))
					mu.Unlock()
					if bytes.HasSuffix(buffer[:n], []byte(edgetest.TextMessage)) {
						_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					}
				}
			}()
		}
	}()
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+listener.Addr().String()))
	const sent = 50
	for range sent {
		if status := e.Post(edgetest.TextMessage); status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(pieces) != sent {
		t.Errorf("%d notifications came in %d pieces", sent, len(pieces))
	}
}
