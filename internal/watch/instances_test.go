package watch

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// TestSilentInstances: a silence is told once for each length, of configured instances only, and anew
// after something came, which is told to end it.
func TestSilentInstances(t *testing.T) {
	var s Silences
	began := time.Now()
	lengths := []time.Duration{10 * time.Minute, time.Hour}
	configured := []string{"1", "2"}
	at := func(minutes int, want ...Silence) {
		t.Helper()
		got := s.Watch(configured, lengths, began.Add(time.Duration(minutes)*time.Minute))
		slices.SortFunc(got, func(a, b Silence) int {
			return int(a.Length-b.Length) + slices.Index(configured, a.Instance) - slices.Index(configured, b.Instance)
		})
		if !slices.Equal(got, want) {
			t.Errorf("after %d minutes: %v, want %v", minutes, got, want)
		}
	}
	saw := func(instance string, minutes int, ends bool) {
		t.Helper()
		if ended := s.Saw(instance, began.Add(time.Duration(minutes)*time.Minute)); ended != ends {
			t.Errorf("%s after %d minutes ends a silence: %t, want %t", instance, minutes, ended, ends)
		}
	}
	short := func(instance string) Silence { return Silence{instance, lengths[0]} }
	long := func(instance string) Silence { return Silence{instance, lengths[1]} }
	at(0)
	saw("1", 5, false)
	saw("3", 5, false) // is not configured
	at(10, short("2"))
	at(14)
	at(15, short("1"))
	at(16)
	saw("2", 17, true)
	saw("2", 12, false) // was longer on its way
	at(26)
	at(27, short("2"))
	at(65, long("1"))
	at(77, long("2"))
	saw("1", 78, true)
	saw("1", 79, false)
	at(100, short("1"))
	configured = []string{"2", "3"}
	at(101)
	if len(s.of) != 2 {
		t.Errorf("%d are watched, want the two that are configured", len(s.of))
	}
	at(111, short("3"))
}

// TestSilenceOfMany: however many others send, configured or made up with a token that all share,
// what came from a configured instance is not forgotten; and the others take no room.
func TestSilenceOfMany(t *testing.T) {
	var seen Instances
	var silent Silences
	began := time.Now()
	var configured []string
	for i := range 2 * maxSeen {
		configured = append(configured, fmt.Sprint(i))
	}
	silent.Watch(configured, []time.Duration{time.Minute}, began)
	saw := func(instance string, at time.Time) {
		seen.Add(instance, outcome.Delivered, at)
		silent.Saw(instance, at)
	}
	for _, instance := range configured {
		saw(instance, began.Add(time.Hour))
	}
	for i := range 2 * maxSeen {
		saw(fmt.Sprint("made up ", i), began.Add(time.Hour))
	}
	if told := silent.Watch(configured, []time.Duration{time.Minute}, began.Add(time.Hour+time.Second)); len(told) > 0 {
		t.Errorf("%d are told silent, as %v", len(told), told[0])
	}
	if len(silent.of) != len(configured) {
		t.Errorf("%d are watched, want %d", len(silent.of), len(configured))
	}
	if len(seen.of) != maxSeen || seen.oldest.Len() != maxSeen || len(seen.List()) != maxSeen {
		t.Errorf("%d and %d are seen, want the last %d", len(seen.of), seen.oldest.Len(), maxSeen)
	}
	if last := seen.List()[0].Instance; last[:8] != "made up " {
		t.Errorf("the last to send is %s", last)
	}
}

// TestSilenceOfAnotherLength: after a reload, what counts is what the alerts ask for now.
func TestSilenceOfAnotherLength(t *testing.T) {
	var silent Silences
	began := time.Now()
	silent.Watch([]string{"1"}, []time.Duration{time.Minute}, began)
	for _, test := range []struct {
		after, length time.Duration
		told, silent  int
	}{{time.Minute, time.Minute, 1, 1}, {2 * time.Minute, 24 * time.Hour, 0, 0}, {3 * time.Minute, time.Minute, 1, 1}} {
		told := silent.Watch([]string{"1"}, []time.Duration{test.length}, began.Add(test.after))
		if len(told) != test.told || len(silent.Silent()) != test.silent {
			t.Errorf("after %s, %s: %v, %v", test.after, test.length, told, silent.Silent())
		}
	}
}

// TestAnswered: of what came last and need not come again, the time is known.
func TestAnswered(t *testing.T) {
	var s Instances
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	for after, end := range []outcome.Outcome{outcome.Delivered, outcome.Quarantined, outcome.Failed, outcome.Refused} {
		s.Add("1101000001", end, at.Add(time.Duration(after)*time.Second))
	}
	s.Add("1101000001", outcome.Delivered, at.Add(-time.Hour)) // from the queue
	if got := s.Answered("1101000001"); !got.Equal(at.Add(time.Second)) {
		t.Errorf("answered %s", got)
	}
	if got := s.Answered("1101000002"); !got.IsZero() {
		t.Errorf("a stranger: %s", got)
	}
}
