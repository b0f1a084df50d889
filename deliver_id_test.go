package greenapi

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/standin"
)

// wantID is what handlers are promised in X-Green-Api-Id: stored ids must go on to mean the same.
func wantID(body string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(body)))[:32] }

// TestID: a handler gets the same X-Green-Api-Id at each attempt, re-send and replay of a notification,
// over a reload, too, and another one with another notification.
func TestID(t *testing.T) {
	var well atomic.Bool
	answer := func(w http.ResponseWriter, _ *http.Request) {
		if !well.Load() {
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	}
	one, other := edgetest.NewUpstream(t, 0, answer), edgetest.NewUpstream(t, 0, answer)
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"deliver {\ndead_letter 1\n}\nreverse_proxy "+one.Address+" "+other.Address))
	never := strings.Replace(config, "dead_letter 1", "dead_letter off", 1)
	e := edgetest.Start(t, never)
	post := func(status int) {
		t.Helper()
		if got := e.Post(edgetest.TextMessage, idHeader, "forged"); got != status {
			t.Fatalf("status %d, want %d", got, status)
		}
	}
	post(502)
	post(502)
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	post(200) // kept
	well.Store(true)
	response, err := http.Post("http://"+admin+"/green_api/quarantine/replay?all=true", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text := edgetest.ReaderText(t, response.Body); !strings.Contains(text, `"outcome":"delivered"`) {
		t.Fatalf("replay: %s", text)
	}
	all := slices.Concat(one.Requests(), other.Requests())
	replays := 0
	for _, asked := range all {
		if got := asked.Header.Values(idHeader); len(got) != 1 || got[0] != wantID(edgetest.TextMessage) {
			t.Errorf("a handler got the id %q, want %s", got, wantID(edgetest.TextMessage))
		}
		if asked.Header.Get(replayHeader) != "" {
			replays++
		}
	}
	if len(all) != 7 || replays != 1 {
		t.Errorf("asked %d times, %d of them replays; want 7 and 1", len(all), replays)
	}

	e.Post(edgetest.StateChanged)
	for _, asked := range slices.Concat(one.Requests(), other.Requests()) {
		if asked.Body == edgetest.StateChanged && asked.Header.Get(idHeader) != wantID(edgetest.StateChanged) {
			t.Errorf("another notification has the id %q", asked.Header.Get(idHeader))
		}
	}
}

// TestIDWithoutProxy: the rest of the route gets the id, too.
func TestIDWithoutProxy(t *testing.T) {
	e := edgetest.Start(t, edgetest.SiteWith("", "route {\ngreen_api {\n"+edgetest.Loopback+"}\n@id header "+idHeader+" "+wantID(edgetest.TextMessage)+"\nrespond @id 204\nrespond 500\n}\n"))
	if status := e.Post(edgetest.TextMessage); status != 200 {
		t.Errorf("status %d, want 200", status)
	}
}

// TestIDReceived: what comes from the HTTP API has the id that it would have if it were posted.
func TestIDReceived(t *testing.T) {
	const instance = "1101000001"
	v := edgetest.NewVendor(t, standin.Options{}, instance)
	handler := edgetest.NewUpstream(t, 200, nil)
	want := edgetest.NoteAll(v, instance, 3)
	edgetest.Start(t, edgetest.Site("auth {\ntoken TOKEN\n}\n"+v.Receives(instance)+"reverse_proxy "+handler.Address))
	edgetest.Eventually(t, "all to be deleted", func() bool { return v.Queued(instance) == 0 })
	handler.WantTaken(t, want)
	for _, asked := range handler.Requests() {
		if got := asked.Header.Get(idHeader); got != wantID(asked.Body) {
			t.Errorf("the handler got the id %q, want %s", got, wantID(asked.Body))
		}
	}
}
