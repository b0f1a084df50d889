package tell

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// TestEventsWait: events come one after the other; no request waits for a subscriber; too many are
// dropped and counted; a subscriber that panics ends its own event only, and the end of the process waits
// five seconds at most.
func TestEventsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		d := NewDesk(Gauges{}, DefaultTimes(), nil)
		var heard []string
		r := &Reporter{
			Desk: d, Name: "block", Log: zap.NewNop(), DeskLog: zap.New(core),
			PerInstance: func(string) bool { return false },
			Details:     func(reason.Reason, *outcome.Case) (string, bool) { return "", true },
			Emitter: func(name string) func(map[string]any) {
				if name == "green_api.refused" { // nobody wants to know
					return nil
				}
				return func(data map[string]any) {
					time.Sleep(time.Millisecond)
					heard = append(heard, fmt.Sprint(name, " ", data["name"], " ", data["id"], " ", data["reason"]))
					if data["id"] == "1" {
						panic("one")
					}
				}
			},
		}
		record := func(id string, end outcome.Outcome) {
			c := &outcome.Case{N: &notification.Notification{ID: id, Instance: "1"}, Kind: notification.KindOther, Started: time.Now()}
			r.Record(c, &outcome.Verdict{Outcome: end, Reason: reason.Schema, Level: zap.WarnLevel}, nil)
		}
		began := time.Now()
		for i := range 2 * maxEvents {
			record(fmt.Sprint(i), outcome.Quarantined)
			record("refused", outcome.Refused)
			record("dropped", outcome.Dropped)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("took %s", took)
		}
		time.Sleep(2 * time.Second)
		record("last", outcome.Failed)
		d.Close()
		record("late", outcome.Failed)
		if n := len(heard); n < maxEvents || n > maxEvents+2 || heard[0] != "green_api.quarantined block 0 schema" || heard[n-1] != "green_api.failed block last schema" {
			t.Errorf("%d heard, the first %s, the last %s", n, heard[0], heard[n-1])
		}
		var said strings.Builder
		for _, entry := range logs.All() {
			fmt.Fprintln(&said, entry.Message, entry.ContextMap())
		}
		for _, want := range []string{"events dropped, their subscribers are too slow map[count:", "panic in a subscriber of events map[event:green_api.quarantined panic:one]"} {
			if !strings.Contains(said.String(), want) {
				t.Errorf("the log lacks %q: %s", want, said.String())
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		d := NewDesk(Gauges{}, DefaultTimes(), nil)
		free := make(chan struct{})
		d.events.put(event{"hangs", func() { <-free }}, zap.NewNop())
		began := time.Now()
		d.Close()
		if took := time.Since(began); took != eventFlush {
			t.Errorf("the end took %s", took)
		}
		close(free)
	})
}
