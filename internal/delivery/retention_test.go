package delivery

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// midday is a moment of the tables below; up and wall are then moved apart.
var midday = Instant{wall: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC), up: 100 * time.Hour}

func (i Instant) after(d time.Duration) Instant { return Instant{i.wall.Add(d), i.up + d} }

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
			times := NewFailureTimes()
			var sent time.Time
			if test.age != 0 {
				sent = midday.wall.Add(-test.age)
			}
			for i, step := range test.steps {
				now := midday.after(step.at)
				now.wall = now.wall.Add(step.set)
				if got := times.fail(keyOf(sha256.Sum256([]byte("a body"))), instanceKey("1"), sent, now); got != step.keep {
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
			times, body := NewFailureTimes(), keyOf(sha256.Sum256([]byte("a body")))
			times.restore([]FirstFailure{{Key: body, At: midday.wall.Add(-test.age)}}, midday)
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
		times, body := NewFailureTimes(), keyOf(sha256.Sum256([]byte("a body")))
		times.fail(body, instanceKey("1"), time.Time{}, midday)
		times.changes()
		now := midday.after(20 * time.Hour)
		now.wall = now.wall.Add(set)
		times.fail(body, instanceKey("1"), time.Time{}, now)
		saved, _ := times.changes()
		again := NewFailureTimes()
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
	times := NewFailureTimes()
	head, one := keyOf(sha256.Sum256([]byte("head"))), instanceKey("1")
	behind := func(body, instance string, age time.Duration, at time.Duration) bool {
		now := midday.after(at)
		return times.behind(keyOf(sha256.Sum256([]byte(body))), instance, now.wall.Add(-age), now)
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
	times, steady := NewFailureTimes(), keyOf(sha256.Sum256([]byte("steady")))
	var key FailureKey
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
	if len(times.pending) > 2*maxFailureTimes+1 {
		t.Errorf("%d to be saved", len(times.pending))
	}
	if at := times.of[steady]; at == nil || at.Value.(*failureTime).since != midday.up {
		t.Error("what goes on failing was forgotten")
	}
	times.fail(key, instanceKey("1"), time.Time{}, midday.after(26*time.Hour)) // all others do not fail any longer
	if len(times.of) != 2 || len(times.of) != times.oldest.Len() {
		t.Errorf("%d remembered after all are over", len(times.of))
	}
}

// TestRetentionDeadline: a last attempt has ten seconds, and no less if the body was long in coming.
func TestRetentionDeadline(t *testing.T) {
	sent := time.Now()
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
		limits := DefaultLimits()
		limits.Timeout = test.timeout
		a := &Try{Case: &outcome.Case{Started: sent}, limits: &limits, lastChance: test.last}
		if got := a.deadline(sent.Add(test.took)).Sub(sent); got != test.want {
			t.Errorf("last chance %t, after %s, timeout %s: %s", test.last, test.took, test.timeout, got)
		}
	}
}
