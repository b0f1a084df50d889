package greenapi

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// TestMaxAge: what is older than max_age is deleted, and leaves nothing behind; what is not stays.
func TestMaxAge(t *testing.T) {
	config := strings.Replace(edgetest.Site(edgetest.Loopback), "quarantine DIR", "quarantine DIR {\nmax_age 2s\n}", 1)
	e := edgetest.Start(t, config)
	e.Post(edgetest.Broken("OLD"))
	edgetest.Eventually(t, "deletion", func() bool {
		return strings.Contains(e.Logs.All(), "quarantine entries deleted, they were older than max_age")
	})
	e.Post(edgetest.Broken("NEW"))
	kept := e.Kept()
	if len(kept) != 1 || kept[0].NotificationID != "NEW" {
		t.Errorf("%d kept", len(kept))
	}
	raw, err := os.ReadFile(filepath.Join(e.Dir, quarantine.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte(`"OLD"`)) {
		t.Error("the file still has what was deleted")
	}
}

// TestMaxAgeNotice: the operator is told two days before, once a day.
func TestMaxAgeNotice(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	store, err := quarantine.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for age, id := range map[time.Duration]string{8 * 24 * time.Hour: "OLD", 6 * 24 * time.Hour: "SOON", time.Hour: "NEW"} {
		if _, err := store.Put(quarantine.Entry{Received: now.Add(-age), NotificationID: id, Body: []byte("{}")}, 0); err != nil {
			t.Fatal(err)
		}
	}
	store.Close()
	alert := &Alert{URL: "http://127.0.0.1:1"}
	if err := alert.provision(); err != nil {
		t.Fatal(err)
	}
	expire := func(doubtful bool) (told string) {
		t.Helper()
		desk := tell.NewDesk(gauges(), tell.DefaultTimes(), alertsTo(func(body string) { told += body }))
		desk.Configure([]tell.Endpoint{alert.endpoint}, caddy.Log())
		a := &App{Quarantine: &Quarantine{Path: dir}, operator: &operator{desk: desk}, logger: caddy.Log()}
		for range 3 {
			if err := a.expireNow(7*24*time.Hour, now, doubtful); err != nil {
				t.Fatal(err)
			}
		}
		desk.Close() // tells what there is
		return told
	}
	if told := expire(true); !strings.Contains(told, `"reason":"expiring"`) || !strings.Contains(told, `"count":1,`) || !strings.Contains(told, "2 will be deleted within 48 hours") {
		t.Errorf("when the clock is in doubt, told %s", told)
	}
	if left := edgetest.ReadQuarantine(t, dir); len(left) != 3 {
		t.Errorf("when the clock was in doubt, %d were left of 3", len(left))
	}
	if told := expire(false); !strings.Contains(told, `"count":1,`) || !strings.Contains(told, "1 will be deleted within 48 hours") {
		t.Errorf("told %s", told)
	}
	left := edgetest.ReadQuarantine(t, dir)
	if len(left) != 2 || left[0].NotificationID != "SOON" {
		t.Errorf("left %+v", left)
	}
}

// TestWipeRetried: what a deletion left behind, because of a kill or of a disk that failed, is wiped
// at the next occasion, with a max_age and without.
func TestWipeRetried(t *testing.T) {
	for _, maxAge := range []time.Duration{0, 24 * time.Hour} {
		dir := t.TempDir()
		store, err := quarantine.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		id, err := store.Put(quarantine.Entry{Body: []byte("SECRET BODY")}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.Delete(id); err != nil {
			t.Fatal(err)
		}
		if err := store.Close(); err != nil { // before anybody has wiped
			t.Fatal(err)
		}
		a := &App{Quarantine: &Quarantine{Path: dir}, operator: new(operator), logger: caddy.Log()}
		a.expireTick(maxAge, time.Now())
		raw, err := os.ReadFile(filepath.Join(dir, quarantine.FileName))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte("SECRET BODY")) {
			t.Errorf("max_age %s: the file still has what was deleted", maxAge)
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

// TestWallClock: a clock that is set makes the age of everything doubtful, for two days.
func TestWallClock(t *testing.T) {
	start := time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name         string
		wall         []time.Time // of looks an hour apart
		step         time.Duration
		wantDoubtful bool
	}{
		{"first look", []time.Time{now}, 0, false},
		{"it runs", []time.Time{now, now.Add(time.Hour)}, 0, false},
		{"corrected by a minute", []time.Time{now, now.Add(time.Hour + time.Minute)}, 0, false},
		{"set at boot", []time.Time{start, now}, now.Sub(start) - time.Hour, true},
		{"set back", []time.Time{now, now.Add(-24 * time.Hour)}, -25 * time.Hour, true},
		{"set, then it runs", []time.Time{start, now, now.Add(time.Hour)}, 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var c wallClock
			var step time.Duration
			for _, wall := range test.wall {
				step = c.look(wall, time.Hour, largestStep)
			}
			last := test.wall[len(test.wall)-1]
			if step != test.step || c.doubtful(last) != test.wantDoubtful {
				t.Errorf("set by %s, doubtful %v; want %s, %v", step, c.doubtful(last), test.step, test.wantDoubtful)
			}
			if c.doubtful(last.Add(expiryNotice)) {
				t.Error("doubtful for more than two days")
			}
		})
	}
}
