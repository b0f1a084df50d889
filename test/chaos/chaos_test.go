package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/sender"
)

// The tests in this file let everything fail that can, under a faithful sender whose pause of 60 s
// is 60 ms, and count. What is answered 200 must be with a handler or in the quarantine, always.

// What an edge does by default: how long it leaves a handler alone that let an attempt time out, and the
// longest pause before the same handlers are asked again.
const (
	failDuration = 5 * time.Second
	retryPause   = time.Second
)

// TestChaosKill: handlers are killed and started again in turn, as in a deployment.
func TestChaosKill(t *testing.T) { edgetest.BothWays(t, chaosKill) }

func chaosKill(t *testing.T, option string) {
	l := edgetest.NewLedger(t)
	handlers := []*edgetest.HandlerProcess{l.NewHandlerProcess(), l.NewHandlerProcess(), l.NewHandlerProcess()}
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\nsecond_opinion 2\n}\nreverse_proxy "+handlers[0].Address+" "+handlers[1].Address+" "+handlers[2].Address+" {\n"+option+"lb_policy green_api chat\n}"))
	report := l.Send(edgetest.ChaosOptions(e), l.Queues(20, 0, time.Now().Add(edgetest.ChaosLength(t))), func(ctx context.Context) {
		for i := 0; edgetest.Pauses(ctx, 100*time.Millisecond); i++ {
			h := handlers[i%3]
			h.Kill()
			if !edgetest.Pauses(ctx, 100*time.Millisecond) {
				return
			}
			h.Start()
			edgetest.WaitForPort(ctx, h.Address)
		}
	})
	e.Kept()
	for _, h := range handlers {
		h.Kill()
	}
	l.Verify(e.Dir, report)
	l.Unnoticed(report, time.Second)
}

// TestChaosFaults: one handler after the other does anything that a handler can do wrong.
func TestChaosFaults(t *testing.T) { edgetest.BothWays(t, chaosFaults) }

func chaosFaults(t *testing.T, option string) {
	l := edgetest.NewLedger(t)
	handlers := l.Fleet(3)
	modes := []string{"hang", "break", "500", "502", "503", "429", "204", "301", "404", "200"}
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\nattempt_timeout 200ms\nsecond_opinion 2\n}\nreverse_proxy"+edgetest.Addresses(handlers)+" {\n"+option+"}"))
	report := l.Send(edgetest.ChaosOptions(e), l.Queues(20, 0, time.Now().Add(edgetest.ChaosLength(t))), func(ctx context.Context) {
		for i := 0; ; i++ {
			f := handlers[i%3]
			f.Does(func([]byte) string { return modes[rand.IntN(len(modes))] })
			// Longer than an attempt: no notification may meet a third faulty handler.
			if !edgetest.Pauses(ctx, 300*time.Millisecond) {
				return
			}
			f.Healthy()
			edgetest.Pauses(ctx, 100*time.Millisecond)
		}
	})
	e.Kept()
	l.Verify(e.Dir, report)
	l.Unnoticed(report, 2*200*time.Millisecond+time.Second)
}

// TestChaosHung: one of three handlers takes everything and answers nothing.
func TestChaosHung(t *testing.T) {
	const attempt = 500 * time.Millisecond
	for _, policy := range []string{"green_api", "green_api instance"} {
		t.Run(policy, func(t *testing.T) {
			l := edgetest.NewLedger(t)
			handlers := l.Fleet(3)
			handlers[0].Does(func([]byte) string { return "hang" })
			e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"deliver {\nattempt_timeout 500ms\n}\nreverse_proxy"+edgetest.Addresses(handlers)+" {\nlb_policy "+policy+"\n}"))
			length := edgetest.ChaosLength(t)
			slow := make(map[string]int)
			report := l.Send(edgetest.ChaosOptions(e), l.Queues(20, 0, time.Now().Add(length)), nil)
			for _, record := range e.Logs.Records(t) {
				if tried, _ := record["tried"].([]any); slices.Contains(tried, any(strings.TrimSpace(edgetest.Addresses(handlers[:1]))+": handler did not answer in time")) {
					slow[record.Text("instance")]++
				}
			}
			e.Kept()
			l.Verify(e.Dir, report)
			l.Unnoticed(report, attempt+500*time.Millisecond)
			if len(slow) == 0 {
				t.Error("nobody waited for the hung handler; does it hang?")
			}
			most := 1 + int(length/(failDuration+attempt))
			for instance, n := range slow {
				if n > most {
					t.Errorf("instance %s waited for the hung handler %d times in %s, want at most %d", instance, n, length, most)
				}
			}
		})
	}
}

