package greenapi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/tell"
)

// TestSilences: alerts ask for silences, the shortest first and each length once.
func TestSilences(t *testing.T) {
	a := new(App)
	for _, length := range []time.Duration{0, time.Hour, 15 * time.Minute, time.Hour} {
		a.Alerts = append(a.Alerts, &Alert{URL: "http://127.0.0.1", Silence: caddy.Duration(length)})
	}
	if got := a.silences(); !slices.Equal(got, []time.Duration{15 * time.Minute, time.Hour}) {
		t.Errorf("silences %v", got)
	}
}

// TestWatchSilence: a configured instance that falls silent is told of once, soon after, and again when
// it has sent something in between; that it does is told, too.
func TestWatchSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var told []string
		op := &operator{desk: tell.NewDesk(tell.Gauges{}, tell.DefaultTimes(), alertsTo(func(body string) {
			told = append(told, fmt.Sprintf("%s %s", time.Since(began).Round(time.Minute), body))
		}))}
		alert := &Alert{URL: "http://127.0.0.1", Silence: caddy.Duration(time.Hour), Body: `"{alert.reason} {alert.instances} {alert.count}"`}
		if err := alert.provision(); err != nil {
			t.Fatal(err)
		}
		a := &App{Alerts: []*Alert{alert}, operator: op, logger: zap.NewNop(), blocks: map[string]block{"default": {handler: &Handler{Auth: withTokensOf(t, "1", "2")}}}}
		op.desk.Configure(a.endpoints(), a.logger)
		ctx, cancel := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		watching.Go(func() { a.watchSilence(ctx) })
		for minute := range 240 {
			time.Sleep(time.Minute)
			op.heard("1", time.Now())
			if minute == 100 {
				op.heard("2", time.Now())
			}
		}
		cancel()
		watching.Wait()
		op.desk.Close()
		want := `1h1m0s "silence 2 1"` + "\n" + `1h41m0s "recovered 2 1"` + "\n" + `2h41m0s "silence 2 1"`
		if got := strings.Join(told, "\n"); got != want {
			t.Errorf("told %s\nwant %s", got, want)
		}
	})
}
