package greenapi

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// TestRetention: a notification that fails for a day is kept before GREEN-API deletes it, and so is what
// stands behind it.
func TestRetention(t *testing.T) {
	const behind = 1000
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 30ms\n}\nreverse_proxy 127.0.0.1:"+edgetest.FreePort(t)))
	sent := time.Now()
	note := func(i int) string { return sentAt(fmt.Sprintf("N%04d", i), sent) }
	for _, step := range []struct {
		later time.Duration
		want  int
	}{{0, 503}, {12 * time.Hour, 503}, {11*time.Hour + 29*time.Minute, 503}, {2 * time.Minute, 200}} {
		later(step.later)
		if got := e.Post(note(0)); got != step.want {
			t.Errorf("status %d, want %d", got, step.want)
		}
	}
	e.WantRecord("outcome", "quarantined", "reason", "retention", "found", "not_now", "level", "error")
	began := time.Now()
	var posting sync.WaitGroup
	for lane := range 8 { // at once, which spares the test seconds
		posting.Go(func() {
			for i := lane; i < behind; i += 8 {
				if got := e.Post(note(i + 1)); got != 200 {
					t.Errorf("%d behind it: status %d", i+1, got)
				}
			}
		})
	}
	posting.Wait()
	t.Logf("%d behind the head took %s", behind, time.Since(began))
	e.WantRecord("outcome", "quarantined", "reason", "retention", "attempts", "1")
	if got := e.Post(sentAt("YOUNG", sent.Add(23*time.Hour))); got != 503 {
		t.Errorf("one that has time: status %d", got)
	}
	if got := e.Post(strings.Replace(note(1), "1101000001", "1101000002", 1)); got != 503 {
		t.Errorf("one of another instance: status %d", got)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	store, err := quarantine.Open(e.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if n := store.Stats().Entries; n != behind+1 {
		t.Errorf("%d kept", n)
	}
}

// TestRetentionLastAttempt: what stands behind is asked about once, at one handler, for a short time.
func TestRetentionLastAttempt(t *testing.T) {
	up, other := edgetest.Script(t, "500", "500", "500", "200", "500"), edgetest.Script(t, "500")
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address+" "+other.Address+" {\nlb_policy first\n}"))
	sent := time.Now()
	e.Post(sentAt("HEAD", sent))
	later(23*time.Hour + 30*time.Minute)
	for _, step := range []struct{ id, outcome string }{{"HEAD", "quarantined"}, {"ONE", "quarantined"}, {"TWO", "delivered"}, {"THREE", "failed"}} {
		e.Post(sentAt(step.id, sent))
		e.WantRecord("outcome", step.outcome)
	}
	if n := len(other.Requests()); n != 3 { // twice about the head, once about the last one
		t.Errorf("the other handler was asked %d times", n)
	}
}

// TestRetentionLastReached: a handler that cannot be reached is no attempt: the others are asked.
func TestRetentionLastReached(t *testing.T) {
	gone, up := edgetest.NewUpstream(t, 500, nil), edgetest.Script(t, "500", "500", "500", "200")
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 500ms\n}\nreverse_proxy "+gone.Address+" "+up.Address+" {\nlb_policy first\nmax_fails 1000\n}"))
	sent := time.Now()
	e.Post(sentAt("HEAD", sent))
	gone.Close()
	later(23*time.Hour + 10*time.Minute)
	e.Post(sentAt("HEAD", sent)) // so that it stands
	for _, step := range []struct{ id, outcome string }{{"ONE", "quarantined"}, {"TWO", "delivered"}} {
		e.Post(sentAt(step.id, sent))
		e.WantRecord("outcome", step.outcome, "attempts", "2")
	}
	if n := len(up.Requests()); n != 4 {
		t.Errorf("the handler that is there was asked %d times", n)
	}
}

// TestRetentionOverRestart: the time since it first failed outlives the process, and a reload.
func TestRetentionOverRestart(t *testing.T) {
	config := edgetest.Site(edgetest.Loopback + "deliver {\ntimeout 30ms\n}\nreverse_proxy 127.0.0.1:" + edgetest.FreePort(t))
	e := edgetest.Start(t, config)
	body := sentAt("HEAD", time.Now().Add(time.Hour)) // nothing shows by its own timestamp
	if got := e.Post(body); got != 503 {
		t.Errorf("status %d", got)
	}
	if err := caddy.Stop(); err != nil { // at the end it is in the file
		t.Fatal(err)
	}
	store, err := quarantine.Open(e.Dir)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := store.FirstFailures()
	if err != nil || len(saved) != 2 {
		t.Fatalf("%d saved, %v", len(saved), err)
	}
	for i := range saved {
		saved[i].At = saved[i].At.Add(-24 * time.Hour)
	}
	if err := store.SaveFirstFailures(saved, nil, 0); err != nil {
		t.Fatal(err)
	}
	store.Close()
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	if got := e.Post(body); got != 200 {
		t.Errorf("after the restart: status %d", got)
	}
	e.WantRecord("reason", "retention")
}

// TestRetentionForgets: what is delivered is forgotten, in the file, too.
func TestRetentionForgets(t *testing.T) {
	up := edgetest.Script(t, "500", "200", "500")
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ndead_letter off\n}\nreverse_proxy "+up.Address))
	body := sentAt("HEAD", time.Now().Add(48*time.Hour))
	for i, want := range []int{502, 200, 502} {
		if got := e.Post(body); got != want {
			t.Errorf("%d: status %d, want %d", i, got, want)
		}
		if i == 1 {
			later(24 * time.Hour)
		}
	}
	shared := holdQuarantine(e.Dir)
	defer releaseQuarantine(e.Dir)
	edgetest.Eventually(t, "it to be saved", func() bool {
		store, err := shared.Open()
		if err != nil {
			t.Fatal(err)
		}
		saved, err := store.FirstFailures()
		return err == nil && len(saved) == 2 && time.Until(saved[0].At) > 23*time.Hour
	})
}

// TestRetentionReceived: a notification of the HTTP API is deleted where a posted one is answered 200.
func TestRetentionReceived(t *testing.T) {
	up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\ntimeout 30ms\n}\nreverse_proxy "+up.Address))
	handler := func() *Handler {
		fleet := holdFleet(defaultName)
		defer releaseFleet(defaultName)
		return fleet.newest.Load()
	}()
	receive := &Receive{Instance: "1101000001", URI: "/"}
	body := []byte(sentAt("HEAD", time.Now()))
	for i, want := range []int{503, 200} {
		if end := handler.receive(receive, body); end.Status != want {
			t.Errorf("%d: status %d, want %d", i, end.Status, want)
		}
		later(24 * time.Hour)
	}
}
