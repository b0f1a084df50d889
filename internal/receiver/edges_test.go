package receiver

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/lease"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/standin"
)

// takeover is the longest that another edge takes to receive when one is gone without a word.
var takeover = lease.DefaultTimes().Dead + lease.DefaultTimes().Beat + 2*lease.DefaultTimes().Look + lease.DefaultTimes().Settle

// two are edges that share a storage: the first receives, the second stands by.
func (w *world) two() (first, second *process) {
	first, second = w.process(), w.process()
	first.Use(first.config())
	w.within(10*time.Second, "the first to receive", func() bool { return first.state() == Receiving })
	second.Use(second.config())
	w.within(10*time.Second, "the second to stand by", func() bool { return second.state() == Standby })
	return first, second
}

// TestStandby: of two edges that share a storage one receives, for as long as it lives, and the other
// says once that it stands by. When the one is told to stop the other takes over at once.
func TestStandby(t *testing.T) {
	inWorld(t, func(w *world) {
		first, second := w.two()
		defer second.end()
		w.notify(0, 3)
		w.within(time.Second, "all to be received", w.empty)
		time.Sleep(time.Hour)
		if _, most := w.api.Polling(instance); most != 1 || second.logged(zapcore.InfoLevel, standsBy) != 1 || second.logs.Len() != 1 {
			t.Errorf("%d calls at most, logged %v", most, second.logs.All())
		}
		first.end()
		w.notify(3, 3)
		if took := w.within(time.Minute, "the second to receive", w.empty); took > lease.DefaultTimes().Look+lease.DefaultTimes().Settle {
			t.Errorf("received after %s", took)
		}
		w.wantTaken(0, 1, 2, 3, 4, 5)
	})
}

// TestStandbyRecovered: an edge that had no storage to see who receives, and then sees that another one
// does, is not in trouble any longer.
func TestStandbyRecovered(t *testing.T) {
	inWorld(t, func(w *world) {
		first, second := w.two()
		defer first.end()
		defer second.end()
		second.mu.Lock()
		second.fault = errors.New("disk on fire")
		second.mu.Unlock()
		w.within(time.Minute, "it to be told", func() bool { last, _ := second.told(); return last.Reason == reason.Storage })
		second.mu.Lock()
		second.fault = nil
		second.mu.Unlock()
		w.within(2*time.Minute, "it to stand by", func() bool { return second.state() == Standby })
		time.Sleep(time.Hour)
		second.wantRecovered(1000, "Another edge receives the notifications.")
		if _, told := first.told(); told > 0 {
			t.Errorf("the first told %+v", first.notes)
		}
	})
}

// TestKilled: when the edge that receives is killed the other takes over, and what was not deleted comes
// again.
func TestKilled(t *testing.T) {
	inWorld(t, func(w *world) {
		first, second := w.two()
		defer second.end()
		inHand := make(chan struct{})
		hang := make(chan struct{}) // until the end of the test: a goroutine cannot be killed
		w.handle(func(string) bool {
			close(inHand)
			<-hang
			return false
		})
		w.notify(0, 3)
		<-inHand
		w.handle(nil)
		goOn := first.standStill() // as it never will
		defer func() { close(hang); goOn(); first.end() }()
		if took := w.within(takeover, "the second to receive", w.empty); took < lease.DefaultTimes().Dead-lease.DefaultTimes().Beat {
			t.Errorf("taken over after %s", took)
		}
		w.wantTaken(0, 0, 1, 2)
	})
}

// TestStandstill: an edge that stood still has lost its lease, and learns it before it begins with
// another notification.
func TestStandstill(t *testing.T) {
	for name, still := range map[string]time.Duration{"shortly": 10 * time.Second, "for long": time.Minute, "for hours": 5 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				first, second := w.two()
				defer second.end()
				defer first.end()
				w.notify(0, 1)
				w.within(time.Second, "the first to receive", w.empty)
				goOn := first.standStill()
				w.notify(1, 1)
				time.Sleep(still)
				goOn()
				for n := range 100 {
					w.notify(2+n, 1)
					time.Sleep(100 * time.Millisecond) // so that the first has time to ask
				}
				w.within(takeover, "all to be received", w.empty)
				w.wantTaken(slices.Collect(upTo(102))...)
				synctest.Wait()
				if lost := still > takeover; lost != (first.state() == Standby) || lost != (second.state() == Receiving) {
					t.Errorf("the first is %s, the second %s", first.state(), second.state())
				}
			})
		})
	}
}

// TestInHand: a receiver that was told to stop shows that it is alive as long as it has a notification in
// hand, or another edge would deliver that, too.
func TestInHand(t *testing.T) {
	inWorld(t, func(w *world) {
		first, second := w.two()
		defer second.end()
		began, goOn := make(chan struct{}), make(chan struct{})
		w.handle(func(string) bool {
			close(began)
			<-goOn
			return true
		})
		w.notify(0, 1)
		<-began
		w.handle(nil)
		first.End()
		time.Sleep(time.Hour)
		if second.state() != Standby {
			t.Errorf("the second is %s", second.state())
		}
		close(goOn)
		w.within(time.Second, "it to be deleted", w.empty)
		first.end()
		w.within(10*time.Second, "the second to receive", func() bool { return second.state() == Receiving })
		w.wantTaken(0)
	})
}

// TestStopBounded: the end of the process waits for the notification in hand, but not for ever; and for
// the API some seconds.
func TestStopBounded(t *testing.T) {
	for name, test := range map[string]struct {
		handler, deletes time.Duration
		took             time.Duration
		left             int // in the queue
	}{
		"all goes well":          {time.Second, time.Second, 2 * time.Second, 0},
		"the handler hangs":      {time.Hour, 0, 10 * time.Second, 1},
		"the API takes its time": {time.Second, 4 * time.Second, 5 * time.Second, 0},
		"the API hangs":          {time.Second, time.Hour, DefaultTimes().LastCall + time.Second, 1},
		"nothing is in hand":     {0, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				p := w.process()
				p.Use(p.config())
				w.within(10*time.Second, "it to receive", func() bool { return p.state() == Receiving })
				w.api.Fault(func(method, _ string) *standin.Fault {
					if method == "deleteNotification" {
						return &standin.Fault{Delay: test.deletes}
					}
					return nil
				})
				inHand := make(chan struct{})
				w.handle(func(string) bool {
					close(inHand)
					time.Sleep(test.handler)
					return true
				})
				if test.handler > 0 {
					w.notify(0, 2)
					<-inHand
				}
				began := time.Now()
				p.End()
				p.Await(10 * time.Second)
				if took := time.Since(began); took != test.took {
					t.Errorf("took %s, want %s", took, test.took)
				}
				if left := w.api.Queued(instance); test.handler > 0 && left != test.left+1 {
					t.Errorf("%d left in the queue, want %d", left, test.left+1)
				}
				p.runs.Wait()
			})
		})
	}
}
