package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/greenapi-community/caddy-green-api/queue"
)

const (
	// leaseTime is how long a delivery may begin after the last pull was sent that the server answered. It is well
	// below pinTTL, which the server counts from when it gets a pull.
	leaseTime = 6 * time.Second

	ackTimeout = 3 * time.Second
	ackTries   = 2
)

var (
	errLost  = errors.New("the share is lost")
	errStood = fmt.Errorf("no server has answered for %s", leaseTime)
)

// A share is one partition, from the first pull until anything is out of order.
type share struct {
	s *Store
	p int

	lost   chan struct{}
	failed chan error   // has an error after which the share must be lost
	until  atomic.Int64 // when the lease ends, as a time since Store.born
	mine   atomic.Bool  // the partition is this edge's, or would be if it had something

	mu      sync.Mutex
	why     error // the share is lost
	window  map[uint64]*entry
	fresh   []uint64 // of the window, what Next has not returned
	more    chan struct{}
	acking  int    // calls of Done that wait for a server
	gone    bool   // no server answers Done any more, because the consumer has been reset
	pending uint64 // records of the partition that the server has not sent yet
}

// An entry is a record that the server has sent, and that is not done.
type entry struct {
	data []byte
	size int    // of data, which is nil when the share is lost
	ack  string // subject that acknowledges it
}

func (s *Store) newShare(p int) *share {
	return &share{s: s, p: p, lost: make(chan struct{}), failed: make(chan error, 1), window: make(map[uint64]*entry), more: make(chan struct{}, 1)}
}

func (h *share) String() string { return fmt.Sprintf("%s, partition %d", h.s, h.p) }

// Lost is closed when the share is lost.
func (h *share) Lost() <-chan struct{} { return h.lost }

// lose ends the share.
func (h *share) lose(why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.why != nil {
		return
	}
	h.why = fmt.Errorf("%s: %w: %w", h, errLost, why)
	h.fresh = nil
	for _, e := range h.window {
		e.data = nil
	}
	close(h.lost)
}

// fail has the share lost.
func (h *share) fail(err error) {
	select {
	case h.failed <- err:
	default:
	}
}

func (h *share) extend(sent time.Time) {
	until := int64(sent.Add(leaseTime).Sub(h.s.born))
	if until > h.until.Load() {
		h.until.Store(until)
	}
}

// left returns how long the lease lasts.
func (h *share) left() time.Duration { return time.Duration(h.until.Load()) - time.Since(h.s.born) }

// add adds a record that the server has sent.
func (h *share) add(seq uint64, msg *natsgo.Msg, pending uint64) {
	h.mu.Lock()
	h.pending = pending
	h.window[seq] = &entry{data: msg.Data, size: len(msg.Data), ack: msg.Reply}
	h.fresh = append(h.fresh, seq)
	h.mu.Unlock()
	rouse(h.more)
}

// serves reports whether the share is held, or would be as soon as the partition has something.
func (h *share) serves() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.why == nil && h.mine.Load()
}

// size returns how many records of the store the share has or will have.
func (h *share) size() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.window) + int(h.pending) //nolint:gosec // a count
}

// waiting returns how many records the share has.
func (h *share) waiting() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.window)
}

// Next returns the records in the order in which the server has sent them.
func (h *share) Next(ctx context.Context) (queue.Item, error) {
	for {
		if h.s.isClosing() {
			return queue.Item{}, h.s.errClosed()
		}
		h.mu.Lock()
		if h.why != nil {
			defer h.mu.Unlock()
			return queue.Item{}, h.why
		}
		if len(h.fresh) > 0 {
			defer h.mu.Unlock()
			seq := h.fresh[0]
			h.fresh = h.fresh[1:]
			return h.item(seq), nil
		}
		h.mu.Unlock()
		select {
		case <-h.more:
		case <-h.lost:
		case <-h.s.closing:
		case <-ctx.Done():
			return queue.Item{}, context.Cause(ctx)
		}
	}
}

// item returns what a lane has to know of a record. One that cannot be read keeps its place: Load says so.
func (h *share) item(seq uint64) queue.Item {
	e := h.window[seq]
	r, err := queue.Decode(e.data)
	if err != nil {
		return queue.Item{Seq: seq, Received: time.Now(), Size: len(e.data)}
	}
	return r.Item(seq)
}

