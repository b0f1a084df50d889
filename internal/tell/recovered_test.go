package tell

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// fails is a note of a handler that fails, and again one that it is well.
func fails(handler string) outcome.Note {
	return outcome.Note{
		Reason: reason.HandlerFails, Kind: notification.KindNone, Level: zapcore.WarnLevel, At: time.Now(),
		Trouble: "handler " + handler, More: handler + " fails.",
	}
}

func again(handler string) outcome.Note {
	return outcome.Note{Reason: reason.Recovered, At: time.Now(), Trouble: "handler " + handler, More: handler + " is well."}
}

func wordy(t *testing.T, host string) Endpoint {
	t.Helper()
	e := endpoint(t, host)
	body, err := NewBody(`"{alert.reason} {alert.level} {alert.count} {alert.text}"`, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	e.Body = body
	return e
}

// at runs steps at their seconds.
func at(steps map[int]func()) {
	last := 0
	for second := range steps {
		last = max(last, second)
	}
	for second := range last + 1 {
		if step := steps[second]; step != nil {
			step()
		}
		time.Sleep(time.Second)
	}
}

// told returns what an endpoint at `well` is told until an hour after the steps.
func told(t *testing.T, w *world, steps func(d *Desk) map[int]func()) []string {
	t.Helper()
	d := NewDesk(Gauges{}, DefaultTimes(), w)
	d.Configure([]Endpoint{endpoint(t, "well")}, zap.NewNop())
	at(steps(d))
	time.Sleep(time.Hour)
	if n := d.Pending(); n != 0 {
		t.Errorf("%d are pending", n)
	}
	d.Close()
	return w.all("well")
}

// TestRecovered: that a trouble is over is told once, if the trouble was told, and never before it. What is
// in trouble again by then is not told to be well.
func TestRecovered(t *testing.T) {
	for _, test := range []struct {
		name  string
		steps func(d *Desk) map[int]func()
		want  []string
	}{
		{"once", func(d *Desk) map[int]func() {
			return map[int]func(){
				0: func() { d.Tell(again("a")) }, 1: func() { d.Tell(fails("a")) },
				20: func() { d.Tell(again("b")); d.Tell(again("a")); d.Tell(again("a")) }, 30: func() { d.Tell(again("a")) },
			}
		}, []string{`3s "handler_fails 1 "`, `22s "recovered 1 "`}},
		{"at once", func(d *Desk) map[int]func() {
			return map[int]func(){0: func() { d.Tell(fails("a")); d.Tell(again("a")) }}
		}, []string{`2s "handler_fails 1 "`, `2s "recovered 1 "`}},
		{"several", func(d *Desk) map[int]func() {
			return map[int]func(){
				0:  func() { d.Tell(fails("a")); d.Tell(fails("b")); d.Tell(fails("c")) },
				10: func() { d.Tell(again("a")) }, 11: func() { d.Tell(again("b")) }, 60: func() { d.Tell(again("c")) },
			}
		}, []string{`2s "handler_fails 3 "`, `12s "recovered 2 "`, `5m12s "recovered 1 "`}},
		// The trouble of b waits for its five minutes, and comes before the news that it is over.
		{"in order", func(d *Desk) map[int]func() {
			return map[int]func(){
				0: func() { d.Tell(fails("a")) }, 60: func() { d.Tell(fails("b")) }, 70: func() { d.Tell(again("b")) },
			}
		}, []string{`2s "handler_fails 1 "`, `1m12s "handler_fails 1 "`, `1m12s "recovered 1 "`}},
		{"other reasons wait as ever", func(d *Desk) map[int]func() {
			return map[int]func(){
				0: func() { d.Tell(fails("a")); d.Tell(note(reason.Schema, "1")) }, 60: func() { d.Tell(note(reason.Schema, "1")) }, 70: func() { d.Tell(again("a")) },
			}
		}, []string{`2s "handler_fails 1 "`, `2s "schema 1 1"`, `1m12s "recovered 1 "`, `5m2s "schema 1 1"`}},
		{"relapse", func(d *Desk) map[int]func() {
			return map[int]func(){
				0: func() { d.Tell(fails("a")) }, 10: func() { d.Tell(again("a")) }, 11: func() { d.Tell(fails("a")) },
			}
		}, []string{`2s "handler_fails 1 "`, `5m2s "handler_fails 1 "`}},
		{"flapping", func(d *Desk) map[int]func() {
			steps := make(map[int]func())
			for second := 0; second < 600; second += 20 {
				steps[second], steps[second+10] = func() { d.Tell(fails("a")) }, func() { d.Tell(again("a")) }
			}
			return steps
		}, []string{
			`2s "handler_fails 1 "`, `12s "recovered 1 "`, `5m2s "handler_fails 15 "`, `5m12s "recovered 1 "`, `10m2s "handler_fails 14 "`, `10m12s "recovered 1 "`,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := told(t, newWorld(), test.steps)
				if test.name == "other reasons wait as ever" && len(got) > 1 && got[0] > got[1] { // at one time, in any order
					got[0], got[1] = got[1], got[0]
				}
				wantAll(t, got, test.want...)
			})
		})
	}
}

