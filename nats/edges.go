package nats

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/greenapi-community/caddy-green-api/queue"
)

// Which edge serves which partition is only a matter of balance: the pin lets one through, whatever they think. So
// edges tell each other that they are alive with plain messages, which need no store.

const (
	announceEvery = 3 * time.Second
	aliveFor      = 10 * time.Second
	hearFirst     = 200 * time.Millisecond // for others' answers, before the first partition is asked for
)

// errBalanced is why a partition is given up while Serve goes on.
var errBalanced = errors.New("another edge serves the partition")

// announcement is what edges tell each other.
type announcement struct {
	Edge    string `json:"edge"`
	Leaving bool   `json:"leaving,omitempty"`
}

// A holder is the goroutine that serves a partition.
type holder struct {
	cancel context.CancelCauseFunc
	over   chan struct{}
	ending bool
}

// Serve calls take with a share for each partition that this edge gains. While another Serve goes on, it waits. It
// returns nil when ctx has ended, and ErrClosed when the store is closed.
func (s *Store) Serve(ctx context.Context, take func(queue.Share)) error {
	select {
	case s.serving <- struct{}{}:
	case <-ctx.Done():
		return nil
	case <-s.closing:
		return s.errClosed()
	}
	defer func() { <-s.serving }()
	select {
	case <-s.ready:
	case <-ctx.Done():
	case <-s.closing:
	}
	if ctx.Err() != nil {
		return s.served()
	}
	if err := s.begin(); err != nil {
		return err
	}
	defer s.calls.Done()
	sub, err := s.nc.Subscribe(s.o.edgesSubject(), s.hear)
	if err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	s.announce(false)
	sleep(ctx, hearFirst)
	s.serve(ctx, take, func() {
		_ = sub.Unsubscribe()
		s.announce(true)
	})
	return s.served()
}

func (s *Store) served() error {
	if s.isClosing() {
		return s.errClosed()
	}
	return nil
}

// serve holds those partitions that are this edge's, until ctx ends or the store is closed. It calls leave before it
// waits for deliveries under way: others then ask for each partition by the time that it is given up.
func (s *Store) serve(ctx context.Context, take func(queue.Share), leave func()) {
	holders := make(map[int]*holder)
	ticker := time.NewTicker(announceEvery)
	defer ticker.Stop()
	for over := false; !over; {
		for p, mine := range s.mine() {
			switch h := holders[p]; {
			case mine && h == nil:
				h = &holder{over: make(chan struct{})}
				holders[p] = h
				var held context.Context
				held, h.cancel = context.WithCancelCause(context.Background())
				go func() {
					s.hold(held, p, take)
					close(h.over)
					rouse(s.balance)
				}()
			case !mine && h != nil && !h.ending:
				h.ending = true
				h.cancel(errBalanced)
			}
		}
		select {
		case <-ticker.C:
			s.announce(false)
		case <-s.balance:
		case <-ctx.Done():
			over = true
		case <-s.closing:
			over = true
		}
		maps.DeleteFunc(holders, func(_ int, h *holder) bool {
			select {
			case <-h.over:
				return true
			default:
				return false
			}
		})
	}
	leave()
	for _, h := range holders {
		h.cancel(context.Canceled)
	}
	for _, h := range holders {
		<-h.over
	}
	s.takes.Wait()
}

// announce tells the other edges of this one.
func (s *Store) announce(leaving bool) {
	text, _ := json.Marshal(announcement{Edge: s.id, Leaving: leaving}) // never fails
	_ = s.nc.Publish(s.o.edgesSubject(), text)                          // comes again in three seconds
}

// hear notes what another edge tells.
func (s *Store) hear(msg *natsgo.Msg) {
	var a announcement
	if json.Unmarshal(msg.Data, &a) != nil || a.Edge == "" || a.Edge == s.id {
		return
	}
	s.mu.Lock()
	_, known := s.edges[a.Edge]
	if a.Leaving {
		delete(s.edges, a.Edge)
	} else {
		s.edges[a.Edge] = time.Now()
	}
	s.mu.Unlock()
	if known == a.Leaving {
		if !a.Leaving {
			s.announce(false) // it does not know this one yet
		}
		rouse(s.balance)
	}
}

// mine says of each partition whether this edge is to serve it: the one of those alive that has the highest score.
func (s *Store) mine() []bool {
	s.mu.Lock()
	maps.DeleteFunc(s.edges, func(_ string, heard time.Time) bool { return time.Since(heard) > aliveFor })
	others := slices.Collect(maps.Keys(s.edges))
	s.mu.Unlock()
	mine := make([]bool, s.o.Partitions)
	for p := range mine {
		own := score(s.id, p)
		mine[p] = !slices.ContainsFunc(others, func(edge string) bool { return score(edge, p) > own })
	}
	return mine
}

func score(edge string, partition int) uint64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", partition, edge))
	return binary.BigEndian.Uint64(sum[:])
}
