package greenapi

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// benchHandler is the provisioned handler of a block, in a Caddy that listens on nothing but a port
// that nobody calls.
func benchHandler(tb testing.TB, block string) *Handler {
	tb.Helper()
	config := strings.NewReplacer("PORT", edgetest.FreePort(tb), "DIR", filepath.Join(tb.TempDir(), "quarantine"), "DEBUG", "ERROR").Replace(edgetest.Site(block))
	text, err := edgetest.Adapt(strings.Replace(config, "output test_buffer", "output discard", 1))
	if err != nil {
		tb.Fatal(err)
	}
	if err := caddy.Load(text, true); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			tb.Error(err)
		}
	})
	f := holdFleet(defaultName)
	defer releaseFleet(defaultName)
	h := f.newest.Load()
	if h == nil {
		tb.Fatal("no handler runs")
	}
	return h
}

// gatesBlock is a block with n prefixes and n tokens of instances, of which the last are those of
// benchRequest.
func gatesBlock(n int) string {
	var block strings.Builder
	block.WriteString("ip_filter {\nallow")
	for i := range n - 1 {
		fmt.Fprintf(&block, " 10.%d.%d.0/24", i/256, i%256)
	}
	block.WriteString(" 203.0.113.7\n}\nauth {\n")
	for i := range n - 1 {
		fmt.Fprintf(&block, "instance %d demo-token-%d\n", 1101000002+i, i)
	}
	block.WriteString("instance 1101000001 demo-token\n}\n")
	return block.String()
}

// benchRequest is a request that has come through Caddy's server, without a body.
func benchRequest(w http.ResponseWriter) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/green-api/webhook", nil)
	r.RemoteAddr = "203.0.113.7:4711"
	r.Header.Set("Authorization", "Bearer demo-token")
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, new(caddyhttp.Server))
}

// nowhere takes an answer and keeps its status.
type nowhere struct {
	header http.Header
	status int
}

func (w *nowhere) Header() http.Header            { return w.header }
func (w *nowhere) Write(text []byte) (int, error) { return len(text), nil }
func (w *nowhere) WriteHeader(status int)         { w.status = status }

// passGates is what each request costs before a byte of its body is read.
func passGates(h *Handler, v *visit) bool {
	v.Token = h.Auth.worth(v.r.Header)
	return h.IPFilter.check(v) == nil && h.Auth.check(v) == nil
}

// TestGatesAllocateNothing: who sends, and with which token, is found out without a single
// allocation, however many there are to compare with.
func TestGatesAllocateNothing(t *testing.T) {
	if edgetest.RaceDetector {
		t.Skip("the race detector allocates")
	}
	h := benchHandler(t, gatesBlock(1000))
	w := &nowhere{header: make(http.Header)}
	v := newVisit(w, benchRequest(w))
	if !passGates(h, v) {
		t.Fatal("refused")
	}
	if n := testing.AllocsPerRun(100, func() { passGates(h, v) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func BenchmarkGates(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := benchHandler(b, gatesBlock(n))
			w := &nowhere{header: make(http.Header)}
			v := newVisit(w, benchRequest(w))
			b.ReportAllocs()
			for b.Loop() {
				if !passGates(h, v) {
					b.Fatal("refused")
				}
			}
		})
	}
}

// quietHandler is a handler that takes everything and allocates nothing for it, so that what is counted is
// ours.
func quietHandler(tb testing.TB, body string) (address string) {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				end, answer, in := []byte(body), []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), make([]byte, 4<<10)
				for have := 0; ; {
					n, err := c.Read(in[have:])
					if have += n; err != nil {
						return
					}
					if bytes.HasSuffix(in[:have], end) {
						have = 0
						if _, err := c.Write(answer); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// BenchmarkServeHTTP is our part of a notification's way: no server, and the handlers allocate nothing.
func BenchmarkServeHTTP(b *testing.B) {
	taken := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		_, err := io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusOK)
		return err
	})
	for _, test := range []struct {
		name, more, body string
		status           int
	}{
		{"delivered", "reverse_proxy " + quietHandler(b, edgetest.TextMessage), edgetest.TextMessage, 200},
		{"through Caddy", "reverse_proxy " + quietHandler(b, edgetest.TextMessage) + " {\nverbose_logs\n}", edgetest.TextMessage, 200},
		{"by the route", "", edgetest.TextMessage, 200},
		{"dropped", "validate {\ndrop incomingMessageReceived\n}\n", edgetest.TextMessage, 200},
		{"refused", "ip_filter {\nallow 192.0.2.1\n}\n", edgetest.TextMessage, 403},
	} {
		b.Run(test.name, func(b *testing.B) {
			block := "ip_filter {\nallow 203.0.113.7\n}\n"
			if test.name == "refused" {
				block = ""
			}
			h := benchHandler(b, block+"auth {\ntoken other-token demo-token\n}\n"+test.more)
			w := &nowhere{header: make(http.Header)}
			body := strings.NewReader(test.body)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				body.Reset(test.body)
				r := benchRequest(w)
				r.Body, r.ContentLength = io.NopCloser(body), int64(len(test.body))
				if test.name == "refused" {
					r.Header.Set("Authorization", "Bearer wrong")
				}
				b.StartTimer()
				if err := h.ServeHTTP(w, r, taken); err != nil || w.status != test.status {
					b.Fatal(err, w.status)
				}
			}
		})
	}
}
