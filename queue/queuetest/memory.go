// Package queuetest has what tests of a queue need: an engine in memory, and the tests that every engine passes.
package queuetest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/greenapi-community/caddy-green-api/queue"
)

// Memory is an engine that keeps its records in memory only.
type Memory struct {
	maxBytes int64
	laneKey  []byte

	mu      sync.Mutex
	changed chan struct{} // closed at the next Put
	order   []uint64      // of the records
	records map[uint64]*queue.Record
	counts  map[string]int // by instance
	bytes   int64
	last    uint64
	put     int64
	control queue.Control
	follow  func()
	closed  bool
	ended   chan struct{} // closed by Close
}

var _ queue.SharedStore = (*Memory)(nil)

// NewMemory returns an empty store for bodies of that many bytes, or of any number if it is 0.
func NewMemory(maxBytes int64) *Memory {
	return &Memory{maxBytes: maxBytes, laneKey: queue.NewLaneKey(), changed: make(chan struct{}), ended: make(chan struct{}), records: make(map[uint64]*queue.Record), counts: make(map[string]int)}
}

// Put stores a record.
func (m *Memory) Put(ctx context.Context, r *queue.Record, perInstance int) (duplicate bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	size := int64(len(r.Body))
	switch {
	case m.closed:
		return false, queue.ErrClosed
	case ctx.Err() != nil:
		return false, fmt.Errorf("%w: %w", queue.ErrUnavailable, ctx.Err())
	case m.maxBytes > 0 && size > m.maxBytes:
		return false, queue.ErrTooLarge
	case perInstance > 0 && m.counts[r.Instance] >= perInstance:
		return false, queue.ErrInstanceFull
	case m.maxBytes > 0 && m.bytes+size > m.maxBytes:
		return false, queue.ErrFull
	}
	m.last++
	m.records[m.last] = r
	m.order = append(m.order, m.last)
	m.counts[r.Instance]++
	m.bytes += size
	m.put++
	close(m.changed)
	m.changed = make(chan struct{})
	return false, nil
}

// Serve serves one share with all records.
func (m *Memory) Serve(ctx context.Context, take func(queue.Share)) error {
	select {
	case <-m.ended:
		return queue.ErrClosed
	default:
	}
	s := &memoryShare{store: m, lost: make(chan struct{})}
	lose := sync.OnceFunc(func() { close(s.lost) })
	defer lose()
	defer context.AfterFunc(ctx, lose)()
	taken := make(chan struct{})
	go func() {
		defer close(taken)
		take(s)
	}()
	select {
	case <-taken:
	case <-m.ended:
		lose()
		<-taken
		return queue.ErrClosed
	}
	return nil
}

type memoryShare struct {
	store *Memory
	after uint64 // the last one that Next returned
	lost  chan struct{}
}

func (s *memoryShare) Next(ctx context.Context) (queue.Item, error) {
	m := s.store
	for {
		m.mu.Lock()
		at, _ := slices.BinarySearch(m.order, s.after+1)
		if at < len(m.order) {
			s.after = m.order[at]
			item := m.records[s.after].Item(s.after)
			m.mu.Unlock()
			return item, nil
		}
		changed, closed := m.changed, m.closed
		m.mu.Unlock()
		if closed {
			return queue.Item{}, queue.ErrClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return queue.Item{}, ctx.Err()
		case <-s.lost:
			return queue.Item{}, queue.ErrClosed
		}
	}
}

func (s *memoryShare) Load(seq uint64) (*queue.Record, error) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if s.store.closed {
		return nil, queue.ErrClosed
	}
	if r := s.store.records[seq]; r != nil {
		return r, nil
	}
	return nil, queue.ErrNotFound
}

func (s *memoryShare) Done(seq uint64) error {
	m := s.store
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return queue.ErrClosed
	}
	r := m.records[seq]
	if r == nil {
		return nil
	}
	delete(m.records, seq)
	at, _ := slices.BinarySearch(m.order, seq)
	m.order = slices.Delete(m.order, at, at+1)
	if m.counts[r.Instance]--; m.counts[r.Instance] == 0 {
		delete(m.counts, r.Instance)
	}
	m.bytes -= int64(len(r.Body))
	return nil
}

func (s *memoryShare) Lost() <-chan struct{} { return s.lost }

// Control returns what SetControl has set.
func (m *Memory) Control() queue.Control {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.control
}

// SetControl replaces it.
func (m *Memory) SetControl(c queue.Control) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return queue.ErrClosed
	}
	m.control = c
	return nil
}

// Changed has the store call changed when OrderElsewhere has been called.
func (m *Memory) Changed(changed func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.follow = changed
}

// OrderElsewhere is SetControl of another process.
func (m *Memory) OrderElsewhere(c queue.Control) {
	m.mu.Lock()
	m.control = c
	follow := m.follow
	m.mu.Unlock()
	follow()
}

// LaneKey returns the key of this store.
func (m *Memory) LaneKey() []byte { return m.laneKey }

// Stats returns how full the store is.
func (m *Memory) Stats() queue.Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return queue.Stats{Entries: len(m.records), Bytes: m.bytes, MaxBytes: m.maxBytes, LastSeq: m.last, Put: m.put}
}

// Close ends all calls.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.closed = true
		close(m.ended)
		close(m.changed)
		m.changed = make(chan struct{})
	}
	return nil
}
