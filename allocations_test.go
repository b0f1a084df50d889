package greenapi

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestAllocations: a notification costs little, even less if it goes to no handler. The server and its request are
// not counted, nor is the handler.
func TestAllocations(t *testing.T) {
	if edgetest.RaceDetector {
		t.Skip("the race detector allocates")
	}
	for _, test := range []struct {
		name, block, token string
		status             int
		most               float64
	}{
		{"delivered", "ip_filter {\nallow 203.0.113.7\n}\nreverse_proxy " + quietHandler(t, edgetest.TextMessage) + "\n", "demo-token", 200, 18},
		{"dropped", "ip_filter {\nallow 203.0.113.7\n}\nvalidate {\ndrop incomingMessageReceived\n}\n", "demo-token", 200, 6},
		{"refused", "", "wrong", 403, 3},
		{"wrong token", "ip_filter {\nallow 203.0.113.7\n}\n", "wrong", 401, 9},
	} {
		if n := testing.AllocsPerRun(100, serving(t, test.block, test.token, test.status)); n > test.most {
			t.Errorf("%s: %v allocations, want at most %v", test.name, n, test.most)
		}
	}
}

// serving returns a function that serves one notification, each time as the first of its request.
func serving(t *testing.T, block, token string, status int) func() {
	t.Helper()
	h := benchHandler(t, block+"auth {\ntoken other-token demo-token\n}\n")
	w := &deadlines{nowhere{header: make(http.Header)}}
	r := benchRequest(w)
	r.Header.Set("Authorization", "Bearer "+token)
	body := strings.NewReader("")
	r.Body, r.ContentLength = io.NopCloser(body), int64(len(edgetest.TextMessage))
	repl := replacer(r.Context())
	fresh := *repl
	return func() {
		body.Reset(edgetest.TextMessage)
		*repl = fresh // without what a notification adds to it
		clear(w.header)
		if err := h.ServeHTTP(w, r, nil); err != nil || w.status != status {
			t.Fatal(err, w.status)
		}
	}
}

// deadlines is a writer with a read deadline, as a server's is: the body of a refused request is read for
// the instance that it claims.
type deadlines struct{ nowhere }

func (*deadlines) SetReadDeadline(time.Time) error { return nil }
