package greenapi

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// midday is a moment of the tables below; up and wall are then moved apart.
var midday = instant{wall: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC), up: 100 * time.Hour}

func (i instant) after(d time.Duration) instant { return instant{i.wall.Add(d), i.up + d} }

// TestRetentionRules: what GREEN-API is about to delete is kept, by the time since it first failed, or by
// its own timestamp if it goes on failing; and nothing is lost by a clock that is set.
func TestRetentionRules(t *testing.T) {
	const h, m = time.Hour, time.Minute
	type step struct {
		at   time.Duration
		set  time.Duration // the clock, by how much
		keep bool
	}
	for _, test := range []struct {
		name  string
		age   time.Duration // by its timestamp, at the beginning; 0 for none
		steps []step
	}{
		{"first seen", time.Second, []step{{0, 0, false}, {h, 0, false}, {23*h + 29*m, 0, false}, {23*h + 30*m, 0, true}}},
		{"without a timestamp", 0, []step{{0, 0, false}, {h, 0, false}, {2 * h, 0, false}, {23*h + 30*m, 0, true}}},
		{"from the future", -h, []step{{0, 0, false}, {h, 0, false}, {2 * h, 0, false}, {23*h + 30*m, 0, true}}},
		{"old already", 40 * h, []step{{0, 0, false}, {m, 0, false}, {2 * m, 0, false}, {10*m - 1, 0, false}, {10 * m, 0, true}}},
		{"old already, but seldom seen", 40 * h, []step{{0, 0, false}, {h, 0, false}, {2 * h, 0, true}}},
		{"gets old", 23 * h, []step{{0, 0, false}, {10 * m, 0, false}, {29 * m, 0, false}, {30 * m, 0, true}}},
		{"the clock is set ahead", time.Second, []step{{0, 0, false}, {m, 1000 * h, false}, {2 * m, 1000 * h, false}, {23*h + 30*m, 1000 * h, true}}},
		{"the machine slept", time.Second, []step{{0, 0, false}, {15 * h, 8 * h, false}, {15*h + 30*m, 8 * h, true}}},
		{"the clock is set back", time.Second, []step{{0, 0, false}, {m, -5 * h, false}, {2 * m, -5 * h, false}, {23*h + 30*m, -5 * h, true}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			times := newFailureTimes()
			var sent time.Time
			if test.age != 0 {
				sent = midday.wall.Add(-test.age)
			}
			for i, step := range test.steps {
				now := midday.after(step.at)
				now.wall = now.wall.Add(step.set)
				if got := times.fail(bodyKey([]byte("a body")), instanceKey("1"), sent, now); got != step.keep {
					t.Errorf("%d: keep %t, want %t", i, got, step.keep)
				}
			}
		})
	}
}

// TestRetentionRestored: a restart does not begin to count anew, whatever became of the clock.
func TestRetentionRestored(t *testing.T) {
	const h, m = time.Hour, time.Minute
	for _, test := range []struct {
		name string
		age  time.Duration // in the file
		keep []bool        // at once, and each 5 minutes later
	}{
		{"young", h, []bool{false, false, false, false}},
		{"about to be deleted", 23*h + 30*m, []bool{true}},
		{"soon", 23*h + 20*m, []bool{false, false, true}},
		{"deleted: this is another one", 26 * h, []bool{false, false, false, false}},
		{"the clock was corrected", -5 * m, []bool{false, false, false, false}},
		{"the clock was set back, it may be of any age", -5 * h, []bool{false, false, true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			times, body := newFailureTimes(), bodyKey([]byte("a body"))
			times.restore([]quarantine.FirstFailure{{Key: body, At: midday.wall.Add(-test.age)}}, midday)
			for i, want := range test.keep {
				now := midday.after(time.Duration(i) * 5 * m)
				if got := times.fail(body, instanceKey("1"), now.wall, now); got != want {
					t.Errorf("%d: keep %t, want %t", i, got, want)
				}
			}
			set, gone := times.changes()
			for _, s := range set {
				if age := midday.wall.Sub(s.At); s.Key == body && (age < -5*m || age > forgetAfter) {
					t.Errorf("the file would have an age of %s", age)
				}
			}
			if len(gone) > 0 {
				t.Errorf("%d gone", len(gone))
			}
		})
	}
}

