package queue_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/greenapi-community/caddy-green-api/queue"
	"github.com/greenapi-community/caddy-green-api/queue/queuetest"
)

// bench is a dispatcher over an engine in memory, in fake time.
type bench struct {
	t     *testing.T
	store *queuetest.Memory
	*queue.Dispatcher

	mu       sync.Mutex
	rounds   []string // "instance/chat id #round" of each one that has begun
	answer   func(queue.Delivery) queue.Result
	keep     func(queue.Delivery, queue.Fate) error
	inFlight int
	most     int // in flight at once
	doubt    atomic.Bool
	failures []error
}

var retry = []time.Duration{time.Second, 2 * time.Second, 5 * time.Second}

// newBench returns a dispatcher for a block `default`, which has been started.
func newBench(t *testing.T, o queue.Options) *bench {
	b := &bench{t: t, store: queuetest.NewMemory(1 << 30)}
	b.start(o)
	return b
}

func (b *bench) start(o queue.Options) {
	b.Dispatcher = queue.New(b.store, queue.Hooks{
		Deliver: b.deliver, Keep: b.keeps,
		Failed: func(err error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.failures = append(b.failures, err)
		},
		InDoubt: b.doubt.Load,
	})
	if o.InFlight == 0 {
		o.InFlight = 10
	}
	if o.Retry == nil {
		o.Retry = retry
	}
	b.Configure(map[string]queue.Options{"default": o})
	b.Start()
}

// over starts a dispatcher for a block `default` over another store.
func (b *bench) over(store queue.Store) {
	b.Dispatcher = queue.New(store, queue.Hooks{Deliver: b.deliver, Keep: b.keeps, Failed: func(error) {}})
	b.Configure(map[string]queue.Options{"default": {InFlight: 10, Retry: retry}})
	b.Start()
}

func (b *bench) keeps(d queue.Delivery, why queue.Fate) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rounds = append(b.rounds, strings.TrimSuffix(fmt.Sprint(d.ID, " ", why, " ", d.Answers), " []"))
	if b.keep != nil {
		return b.keep(d, why)
	}
	return nil
}

func (b *bench) deliver(d queue.Delivery) queue.Result {
	b.mu.Lock()
	b.rounds = append(b.rounds, d.ID+" #"+strconv.Itoa(d.Round))
	b.inFlight++
	b.most = max(b.most, b.inFlight)
	answer := b.answer
	b.mu.Unlock()
	r := queue.Result{Outcome: queue.Delivered}
	if answer != nil {
		r = answer(d)
	}
	b.mu.Lock()
	b.inFlight--
	b.mu.Unlock()
	return r
}

// put stores records, each written as instance/chat/id.
func (b *bench) put(names ...string) {
	b.t.Helper()
	for _, name := range names {
		part := strings.Split(name, "/")
		r := &queue.Record{Block: "default", Instance: part[0], Chat: part[1], ID: name, Received: time.Now(), Body: []byte(name)}
		if len(part) > 3 {
			r.Block = part[3]
		}
		if _, err := b.Put(b.t.Context(), r, 0); err != nil {
			b.t.Error(err)
		}
	}
}

// seen returns the rounds so far, and forgets them.
func (b *bench) seen() []string {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := b.rounds
	b.rounds = nil
	return seen
}

func (b *bench) want(want ...string) {
	b.t.Helper()
	if got := b.seen(); !slices.Equal(got, want) {
		b.t.Errorf("rounds %q, want %q", got, want)
	}
}

// wantAll is want for rounds of lanes that do not wait for each other.
func (b *bench) wantAll(want ...string) {
	b.t.Helper()
	slices.Sort(want)
	if got := slices.Sorted(slices.Values(b.seen())); !slices.Equal(got, want) {
		b.t.Errorf("rounds %q, want %q in any order", got, want)
	}
}

func (b *bench) answers(answer func(queue.Delivery) queue.Result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = answer
}

// underWay returns how many rounds there are at this moment, and how many there have been at once since the last call.
func (b *bench) underWay() (now, most int) {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	most, b.most = b.most, b.inFlight
	return b.inFlight, most
}

func (b *bench) entries() int { return b.store.Stats().Entries }

func (b *bench) end() {
	b.Close(context.Background())
}

func inBench(t *testing.T, o queue.Options, do func(*bench)) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, o)
		defer b.end()
		do(b)
	})
}

func later(d time.Duration) func(queue.Delivery) queue.Result {
	return func(queue.Delivery) queue.Result {
		time.Sleep(d)
		return queue.Result{Outcome: queue.Delivered}
	}
}

// TestLanes: one delivery at a time for an instance or a chat, in order, and no lane waits for another.
func TestLanes(t *testing.T) {
	t.Run("by instance", func(t *testing.T) {
		inBench(t, queue.Options{}, func(b *bench) {
			b.answers(later(time.Second))
			b.put("1/a/1", "1/b/2", "2/a/3", "1/a/4")
			b.wantAll("1/a/1 #1", "2/a/3 #1")
			if !b.Holds("default", "1") || b.Holds("default", "3") || b.Holds("other", "1") {
				t.Error("holds")
			}
			time.Sleep(time.Second)
			b.want("1/b/2 #1")
			time.Sleep(time.Second)
			b.want("1/a/4 #1")
			time.Sleep(time.Second)
			synctest.Wait()
			if b.entries() != 0 || b.Summary().Done[queue.Delivered] != 4 || b.Holds("default", "1") {
				t.Errorf("%+v", b.Summary())
			}
		})
	})
	t.Run("by chat", func(t *testing.T) {
		inBench(t, queue.Options{ByChat: true}, func(b *bench) {
			b.answers(later(time.Second))
			b.put("1/a/1", "1/b/2", "2/a/3", "1/a/4", "1//5", "1//6")
			b.wantAll("1/a/1 #1", "1/b/2 #1", "2/a/3 #1", "1//5 #1")
			time.Sleep(time.Second)
			b.wantAll("1/a/4 #1", "1//6 #1")
		})
	})
}

