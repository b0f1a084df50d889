package greenapi

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// TestSilentInstances: a silence is told once for each length, of configured instances only, and anew
// after something came.
func TestSilentInstances(t *testing.T) {
	var s silentInstances
	began := time.Now()
	lengths := []time.Duration{10 * time.Minute, time.Hour}
	configured := []string{"1", "2"}
	at := func(minutes int, want ...silence) {
		t.Helper()
		got := s.watch(configured, lengths, began.Add(time.Duration(minutes)*time.Minute))
		slices.SortFunc(got, func(a, b silence) int {
			return int(a.length-b.length) + slices.Index(configured, a.instance) - slices.Index(configured, b.instance)
		})
		if !slices.Equal(got, want) {
			t.Errorf("after %d minutes: %v, want %v", minutes, got, want)
		}
	}
	saw := func(instance string, minutes int) { s.saw(instance, began.Add(time.Duration(minutes)*time.Minute)) }
	short := func(instance string) silence { return silence{instance, lengths[0]} }
	long := func(instance string) silence { return silence{instance, lengths[1]} }
	at(0)
	saw("1", 5)
	saw("3", 5) // is not configured
	at(10, short("2"))
	at(14)
	at(15, short("1"))
	at(16)
	saw("2", 17)
	saw("2", 12) // was longer on its way
	at(26)
	at(27, short("2"))
	at(65, long("1"))
	at(77, long("2"))
	saw("1", 78)
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
	o := new(operator)
	began := time.Now()
	var configured []string
	for i := range 2 * maxSeen {
		configured = append(configured, fmt.Sprint(i))
	}
	o.silent.watch(configured, []time.Duration{time.Minute}, began)
	saw := func(instance string, at time.Time) {
		o.seen.add(instance, outcome.Delivered, at)
		o.silent.saw(instance, at)
	}
	for _, instance := range configured {
		saw(instance, began.Add(time.Hour))
	}
	for i := range 2 * maxSeen {
		saw(fmt.Sprint("made up ", i), began.Add(time.Hour))
	}
	if silent := o.silent.watch(configured, []time.Duration{time.Minute}, began.Add(time.Hour+time.Second)); len(silent) > 0 {
		t.Errorf("%d are told silent, as %v", len(silent), silent[0])
	}
	if len(o.silent.of) != len(configured) {
		t.Errorf("%d are watched, want %d", len(o.silent.of), len(configured))
	}
	if len(o.seen.of) != maxSeen || o.seen.oldest.Len() != maxSeen || len(o.seen.list()) != maxSeen {
		t.Errorf("%d and %d are seen, want the last %d", len(o.seen.of), o.seen.oldest.Len(), maxSeen)
	}
	if last := o.seen.list()[0].Instance; last[:8] != "made up " {
		t.Errorf("the last to send is %s", last)
	}
}

// TestSilenceReaches: only the alerts that asked for a silence of that length are told of it.
func TestSilenceReaches(t *testing.T) {
	a := new(App)
	var desk alertDesk
	for _, length := range []time.Duration{0, time.Hour, 15 * time.Minute, time.Hour} {
		alert := &Alert{URL: "http://127.0.0.1", Silence: caddy.Duration(length)}
		a.Alerts = append(a.Alerts, alert)
		desk.endpoints = append(desk.endpoints, newAlertEndpoint(alert, nil)) // which does not run
	}
	if got := a.silences(); !slices.Equal(got, []time.Duration{15 * time.Minute, time.Hour}) {
		t.Errorf("silences %v", got)
	}
	for _, test := range []struct {
		note outcome.Note
		want []int
	}{
		{outcome.Note{Reason: reason.Silence, Silence: time.Hour}, []int{1, 3}},
		{outcome.Note{Reason: reason.Silence, Silence: 15 * time.Minute}, []int{2}},
		{outcome.Note{Reason: reason.Schema}, []int{0, 1, 2, 3}},
	} {
		desk.tell(test.note)
		var got []int
		for i, e := range desk.endpoints {
			if len(e.groups) > 0 {
				got = append(got, i)
			}
			clear(e.groups)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s of %s is told to %v, want %v", test.note.Reason, test.note.Silence, got, test.want)
		}
	}
}