// TestChaosAllGone: all handlers are gone for a while, and nobody notices but by the time it takes.
func TestChaosAllGone(t *testing.T) {
	l := edgetest.NewLedger(t)
	handlers := l.Fleet(3)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy"+edgetest.Addresses(handlers)))
	gone := edgetest.ChaosLength(t) / 3 // twenty seconds of a minute
	report := l.Send(edgetest.ChaosOptions(e), l.Queues(20, 0, time.Now().Add(edgetest.ChaosLength(t))), func(ctx context.Context) {
		edgetest.Pauses(ctx, gone/2)
		for _, f := range handlers {
			f.Stop()
		}
		edgetest.Pauses(context.Background(), gone)
		for _, f := range handlers {
			f.Start()
		}
	})
	e.Kept()
	l.Verify(e.Dir, report)
	// Handlers that are all killed at once leave no second opinion to a notification in hand.
	if report.Resent > 20 || len(l.Other) > 1 || l.Other["502"] != report.Resent {
		t.Errorf("%d re-sent, other answers than 200: %v; want at most one an instance, 502", report.Resent, l.Other)
	}
	if got := report.Quantile(0.99); got > gone+time.Second {
		t.Errorf("p99 from the first attempt to 200: %s, want at most %s", got, gone+time.Second)
	}
	if report.Quantile(1) < gone/2 {
		t.Error("nobody was made to wait; were they gone?")
	}
}

// TestChaosBacklog: after an outage of the network, 300 instances bring what they have kept. No
// handler gets more than it may.
func TestChaosBacklog(t *testing.T) {
	const instances, places = 300, 20
	each, delay := 1000, 10*time.Millisecond
	if length := edgetest.ChaosLength(t); length < time.Minute {
		each, delay = int(length/(300*time.Millisecond)), 60*time.Millisecond // slow enough to be full, however slow the edge
	}
	l := edgetest.NewLedger(t)
	handlers := l.Fleet(3)
	for _, f := range handlers {
		f.Delay = delay
	}
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy"+edgetest.Addresses(handlers)+" {\nlb_policy green_api chat\nunhealthy_request_count "+fmt.Sprint(places)+"\n}"))
	report := l.Send(sender.Options{URL: e.URL}, l.Queues(instances, each, time.Time{}), nil)
	e.Kept()
	l.Verify(e.Dir, report)
	l.Unnoticed(report, 10*time.Second)
	t.Logf("drained %d instances of %d each in %s", instances, each, report.Took.Round(time.Millisecond))
	for i, f := range handlers {
		if most := f.Most.Load(); most > places || most < places/2 {
			t.Errorf("handler %d had %d at once, want up to %d", i, most, places)
		}
	}
}

// TestChaosSingle: a single handler is restarted again and again.
func TestChaosSingle(t *testing.T) { edgetest.BothWays(t, chaosSingle) }

func chaosSingle(t *testing.T, option string) {
	l := edgetest.NewLedger(t)
	handler := l.NewHandlerProcess()
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+handler.Address+" {\n"+option+"}"))
	var gone time.Duration // at most
	report := l.Send(edgetest.ChaosOptions(e), l.Queues(20, 0, time.Now().Add(edgetest.ChaosLength(t))), func(ctx context.Context) {
		for edgetest.Pauses(ctx, 300*time.Millisecond) {
			began := time.Now()
			handler.Kill()
			edgetest.Pauses(ctx, 200*time.Millisecond)
			handler.Start()
			edgetest.WaitForPort(context.Background(), handler.Address)
			gone = max(gone, time.Since(began))
		}
	})
	e.Kept()
	handler.Kill()
	l.Verify(e.Dir, report)
	// A pause of up to a second and a quarter may end in the next restart, and so may the one after it.
	l.Unnoticed(report, 2*(gone+retryPause*5/4))
}

