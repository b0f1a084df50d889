package greenapi

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/greenapi-community/caddy-green-api/internal/tell"
)

// TestWatchDisk: the operator is told within a minute that little is free on the quarantine's disk, across
// reloads once, and that enough is again. The metric shows what is free, and nothing while that is not known.
func TestWatchDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var told []string
		op := newOperator(tell.DefaultTimes())
		op.desk = tell.NewDesk(tell.Gauges{}, tell.DefaultTimes(), alertsTo(func(body string) {
			told = append(told, fmt.Sprintf("%s %s", time.Since(began).Round(time.Minute), body))
		}))
		alert := &Alert{URL: "http://127.0.0.1", Body: `"{alert.reason} {alert.level} {alert.text}"`}
		if err := alert.provision(); err != nil {
			t.Fatal(err)
		}
		core, logs := observer.New(zap.InfoLevel)
		var mu sync.Mutex
		var free int64 = 1 << 30
		var fault error
		disk := func(now int64, err error) {
			mu.Lock()
			defer mu.Unlock()
			free, fault = now, err
		}
		a := &App{
			Alerts: []*Alert{alert}, operator: op, logger: zap.New(core), Quarantine: &Quarantine{Path: "/secret/place", MaxSize: 1 << 30, said: "{env.PLACE}"},
			diskFree: func(dir string) (int64, error) {
				mu.Lock()
				defer mu.Unlock()
				if dir != "/secret/place" {
					t.Errorf("looks at %s", dir)
				}
				return free, fault
			},
		}
		op.desk.Configure(a.endpoints(), a.logger)
		wantMetric := func(want float64) {
			t.Helper()
			synctest.Wait()
			if got := math.Float64frombits(op.diskFree.Load()); got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
				t.Errorf("after %s the metric shows %g, want %g", time.Since(began), got, want)
			}
		}
		wantMetric(math.NaN())
		var watching sync.WaitGroup
		start := func() (reload func()) {
			ctx, cancel := context.WithCancel(t.Context())
			watching.Go(func() { a.watchDisk(ctx) })
			return func() {
				cancel()
				watching.Wait()
			}
		}
		reload := start()
		wantMetric(1 << 30)
		time.Sleep(10*time.Minute + time.Second)
		disk(100<<20, nil)
		time.Sleep(time.Minute)
		wantMetric(100 << 20)
		reload()
		reload = start()
		time.Sleep(time.Hour)
		disk(0, errors.New("statfs /secret/place: gone"))
		time.Sleep(time.Hour)
		wantMetric(math.NaN())
		disk(300<<20, nil)
		time.Sleep(time.Hour)
		wantMetric(300 << 20)
		reload()
		disk(0, errors.ErrUnsupported)
		ended := time.Now()
		time.AfterFunc(time.Hour, start())
		watching.Wait() // of its own accord
		if took := time.Since(ended); took > 0 {
			t.Errorf("it went on for %s where it cannot know", took)
		}
		wantMetric(math.NaN())
		op.desk.Close()

		for i := range told {
			told[i], _, _ = strings.Cut(told[i], " UTC")
		}
		got := strings.Join(told, "\n")
		for _, want := range []string{`11m0s "disk_low warn GREEN-API edge`, `little space is left on the quarantine's disk (disk_low), 1 times since`, `2h12m0s "recovered info `} {
			if !strings.Contains(got, want) {
				t.Errorf("told %s\nwant %s", got, want)
			}
		}
		if len(told) != 2 {
			t.Errorf("told %d times: %s", len(told), got)
		}
		var said []string
		for _, entry := range logs.All() {
			said = append(said, fmt.Sprint(entry.Level, " ", entry.Message, " ", entry.ContextMap()))
		}
		want := strings.Join([]string{
			"warn little space is left on the quarantine's disk map[fix:free some, or give the quarantine a disk of its own: when it is full, what has to be kept is answered 503 and its queue stands still free:104857600 want:268435456]",
			"warn how much is free on the quarantine's disk cannot be found out map[error:statfs {env.PLACE}: gone]",
			"info enough space is free on the quarantine's disk again map[free:314572800 want:268435456]",
		}, "\n")
		if got := strings.Join(said, "\n"); got != want {
			t.Errorf("logged\n%s\nwant\n%s", got, want)
		}
	})
}