// Load returns a record. It fails when the lease is over, even if the process has stood still and nothing else has
// noticed that yet.
func (h *share) Load(seq uint64) (*queue.Record, error) {
	if h.s.isClosing() {
		return nil, h.s.errClosed()
	}
	if h.left() <= 0 {
		h.lose(errStood)
	}
	done := h.s.wasDone(h.p, seq)
	h.mu.Lock()
	defer h.mu.Unlock()
	if done { // by a delivery of the share before this one
		delete(h.window, seq)
	}
	e := h.window[seq]
	switch {
	case h.why != nil:
		return nil, h.why
	case e == nil:
		return nil, fmt.Errorf("%s: record %d: %w", h, seq, queue.ErrNotFound)
	}
	r, err := queue.Decode(e.data)
	if err != nil {
		return nil, fmt.Errorf("%s: record %d: %w", h, seq, err)
	}
	return r, nil
}

// Done acknowledges a record and waits for the server's answer. That is right even when the share is lost: a handler
// has it.
func (h *share) Done(seq uint64) error {
	if err := h.s.begin(); err != nil {
		return err
	}
	defer h.s.calls.Done()
	h.mu.Lock()
	e, tries := h.window[seq], ackTries
	switch {
	case e == nil:
		h.mu.Unlock()
		return nil
	case h.gone:
		defer h.mu.Unlock()
		if h.s.isClosing() {
			return h.s.errClosed()
		}
		return h.why
	case h.why != nil:
		tries = 1 // if another edge has reset the consumer, none is answered
	}
	h.acking++
	h.mu.Unlock()
	err := h.s.acknowledge(e.ack, tries)
	if h.acknowledged(seq, err == nil) {
		h.s.removed(h.p, seq, e.size)
	}
	if err != nil { // it is asked for again after the reset
		h.fail(fmt.Errorf("record %d was not acknowledged: %w", seq, err))
		return fmt.Errorf("%s: %w: record %d was not acknowledged: %w", h, queue.ErrUnavailable, seq, err)
	}
	return nil
}

// acknowledged notes that a call of Done has ended, and reports whether it has removed the record.
func (h *share) acknowledged(seq uint64, ok bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer rouse(h.more)
	h.acking--
	if !ok || h.window[seq] == nil {
		return false
	}
	delete(h.window, seq)
	return true
}

// finish lets no call of Done begin any more, and waits until those under way have ended, or late.
func (h *share) finish(late <-chan time.Time) {
	for {
		h.mu.Lock()
		h.gone = h.acking == 0
		gone := h.gone
		h.mu.Unlock()
		if gone {
			return
		}
		select {
		case <-h.more:
		case <-late:
			h.mu.Lock()
			h.gone = true
			h.mu.Unlock()
			return
		}
	}
}

// acknowledge waits until a server has removed what a subject stands for.
func (s *Store) acknowledge(subject string, tries int) (err error) {
	s.mu.Lock()
	link := s.link
	s.mu.Unlock()
	for try := range tries {
		ctx, cancel := context.WithTimeout(link, ackTimeout)
		_, err = s.nc.RequestWithContext(ctx, subject, []byte("+ACK"))
		if err != nil && try < tries-1 {
			select {
			case <-time.After(publishAgain): // it may have failed at once
			case <-link.Done():
			}
		}
		cancel()
		if err == nil {
			return nil
		}
	}
	return err
}

// removed notes that a record is no longer in the store.
func (s *Store) removed(p int, seq uint64, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	s.stats.Entries = max(0, s.stats.Entries-1)
	s.stats.Bytes = max(0, s.stats.Bytes-int64(size))
	s.done[p].add(seq)
}

// A memory has the sequence numbers of what was acknowledged last: a cluster may send one of them again after a
// reset, because it removes records a moment after it has answered.
type memory struct {
	seqs map[uint64]bool
	ring []uint64
	at   int
}

func (m *memory) add(seq uint64) {
	if m.seqs == nil {
		m.seqs = make(map[uint64]bool)
	}
	if len(m.ring) < memorySize {
		m.ring = append(m.ring, seq)
	} else {
		delete(m.seqs, m.ring[m.at])
		m.ring[m.at] = seq
		m.at = (m.at + 1) % memorySize
	}
	m.seqs[seq] = true
}

const memorySize = 1024

func (s *Store) wasDone(p int, seq uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done[p].seqs[seq]
}