// TestChaosReload: the config is changed all the time, also to other handlers and other checks.
func TestChaosReload(t *testing.T) {
	for _, newConnections := range []bool{false, true} {
		t.Run(fmt.Sprintf("new connections %t", newConnections), func(t *testing.T) {
			l := edgetest.NewLedger(t)
			handlers := l.Fleet(4)
			configs := []string{
				edgetest.Site(edgetest.Loopback + "reverse_proxy" + edgetest.Addresses(handlers[:2])),
				edgetest.Site(edgetest.Loopback + "reverse_proxy" + edgetest.Addresses(handlers[2:]) + " {\nlb_policy green_api chat\n}"),
				edgetest.Site(edgetest.Loopback + "validate {\nmax_body_size 2MiB\n}\nreverse_proxy" + edgetest.Addresses(handlers[:3]) + " {\nhealth_uri /\nhealth_status 2xx\nhealth_interval 50ms\nlb_policy least_conn\n}"),
			}
			for _, f := range handlers { // the health check's requests are none of ours
				f.Does(func(body []byte) string {
					if len(body) == 0 {
						return "404"
					}
					return "200"
				})
			}
			configs[2] = strings.Replace(configs[2], "health_status 2xx", "health_status 4xx", 1)
			e := edgetest.Start(t, configs[0])
			options := edgetest.ChaosOptions(e)
			options.NewConnections = newConnections
			reloads := 0
			report := l.Send(options, l.Queues(20, 0, time.Now().Add(edgetest.ChaosLength(t))), func(ctx context.Context) {
				for i := 1; edgetest.Pauses(ctx, 100*time.Millisecond); i++ {
					if err := e.Load(configs[i%3]); err != nil {
						t.Error(err)
					}
					reloads++
				}
			})
			e.Kept()
			l.Verify(e.Dir, report)
			t.Logf("%d reloads", reloads)
			for answer, n := range l.Other {
				if !strings.HasPrefix(answer, "none") {
					t.Errorf("%d times answered %s", n, answer)
				}
			}
			// The kernel resets new connections that wait in the queue of a socket when it is closed,
			// unless net.ipv4.tcp_migrate_req is 1. How many are is a matter of the machine's load.
			most := 3 * reloads
			if newConnections {
				most = 10 * reloads
			}
			if report.Resent > most {
				t.Errorf("%d attempts without an answer, want at most %d", report.Resent, most)
			}
		})
	}
}

// TestChaosEdge: the edge itself is killed, or told to end, and started again.
func TestChaosEdge(t *testing.T) {
	t.Parallel() // it is a process of its own
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			l := edgetest.NewLedger(t)
			handlers := l.Fleet(3)
			e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(t.TempDir(), "quarantine")}
			e.URL = "http://127.0.0.1:" + e.Port + "/green-api/webhook"
			config := edgetest.Site(edgetest.Loopback + "reverse_proxy" + edgetest.Addresses(handlers))
			p := edgetest.StartProcess(t, e, config)
			ends := 0
			report := l.Send(edgetest.ChaosOptions(e), l.Queues(20, 0, time.Now().Add(edgetest.ChaosLength(t))), func(ctx context.Context) {
				for edgetest.Pauses(ctx, 500*time.Millisecond) {
					p.Process.Signal(signal)
					if err := p.Wait(); signal == syscall.SIGTERM && err != nil {
						t.Errorf("%v\n%s", err, p.Output)
					}
					ends++
					p = edgetest.StartProcess(t, e, config)
				}
			})
			p.Process.Signal(syscall.SIGTERM)
			p.Wait()
			l.Verify(e.Dir, report)
			t.Logf("%d ends", ends)
			if ends == 0 {
				t.Error("it was never ended")
			}
		})
	}
}