// TestInFlight: there are never more deliveries than in_flight says, and each that ends begins one.
func TestInFlight(t *testing.T) {
	inBench(t, queue.Options{InFlight: 3, ByChat: true}, func(b *bench) {
		b.answers(later(time.Second))
		for i := range 10 {
			b.put("1/" + strconv.Itoa(i) + "/x")
		}
		for _, want := range []int{3, 3, 3, 1} {
			if got := len(b.seen()); got != want {
				t.Fatalf("%d begin, want %d", got, want)
			}
			time.Sleep(time.Second)
		}
		if b.most != 3 {
			t.Errorf("%d at once", b.most)
		}
	})
}

// hangs answers after five minutes that no handler took it, for instances whose name begins with h.
func hangs(d queue.Delivery) queue.Result {
	if !strings.HasPrefix(d.Instance, "h") {
		return queue.Result{Outcome: queue.Delivered}
	}
	time.Sleep(5 * time.Minute)
	if d.Round == 3 {
		return queue.Result{Outcome: queue.Quarantined}
	}
	return queue.Result{Why: "handler_timeout"}
}

// TestHang: lanes that have hung once never hold more than half of the places, and everything else goes on at once; but
// none of them is forgotten.
func TestHang(t *testing.T) {
	inBench(t, queue.Options{InFlight: 8}, func(b *bench) {
		b.answers(hangs)
		const lanes, each = 20, 6
		for n := range each {
			for i := range lanes {
				b.put(fmt.Sprintf("h%d//%d", i, n))
			}
		}
		if got := len(b.seen()); got != 8 {
			t.Fatalf("%d begin, want all places to be used", got)
		}
		time.Sleep(15*time.Minute + 10*time.Second) // each has failed once
		b.seen()
		for i := range 60 {
			b.put(fmt.Sprintf("%d//1", i))
			got := b.seen()
			if hang, most := b.underWay(); len(got) != 1 || hang != 4 || i > 0 && most != 5 {
				t.Fatalf("%d minutes later: %q begin, %d hang, %d at once", i, got, hang, most)
			}
			time.Sleep(time.Minute)
			for _, round := range b.seen() {
				if !strings.HasPrefix(round, "h") {
					t.Errorf("%s begins late", round)
				}
			}
		}
		for _, lane := range b.Lanes() { // 4 of 20 at a time, 5 minutes each: 12 times 4 rounds in an hour
			if lane.Round == 1 && lane.Entries == each {
				t.Errorf("not tried again: %+v", lane)
			}
		}
		b.answers(nil)
		time.Sleep(11 * time.Minute)
		if n, _ := b.underWay(); b.entries() != 0 || n != 0 {
			t.Errorf("%d left, %d under way", b.entries(), n)
		}
	})
}

// TestHangOver: a lane that had hung has all places again when a handler takes something of it, and one that failed at
// once, or that no handler could be reached for, has never lost them.
func TestHangOver(t *testing.T) {
	for name, failure := range map[string]queue.Result{"hung": {Why: "handler_timeout"}, "failed": {Why: "handler_error"}, "unreachable": {Why: "not_now", Unreachable: true}} {
		t.Run(name, func(t *testing.T) {
			inBench(t, queue.Options{InFlight: 4}, func(b *bench) {
				var failing atomic.Bool
				failing.Store(true)
				b.answers(func(queue.Delivery) queue.Result {
					if failing.Load() {
						if name == "hung" {
							time.Sleep(10 * time.Second)
						}
						return failure
					}
					time.Sleep(time.Second)
					return queue.Result{Outcome: queue.Delivered}
				})
				for i := range 8 {
					b.put(fmt.Sprintf("%d//1", i), fmt.Sprintf("%d//2", i), fmt.Sprintf("%d//3", i), fmt.Sprintf("%d//4", i))
				}
				time.Sleep(30 * time.Second)
				failing.Store(false)
				b.underWay()
				time.Sleep(30 * time.Second)
				if _, most := b.underWay(); b.entries() != 0 || most != 4 {
					t.Errorf("%d left, %d at once", b.entries(), most)
				}
			})
		})
	}
}

// TestHangElsewhere: what a handler has refused at once does not wait behind what hangs.
func TestHangElsewhere(t *testing.T) {
	inBench(t, queue.Options{InFlight: 8}, func(b *bench) {
		var refused atomic.Bool
		b.answers(func(d queue.Delivery) queue.Result {
			if d.Instance == "1" && !refused.Swap(true) {
				return queue.Result{Why: "handler_error"}
			}
			return hangs(d)
		})
		for i := range 40 {
			b.put(fmt.Sprintf("h%d//1", i))
		}
		time.Sleep(time.Hour) // each has hung
		b.put("1//1")
		time.Sleep(5 * time.Second)
		if synctest.Wait(); b.Holds("default", "1") {
			t.Error("it waits")
		}
	})
}

