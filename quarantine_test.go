package greenapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/judge"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// TestEntryClipped: however long the sender makes what is kept beside a body, lists of it are short.
func TestEntryClipped(t *testing.T) {
	long := strings.Repeat("\xff", 1<<20)
	r := &http.Request{Host: strings.Repeat("h", 1<<20), RequestURI: "/hook/" + strings.Repeat("%20", 1<<18) + "?" + long, Header: make(http.Header)}
	for range 1000 {
		r.Header.Add("Content-Type", "application/json; charset=utf-8; x="+strings.Repeat("y", 1<<15)+"; charset=utf-16")
	}
	v := &visit{Case: outcome.Case{Host: r.Host, URI: r.RequestURI, Header: r.Header, Client: long, N: &notification.Notification{Type: long, Message: long, Instance: "1101000001", Chat: long, ID: long}, Body: []byte("{}")}}
	end := outcome.ToQuarantine(reason.Schema)
	for range 100 { // as many as there are at most
		end.Faults = append(end.Faults, notification.Fault{Pointer: "/" + strings.Repeat("p", 1<<15), Keyword: "type"})
	}
	entry := newEntry("default", &v.Case, end)
	head, err := json.Marshal(entry)
	if err != nil {
		t.Fatal(err)
	}
	if most := 128 << 10; len(head) > most {
		t.Errorf("head of %d bytes, want %d at most", len(head), most)
	}
	uri, err := url.ParseRequestURI(entry.URI)
	if err != nil || !strings.HasPrefix(uri.Path, "/hook/ ") || uri.RawQuery != "" {
		t.Errorf("URI %q: %v", entry.URI, err)
	}
	for _, kind := range entry.Header["Content-Type"] {
		if judge.IsJSON(kind) {
			t.Errorf("clipped, it has become JSON: %q", kind)
		}
	}
	short := &visit{Case: outcome.Case{Host: "hooks.example.com", URI: "/hook?a=b", Header: http.Header{"Content-Type": {notification.ContentType}}, N: v.N}}
	if e := newEntry("default", &short.Case, end); e.URI != "/hook?a=b" || e.Host != "hooks.example.com" || e.Header["Content-Type"][0] != notification.ContentType {
		t.Errorf("short ones are changed: %+v", e)
	}
}

// TestMaxAge: what is older than max_age is deleted, and leaves nothing behind. The operator is told of what will be
// within two days.
func TestMaxAge(t *testing.T) {
	quickAlerts(t)
	in := edgetest.NewInbox(t, nil)
	dir := filepath.Join(t.TempDir(), "quarantine")
	store, err := quarantine.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range []string{"OLD", "SOON", "NEW"} {
		age := []time.Duration{8, 6, 1}[i] * 24 * time.Hour
		if _, err := store.Put(quarantine.Entry{Received: time.Now().Add(-age), NotificationID: id, Instance: "1101000001", Body: []byte("body of " + id)}, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	config := edgetest.Alerting(in.URL, "", edgetest.Loopback)
	e := edgetest.Start(t, strings.Replace(config, "quarantine DIR", "quarantine "+dir+" {\nmax_age 7d\n}", 1))
	edgetest.Eventually(t, "deletion", func() bool { return strings.Contains(e.Logs.All(), "quarantine entries deleted") })
	wantWarning(t, e, `"msg":"quarantine entries deleted, they were older than max_age","count":1,"max_age":604800}`)
	edgetest.Eventually(t, "alert", func() bool {
		all := strings.Join(in.All(), "")
		return strings.Contains(all, `"reason":"expiring"`) && strings.Contains(all, "1 will be deleted within 48 hours. Replay or export them: caddy green-api quarantine list.")
	})
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	kept := edgetest.ReadQuarantine(t, dir)
	if len(kept) != 2 || kept[0].NotificationID != "SOON" || kept[1].NotificationID != "NEW" {
		t.Errorf("kept %+v", kept)
	}
	raw, err := os.ReadFile(filepath.Join(dir, quarantine.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("body of OLD")) {
		t.Error("the file still has what was deleted")
	}
}

// TestExpiringOnce: of what will be deleted soon the operator is told once a day, and of a fault of the quarantine
// in the log, without what a placeholder stands for.
func TestExpiringOnce(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	a := &App{Quarantine: &Quarantine{Path: "/secret/place", MaxAge: caddy.Duration(time.Hour), said: "{env.PLACE}"}, operator: newOperator(tell.DefaultTimes()), logger: zap.New(core)}
	now := time.Now()
	a.expiry().Soon(1, quarantine.Entry{}, now)
	if a.operator.daily.First(reason.Expiring, now) {
		t.Error("told once more on the same day")
	}
	if a.expiry().Clock != &a.operator.clock {
		t.Error("a config forgets that the clock was set")
	}
	a.expiry().ClockSet(time.Hour)
	a.expiry().Failed(errors.New("open /secret/place: no disk"))
	a.Quarantine.MaxAge = 0
	a.expiry().Failed(errors.New("open /secret/place: no disk"))
	var said []string
	for _, entry := range logs.All() {
		said = append(said, fmt.Sprint(entry.Level, " ", entry.Message, " ", entry.ContextMap()))
	}
	want := []string{
		"warn the clock was set: no quarantine entry is deleted for its age in the next 48 hours, unless Caddy is restarted map[by:1h0m0s]",
		"error quarantine entries older than max_age could not be deleted map[error:open {env.PLACE}: no disk]",
		"error what is left of deleted quarantine entries could not be wiped map[error:open {env.PLACE}: no disk]",
	}
	if !slices.Equal(said, want) {
		t.Errorf("got %q, want %q", said, want)
	}
}

// TestReplayKind: the operator hears of which type a replayed notification is that waits for a handler.
func TestReplayKind(t *testing.T) {
	edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+edgetest.NewUpstream(t, 200, nil).Address))
	app, err := caddy.ActiveContext().AppIfConfigured("green_api")
	if err != nil {
		t.Fatal(err)
	}
	h := *app.(*App).blocks[defaultName].handler
	for body, want := range map[string]string{
		edgetest.TextMessage: "incomingMessageReceived",
		`{"typeWebhook": 1}`: notification.KindNone,
		"no notification":    notification.KindNone,
		strings.Replace(edgetest.TextMessage, "incomingMessageReceived", "brandNew", 1): notification.KindOther,
	} {
		var got string
		h.hooks.Attempted = func(c *outcome.Case, _ delivery.Answer) { got = c.Kind }
		h.replay(quarantine.Entry{ID: "1", Body: []byte(body)}, false)
		if got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}

// TestWipeAtStart: a Caddy that starts wipes what the one before was killed over.
func TestWipeAtStart(t *testing.T) {
	config := edgetest.Site(edgetest.Loopback)
	e := edgetest.Start(t, config)
	e.Post(edgetest.Broken("OLD"))
	kept := e.Kept()
	store, err := quarantine.Open(e.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Delete(kept[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	edgetest.Eventually(t, "wiping", func() bool {
		raw, err := os.ReadFile(filepath.Join(e.Dir, quarantine.FileName))
		return err == nil && !bytes.Contains(raw, []byte(`"OLD"`))
	})
}
