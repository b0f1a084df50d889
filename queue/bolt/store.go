// Package bolt keeps a queue in one file on the disk of this machine.
//
// Put and Done sync the file before they return, so that neither a kill nor a power cut undoes them; those at one time
// share a sync. In memory there are some 40 bytes of each record that waits, and the whole of those put last.
//
// While the queue is not empty, unused parts of the file may have text of records that have been removed. A queue that
// has been empty and idle for a minute gets a new file.
package bolt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/greenapi-community/caddy-green-api/internal/boltfile"
	"github.com/greenapi-community/caddy-green-api/queue"
)

// FileName is the name of a queue's file in its directory.
const FileName = "queue.db"

var _ queue.Store = (*Store)(nil)

// Store is a queue.Store in a file. Use Open to make one.
type Store struct {
	path    string
	file    *boltfile.File
	maxSize atomic.Int64
	laneKey []byte

	life    sync.RWMutex // held shared by each call that uses the file, exclusively by Close
	close   sync.Once
	closing chan struct{} // closed when Close begins
	stop    chan struct{} // closed when no more jobs will come
	stopped chan struct{} // closed when the writer has ended
	serving chan struct{} // holds a token while there is a share

	mu       sync.Mutex
	jobs     []*job // waiting for the writer
	crowd    int    // how many jobs the writer waits for
	wake     chan struct{}
	index    index
	recent   recent
	stored   int64  // as in Stats.Put
	last     uint64 // the last sequence number given
	control  queue.Control
	arrivals chan struct{} // tells the share that there may be a new item

	writer
	measured atomic.Pointer[measured]
}

// measured is how full the file is.
type measured struct{ used, size int64 }

// Open opens the queue in dir, making the directory (mode 0700) and the file queue.db in it (mode 0600) when they are
// missing. One process at a time can have it open: when another has, Open waits 3 seconds and returns ErrLocked. It
// looks at each page, and returns ErrDamaged when the file is not a sound queue, and changes nothing in it then. Close the
// store in the end.
//
// maxSize limits the size of the file in bytes; 0 or less means no limit. Put returns ErrFull if a record would take
// the bytes in use past it, or the file, which grows 256 KiB ahead. Done needs a little room of its own: it can bring
// a full file to maxSize + maxSize/256 + 1 MiB.
//
// After a disk error the store continues: each Put and each Done tries again. Only if the file looks damaged is it left
// alone for a minute, during which they return that error.
func Open(dir string, maxSize int64) (*Store, error) {
	s, err := open(dir, maxSize, idleTime)
	if err != nil {
		return nil, err
	}
	go s.write()
	return s, nil
}