// TestHangHeld: lanes that are paused and resumed while they wait for a place get no more of them.
func TestHangHeld(t *testing.T) {
	inBench(t, queue.Options{InFlight: 2, Retry: []time.Duration{time.Second}}, func(b *bench) {
		b.answers(hangs)
		b.put("h1//1", "h2//1", "h3//1", "h4//1")
		time.Sleep(10*time.Minute + 10*time.Second)
		b.seen()
		for range 3 {
			_ = b.Pause(queue.Target{})
			_ = b.Resume(queue.Target{})
		}
		for range 20 {
			time.Sleep(5 * time.Minute)
			if n, _ := b.underWay(); n > 1 {
				t.Fatalf("%d hang", n)
			}
		}
		b.answers(nil)
		time.Sleep(10 * time.Minute)
		if b.entries() != 0 {
			t.Errorf("%d left", b.entries())
		}
	})
}

// TestCrowdedBySkip: a place that an order of the operator's takes is taken from then on.
func TestCrowdedBySkip(t *testing.T) {
	inBench(t, queue.Options{InFlight: 1}, func(b *bench) {
		_ = b.Pause(queue.Target{Instance: "1"})
		b.put("1//1")
		b.keep = func(queue.Delivery, queue.Fate) error { time.Sleep(2 * time.Second); return nil }
		synctest.Wait()
		id := b.Lanes()[0].ID
		go func() { _ = b.Skip(id, 0) }()
		time.Sleep(time.Second)
		go b.put("2//1")
		time.Sleep(500 * time.Millisecond)
		if s := b.Summary(); len(s.Crowded) != 0 || s.InFlight != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// TestCrowded: that lanes wait for a place is seen when none has become free for a while.
func TestCrowded(t *testing.T) {
	inBench(t, queue.Options{InFlight: 2}, func(b *bench) {
		b.answers(hangs)
		b.put("h1//1", "h2//1")
		time.Sleep(time.Minute)
		if s := b.Summary(); len(s.Crowded) != 0 {
			t.Errorf("nobody waits: %+v", s.Crowded)
		}
		b.put("1//1", "2//1")
		synctest.Wait()
		since := time.Now().Add(-time.Minute)
		if s := b.Summary(); len(s.Crowded) != 1 || s.Crowded[0] != (queue.Crowd{Block: "default", Places: 2, Since: since, Ready: 2}) {
			t.Errorf("%+v", s.Crowded)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if s := b.Summary(); len(s.Crowded) != 0 || s.Entries != 2 {
			t.Errorf("%+v", s)
		}
		b.answers(later(20 * time.Second))
		for i := range 20 {
			b.put(fmt.Sprintf("%d//1", i))
		}
		time.Sleep(3*time.Minute + 15*time.Second)
		if s := b.Summary(); len(s.Crowded) != 0 || s.InFlight != 2 {
			t.Errorf("places become free: %+v", s)
		}
	})
}

// TestRounds: a lane waits longer after each failed round, and nobody else does.
func TestRounds(t *testing.T) {
	inBench(t, queue.Options{}, func(b *bench) {
		began := time.Now()
		var at []time.Duration
		b.answers(func(d queue.Delivery) queue.Result {
			if d.ID != "1/a/1" || d.Round == 6 {
				return queue.Result{Outcome: queue.Delivered}
			}
			at = append(at, time.Since(began))
			r := queue.Result{Why: "handler_error"}
			if d.Round == 5 {
				r.RetryAfter = time.Minute
			}
			return r
		})
		b.put("1/a/1", "1/a/2", "2/a/3")
		b.wantAll("1/a/1 #1", "2/a/3 #1")
		lanes := b.Lanes()
		if len(lanes) != 1 || lanes[0].State != queue.StateWaiting || lanes[0].Why != "handler_error" || lanes[0].Round != 1 || lanes[0].Entries != 2 {
			t.Errorf("%+v", lanes)
		}
		time.Sleep(3 * time.Minute)
		b.want("1/a/1 #2", "1/a/1 #3", "1/a/1 #4", "1/a/1 #5", "1/a/1 #6", "1/a/2 #1")
		for i, want := range []time.Duration{0, time.Second, 2 * time.Second, 5 * time.Second, 5 * time.Second} {
			var pause time.Duration
			if i > 0 {
				pause = at[i] - at[i-1]
			}
			if pause < want-want/5 || pause > want+want/5 {
				t.Errorf("pause %d is %s, want about %s", i, pause, want)
			}
		}
	})
}

// TestUnreachable: while no handler can be reached, only one lane at a time tries, and afterwards all go on at once.
func TestUnreachable(t *testing.T) {
	inBench(t, queue.Options{ByChat: true, InFlight: 100}, func(b *bench) {
		var down atomic.Bool
		down.Store(true)
		b.answers(func(queue.Delivery) queue.Result {
			if down.Load() {
				return queue.Result{Why: "not_now", Unreachable: true}
			}
			return queue.Result{Outcome: queue.Delivered}
		})
		b.put("1/first/1")
		b.want("1/first/1 #1")
		for i := range 50 {
			b.put(fmt.Sprintf("1/%d/1", i))
		}
		time.Sleep(time.Minute)
		if got := len(b.seen()); got < 10 || got > 25 {
			t.Errorf("%d rounds within a minute", got)
		}
		for _, lane := range b.Lanes() { // also those that have not been tried
			if lane.Stands(time.Now()) != 0 {
				t.Errorf("a lane stands still, not the block: %+v", lane)
			}
			if lane.State != queue.StateDelivering && (lane.State != queue.StateWaiting || lane.Why != "not_now") {
				t.Errorf("%+v", lane)
			}
		}
		if s := b.Summary(); s.Waiting != 51 || s.Lanes != 51 {
			t.Errorf("%+v", s)
		}
		down.Store(false)
		time.Sleep(6 * time.Second)
		if got := len(b.seen()); got != 51 || b.entries() != 0 {
			t.Errorf("%d rounds afterwards, %d left", got, b.entries())
		}
	})
}

// TestSlowProbe: when a handler can be reached again and takes its time over the first notification, no other lane
// waits for that.
func TestSlowProbe(t *testing.T) {
	inBench(t, queue.Options{ByChat: true, InFlight: 100}, func(b *bench) {
		var down atomic.Bool
		down.Store(true)
		b.answers(func(queue.Delivery) queue.Result {
			if down.Load() {
				return queue.Result{Why: "not_now", Unreachable: true}
			}
			time.Sleep(4 * time.Minute)
			return queue.Result{Outcome: queue.Delivered}
		})
		b.put("1/first/1")
		for i := range 50 {
			b.put(fmt.Sprintf("1/%d/1", i))
		}
		time.Sleep(time.Minute)
		b.seen()
		down.Store(false)
		time.Sleep(16 * time.Second)
		if got := len(b.seen()); got != 51 {
			t.Errorf("%d lanes are being delivered, want 51", got)
		}
		down.Store(true) // the round of the first one ends well all the same
		time.Sleep(4 * time.Minute)
		if b.entries() != 0 {
			t.Errorf("%d left", b.entries())
		}
	})
}

// TestPause: what is paused stays, also in the store's next life, and everything else goes on.
func TestPause(t *testing.T) {
	inBench(t, queue.Options{}, func(b *bench) {
		if err := errors.Join(b.Pause(queue.Target{Instance: "1"}), b.Pause(queue.Target{Block: "other"})); err != nil {
			t.Fatal(err)
		}
		b.put("1/a/1", "2/a/1")
		b.want("2/a/1 #1")
		if got := b.Lanes(); len(got) != 1 || got[0].State != queue.StatePaused {
			t.Errorf("%+v", got)
		}
		b.end()
		b.start(queue.Options{})
		b.want()
		if err := b.Resume(queue.Target{}); err != nil {
			t.Fatal(err)
		}
		b.want("1/a/1 #1")
		if c := b.Control(); len(c.Paused) != 0 {
			t.Errorf("%+v", c)
		}
		b.answers(later(time.Second))
		b.put("1/a/2", "1/a/3")
		b.want("1/a/2 #1")
		_ = b.Pause(queue.Target{})
		time.Sleep(time.Minute)
		b.want() // the one under way was taken, the next one is not begun
		if b.entries() != 1 {
			t.Error(b.entries())
		}
	})
}

// TestExpired: what is too old is quarantined, also while its lane is paused, in order, and not while the
// quarantine does not take it.
func TestExpired(t *testing.T) {
	inBench(t, queue.Options{MaxAge: time.Hour}, func(b *bench) {
		_ = b.Pause(queue.Target{})
		b.put("1/a/1", "1/a/2")
		time.Sleep(30 * time.Minute)
		b.put("1/a/3")
		b.mu.Lock()
		b.keep = func(queue.Delivery, queue.Fate) error { return errors.New("full") }
		b.mu.Unlock()
		time.Sleep(32 * time.Minute)
		if got := b.seen(); len(got) == 0 || b.entries() != 3 {
			t.Errorf("%q, %d left", got, b.entries())
		}
		b.mu.Lock()
		b.keep = nil
		b.mu.Unlock()
		time.Sleep(2 * time.Minute)
		b.want("1/a/1 expired", "1/a/2 expired")
		_ = b.Resume(queue.Target{})
		b.want("1/a/3 #1")
		if s := b.Summary(); s.Done[queue.Quarantined] != 2 || s.Done[queue.Delivered] != 1 || s.Entries != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestClock: a clock that is wrong at the start lets nothing expire until it may have been set, and none that was set
// does.
func TestClock(t *testing.T) {
	const years = 30 * 365 * 24 * time.Hour
	for name, test := range map[string]struct {
		maxAge, early, late time.Duration
	}{
		"long":  {24 * time.Hour, 10 * time.Minute, 11 * time.Minute},
		"short": {time.Minute, time.Minute, 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inBench(t, queue.Options{MaxAge: test.maxAge}, func(b *bench) {
				b.answers(func(queue.Delivery) queue.Result { return queue.Result{Why: "handler_error"} })
				expired := func() bool { return slices.Contains(b.seen(), "A expired") }
				for _, paused := range []bool{false, true} {
					b.doubt.Store(true) // the dispatcher that is about to end leaves it alone, too
					old := &queue.Record{Block: "default", Instance: "1", ID: "A", Received: time.Now().Add(-years)}
					if _, err := b.Put(t.Context(), old, 0); err != nil {
						t.Fatal(err)
					}
					if paused {
						_ = b.Pause(queue.Target{})
					}
					b.end()
					b.doubt.Store(false)
					b.start(queue.Options{MaxAge: test.maxAge})
					if time.Sleep(test.early); expired() {
						t.Errorf("paused %t: after %s", paused, test.early)
					}
					b.doubt.Store(true)
					if time.Sleep(48 * time.Hour); expired() {
						t.Errorf("paused %t: the clock was set", paused)
					}
					b.doubt.Store(false)
					if time.Sleep(time.Minute); !expired() {
						t.Errorf("paused %t: not after that", paused)
					}
				}
				b.end()
				_ = b.store.SetControl(queue.Control{})
				b.start(queue.Options{MaxAge: test.maxAge})
				if _, err := b.Put(t.Context(), &queue.Record{Block: "default", Instance: "1", ID: "A", Received: time.Now().Add(-years)}, 0); err != nil {
					t.Fatal(err)
				}
				if time.Sleep(test.late); !expired() {
					t.Errorf("not after %s", test.late)
				}
			})
		})
	}
}

// TestSkip: the first entry goes to the quarantine, and the lane goes on.
func TestSkip(t *testing.T) {
	inBench(t, queue.Options{}, func(b *bench) {
		b.answers(func(d queue.Delivery) queue.Result {
			if d.ID == "1/a/1" {
				r := queue.Result{Why: "handler_error"}
				if d.Round == 1 {
					r.Answers = []queue.Answer{{Handler: "h:1", Error: "connection refused"}, {Handler: "h:2", Status: 500, Text: "boom"}}
				}
				return r
			}
			return later(time.Second)(d)
		})
		b.put("1/a/1", "1/a/2")
		b.want("1/a/1 #1")
		time.Sleep(2 * time.Second)
		b.want("1/a/1 #2") // which has asked nobody
		id := b.Lanes()[0].ID
		lane, entries, err := b.Entries(id, 5)
		if err != nil || len(entries) != 2 || entries[0].ID != "1/a/1" || entries[1].ID != "1/a/2" || entries[1].Size != 5 {
			t.Fatal(entries, err)
		}
		if len(lane.Answers) != 2 || lane.Answers[1].Text != "boom" {
			t.Errorf("%+v", lane)
		}
		if err := b.Skip(id, entries[1].Seq); !errors.Is(err, queue.ErrPassed) {
			t.Errorf("not the first one: %v", err)
		}
		if err := b.Skip(id, entries[0].Seq); err != nil {
			t.Fatal(err)
		}
		b.want("1/a/1 skipped [{h:1 0  connection refused} {h:2 500 boom }]", "1/a/2 #1")
		if lane := b.Lanes()[0]; len(lane.Answers) != 0 {
			t.Errorf("answers to the one before: %+v", lane)
		}
		if err := b.Skip(id, 0); !errors.Is(err, queue.ErrBusy) {
			t.Errorf("while it is being delivered: %v", err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if err := b.Skip(id, 0); !errors.Is(err, queue.ErrNoLane) {
			t.Errorf("an empty lane: %v", err)
		}
	})
}

// TestRetry: the operator need not wait for the next round.
func TestRetry(t *testing.T) {
	inBench(t, queue.Options{Retry: []time.Duration{time.Hour}}, func(b *bench) {
		b.answers(func(queue.Delivery) queue.Result { return queue.Result{Why: "handler_error"} })
		b.put("1/a/1", "2/a/1")
		b.wantAll("1/a/1 #1", "2/a/1 #1")
		lane := b.Lanes()[0]
		first := lane.Instance + "/a/1"
		if err := b.Retry(lane.ID); err != nil {
			t.Fatal(err)
		}
		b.want(first + " #2")
		if n, paused, _ := b.RetryAll(queue.Target{}); n != 2 || paused != 0 {
			t.Error(n, paused)
		}
		if got := b.seen(); len(got) != 2 {
			t.Error(got)
		}
		b.put("1/a/1/old", "2/a/1/old")
		_ = b.Pause(queue.Target{Instance: "2"})
		synctest.Wait()
		if n, paused, noHandler := b.RetryAll(queue.Target{}); n != 1 || paused != 1 || noHandler != 2 {
			t.Error(n, paused, noHandler)
		}
		if n, paused, noHandler := b.RetryAll(queue.Target{Block: "default", Instance: "2"}); n != 0 || paused != 1 || noHandler != 0 {
			t.Error(n, paused, noHandler)
		}
	})
}

// TestKeyChanges: when lanes become lanes by chat, or by instance again, deliveries under way end first, and the
// order of what must be in order stays.
func TestKeyChanges(t *testing.T) {
	inBench(t, queue.Options{}, func(b *bench) {
		b.answers(later(time.Second))
		b.put("1/a/1", "1/b/2", "1/a/3", "1/b/4")
		b.want("1/a/1 #1")
		o := queue.Options{ByChat: true, InFlight: 10, Retry: retry}
		b.Configure(map[string]queue.Options{"default": o})
		b.put("1/c/5")
		b.want()
		time.Sleep(time.Second)
		b.wantAll("1/b/2 #1", "1/a/3 #1", "1/c/5 #1")
		o.ByChat = false
		b.Configure(map[string]queue.Options{"default": o})
		b.put("1/a/6")
		time.Sleep(time.Second)
		b.want("1/b/4 #1")
		time.Sleep(time.Second)
		b.want("1/a/6 #1")
	})
}

// TestKeyChangesWhileHanging: an instance whose handler hangs waits for the end of that, and no other one does.
func TestKeyChangesWhileHanging(t *testing.T) {
	inBench(t, queue.Options{ByChat: true}, func(b *bench) {
		b.answers(func(d queue.Delivery) queue.Result {
			if d.Instance == "h" && d.Round == 1 {
				time.Sleep(5 * time.Minute)
				return queue.Result{Why: "handler_timeout"}
			}
			return later(time.Second)(d)
		})
		b.put("h/a/1", "2/a/1")
		b.wantAll("h/a/1 #1", "2/a/1 #1")
		b.put("h/a/2", "h/b/3", "2/b/2", "2/a/3", "2/b/4")
		b.wantAll("h/b/3 #1", "2/b/2 #1")
		b.Configure(map[string]queue.Options{"default": {InFlight: 10, Retry: retry}})
		b.put("h/c/4", "3/a/1", "3/b/2")
		b.want("3/a/1 #1")
		lane := func() string { return b.Lanes()[0].ID } // the oldest one's
		if err := b.Skip(lane(), 0); !errors.Is(err, queue.ErrBusy) {
			t.Error(err)
		}
		time.Sleep(time.Second)
		b.wantAll("2/a/3 #1", "3/b/2 #1")
		time.Sleep(time.Second)
		b.want("2/b/4 #1")
		time.Sleep(4 * time.Minute)
		b.put("h/d/5", "2/a/5")
		b.want("2/a/5 #1")
		time.Sleep(time.Minute)
		b.want("h/a/1 #1") // rounds begin anew
		b.answers(later(time.Second))
		time.Sleep(10 * time.Minute)
		b.want("h/a/1 #2", "h/a/2 #1", "h/b/3 #1", "h/c/4 #1", "h/d/5 #1")
		if b.entries() != 0 || len(b.Lanes()) != 0 || b.Holds("default", "h") {
			t.Errorf("%d left", b.entries())
		}
	})
}

// TestKeyChangesAtRandom: whatever the key becomes and whenever entries are moved, those of a chat are delivered in
// order, one at a time, and none is lost or left.
func TestKeyChangesAtRandom(t *testing.T) {
	for seed := range uint64(200) {
		inBench(t, queue.Options{InFlight: 4}, func(b *bench) {
			r := rand.New(rand.NewPCG(seed, 0))
			var mu sync.Mutex
			chance := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return r.IntN(n)
			}
			open, done := make(map[string]int), make(map[string]int) // by instance and chat
			b.answers(func(d queue.Delivery) queue.Result {
				key := d.Instance + "/" + d.Chat
				mu.Lock()
				open[key]++
				if n := open[key]; n > 1 {
					t.Errorf("seed %d: %d deliveries of a chat", seed, n)
				}
				mu.Unlock()
				time.Sleep(time.Duration(chance(20)) * time.Second)
				taken := chance(3) > 0
				mu.Lock()
				defer mu.Unlock()
				open[key]--
				if want := fmt.Sprintf("%s/%d", key, done[key]+1); !strings.HasPrefix(d.ID+"/", want+"/") {
					t.Errorf("seed %d: %s is delivered, want %s", seed, d.ID, want)
				}
				if !taken {
					return queue.Result{Why: "handler_error"}
				}
				done[key]++
				return queue.Result{Outcome: queue.Delivered}
			})
			put := make(map[string]int)
			for range 60 {
				switch chance(8) {
				case 0:
					b.Configure(map[string]queue.Options{"default": {ByChat: chance(2) == 0, InFlight: 1 + chance(5), Retry: retry}})
				case 1:
					if _, err := b.Move("old", "default"); err != nil && !errors.Is(err, queue.ErrEmpty) {
						t.Error(err)
					}
				case 2:
					_ = b.Pause(queue.Target{Instance: strconv.Itoa(chance(3))})
				case 3:
					_ = b.Resume(queue.Target{})
				case 4:
					time.Sleep(time.Duration(chance(10)) * time.Second)
				default:
					key := fmt.Sprintf("%d/%c", chance(3), 'a'+chance(3))
					put[key]++
					b.put(fmt.Sprintf("%s/%d", key, put[key]))
					if chance(3) == 0 { // of a block that is gone, and in chats of its own
						key := fmt.Sprintf("%d/old%d", chance(3), chance(2))
						put[key]++
						b.put(fmt.Sprintf("%s/%d/old", key, put[key]))
					}
				}
				synctest.Wait()
			}
			_ = b.Resume(queue.Target{})
			if _, err := b.Move("old", "default"); err != nil && !errors.Is(err, queue.ErrEmpty) {
				t.Error(err)
			}
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			if b.entries() != 0 || len(b.Lanes()) != 0 || !maps.Equal(put, done) {
				t.Errorf("seed %d: %d left, %+v", seed, b.entries(), b.Lanes())
			}
		})
		if t.Failed() {
			return
		}
	}
}

// TestMove: entries of a block that is gone wait, and can be handed to another one, in front of its own.
func TestMove(t *testing.T) {
	inBench(t, queue.Options{}, func(b *bench) {
		b.put("1/a/1/old", "1/a/2/old")
		b.want()
		if got := b.Lanes(); len(got) != 1 || got[0].State != queue.StateNoHandler {
			t.Errorf("%+v", got)
		}
		_ = b.Pause(queue.Target{Block: "default"})
		b.put("1/a/3")
		if _, err := b.Move("default", "old"); !errors.Is(err, queue.ErrKnown) {
			t.Errorf("a block of the config: %v", err)
		}
		if _, err := b.Move("old", "nobody"); !errors.Is(err, queue.ErrNobody) {
			t.Errorf("to nobody: %v", err)
		}
		if _, err := b.Move("odl", "default"); !errors.Is(err, queue.ErrEmpty) {
			t.Errorf("from nobody: %v", err)
		}
		if n, err := b.Move("old", "default"); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		b.end()
		b.start(queue.Options{})
		_ = b.Resume(queue.Target{})
		b.want("1/a/1/old #1", "1/a/2/old #1", "1/a/3 #1")
		b.put("1/a/4/old") // of a new block with the old name
		b.want()
	})
}

// TestStoreFails: a record that was taken but could not be removed is not delivered again in this process.
func TestStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, store: queuetest.NewMemory(1 << 20)}
		failing := &failingStore{Memory: b.store}
		b.start(queue.Options{})
		b.end()
		b.Dispatcher = queue.New(failing, queue.Hooks{Deliver: b.deliver, Failed: func(error) {}})
		b.Configure(map[string]queue.Options{"default": {InFlight: 1, Retry: retry}})
		b.Start()
		defer b.end()
		failing.fails.Lock()
		b.put("1/a/1", "1/a/2")
		b.want("1/a/1 #1")
		time.Sleep(time.Minute)
		b.want()
		failing.fails.Unlock()
		time.Sleep(time.Minute)
		b.want("1/a/2 #1")
		if b.entries() != 0 {
			t.Error(b.entries())
		}
	})
}

type failingStore struct {
	*queuetest.Memory
	fails sync.Mutex // locked while Done fails
}

func (s *failingStore) Serve(ctx context.Context, take func(queue.Share)) error {
	return s.Memory.Serve(ctx, func(share queue.Share) { take(failingShare{share, s}) })
}

type failingShare struct {
	queue.Share
	store *failingStore
}

func (s failingShare) Done(seq uint64) error {
	if !s.store.fails.TryLock() {
		return errors.New("disk full")
	}
	s.store.fails.Unlock()
	return s.Share.Done(seq)
}

// losingStore is a store whose share can be lost.
type losingStore struct {
	*queuetest.Memory
	mu   sync.Mutex
	lose context.CancelFunc
}

func (s *losingStore) Serve(ctx context.Context, take func(queue.Share)) error {
	held, lose := context.WithCancel(ctx)
	s.mu.Lock()
	s.lose = lose
	s.mu.Unlock()
	_ = s.Memory.Serve(held, func(share queue.Share) {
		go take(losingShare{share, held}) // which waits for what is under way
		<-held.Done()
	})
	time.Sleep(time.Millisecond) // until take has noticed: no store hands out a share again before that
	return ctx.Err()
}

type losingShare struct {
	queue.Share
	held context.Context
}

func (s losingShare) Next(context.Context) (queue.Item, error) { return s.Share.Next(s.held) }

func (s losingShare) Done(seq uint64) error {
	if s.held.Err() != nil {
		return errors.New("the share is lost")
	}
	return s.Share.Done(seq)
}

// TestShareLost: a delivery under way goes on when its share is lost. When the same item comes again, it is not
// delivered again, and nothing behind it is delivered before.
func TestShareLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, store: queuetest.NewMemory(1 << 20)}
		store := &losingStore{Memory: b.store}
		b.Dispatcher = queue.New(store, queue.Hooks{Deliver: b.deliver, Failed: func(error) {}})
		b.Configure(map[string]queue.Options{"default": {InFlight: 10, Retry: retry}})
		b.Start()
		defer b.end()
		fails := true
		b.answers(func(d queue.Delivery) queue.Result {
			time.Sleep(time.Minute)
			if d.ID == "2/a/1" && fails {
				fails = false
				return queue.Result{Why: "handler_error"}
			}
			return queue.Result{Outcome: queue.Delivered}
		})
		b.put("1/a/1", "1/a/2", "2/a/1", "2/a/2")
		b.wantAll("1/a/1 #1", "2/a/1 #1")
		store.lose()
		time.Sleep(time.Second)
		b.put("1/a/3", "3/a/1")
		b.want("3/a/1 #1")
		if s := b.Summary(); s.InFlight != 3 || s.Lanes != 3 || s.Held != 6 || s.Put != 10 || s.Done[queue.HandedOver] != 4 {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Minute)
		b.wantAll("1/a/2 #1", "2/a/1 #1") // 1/a/1 was taken; 2/a/1 was not
		store.lose()
		time.Sleep(10 * time.Minute)
		b.wantAll("1/a/3 #1", "2/a/2 #1")
		if s := b.Summary(); b.entries() != 0 || s.InFlight != 0 || s.Done[queue.Delivered] != 6 || s.Held != 0 || s.Put != 6+s.Done[queue.HandedOver] {
			t.Errorf("%d left, %+v", b.entries(), s)
		}
	})
}