// TestRetentionClockSaved: the file has the age by the clock that is right now, however it was set.
func TestRetentionClockSaved(t *testing.T) {
	for _, set := range []time.Duration{-5 * time.Hour, 1000 * time.Hour} {
		times, body := newFailureTimes(), bodyKey([]byte("a body"))
		times.fail(body, instanceKey("1"), time.Time{}, midday)
		times.changes()
		now := midday.after(20 * time.Hour)
		now.wall = now.wall.Add(set)
		times.fail(body, instanceKey("1"), time.Time{}, now)
		saved, _ := times.changes()
		again := newFailureTimes()
		again.restore(saved, now.after(time.Hour))
		if later := now.after(2 * time.Hour); again.fail(body, instanceKey("1"), time.Time{}, later) {
			t.Errorf("set by %s: kept after 22 hours", set)
		}
		if later := now.after(3*time.Hour + 30*time.Minute); !again.fail(body, instanceKey("1"), time.Time{}, later) {
			t.Errorf("set by %s: not kept after 23:30", set)
		}
	}
}

// TestRetentionBehind: behind a head that failed for 23 hours, what is old is not waited for.
func TestRetentionBehind(t *testing.T) {
	times := newFailureTimes()
	head, one := bodyKey([]byte("head")), instanceKey("1")
	behind := func(body, instance string, age time.Duration, at time.Duration) bool {
		now := midday.after(at)
		return times.behind([]byte(body), instance, now.wall.Add(-age), now)
	}
	const h = time.Hour
	for hour := range time.Duration(24) {
		times.fail(head, one, midday.wall, midday.after(hour*h))
	}
	for i, step := range []struct {
		body     string
		instance string
		age, at  time.Duration
		want     bool
	}{
		{"next", "1", 23 * h, 23*h - 1, false},
		{"next", "1", 23 * h, 23 * h, true},
		{"next", "1", 23*h - 1, 23 * h, false},
		{"next", "2", 23 * h, 23 * h, false},
		{"head", "1", 23 * h, 23 * h, false}, // it has its own time
	} {
		if got := behind(step.body, step.instance, step.age, step.at); got != step.want {
			t.Errorf("%d: %t, want %t", i, got, step.want)
		}
	}
	times.forget(head) // it was kept
	if !behind("next", "1", 24*h, 24*h) {
		t.Error("it does not stand behind it any longer when that was kept")
	}
	if behind("next", "1", 24*h, 24*h+1) {
		t.Error("it stands behind one that does not come again")
	}
	times.forget(one) // something was delivered
	if behind("next", "1", 24*h, 24*h) {
		t.Error("it stands behind one that was delivered")
	}
}

// TestRetentionBounded: however much fails, memory and file are bounded, and what goes on failing stays.
func TestRetentionBounded(t *testing.T) {
	times, steady := newFailureTimes(), bodyKey([]byte("steady"))
	var key failureKey
	for i := range 2*maxFailureTimes + 1000 {
		binary.BigEndian.PutUint64(key[:], uint64(i+1))
		now := midday.after(time.Duration(i))
		times.fail(key, instanceKey("1"), time.Time{}, now)
		if i%1000 == 0 {
			times.fail(steady, instanceKey("2"), time.Time{}, now)
		}
	}
	if len(times.of) != maxFailureTimes || times.oldest.Len() != maxFailureTimes {
		t.Errorf("%d and %d remembered", len(times.of), times.oldest.Len())
	}
	if len(times.unsaved) > 2*maxFailureTimes+1 {
		t.Errorf("%d to be saved", len(times.unsaved))
	}
	if at := times.of[steady]; at == nil || at.Value.(*failureTime).since != midday.up {
		t.Error("what goes on failing was forgotten")
	}
	times.fail(key, instanceKey("1"), time.Time{}, midday.after(26*time.Hour)) // all others do not fail any longer
	if len(times.of) != 2 || len(times.of) != times.oldest.Len() {
		t.Errorf("%d remembered after all are over", len(times.of))
	}
}

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
	for _, test := range []struct {
		last                bool
		took, timeout, want time.Duration // took: to read the body
	}{
		{false, 0, time.Minute, time.Minute},
		{false, 20 * time.Second, time.Minute, time.Minute},
		{true, 0, time.Minute, 10 * time.Second},
		{true, 20 * time.Second, time.Minute, 30 * time.Second},
		{true, 0, time.Second, time.Second},
	} {
		limits := defaultLimits()
		limits.timeout = test.timeout
		a := &asking{c: &outcome.Case{Started: sent}, limits: &limits, lastChance: test.last}
		if got := a.deadline(sent.Add(test.took)).Sub(sent); got != test.want {
			t.Errorf("last chance %t, after %s, timeout %s: %s", test.last, test.took, test.timeout, got)
		}
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
		saved, err := shared.store.FirstFailures()
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
