package queue_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/greenapi-community/caddy-green-api/queue"
	"github.com/greenapi-community/caddy-green-api/queue/queuetest"
)

// slowStore stores what it is given, and then says so too late.
type slowStore struct {
	*queuetest.Memory
	slow bool
}

func (s *slowStore) Put(ctx context.Context, r *queue.Record, perInstance int) (duplicate bool, err error) {
	if duplicate, err = s.Memory.Put(ctx, r, perInstance); s.slow && err == nil {
		<-ctx.Done()
		err = fmt.Errorf("%w: %w", queue.ErrUnavailable, ctx.Err())
	}
	return duplicate, err
}

// TestPutInDoubt: what was stored without an answer and has been delivered since is not stored again, once.
func TestPutInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, store: queuetest.NewMemory(1 << 20)}
		slow := &slowStore{Memory: b.store, slow: true}
		b.over(slow)
		defer b.end()
		put := func(id, body string) (duplicate bool, err error) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return b.Put(ctx, &queue.Record{Block: "default", Instance: "1", ID: id, Received: time.Now(), Body: []byte(body)}, 0)
		}
		for range 2 {
			if _, err := put("a", "same"); err == nil {
				t.Fatal("no error")
			}
			b.want("a #1")
			slow.slow = false
			time.Sleep(time.Minute)
			if duplicate, err := put("again", "same"); !duplicate || err != nil {
				t.Errorf("sent again: %v, %v", duplicate, err)
			}
			b.want()
			if duplicate, err := put("new", "same"); duplicate || err != nil {
				t.Errorf("another one that is the same: %v, %v", duplicate, err)
			}
			b.want("new #1")
			slow.slow = true
		}
		_, _ = put("a", "same")
		b.want("a #1")
		slow.slow = false
		if duplicate, err := put("b", "other"); duplicate || err != nil {
			t.Errorf("another one: %v, %v", duplicate, err)
		}
		b.want("b #1")
	})
}

// TestPutBeforeStart: the latest record of an instance that the store held at the start may be one that the sender has
// had no answer for.
func TestPutBeforeStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, queue.Options{})
		b.end()
		received := time.Now()
		for _, id := range []string{"1/a/1", "1/a/2"} {
			r := &queue.Record{Block: "default", Instance: "1", ID: id, Received: received, Body: []byte(id)}
			if _, err := b.store.Put(t.Context(), r, 0); err != nil {
				t.Fatal(err)
			}
			received = received.Add(time.Second)
		}
		b.start(queue.Options{})
		defer b.end()
		b.want("1/a/1 #1", "1/a/2 #1")
		time.Sleep(time.Minute)
		b.put("1/a/2")
		b.want()
		b.put("1/a/2")
		b.want("1/a/2 #1")
		b.put("1/a/1")
		b.want("1/a/1 #1")
	})
}

// idleStore hands nothing out until it may.
type idleStore struct {
	*queuetest.Memory
	may chan struct{}
}

func (s *idleStore) Serve(ctx context.Context, take func(queue.Share)) error {
	return s.Memory.Serve(ctx, func(share queue.Share) { take(idleShare{share, s.may}) })
}

type idleShare struct {
	queue.Share
	may chan struct{}
}

func (s idleShare) Next(ctx context.Context) (queue.Item, error) {
	item, err := s.Share.Next(ctx)
	if err == nil {
		<-s.may
	}
	return item, err
}

// TestHoldsAtOnce: from the moment that it is stored, a notification is in the queue, so that none overtakes it.
func TestHoldsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, store: queuetest.NewMemory(1 << 20)}
		idle := &idleStore{Memory: b.store, may: make(chan struct{})}
		b.over(idle)
		defer b.end()
		holds := func(want bool) {
			t.Helper()
			if got := b.Holds("default", "1"); got != want {
				t.Errorf("the queue holds something: %v, want %v", got, want)
			}
		}
		for range 2 {
			holds(false)
			b.put("1/a/1", "1/a/2")
			holds(true)
			idle.may <- struct{}{}
			b.want("1/a/1 #1")
			holds(true)
			idle.may <- struct{}{}
			b.want("1/a/2 #1")
		}
		holds(false)
	})
}
