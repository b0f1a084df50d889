// Package quarantine keeps notifications on disk until an operator has looked at them.
//
// A Store is one file. Put syncs an entry to the disk before it returns, so that neither a kill nor a power
// cut loses it; concurrent Puts share a sync. Nothing is ever discarded to make room: a full store refuses.
// All methods are safe for concurrent use.
package quarantine

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/greenapi-community/caddy-green-api/internal/boltfile"
)

// Errors to be told apart with errors.Is. They come wrapped with the file or the ID.
var (
	// ErrFull is returned by Put when the entry would take the store past its limit.
	ErrFull = errors.New("quarantine is full")
	// ErrLocked is returned by Open when another process, or another Store of this one, has the file open.
	ErrLocked = errors.New("quarantine is locked")
	// ErrNotFound is returned by Get when no entry has the ID.
	ErrNotFound = errors.New("no such entry in quarantine")
	// ErrClosed is returned by all methods after Close.
	ErrClosed = errors.New("quarantine is closed")
	// ErrDamaged is returned when the file, or an entry in it, differs from what was written.
	ErrDamaged = errors.New("quarantine is damaged")
	// ErrVersion is returned when the file, or an entry in it, was written by a newer version of this package.
	ErrVersion = errors.New("quarantine is of an unknown version")
)

// FileName is the name of a store's file in its directory.
const FileName = "quarantine.db"

const (
	defaultListLimit = 100
	listBytes        = 4 << 20 // size of the heads that List returns at once
	deleteBatch      = 1024
)

// Store is a durable store of entries. Use Open to make one.
type Store struct {
	path string

	life   sync.RWMutex // held shared by each call, exclusively by Close
	closed bool

	writer chan struct{} // file's; holds a token while there is a writer

	queueMu   sync.Mutex
	queue     []*put // waiting for a writer
	lastBatch int    // size of the last batch; the writer's

	file    *boltfile.File
	deletes int // transactions that deleted something; the writer's
	shares  shares
	summary summary

	stats atomic.Pointer[Stats]
}

// Open opens the store in dir, making the directory (mode 0700) and the file quarantine.db in it (mode 0600) when they
// are missing. One process at a time can have it open: when another has, Open waits 3 seconds and returns ErrLocked.
// It looks at each page, and returns ErrDamaged when the file is not a sound store, and changes nothing in it then. Close the
// store in the end.
func Open(dir string) (*Store, error) {
	s := &Store{path: filepath.Join(dir, FileName)}
	s.stats.Store(&Stats{})
	file, err := boltfile.Open(s.path, s.kind())
	if err != nil {
		return nil, err
	}
	s.file, s.writer = file, file.Writer
	return s, nil
}

// Put keeps e and returns its ID. If err is nil, e is on the disk. Otherwise e is most likely not kept, but
// after a failed sync it may be: that cannot be known. The caller must not change e's body or header
// meanwhile.
//
// maxSize limits the size of the file in bytes; 0 or less means no limit. Put returns ErrFull, and changes
// nothing, if e would take the bytes in use (see Stats) past maxSize, or the file, which grows 256 KiB
// ahead. So Put never makes the file larger than maxSize, or than 512 KiB if maxSize is less. Delete needs
// a little room of its own: it can bring a full file to maxSize + maxSize/256 + 1 MiB. An entry takes its
// body and some hundred bytes, in whole pages of mostly 4 KiB: up to twice that if it is short, 3 % more if
// it is long. On Windows the file starts with 32 KiB, doubles up to 1 GiB, and then grows by 1 GiB at a
// time. The part of maxSize above such a size cannot be used there, and Delete can take the file one such
// step past it.
//
// After a disk error the store continues: each Put tries again. Only if the file looks damaged is it left
// alone for a minute, during which all calls return that error.
func (s *Store) Put(e Entry, maxSize int64) (id string, err error) {
	return s.PutShare(e, maxSize, 0)
}

