//go:build linux

package chaos

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestMemory measures what an edge holds in memory for what it cannot yet let go. `make memory` prints
// it; the bounds are far above, and there to find what grows without one.
func TestMemory(t *testing.T) {
	if os.Getenv("GREEN_API_MEMORY") == "" {
		t.Skip("GREEN_API_MEMORY is not set; make memory sets it")
	}
	const mebibyte = 1 << 20
	big := strings.Replace(edgetest.TextMessage, "a canary sings", strings.Repeat("a", mebibyte-len(edgetest.TextMessage)), 1)
	for _, test := range []struct {
		name    string
		number  int
		status  string // of the handlers
		body    string
		cut     int // bytes of the body that do not come
		most    int // MiB resident, more than before
		answers bool
	}{
		{"10,000 connections that have sent one notification and rest", 10_000, "200", edgetest.TextMessage, 0, 1000, true},
		{"300 notifications of 1 MiB that wait for a handler", 300, "503", big, 0, 1500, false},
		{"64 notifications of 1 MiB that are still coming", 64, "200", big, 1, 500, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := edgetest.NewLedger(t)
			handler := l.NewFaulty()
			handler.Does(func([]byte) string { return test.status })
			l.Sent[""] = []byte(test.body) // they bear no mark
			s := newSoaked(t, []*edgetest.Faulty{handler})
			before := s.measure()
			request := fmt.Sprintf("POST /green-api/webhook HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
				edgetest.Token, len(test.body), test.body[:len(test.body)-test.cut])
			var sending sync.WaitGroup
			places := make(chan struct{}, 64)
			for range test.number {
				conn, err := net.Dial("tcp", "127.0.0.1:"+s.edge.Port)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				places <- struct{}{}
				sending.Go(func() {
					defer func() { <-places }()
					_, err := io.WriteString(conn, request)
					if err == nil && test.answers {
						_, err = io.ReadFull(conn, make([]byte, len("HTTP/1.1 200 OK\r\n")))
					}
					if err != nil {
						t.Error(err)
					}
				})
			}
			sending.Wait()
			time.Sleep(time.Second) // for the edge to have read it all
			after := s.measure()
			t.Logf("%s: %s, before: %s", test.name, after, before)
			if grown := (after.resident - before.resident) / mebibyte; grown > test.most {
				t.Errorf("%d MiB more, want at most %d", grown, test.most)
			}
		})
	}
}
