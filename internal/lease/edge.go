package lease

import (
	"context"
	"crypto/rand"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Storage is what several edges share. For a missing key, Load returns an error that is fs.ErrNotExist.
type Storage interface {
	Load(ctx context.Context, key string) ([]byte, error)
	Store(ctx context.Context, key string, value []byte) error
	Delete(ctx context.Context, key string) error
}

// A Store is the storage of one config. Another config may have another storage, in which the edge has not
// yet shown that it is alive. A Store belongs to one Edge.
type Store struct {
	Storage
	showing lock // one sign at a time
	shown   atomic.Pointer[time.Time]
}

// NewStore returns a Store for one config.
func NewStore(s Storage) *Store { return &Store{Storage: s, showing: newLock()} }

// A lock is a mutex that may be held during a slow storage access. The fake time of tests advances while a
// goroutine waits for a channel, but not while it waits for a sync.Mutex.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

func (l lock) lock() { l <- struct{}{} }

func (l lock) unlock() { <-l }

// An Edge is one process among those that share a storage. Edges watch each other by their own clocks, so
// the clocks need not agree.
type Edge struct {
	// ID is the edge's name in the storage.
	ID string

	times Times
	beats atomic.Int64 // signs of life, all different

	mu   sync.Mutex
	seen map[string]sign // the last sign of life of other edges

	heart  lock            // held to start or stop the heartbeat, and to ask whose it is
	leases map[*Lease]bool // as long as there are any, the heart beats
	stop   context.CancelFunc
}

// A sign is a sign of life of another edge.
type sign struct {
	text  string
	since time.Time // when this text was first seen
}

// NewEdge returns an edge with a unique name.
func NewEdge(times Times) *Edge {
	return &Edge{ID: rand.Text(), times: times, seen: make(map[string]sign), heart: newLock(), leases: make(map[*Lease]bool)}
}

// Times returns the edge's times.
func (e *Edge) Times() Times { return e.times }

// Claim returns the lease of an instance, not yet taken. The edge shows that it is alive until the lease is
// released, so the lease is held as long as a notification is in hand. storage returns the Store of the
// config in effect.
func (e *Edge) Claim(instance string, storage func() *Store) *Lease {
	l := &Lease{edge: e, instance: instance, storage: storage, store: storage()}
	e.heart.lock()
	defer e.heart.unlock()
	e.leases[l] = true
	if len(e.leases) == 1 {
		var ctx context.Context
		ctx, e.stop = context.WithCancel(context.Background())
		go e.beat(ctx)
	}
	return l
}

// release drops a lease and stops the heartbeat with the last one.
func (e *Edge) release(l *Lease) {
	e.heart.lock()
	defer e.heart.unlock()
	delete(e.leases, l)
	if len(e.leases) > 0 {
		return
	}
	e.stop()
	e.takeLeave(l.storage())
}

// beat shows that the edge is alive, in each storage in which it has a lease or is about to take one.
func (e *Edge) beat(ctx context.Context) {
	ticker := time.NewTicker(e.times.Beat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			for s := range e.storesInUse() {
				_ = e.showLife(s) // best effort: callers that need a fresh sign of life call stayAlive
			}
		}
	}
}

func (e *Edge) storesInUse() map[*Store]bool {
	e.heart.lock()
	defer e.heart.unlock()
	stores := make(map[*Store]bool)
	for l := range e.leases {
		stores[l.storage()] = true
	}
	return stores
}

// showLife writes a sign of life.
func (e *Edge) showLife(s *Store) error {
	s.showing.lock()
	defer s.showing.unlock()
	text := strconv.FormatInt(e.beats.Add(1), 10)
	if err := e.write(context.Background(), s, EdgePrefix+e.ID, text); err != nil {
		return err
	}
	now := time.Now()
	s.shown.Store(&now)
	return nil
}

// stayAlive makes sure that the last sign in a storage is not too old, for example after the process was
// suspended.
func (e *Edge) stayAlive(s *Store) error {
	if last := s.shown.Load(); last != nil && passed(*last) < e.times.Dead/2 {
		return nil
	}
	return e.showLife(s)
}

// takeLeave removes the sign of life. The leases have to be released before.
func (e *Edge) takeLeave(s *Store) {
	s.showing.lock()
	defer s.showing.unlock()
	s.shown.Store(nil)
	_ = e.remove(s, EdgePrefix+e.ID) // if that fails, other edges find this one dead
}

// sees reports whether another edge has shown a sign of life since this one first looked at it, or still
// has time to do so.
func (e *Edge) sees(s *Store, id string) (bool, error) {
	text, err := e.read(s, EdgePrefix+id)
	if err != nil || text == "" { // it has left
		return false, err
	}
	now := time.Now()
	e.mu.Lock()
	last, known := e.seen[id]
	changed := !known || last.text != text
	if changed {
		e.seen[id] = sign{text, now}
	}
	dead := !changed && now.Sub(last.since) >= e.times.Dead
	if dead {
		delete(e.seen, id)
	}
	e.mu.Unlock()
	if !dead {
		return true, nil
	}
	return false, e.remove(s, EdgePrefix+id) // so that no edge waits for it again
}