// TestRecoveredText: the alert says what is well again, of each, with the instances.
func TestRecoveredText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := NewDesk(Gauges{}, DefaultTimes(), w)
		d.Configure([]Endpoint{wordy(t, "well")}, zap.NewNop())
		for i := range 30 {
			stands := note(reason.NotNow, fmt.Sprint(100+i))
			stands.Trouble = "instance " + stands.Instance
			d.Tell(stands)
		}
		d.Tell(fails("h1"))
		d.Tell(fails("h2"))
		time.Sleep(10 * time.Second)
		for i := range 30 {
			d.Tell(outcome.Note{Reason: reason.Recovered, At: time.Now(), Trouble: fmt.Sprint("instance ", 100+i), Instance: fmt.Sprint(100 + i), More: "Notifications are delivered again."})
		}
		d.Tell(again("h2"))
		d.Tell(again("h1"))
		time.Sleep(time.Minute)
		d.Close()
		got := w.all("well")
		host := (&group{key: key{reason: reason.Recovered}}).values()["{alert.host}"]
		want := `12s "recovered info 32 GREEN-API edge ` + host + `: a trouble that an alert told of is over (recovered), 32 times since 2000-01-01 00:00:10 UTC, instance ` +
			`100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 112, 113, 114, 115, 116, 117, 118, 119, …. ` +
			`Notifications are delivered again. h2 is well. h1 is well."`
		if len(got) != 3 || got[2] != want {
			t.Errorf("told %q\nwant %s", got, want)
		}
	})
}

// TestRecoveredReload: an endpoint goes on over a reload with what it was told; a new one was told nothing,
// and hears nothing of it.
func TestRecoveredReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := NewDesk(Gauges{}, DefaultTimes(), w)
		d.Configure([]Endpoint{endpoint(t, "well")}, zap.NewNop())
		d.Tell(fails("a"))
		d.Tell(fails("b"))
		time.Sleep(10 * time.Second)
		d.Tell(again("a"))
		d.Configure([]Endpoint{endpoint(t, "other"), endpoint(t, "well")}, zap.NewNop())
		time.Sleep(10 * time.Second)
		d.Tell(again("b"))
		time.Sleep(time.Hour)
		d.Close()
		wantAll(t, w.all("well"), `2s "handler_fails 2 "`, `12s "recovered 1 "`, `5m12s "recovered 1 "`)
		wantAll(t, w.all("other"))
	})
}

// TestRecoveredEndpointFails: an endpoint that fails is told when it is back, unless the trouble is, too.
func TestRecoveredEndpointFails(t *testing.T) {
	for _, test := range []struct {
		name    string
		relapse int      // at this second; at 0 it only begins
		want    []string // of those taken
	}{
		{"well", 0, []string{"handler_fails", "recovered"}},
		{"in trouble again", 60, []string{"handler_fails", "handler_fails"}},
		{"in trouble again meanwhile", 14, []string{"handler_fails", "handler_fails"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				var down atomic.Bool
				var taken []string
				w.answers["well"] = func(n int, _ *http.Request) int {
					if down.Load() {
						time.Sleep(5 * time.Second)
						return http.StatusBadGateway
					}
					taken = append(taken, w.all("well")[n-1])
					return http.StatusOK
				}
				told(t, w, func(d *Desk) map[int]func() {
					return map[int]func(){
						0: func() { d.Tell(fails("a")) }, 10: func() { down.Store(true); d.Tell(again("a")) },
						test.relapse: func() {
							d.Tell(fails("a"))
						},
						100: func() { down.Store(false) },
					}
				})
				if len(taken) != len(test.want) {
					t.Fatalf("taken %q, want %q", taken, test.want)
				}
				for i, why := range test.want {
					var at, got string
					if fmt.Sscanf(taken[i], "%s \"%s", &at, &got); got != why {
						t.Errorf("taken %q, want %q", taken, test.want)
					}
				}
			})
		})
	}
}