// TestShareLostKeyChanges: what a handler has in hand is not delivered a second time beside that, although its share was
// lost and the key has changed since.
func TestShareLostKeyChanges(t *testing.T) {
	for _, byChat := range []bool{true, false} {
		t.Run(fmt.Sprintf("before it is back, by chat %t", byChat), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bench{t: t, store: queuetest.NewMemory(1 << 20)}
				store := &losingStore{Memory: b.store}
				b.Dispatcher = queue.New(store, queue.Hooks{Deliver: b.deliver, Failed: func(error) {}})
				o := queue.Options{ByChat: !byChat, InFlight: 10, Retry: retry}
				b.Configure(map[string]queue.Options{"default": o})
				b.Start()
				defer b.end()
				b.answers(later(time.Minute))
				b.put("1/a/1", "1/a/2")
				b.want("1/a/1 #1")
				store.lose()
				o.ByChat = byChat
				b.Configure(map[string]queue.Options{"default": o})
				time.Sleep(10 * time.Minute)
				b.want("1/a/2 #1")
				if synctest.Wait(); b.entries() != 0 {
					t.Errorf("%d left", b.entries())
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, store: queuetest.NewMemory(1 << 20)}
		store := &losingStore{Memory: b.store}
		b.Dispatcher = queue.New(store, queue.Hooks{Deliver: b.deliver, Failed: func(error) {}})
		o := queue.Options{ByChat: true, InFlight: 10, Retry: retry}
		b.Configure(map[string]queue.Options{"default": o})
		b.Start()
		defer b.end()
		b.answers(func(d queue.Delivery) queue.Result {
			if d.Chat == "b" {
				time.Sleep(30 * time.Second)
			}
			return later(time.Minute)(d)
		})
		b.put("1/a/1", "1/b/2")
		b.wantAll("1/a/1 #1", "1/b/2 #1")
		store.lose()
		time.Sleep(time.Second)
		o.ByChat = false
		b.Configure(map[string]queue.Options{"default": o})
		b.put("1/c/3", "2/a/1")
		b.want("2/a/1 #1")
		time.Sleep(75 * time.Second)
		b.want()
		time.Sleep(15 * time.Second)
		b.want("1/c/3 #1") // the others were taken
		time.Sleep(time.Minute)
		if synctest.Wait(); b.entries() != 0 {
			t.Errorf("%d left", b.entries())
		}
	})
}

