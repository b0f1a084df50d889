package quarantine

import (
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/greenapi-community/caddy-green-api/internal/boltfile"
)

const (
	// Limits of what is written with one sync, so that no Put waits long and memory is bounded.
	batchEntries = 512
	batchBytes   = 32 << 20
	// How long a writer waits for others if others came along last time.
	gatherTime = 200 * time.Microsecond
	// Pages that the tree, the list of free pages and the buckets may need in addition to the entry itself.
	overheadPages = 8
)

// put is a Put waiting for its turn.
type put struct {
	received time.Time
	record   []byte
	parts    [][]byte
	maxSize  int64
	maxShare int64

	share      string // the share it counts against
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

// writeQueue writes the queued puts, up to one batch. Only the writer may call it.
func (s *Store) writeQueue() {
	if s.lastBatch > 1 {
		// The callers of the last batch may be about to come again. A lone Put does not wait.
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
	s.queue = slices.Delete(s.queue, 0, n) // also releases the bodies
	s.queueMu.Unlock()
	s.lastBatch = n

	if err := s.file.Ready(); err != nil {
		finish(batch, err)
		return
	}
	s.writeBatch(s.refuseFull(batch))
}

// refuseFull ends the puts that do not fit into the store or into their share, and returns the others.
func (s *Store) refuseFull(batch []*put) []*put {
	used := s.Stats().Bytes
	pageSize := int64(s.file.DB.Info().PageSize)
	fitting := batch[:0:0]
	pending := make(map[string]int64)
	// The first put with a share needs the rest of its batch counted, too.
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

// writeBatch writes batch in one transaction or, if it does not fit, one by one to find out what does.
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
	case !boltfile.IsMaxSize(err):
		if err == nil {
			s.addShares(batch)
			s.summary.add(batch, s.Stats())
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

// errFull returns an error that says how full the store is.
func (s *Store) errFull(p *put) error {
	st := s.Stats()
	return fmt.Errorf("%s: %w: an entry of %d bytes is too much: %d entries use %d bytes, the file has %d, and %d are allowed",
		s.path, ErrFull, p.size(), st.Entries, st.Bytes, st.File, p.maxSize)
}

// deleteBatch deletes the entries with the given IDs in one transaction. The file may grow only if grow is
// set.
func (s *Store) deleteBatch(ids []string, grow bool) (deleted int, err error) {
	s.writer <- struct{}{}
	defer func() { <-s.writer }()

	if err := s.file.Ready(); err != nil {
		return 0, err
	}
	maxSize := s.Stats().File
	if grow {
		maxSize = 0
	}
	freed := make(map[string]int64)
	var gone []traits
	err = s.update(maxSize, func(tx *bolt.Tx) error {
		deleted, gone = 0, nil
		for _, id := range ids {
			if record := tx.Bucket(bucketEntries).Get([]byte(id)); record != nil {
				gone = append(gone, traitsOf([]byte(id), record).clone())
			}
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
	s.summary.remove(gone, s.Stats())
	for share, bytes := range freed {
		s.changeShare(share, -bytes)
	}
	return deleted, nil
}
