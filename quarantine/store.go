// Package quarantine keeps notifications on disk until an operator has looked at them.
//
// A Store is one file. What Put has taken is synced to the disk before Put returns, so that neither a kill nor
// a power cut loses it; Puts at the same time share a sync. Nothing is ever discarded to make room: a full store
// refuses. All methods are safe for concurrent use.
package quarantine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Errors to be told apart with errors.Is. What is returned wraps them with the file or the ID.
var (
	// ErrFull is returned by Put when the entry would take the store past its limit.
	ErrFull = errors.New("quarantine is full")
	// ErrLocked is returned by Open when another process, or another Store of this one, has the file open.
	ErrLocked = errors.New("quarantine is locked")
	// ErrNotFound is returned by Get when no entry has the ID.
	ErrNotFound = errors.New("no such entry in quarantine")
	// ErrClosed is returned by all methods after Close.
	ErrClosed = errors.New("quarantine is closed")
	// ErrDamaged is returned when the file, or an entry in it, is not what was written.
	ErrDamaged = errors.New("quarantine is damaged")
	// ErrVersion is returned when the file, or an entry in it, was written by a newer version of this package.
	ErrVersion = errors.New("quarantine is of an unknown version")
)

// FileName is the name of a store's file in its directory.
const FileName = "quarantine.db"

const (
	defaultListLimit = 100
	listBytes        = 4 << 20 // of heads, in what List returns at once
	deleteBatch      = 1024
)

// Store is a durable store of entries. Use Open to make one.
type Store struct {
	path string

	life   sync.RWMutex // shared by each call, alone for Close
	closed bool

	writer chan struct{} // holds a token while somebody writes

	queueMu   sync.Mutex
	queue     []*put // waiting for somebody to write them
	lastBatch int    // how many were last written together; the writer's

	// mu is held alone to set db and file, which only the writer does, and to keep readers out.
	mu   sync.RWMutex
	db   *bolt.DB // nil after a failed write, until the next call
	file *os.File // db's own

	writable bool // since db was opened; the writer's
	verified bool // all pages were looked at, and nothing broke since; the writer's
	deletes  int  // transactions that deleted something; the writer's
	shares   shares
	// The last panic or damage and its time; the writer's. The file is left alone for the time of pause then.
	broken   error
	brokenAt time.Time
	pause    time.Duration

	stats atomic.Pointer[Stats]
}

// Open opens the store in dir, making the directory (mode 0700) and the file quarantine.db in it (mode 0600) when they
// are missing. One process at a time can have it open: when another has, Open waits 3 seconds and returns ErrLocked.
// It looks at each page, and returns ErrDamaged when the file is not a sound store, and changes nothing in it then. Close the
// store in the end.
func Open(dir string) (*Store, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	s := &Store{path: filepath.Join(dir, FileName), writer: make(chan struct{}, 1), pause: brokenPause}
	s.stats.Store(&Stats{})
	if err := s.ready(); err != nil {
		_ = s.Close()
		return nil, err
	}
	if err := syncDir(dir); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// Put keeps e and returns its ID. When err is nil, e is on the disk. When it is not, e is most likely not kept, but
// after a failed sync nobody can tell, so that it may be. The caller must not change e's body or header meanwhile.
//
// maxSize bounds the size of the file in bytes; 0 or less means no bound. Put returns ErrFull, and keeps all as it is,
// when e would take the bytes in use (see Stats) past maxSize, or the file, which grows 256 KiB ahead. So Put never makes
// the file larger than maxSize, or than 512 KiB if maxSize is less. Delete needs a little room of its own: it can bring
// a full file to maxSize + maxSize/256 + 1 MiB. An entry takes its body and some hundred bytes, in whole pages of mostly
// 4 KiB: up to twice that if it is short, 3 % more if it is long. On Windows the file has 32 KiB and doubles up to 1 GiB,
// then grows by 1 GiB at a time: what maxSize has above such a size is of no use there, and Delete can take the file
// one such step past it.
//
// After an error of the disk the store goes on: each Put tries again. Only when the file looks damaged, it is left alone
// for a minute, and all calls return that error meanwhile.
func (s *Store) Put(e Entry, maxSize int64) (id string, err error) {
	return s.PutShare(e, maxSize, 0)
}

// put keeps e as p says.
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
			// Whoever gets to write does so for all who wait, most likely p among them.
			s.writeQueue()
			<-s.writer
		}
	}
}

// Get returns the entry with the given ID, or ErrNotFound.
func (s *Store) Get(id string) (Entry, error) {
	if err := s.begin(); err != nil {
		return Entry{}, err
	}
	defer s.life.RUnlock()

	var e Entry
	err := s.view(func(tx *bolt.Tx) (err error) {
		e, err = getEntry(tx, id)
		return err
	})
	if err != nil {
		return Entry{}, fmt.Errorf("entry %q: %w", id, err)
	}
	return e, nil
}

// List returns up to limit entries (100 if limit is below 1) in the order of their IDs, from the first after the given ID,
// which need not exist; "" is the beginning. It leaves out their bodies: use Get. There may be fewer, so that those of long
// heads do not fill the memory: only none means the end.
//
// An entry that cannot be read is in the list with its ID only, and err, which then comes with the list, says why.
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
	err := s.view(func(tx *bolt.Tx) error {
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

// Delete removes the entries with the given IDs, durably when err is nil, and returns how many there were. It passes over
// IDs that no entry has. After an error some may be gone: deleted says how many.
//
// The file keeps traces of deleted bodies until the room is used again. Scrub wipes them, and Stats says as long that it is due.
func (s *Store) Delete(ids ...string) (deleted int, err error) {
	if err := s.begin(); err != nil {
		return 0, err
	}
	defer s.life.RUnlock()

	// A change needs free room: a smaller one needs less, and makes some. Only for the smallest may the file grow.
	for n, grow := deleteBatch, false; len(ids) > 0; {
		n = min(n, len(ids))
		count, err := s.deleteBatch(ids[:n], grow)
		switch {
		case isMaxSize(err):
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
	if s.db == nil {
		return nil
	}
	return guard(s.db.Close)
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