// TestEnd: what other processes may deliver is given to them as soon as nothing of it is under way.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, store: queuetest.NewMemory(1 << 20)}
		given := make(chan struct{})
		b.Dispatcher = queue.New(&givingStore{b.store, given}, queue.Hooks{Deliver: b.deliver, Failed: func(error) {}})
		b.Configure(map[string]queue.Options{"default": {InFlight: 1, Retry: retry}})
		b.Start()
		defer b.end()
		b.answers(later(time.Minute))
		b.put("1/a/1", "1/a/2", "2/a/1")
		b.want("1/a/1 #1")
		b.End()
		time.Sleep(59 * time.Second)
		select {
		case <-given:
			t.Error("given away while a delivery is under way")
		default:
		}
		time.Sleep(2 * time.Second)
		select {
		case <-given:
		default:
			t.Error("not given away")
		}
		b.want()
	})
}

// givingStore tells when it has got its share back.
type givingStore struct {
	*queuetest.Memory
	given chan struct{}
}

func (s *givingStore) Serve(ctx context.Context, take func(queue.Share)) error {
	defer close(s.given)
	return s.Memory.Serve(ctx, take)
}

// keptShare still has its records in memory after they were removed, and removes them after it was lost.
type keptShare struct {
	losingShare
	r map[uint64]*queue.Record
}