// put keeps e with the limits of p.
func (s *Store) put(e Entry, p *put) (id string, err error) {
	if err := s.begin(); err != nil {
		return "", err
	}
	defer s.life.RUnlock()

	if e.Received.IsZero() {
		e.Received = time.Now()
	}
	e.Received = e.Received.UTC()
	p.received = e.Received
	if p.record, p.parts, err = encodeRecord(e); err != nil {
		return "", err
	}

	s.queueMu.Lock()
	s.queue = append(s.queue, p)
	s.queueMu.Unlock()
	for {
		select {
		case <-p.done:
			return p.id, p.err
		case s.writer <- struct{}{}:
			// The writer writes for all that wait, most likely p among them.
			s.writeQueue()
			<-s.writer
		}
	}
}

// Next returns the number that the next entry will have. Unlike the time of receipt, numbers tell what was kept before and
// after a moment: a notification may be kept long after it came.
func (s *Store) Next() (number uint64, err error) {
	if err := s.begin(); err != nil {
		return 0, err
	}
	defer s.life.RUnlock()
	err = s.file.View(func(tx *bolt.Tx) error {
		number = tx.Bucket(bucketEntries).Sequence() + 1
		return nil
	})
	return number, err
}

// Get returns the entry with the given ID, or ErrNotFound.
func (s *Store) Get(id string) (Entry, error) {
	if err := s.begin(); err != nil {
		return Entry{}, err
	}
	defer s.life.RUnlock()

	var e Entry
	err := s.file.View(func(tx *bolt.Tx) (err error) {
		e, err = getEntry(tx, id)
		return err
	})
	if err != nil {
		return Entry{}, fmt.Errorf("entry %q: %w", id, err)
	}
	return e, nil
}

// List returns up to limit entries (100 if limit is below 1) in order of ID, starting after the given ID,
// which need not exist; "" is the beginning. It leaves out their bodies: use Get. It may return fewer, so
// that entries with long heads do not fill the memory: only an empty list means the end.
//
// An unreadable entry is in the list with only its ID, and err, which then comes with the list, says why.
func (s *Store) List(after string, limit int) ([]Entry, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.life.RUnlock()

	if limit < 1 {
		limit = defaultListLimit
	}
	var list []Entry
	var unreadable []error
	err := s.file.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketEntries).Cursor()
		k, v := c.Seek([]byte(after))
		if bytes.Equal(k, []byte(after)) {
			k, v = c.Next()
		}
		size := 0
		for ; k != nil && len(list) < limit && size < listBytes; k, v = c.Next() {
			e, rest, err := decodeHead(v)
			size += len(v) - len(rest)
			e.ID = string(k)
			if err != nil {
				unreadable = append(unreadable, fmt.Errorf("entry %q: %w", e.ID, err))
			}
			list = append(list, e)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, errors.Join(unreadable...)
}

// Delete removes the entries with the given IDs, durably if err is nil, and returns how many there were. It
// skips IDs that do not exist. After an error some may be gone: deleted says how many.
//
// The file keeps traces of deleted bodies until the room is reused. Scrub wipes them, and until then Stats
// has WipeDue set.
func (s *Store) Delete(ids ...string) (deleted int, err error) {
	if err := s.begin(); err != nil {
		return 0, err
	}
	defer s.life.RUnlock()

	// A deletion needs free room. A smaller one needs less, and frees some. Only the smallest may let the
	// file grow.
	for n, grow := deleteBatch, false; len(ids) > 0; {
		n = min(n, len(ids))
		count, err := s.deleteBatch(ids[:n], grow)
		switch {
		case boltfile.IsMaxSize(err):
			grow = n == 1
			n = max(n/2, 1)
			continue
		case err != nil:
			return deleted, err
		}
		deleted += count
		ids = ids[n:]
		n, grow = min(2*n, deleteBatch), false
	}
	return deleted, nil
}

// Close waits for the calls in progress and closes the file. Closing a closed store does nothing.
func (s *Store) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return s.file.Close()
}

// begin keeps Close waiting until life is unlocked, unless it returns an error.
func (s *Store) begin() error {
	s.life.RLock()
	if s.closed {
		s.life.RUnlock()
		return fmt.Errorf("%s: %w", s.path, ErrClosed)
	}
	return nil
}
