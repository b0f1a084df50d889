package edgetest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Inbox receives alerts.
type Inbox struct {
	*httptest.Server
	mu     sync.Mutex
	got    []string
	Header []http.Header
	status func(n int) int // of the nth; nil for 200
}

func NewInbox(t *testing.T, status func(n int) int) *Inbox {
	t.Helper()
	in := &Inbox{status: status}
	in.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		in.mu.Lock()
		in.got, in.Header = append(in.got, string(body)), append(in.Header, r.Header)
		n := len(in.got)
		in.mu.Unlock()
		if in.status != nil {
			w.WriteHeader(in.status(n))
		}
	}))
	t.Cleanup(in.Close)
	return in
}

func (in *Inbox) All() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]string(nil), in.got...)
}

// Alerting returns a config with an alert.
func Alerting(url, options, block string) string {
	return strings.Replace(Site(block), "green_api {\n\t\tquarantine DIR\n", "green_api {\n\t\tquarantine DIR\n\t\talert "+url+" {\n"+options+"\n}\n", 1)
}
