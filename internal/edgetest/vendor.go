package edgetest

import (
	"net/http/httptest"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/standin"
)

const APIToken = "api-canary-d75b3a66374942c5b3c0"

// Vendor is a stand-in for the vendor's API on a socket.
type Vendor struct {
	*standin.Server
	URL string
}

func NewVendor(t *testing.T, options standin.Options, instances ...string) *Vendor {
	t.Helper()
	if options.Scale == 0 {
		options.Scale = 100
	}
	options.NoLimits = true
	v := &Vendor{Server: standin.New(options)}
	server := httptest.NewServer(v)
	v.URL = server.URL
	t.Cleanup(func() {
		v.Close()
		server.CloseClientConnections()
		server.Close()
	})
	for _, id := range instances {
		v.Add(id, APIToken)
	}
	return v
}

// Receives returns the config line to receive an instance.
func (v *Vendor) Receives(instance string) string {
	return "receive " + instance + " " + APIToken + " {\napi_url " + v.URL + "\nuri /green-api/webhook?via=api\n}\n"
}

func NoteAll(v *Vendor, instance string, count int) (want []string) {
	for i := range count {
		body := NotificationOf(instance, i)
		v.Notify(instance, body)
		want = append(want, string(body))
	}
	return want
}

// WantTaken fails the test unless the handler took exactly these, in this order.
func (u *Upstream) WantTaken(t *testing.T, want []string) {
	t.Helper()
	got := u.Requests()
	for i := range min(len(got), len(want)) {
		if got[i].Body != want[i] {
			t.Fatalf("notification %d: the handler got %s, want %s", i, got[i].Body, want[i])
		}
	}
	if len(got) != len(want) {
		t.Errorf("the handler got %d notifications, want %d", len(got), len(want))
	}
}
