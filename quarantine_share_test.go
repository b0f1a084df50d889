package greenapi

import (
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/token"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// bulky is a notification of an instance that breaks its schema, with 40 KiB to keep.
func bulky(instance string) string {
	return strings.Replace(strings.Replace(edgetest.Broken("BULKY"), "1101000001", instance, 1), "Test Sender", strings.Repeat("x", 40<<10), 1)
}

// TestShares: where several instances send, what the bodies of one cause fills a quarter of the
// quarantine, and behaves then as if it were full; nobody else notices.
func TestShares(t *testing.T) {
	const a, b = "1101000001", "1101000002"
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, strings.Replace(edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address), "quarantine DIR", "quarantine DIR {\nmax_size 2MiB\n}", 1))
	keep := func(body string, most int) (kept int) {
		t.Helper()
		for range most {
			if status := e.Post(body); status != 200 && status != 503 {
				t.Fatalf("status %d", status)
			}
			if e.Record().Text("outcome") != "quarantined" {
				break
			}
			kept++
		}
		return kept
	}
	e.Post(strings.Replace(edgetest.TextMessage, a, b, 1)) // b sends, too
	if n := keep(bulky(a), 40); n < 8 || n > 12 {
		t.Errorf("%d of 40 KiB kept, a quarter of 2 MiB is 12 at most", n)
	}
	e.WantRecord("outcome", "delivered", "reason", "quarantine_unavailable", "found", "schema", "instance", a)
	if text := e.Record().Text("error"); !strings.Contains(text, "share of the quarantine is full") || !strings.Contains(text, "raise max_size") {
		t.Errorf("error: %s", text)
	}
	e.Post(strings.Replace(bulky(a), "incomingMessageReceived", "brandNew", 1))
	e.WantRecord("outcome", "delivered", "reason", "quarantine_unavailable", "found", "unknown_type")

	// Bodies of which nobody knows the instance have one share together.
	if n := keep(strings.Repeat("x", 40<<10), 40); n < 8 || n > 12 {
		t.Errorf("%d malformed of 40 KiB kept", n)
	}
	e.WantRecord("outcome", "failed", "reason", "quarantine_unavailable", "status", "503", "found", "malformed")

	if n := keep(bulky(b), 3); n != 3 {
		t.Errorf("of another instance %d were kept", n)
	}
}

// TestShareOf: what a notification's own body causes counts against its instance, and that no handler
// took it does not.
func TestShareOf(t *testing.T) {
	for _, why := range reason.Kept() {
		want := !slices.Contains([]reason.Reason{reason.Undeliverable, reason.Retention}, why)
		share, counted := shareOf(quarantine.Entry{Reason: string(why), Instance: "1101000001"})
		if counted != want || counted && share != "1101000001" {
			t.Errorf("%s: share %q, counted %v", why, share, counted)
		}
	}
}

// TestSeveralSend: shares are for where several instances send, by what is known of them.
func TestSeveralSend(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		name       string
		configured []string
		seen       map[string]time.Duration // how long ago
		instance   string
		want       bool
	}{
		{"nobody yet", nil, nil, "1", false},
		{"no instance, of nobody", nil, nil, "", false},
		{"alone", nil, map[string]time.Duration{"1": 0}, "1", false},
		{"alone, in the config", []string{"1"}, map[string]time.Duration{"1": time.Minute}, "1", false},
		{"no instance, of one", nil, map[string]time.Duration{"1": 0}, "", false},
		{"another", nil, map[string]time.Duration{"1": 0, "2": 23 * time.Hour}, "1", true},
		{"another, at first", nil, map[string]time.Duration{"2": time.Hour}, "1", true},
		{"another, long ago", nil, map[string]time.Duration{"1": 0, "2": 25 * time.Hour}, "1", false},
		{"another, in the config", []string{"2"}, nil, "1", true},
		{"two in the config", []string{"1", "2"}, nil, "", true},
		{"no instance, of two", nil, map[string]time.Duration{"1": 0, "2": time.Minute}, "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			op := new(operator)
			for _, instance := range slices.Sorted(maps.Keys(test.seen)) { // the last to send is the last to be added
				op.seen.Add(instance, outcome.Delivered, now.Add(-test.seen[instance]))
			}
			a := &App{operator: op, blocks: map[string]block{"default": {handler: &Handler{Auth: withTokensOf(t, test.configured...)}}}}
			if got := a.severalSend(test.instance, now); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// withTokensOf is a gate auth with a token for each instance.
func withTokensOf(t *testing.T, instances ...string) *Auth {
	t.Helper()
	auth := &Auth{set: new(atomic.Pointer[token.Set])}
	set, err := token.NewSet(nil, tokensOf(instances), resolve)
	if err != nil {
		t.Fatal(err)
	}
	auth.set.Store(set)
	return auth
}

func tokensOf(instances []string) map[string][]string {
	tokens := make(map[string][]string)
	for _, instance := range instances {
		tokens[instance] = []string{"token-of-" + instance}
	}
	return tokens
}

// TestOneInstanceHasAll: where a single one sends, there is nobody to share with.
func TestOneInstanceHasAll(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, strings.Replace(edgetest.Site(edgetest.Loopback+"validate {\ndrift_guard off\n}\nreverse_proxy "+up.Address), "quarantine DIR", "quarantine DIR {\nmax_size 2MiB\n}", 1))
	for i := range 30 {
		e.Post(bulky("1101000001"))
		e.WantRecord("outcome", "quarantined", "reason", "schema")
		if t.Failed() {
			t.Fatalf("after %d", i)
		}
	}
}

// TestSmallShares: who keeps longer bodies than a share has room for is told so at load.
func TestSmallShares(t *testing.T) {
	for size, warns := range map[string]bool{"1GiB": false, "65MiB": false, "64MiB": true, "1MiB": true} {
		config := edgetest.Site(edgetest.Loopback + "reverse_proxy 127.0.0.1:9")
		e := edgetest.Start(t, strings.Replace(config, "quarantine DIR", "quarantine DIR {\nmax_size "+size+"\n}", 1))
		if got := e.Logged("does not fit into a quarter") != ""; got != warns {
			t.Errorf("%s: warns: %t", size, got)
		}
	}
}
