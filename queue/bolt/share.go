package bolt

import (
	"context"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/greenapi-community/caddy-green-api/queue"
)

// Serve calls take with one share that has all records. While another Serve goes on, it waits. It returns nil when ctx
// has ended, and ErrClosed when the store is closed.
func (s *Store) Serve(ctx context.Context, take func(queue.Share)) error {
	select {
	case s.serving <- struct{}{}:
	case <-ctx.Done():
		return nil
	case <-s.closing:
		return s.errClosed()
	}
	defer func() { <-s.serving }()
	if s.isClosing() {
		return s.errClosed()
	}
	sh := &share{store: s, lost: make(chan struct{})}
	taken := make(chan struct{})
	go func() {
		defer close(taken)
		take(sh)
	}()
	var err error
	select {
	case <-ctx.Done():
	case <-s.closing:
		err = s.errClosed()
	}
	close(sh.lost)
	<-taken
	return err
}

// A share is all of the store.
type share struct {
	store *Store
	lost  chan struct{}
	seq   uint64 // of the last item that Next returned
}

func (h *share) Lost() <-chan struct{} { return h.lost }

// Next returns the items in order of their sequence numbers.
func (h *share) Next(ctx context.Context) (queue.Item, error) {
	s := h.store
	for {
		if err := h.err(ctx); err != nil {
			return queue.Item{}, err
		}
		s.mu.Lock()
		if it := s.index.next(h.seq); it != nil {
			defer s.mu.Unlock()
			h.seq = it.seq
			return s.index.public(it), nil
		}
		s.mu.Unlock()
		select {
		case <-s.arrivals:
		case <-ctx.Done():
		case <-h.lost:
		case <-s.closing:
		}
	}
}

// err returns why there are no more items.
func (h *share) err(ctx context.Context) error {
	if h.store.isClosing() {
		return h.store.errClosed()
	}
	select {
	case <-h.lost:
		return fmt.Errorf("%s: share has been given back", h.store.path)
	default:
		return context.Cause(ctx)
	}
}

// Load reads a record, from the file unless it was put a moment ago.
func (h *share) Load(seq uint64) (r *queue.Record, err error) {
	s := h.store
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.life.RUnlock()
	if r, err = s.load(seq, s.file.View); err != nil {
		return nil, fmt.Errorf("%s: record %d: %w", s.path, seq, err)
	}
	return r, nil
}

// load reads a record in a transaction that view begins.
func (s *Store) load(seq uint64, view func(func(*bolt.Tx) error) error) (*queue.Record, error) {
	s.mu.Lock()
	stored, text := s.index.get(seq) != nil, s.recent.texts[seq]
	s.mu.Unlock()
	switch {
	case !stored:
		return nil, queue.ErrNotFound
	case text != nil:
		return queue.Decode(text)
	}
	err := view(func(tx *bolt.Tx) (err error) {
		text, err = getRecord(tx, seq)
		return err
	})
	if err != nil {
		return nil, err
	}
	return queue.Decode(text)
}

// Done removes a record.
func (h *share) Done(seq uint64) error {
	s := h.store
	if !s.has(seq) && !s.isClosing() {
		return nil
	}
	return s.do(&job{removes: seq, ended: make(chan struct{})})
}

func (s *Store) has(seq uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.index.get(seq) != nil
}