func (s *keptShare) Load(seq uint64) (*queue.Record, error) {
	if r, err := s.losingShare.Load(seq); err == nil {
		s.r[seq] = r
	}
	return s.r[seq], nil
}

func (s *keptShare) Done(seq uint64) error { return s.Share.Done(seq) }

// TestShareLostDone: a record is not delivered again that was removed after its share was lost, and it counts once.
func TestShareLostDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, store: queuetest.NewMemory(1 << 20)}
		losing := &losingStore{Memory: b.store}
		b.over(keptStore{losing, make(map[uint64]*queue.Record)})
		defer b.end()
		b.answers(later(time.Minute))
		b.put("1/a/1", "1/a/2")
		b.want("1/a/1 #1")
		losing.lose()
		time.Sleep(time.Minute)
		b.want("1/a/2 #1")
		time.Sleep(time.Minute)
		b.want()
		if s := b.Summary(); b.entries() != 0 || s.Done[queue.Delivered] != 2 || s.Done[queue.Gone] != 0 {
			t.Errorf("%d left, %+v", b.entries(), s)
		}
	})
}

type keptStore struct {
	*losingStore
	r map[uint64]*queue.Record
}

func (s keptStore) Serve(ctx context.Context, take func(queue.Share)) error {
	return s.losingStore.Serve(ctx, func(share queue.Share) { take(&keptShare{share.(losingShare), s.r}) })
}