// open opens a store whose writer has to be started.
func open(dir string, maxSize int64, idle time.Duration) (*Store, error) {
	s := &Store{
		path:    filepath.Join(dir, FileName),
		closing: make(chan struct{}), stop: make(chan struct{}), stopped: make(chan struct{}), serving: make(chan struct{}, 1),
		wake: make(chan struct{}, 1), arrivals: make(chan struct{}, 1), index: newIndex(), recent: newRecent(),
		writer: writer{idle: idle},
	}
	s.SetMaxSize(maxSize)
	s.measured.Store(new(measured))
	file, err := boltfile.Open(s.path, s.kind())
	if err != nil {
		return nil, err
	}
	s.file = file
	if err := s.file.View(s.read); err != nil {
		_ = s.file.Close()
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	if len(s.laneKey) == 0 { // an older program made the file
		s.laneKey = queue.NewLaneKey()
		_ = s.file.Update(0, func(tx *bolt.Tx) error { return writeLaneKey(tx, s.laneKey) }) // or else it holds until the next Open
	}
	return s, nil
}

// read fills the index from the file.
func (s *Store) read(tx *bolt.Tx) (err error) {
	s.last = tx.Bucket(bucketRecords).Sequence()
	s.wipeNoted = tx.Bucket(bucketMeta).Get(keyWipe) != nil
	s.laneKey = slices.Clone(tx.Bucket(bucketMeta).Get(keyLanes))
	if s.control, err = readControl(tx); err != nil {
		return err
	}
	err = scan(tx, 0, s.found)
	s.known = s.last
	return err
}

// found adds a record that is in the file. Nobody knows whether its Put has returned nil.
func (s *Store) found(seq uint64, sum summary, parts bool) {
	s.index.add(seq, sum, parts).unsure = seq
	s.stored++
	s.last = max(s.last, seq)
}

// SetMaxSize replaces the limit that was given to Open.
func (s *Store) SetMaxSize(maxSize int64) { s.maxSize.Store(max(maxSize, 0)) }

// Put stores a record; see queue.Store.
func (s *Store) Put(ctx context.Context, r *queue.Record, perInstance int) (duplicate bool, err error) {
	if len(r.Body) > math.MaxInt32 {
		return false, fmt.Errorf("%s: %w: body of %d bytes", s.path, queue.ErrTooLarge, len(r.Body))
	}
	j := newPut(r, perInstance)
	if err := s.begin(); err != nil {
		return false, err
	}
	defer s.life.RUnlock()
	if ctx.Err() != nil {
		return false, fmt.Errorf("%s: %w: nothing was stored: %w", s.path, queue.ErrUnavailable, context.Cause(ctx))
	}
	s.enqueue(j)
	select {
	case <-j.ended:
	case <-ctx.Done():
		if gaveUp, state := s.giveUp(j); gaveUp {
			return false, fmt.Errorf("%s: %w: %s: %w", s.path, queue.ErrUnavailable, state, context.Cause(ctx))
		}
		<-j.ended
	}
	return j.duplicate, j.err
}

// giveUp ends the wait for a Put, unless it has ended by itself.
func (s *Store) giveUp(j *job) (gaveUp bool, state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case j.over:
		return false, ""
	case j.writing:
		j.abandoned = true
		return true, "the record may have been stored"
	}
	s.jobs = slices.DeleteFunc(s.jobs, func(other *job) bool { return other == j })
	return true, "nothing was stored"
}

// Control returns what the operator has ordered.
func (s *Store) Control() queue.Control {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cloneControl(s.control)
}

// SetControl replaces what the operator has ordered, durably if err is nil.
func (s *Store) SetControl(c queue.Control) error {
	c = cloneControl(c)
	return s.do(&job{control: &c, ended: make(chan struct{})})
}

func cloneControl(c queue.Control) queue.Control {
	c.Paused, c.Moves = slices.Clone(c.Paused), slices.Clone(c.Moves)
	return c
}

// do has the writer do a job.
func (s *Store) do(j *job) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.life.RUnlock()
	s.enqueue(j)
	<-j.ended
	return j.err
}

// LaneKey returns the key in the file.
func (s *Store) LaneKey() []byte { return s.laneKey }

// Stats says how full the store is, at once and without reading the file.
func (s *Store) Stats() queue.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return queue.Stats{
		Entries: s.index.entries, Bytes: s.measured.Load().used, MaxBytes: s.maxSize.Load(), LastSeq: s.last, Put: s.stored,
	}
}

// measure notes how full the file is.
func (s *Store) measure(_ *bolt.Tx, used, size int64) { s.measured.Store(&measured{used, size}) }

// Close ends the share, waits for the calls in progress and closes the file. Closing a closed store does nothing.
func (s *Store) Close() (err error) {
	s.close.Do(func() {
		close(s.closing)
		s.life.Lock()
		defer s.life.Unlock()
		close(s.stop)
		<-s.stopped
		err = s.file.Close()
	})
	return err
}

// begin keeps Close waiting until life is unlocked, unless it returns an error.
func (s *Store) begin() error {
	s.life.RLock()
	if s.isClosing() {
		s.life.RUnlock()
		return s.errClosed()
	}
	return nil
}

func (s *Store) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

func (s *Store) errClosed() error { return fmt.Errorf("%s: %w", s.path, queue.ErrClosed) }

// unavailable marks an error of the disk as one after which the same call may succeed.
func unavailable(err error) error {
	if errors.Is(err, queue.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", queue.ErrUnavailable, err)
}