// TestRecoveredAtTheEnd: what is left at the end of the process is sent, the troubles first.
func TestRecoveredAtTheEnd(t *testing.T) {
	for range 20 { // maps have no order
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			d := NewDesk(Gauges{}, DefaultTimes(), w)
			d.Configure([]Endpoint{endpoint(t, "well")}, zap.NewNop())
			d.Tell(fails("a"))
			d.Tell(again("a"))
			if n := d.Pending(); n != 2 {
				t.Errorf("%d are pending, want 2", n)
			}
			d.Close()
			wantAll(t, w.all("well"), `0s "handler_fails 1 "`, `0s "recovered 1 "`)
		})
	}
}

// TestRecoveredBounded: however many things are in trouble, no more than maxTroubles are remembered.
func TestRecoveredBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		d := NewDesk(Gauges{}, DefaultTimes(), w)
		d.Configure([]Endpoint{endpoint(t, "well")}, zap.NewNop())
		remembered := func() int {
			e := d.alerts.outbox[0]
			e.mu.Lock()
			defer e.mu.Unlock()
			return len(e.troubles.of)
		}
		for i := range 2 * maxTroubles {
			d.Tell(fails(fmt.Sprint(i)))
		}
		if n := remembered(); n != maxTroubles {
			t.Errorf("%d are remembered, want %d", n, maxTroubles)
		}
		for i := range 2 * maxTroubles {
			d.Tell(again(fmt.Sprint(i)))
		}
		time.Sleep(time.Minute)
		if n := remembered(); n != 0 || d.InTrouble() {
			t.Errorf("%d are remembered, in trouble %t; want none", n, d.InTrouble())
		}
		d.Close()
	})
}

// TestInstanceRecovered: of an instance that stood still the operator hears when a notification of it is
// delivered again, and of no other instance, and not after what makes none stand still.
func TestInstanceRecovered(t *testing.T) {
	const (
		delivered, failed, kept = outcome.Delivered, outcome.Failed, outcome.Quarantined
		refused, dropped, waits = outcome.Refused, outcome.Dropped, outcome.Outcome("waits")
	)
	type step struct {
		instance string
		end      outcome.Outcome
	}
	for _, test := range []struct {
		name  string
		steps []step // a second each
		want  []string
	}{
		{"delivered again", []step{{"1", failed}, {"2", delivered}, {"1", delivered}, {"1", delivered}}, []string{`4s "recovered 1 1"`}},
		{"after many failures", []step{{"1", failed}, {"1", failed}, {"1", failed}, {"1", delivered}}, []string{`5s "recovered 1 1"`}},
		{"delivered at last", []step{{"1", waits}, {"1", delivered}}, []string{`3s "recovered 1 1"`}},
		{"kept in between", []step{{"1", failed}, {"1", kept}, {"1", dropped}, {"1", delivered}}, []string{`5s "recovered 1 1"`}},
		{"two", []step{{"1", failed}, {"2", failed}, {"2", delivered}, {"1", delivered}}, []string{`4s "recovered 2 2, 1"`}},
		{"not delivered", []step{{"1", failed}, {"1", kept}, {"1", dropped}}, nil},
		{"nothing stood still", []step{{"1", kept}, {"1", refused}, {"1", delivered}}, nil},
		{"no instance", []step{{"", failed}, {"", delivered}}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				got := told(t, w, func(d *Desk) map[int]func() {
					r := newReporter(d, zap.NewNop())
					steps := make(map[int]func())
					for second, step := range test.steps {
						c := &outcome.Case{N: &notification.Notification{Instance: step.instance}, Kind: "incomingMessageReceived"}
						level := map[outcome.Outcome]zapcore.Level{failed: zap.ErrorLevel, kept: zap.WarnLevel, refused: zap.WarnLevel}[step.end]
						steps[second] = func() {
							if step.end == waits {
								r.Waits(c, reason.NotNow)
							} else {
								r.Record(c, &outcome.Verdict{Outcome: step.end, Reason: reason.NotNow, Level: level}, nil)
							}
						}
					}
					return steps
				})
				got = slices.DeleteFunc(got, func(alert string) bool { return !strings.Contains(alert, "recovered") })
				wantAll(t, got, test.want...)
			})
		})
	}
}