// TestDrain: nothing more is taken in, and what is there is delivered.
func TestDrain(t *testing.T) {
	inBench(t, queue.Options{}, func(b *bench) {
		b.answers(later(time.Second))
		b.put("1/a/1", "1/a/2")
		_ = b.Drain(true)
		if _, err := b.Put(t.Context(), &queue.Record{Block: "default"}, 0); !errors.Is(err, queue.ErrDraining) {
			t.Error(err)
		}
		time.Sleep(3 * time.Second)
		b.want("1/a/1 #1", "1/a/2 #1")
		_ = b.Drain(false)
		b.put("1/a/3")
		b.want("1/a/3 #1")
	})
}

// TestFollow: what another process's operator orders holds here, too.
func TestFollow(t *testing.T) {
	inBench(t, queue.Options{InFlight: 1}, func(b *bench) {
		b.answers(later(time.Second))
		b.put("1/a/0", "2/a/0")
		b.want("1/a/0 #1")
		b.store.OrderElsewhere(queue.Control{Paused: []queue.Target{{Instance: "2"}}})
		time.Sleep(time.Minute)
		b.want()
		b.store.OrderElsewhere(queue.Control{})
		b.want("2/a/0 #1")
		time.Sleep(time.Second)
		fails := true
		b.answers(func(d queue.Delivery) queue.Result {
			if d.Instance == "1" && fails {
				fails = false
				return queue.Result{Why: "handler_error"}
			}
			return queue.Result{Outcome: queue.Delivered}
		})
		b.put("1/a/1")
		b.want("1/a/1 #1")
		b.store.OrderElsewhere(queue.Control{Paused: []queue.Target{{Instance: "1"}}})
		time.Sleep(time.Minute)
		b.put("1/a/2", "2/a/1")
		b.want("2/a/1 #1")
		b.store.OrderElsewhere(queue.Control{})
		b.want("1/a/1 #2", "1/a/2 #1")
		b.put("3/a/1/old")
		b.want()
		b.store.OrderElsewhere(queue.Control{Moves: []queue.Move{{From: "old", To: "default", UpTo: 6}}})
		b.want("3/a/1/old #1")
		b.store.OrderElsewhere(queue.Control{Draining: true})
		if _, err := b.Put(t.Context(), &queue.Record{Block: "default"}, 0); !errors.Is(err, queue.ErrDraining) {
			t.Error(err)
		}
	})
}

// TestClose: deliveries under way end, and no other begins.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, queue.Options{})
		b.answers(later(time.Minute))
		b.put("1/a/1", "1/a/2")
		b.want("1/a/1 #1")
		began := time.Now()
		b.end()
		if time.Since(began) != time.Minute || b.entries() != 1 {
			t.Errorf("%s, %d left", time.Since(began), b.entries())
		}
		b.want()
	})
}
