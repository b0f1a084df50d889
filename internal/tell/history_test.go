package tell

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// TestTold: what was sent is remembered, and what could not be sent, once, with the time since when.
func TestTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.answers["sick"] = func(n int, _ *http.Request) int {
			if n < 4 {
				return http.StatusInternalServerError
			}
			return http.StatusOK
		}
		d := NewDesk(Gauges{}, DefaultTimes(), w)
		defer d.Close()
		shows := func() string {
			var lines []string
			for _, told := range d.Told() {
				line := fmt.Sprintf("%s %s %s %d", told.At.Sub(w.began), told.Endpoint, told.Reason, told.Count)
				if told.Sent {
					line += " sent"
				}
				if !told.Failing.IsZero() {
					line += fmt.Sprintf(" fails since %s: %s", told.Failing.Sub(w.began), told.Error)
				}
				if strings.Contains(told.Text, "secret") || told.Level != "error" || told.Type != "incomingMessageReceived" || !strings.HasPrefix(told.Text, "GREEN-API edge ") {
					t.Errorf("%+v", told)
				}
				lines = append(lines, line)
			}
			return strings.Join(lines, "; ")
		}
		want := func(when, want string) {
			t.Helper()
			if got := shows(); got != want {
				t.Errorf("%s: %s\nwant %s", when, got, want)
			}
		}
		endpoints := []Endpoint{endpoint(t, "well"), endpoint(t, "sick"), endpoint(t, "gone")}
		d.Configure(endpoints[:2], zap.NewNop())
		d.Tell(note(reason.Schema, "1"))
		time.Sleep(time.Second)
		want("it gathers", "")
		time.Sleep(2500 * time.Millisecond)
		for _, part := range []string{"2s well schema 1 sent", "2s sick schema 1 fails since 2s: answer 500"} {
			if got := shows(); !strings.Contains(got, part) || strings.Count(got, ";") != 1 {
				t.Errorf("at first: %s", got)
			}
		}
		d.Configure(endpoints[1:2], zap.NewNop()) // a reload changes nothing
		time.Sleep(time.Minute)
		for _, part := range []string{"2s well schema 1 sent", "2s sick schema 1 sent fails since 2s: "} {
			if got := shows(); !strings.Contains(got, part) || strings.Count(got, ";") != 1 {
				t.Errorf("in the end: %s", got)
			}
		}
		d.Configure(endpoints[2:], zap.NewNop())
		d.Tell(note(reason.Malformed, "1"))
		time.Sleep(3500 * time.Millisecond)
		if got := shows(); !strings.HasPrefix(got, "1m5.5s gone malformed 1 fails since 1m5.5s: connection refused by {env.HOST}; ") {
			t.Errorf("gone: %s", got)
		}
		d.Configure(endpoints[:1], zap.NewNop())
		if got := shows(); !strings.HasPrefix(got, "1m5.5s gone malformed 1 fails since 1m5.5s: the config no longer has its endpoint; ") {
			t.Errorf("dropped: %s", got)
		}
	})
}

// TestToldBounded: the last hundred are remembered.
func TestToldBounded(t *testing.T) {
	var d Desk
	for n := range maxTold + 10 {
		g := &group{key: key{reason.Schema, fmt.Sprint(n)}, more: strings.Repeat("x", 2*maxToldText)}
		d.alerts.history.note(make(failing), "well", g, nil, time.Now())
	}
	if got := d.Told(); len(got) != maxTold || got[0].Type != fmt.Sprint(maxTold+9) || len(got[0].Text) > maxToldText+3 {
		t.Errorf("%d, the newest is %s", len(got), got[0].Type)
	}
}
