package queue_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/greenapi-community/caddy-green-api/queue"
	"github.com/greenapi-community/caddy-green-api/queue/queuetest"
)

// orderingStore takes a second to keep what the operator orders.
type orderingStore struct{ *queuetest.Memory }

func (s orderingStore) SetControl(c queue.Control) error {
	time.Sleep(time.Second)
	return s.Memory.SetControl(c)
}

// TestLaneID: a lane has the same ID wherever it is named and whichever process has the store, and another one in another
// store: whoever has an ID cannot find its chat by trying.
func TestLaneID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		idOf := func(store *queuetest.Memory) string {
			b := &bench{t: t, store: store}
			var delivered string
			b.answers(func(d queue.Delivery) queue.Result {
				delivered = d.LaneID()
				return queue.Result{Why: "busy"}
			})
			b.over(store)
			defer b.end()
			b.put("1/a/1")
			synctest.Wait()
			id := b.Lanes()[0].ID
			if delivered != id {
				t.Errorf("lane %s is delivered as %s", id, delivered)
			}
			if l, _, err := b.Entries(id, 1); l.Instance != "1" || err != nil {
				t.Error(l, err)
			}
			return id
		}
		store := queuetest.NewMemory(1 << 20)
		first := idOf(store)
		if again := idOf(store); again != first {
			t.Errorf("lane %s is %s in the next process", first, again)
		}
		if other := idOf(queuetest.NewMemory(1 << 20)); other == first {
			t.Errorf("two stores have a lane %s", first)
		}
	})
}

// TestMoveWhileBusy: what is just being moved to the quarantine is not delivered by another block as well, whoever
// ordered that.
func TestMoveWhileBusy(t *testing.T) {
	order := map[string]func(*bench){
		"here": func(b *bench) {
			if n, err := b.Move("old", "default"); n != 2 || err != nil {
				b.t.Error(n, err)
			}
		},
		"elsewhere": func(b *bench) {
			time.Sleep(time.Second)
			b.store.OrderElsewhere(queue.Control{Moves: []queue.Move{{From: "old", To: "default", UpTo: 2}}})
		},
	}
	for name, move := range order {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bench{t: t, store: queuetest.NewMemory(1 << 20)}
				b.keep = func(queue.Delivery, queue.Fate) error {
					b.mu.Unlock()
					defer b.mu.Lock()
					time.Sleep(time.Minute)
					return nil
				}
				b.over(orderingStore{b.store})
				defer b.end()
				b.put("1/a/1/old", "1/a/2/old")
				synctest.Wait()
				go func() {
					time.Sleep(time.Millisecond)
					if err := b.Skip(b.Lanes()[0].ID, 0); err != nil {
						t.Error(err)
					}
				}()
				move(b)
				b.want("1/a/1/old skipped")
				time.Sleep(time.Minute)
				b.want("1/a/2/old #1")
				if s := b.Summary(); s.Entries != 0 || s.Lanes != 0 || s.InFlight != 0 || s.Done[queue.Gone] != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// TestSkipDelivered: what a handler has taken and the store could not remove goes into no quarantine.
func TestSkipDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, store: queuetest.NewMemory(1 << 20)}
		failing := &failingStore{Memory: b.store}
		b.over(failing)
		defer b.end()
		failing.fails.Lock()
		b.put("1/a/1")
		b.want("1/a/1 #1")
		failing.fails.Unlock()
		if err := b.Skip(b.Lanes()[0].ID, 0); err != nil {
			t.Error(err)
		}
		b.want()
		if s := b.Summary(); s.Entries != 0 || s.Done[queue.Delivered] != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// TestSkipWhileGivenAway: no other process gets a record that is just being moved to the quarantine.
func TestSkipWhileGivenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, store: queuetest.NewMemory(1 << 20)}
		b.keep = func(queue.Delivery, queue.Fate) error {
			time.Sleep(time.Minute)
			return nil
		}
		given := make(chan struct{})
		b.over(&givingStore{b.store, given})
		defer b.end()
		b.put("1/a/1/old")
		synctest.Wait()
		go func() { _ = b.Skip(b.Lanes()[0].ID, 0) }()
		synctest.Wait()
		b.End()
		time.Sleep(59 * time.Second)
		if b.entries() != 1 {
			t.Error("it has been moved already")
		}
		select {
		case <-given:
			t.Error("given away")
		default:
		}
		time.Sleep(2 * time.Second)
		<-given
		if b.entries() != 0 {
			t.Error("it has not been moved")
		}
	})
}
