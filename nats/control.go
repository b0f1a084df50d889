package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/greenapi-community/caddy-green-api/queue"
)

// Keys of the bucket. Pauses and moves hold for all edges, draining for one.
const (
	keyControl = "control"
	keyLanes   = "lanes" // the key of the lanes' IDs
)

func (s *Store) keyDraining() string { return "draining." + token(s.o.Edge) }

// Control returns what the operator has ordered, for all edges and for this one.
func (s *Store) Control() queue.Control {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cloneControl(s.control)
}

// Changed calls changed whenever another edge's operator has ordered something, and once the orders are known.
func (s *Store) Changed(changed func()) {
	s.mu.Lock()
	s.changed = changed
	s.mu.Unlock()
}

func (s *Store) tellControl() {
	s.mu.Lock()
	changed := s.changed
	s.mu.Unlock()
	if changed != nil {
		changed()
	}
}

// SetControl replaces what the operator has ordered. It fails if another edge's operator has ordered something that
// this edge does not know of yet.
func (s *Store) SetControl(c queue.Control) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.calls.Done()
	ctx, cancel := context.WithTimeout(context.Background(), apiTimeout)
	defer cancel()
	if err := s.awaitReady(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	old, revisions := s.control, s.revisions
	s.mu.Unlock()
	c = cloneControl(c)
	var err error
	if !slices.Equal(old.Paused, c.Paused) || !slices.Equal(old.Moves, c.Moves) {
		revisions[0], err = s.write(ctx, keyControl, revisions[0], queue.Control{Paused: c.Paused, Moves: c.Moves})
	}
	if err == nil && old.Draining != c.Draining {
		revisions[1], err = s.write(ctx, s.keyDraining(), revisions[1], queue.Control{Draining: c.Draining})
	}
	if err != nil {
		var api *jetstream.APIError
		if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
			return fmt.Errorf("%s: %w: somebody has ordered something else meanwhile; try again in a few seconds", s, queue.ErrUnavailable)
		}
		return fmt.Errorf("%s: %w: %w", s, queue.ErrUnavailable, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.control, s.revisions = c, revisions
	return nil
}

func (s *Store) write(ctx context.Context, key string, revision uint64, c queue.Control) (uint64, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return revision, err
	}
	return s.kv.Update(ctx, key, text, revision)
}

// readControl reads the orders, and tells the dispatcher if they are new.
func (s *Store) readControl(ctx context.Context) error {
	s.mu.Lock()
	before := s.revisions
	s.mu.Unlock()
	var both [2]queue.Control
	var revisions [2]uint64
	for i, key := range []string{keyControl, s.keyDraining()} {
		entry, err := s.kv.Get(ctx, key)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if json.Unmarshal(entry.Value(), &both[i]) != nil {
			return fmt.Errorf("%w: the operator's orders are not their JSON", queue.ErrDamaged)
		}
		revisions[i] = entry.Revision()
	}
	s.mu.Lock()
	if s.revisions != before || revisions == before || revisions[0] < before[0] || revisions[1] < before[1] {
		s.mu.Unlock()
		return nil
	}
	s.control = queue.Control{Draining: both[1].Draining, Paused: both[0].Paused, Moves: both[0].Moves}
	s.revisions = revisions
	s.mu.Unlock()
	if s.isReady() {
		s.tellControl()
	}
	return nil
}

// LaneKey returns the key that all edges share, and before it is known, and nothing is in a lane, another one.
func (s *Store) LaneKey() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.laneKey
}

// setUpLaneKey reads the key of the lanes' IDs, and makes it if it is missing.
func (s *Store) setUpLaneKey(ctx context.Context) error {
	entry, err := s.kv.Get(ctx, keyLanes)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		// Of edges that come at once, one makes it.
		if _, err = s.kv.Create(ctx, keyLanes, queue.NewLaneKey()); err == nil || errors.Is(err, jetstream.ErrKeyExists) {
			entry, err = s.kv.Get(ctx, keyLanes)
		}
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.laneKey = entry.Value()
	return nil
}

func cloneControl(c queue.Control) queue.Control {
	c.Paused, c.Moves = slices.Clone(c.Paused), slices.Clone(c.Moves)
	return c
}
