package greenapi

import (
	"slices"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

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
