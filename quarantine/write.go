package quarantine

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	// Bounds of what is written with one sync, so that none waits long and memory is bounded.
	batchEntries = 512
	batchBytes   = 32 << 20
	// How long a writer waits for others, when others came along the last time.
	gatherTime = 200 * time.Microsecond
	// What the tree, the list of free pages and the buckets may need beside the entry itself, in pages.
	overheadPages = 8
)

// put is a Put waiting for its turn.
type put struct {
	received time.Time
	record   []byte
	parts    [][]byte
	maxSize  int64
	maxShare int64

	share      string // that it counts against
	shareBytes int64  // 0 if it counts against none

	done chan struct{} // closed when id and err are set
	id   string
	err  error
}

// size is the length of the entry in bytes.
func (p *put) size() int64 {
	n := int64(len(p.record))
	for _, part := range p.parts {
		n += int64(len(part))
	}
	return n
}

// writeQueue writes what waits in the queue, up to one batch of it. The caller is the writer.
func (s *Store) writeQueue() {
	if s.lastBatch > 1 {
		// Those of the last batch may be about to come again. A lone Put does not wait.
		time.Sleep(gatherTime)
	}
	s.queueMu.Lock()
	var n int
	var size int64
	for n < len(s.queue) && n < batchEntries && (n == 0 || size+s.queue[n].size() <= batchBytes) {
		size += s.queue[n].size()
		n++
	}
	batch := slices.Clone(s.queue[:n])
	s.queue = slices.Delete(s.queue, 0, n) // also lets go of the bodies
	s.queueMu.Unlock()
	s.lastBatch = n

	if err := s.ready(); err != nil {
		finish(batch, err)
		return
	}
	s.writeBatch(s.refuseFull(batch))
}

// refuseFull ends the puts for which there is no room, or none in their share, and returns the others.
func (s *Store) refuseFull(batch []*put) []*put {
	used := s.Stats().Bytes
	pageSize := int64(s.db.Info().PageSize)
	fitting := batch[:0:0]
	pending := make(map[string]int64)
	// The first in a batch with a share wants all of the batch counted.
	s.shares.wanted = s.shares.wanted || slices.ContainsFunc(batch, func(p *put) bool { return p.maxShare > 0 })
	for _, p := range batch {
		need := (p.size()/pageSize + 1) * pageSize
		if p.maxSize > 0 && used+need+overheadPages*pageSize > p.maxSize {
			finish([]*put{p}, s.errFull(p))
			continue
		}
		if s.refuseShare(p, pending) {
			continue
		}
		used += need
		fitting = append(fitting, p)
	}
	return fitting
}

// writeBatch writes batch in one transaction, or, when it does not fit, one by one to find out what does.
func (s *Store) writeBatch(batch []*put) {
	if len(batch) == 0 {
		return
	}
	var maxSize int64
	for _, p := range batch {
		if p.maxSize > 0 && (maxSize == 0 || p.maxSize < maxSize) {
			maxSize = p.maxSize
		}
	}
	err := s.update(maxSize, func(tx *bolt.Tx) error {
		for _, p := range batch {
			if err := putEntry(tx, p); err != nil {
				return err
			}
		}
		return addEntries(tx, len(batch))
	})
	switch {
	case !isMaxSize(err):
		if err == nil {
			s.addShares(batch)
		}
		finish(batch, err)
	case len(batch) == 1:
		finish(batch, s.errFull(batch[0]))
	default:
		for i := range batch {
			s.writeBatch(batch[i : i+1])
		}
	}
}

// finish ends the puts of batch with err.
func finish(batch []*put, err error) {
	for _, p := range batch {
		if p.err = err; err != nil {
			p.id = ""
		}
		close(p.done)
	}
}

// errFull says how full the store is.
func (s *Store) errFull(p *put) error {
	st := s.Stats()
	return fmt.Errorf("%s: %w: an entry of %d bytes is too much: %d entries use %d bytes, the file has %d, and %d are allowed",
		s.path, ErrFull, p.size(), st.Entries, st.Bytes, st.File, p.maxSize)
}

// deleteBatch deletes the entries with the given IDs in one transaction. It lets the file grow only if told so.
func (s *Store) deleteBatch(ids []string, grow bool) (deleted int, err error) {
	s.writer <- struct{}{}
	defer func() { <-s.writer }()

	if err := s.ready(); err != nil {
		return 0, err
	}
	maxSize := s.Stats().File
	if grow {
		maxSize = 0
	}
	freed := make(map[string]int64)
	err = s.update(maxSize, func(tx *bolt.Tx) error {
		deleted = 0
		for _, id := range ids {
			if share, bytes, counted := s.shareOf(tx, id); counted {
				freed[share] += bytes
			}
			found, err := deleteEntry(tx, id)
			if err != nil {
				return err
			}
			if found {
				deleted++
			}
		}
		if deleted == 0 {
			return nil
		}
		if err := noteWipe(tx); err != nil {
			return err
		}
		return addEntries(tx, -deleted)
	})
	if err != nil {
		return 0, err
	}
	if deleted > 0 {
		s.deletes++
	}
	for share, bytes := range freed {
		s.changeShare(share, -bytes)
	}
	return deleted, nil
}

// update runs fn in a transaction that is on the disk when update returns nil. The caller is the writer. After any other
// error than that of isMaxSize, for which nothing was written, it closes the file: see writeMetaAgain for why.
func (s *Store) update(maxSize int64, fn func(*bolt.Tx) error) error {
	s.db.MaxSize = int(min(maxSize, math.MaxInt))
	err := guard(func() error { return s.db.Update(fn) })
	if err == nil || isMaxSize(err) {
		s.measure()
		return err
	}
	s.shares.used = nil // nobody knows whether it was written
	err = fmt.Errorf("%s: %w", s.path, err)
	panicked := errors.Is(err, errPanic)
	if panicked {
		s.broken, s.brokenAt, s.verified = err, time.Now(), false
	}

	s.mu.Lock() // waits for readers, which may still see what the next writer is to overwrite
	defer s.mu.Unlock()
	abandon(s.db, s.file, panicked)
	s.db, s.file = nil, nil
	return err
}

// isMaxSize reports whether a transaction failed before writing anything, because the file may not grow.
func isMaxSize(err error) bool {
	return errors.Is(err, berrors.ErrMaxSizeReached)
}
