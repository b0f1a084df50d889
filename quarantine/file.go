package quarantine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	lockTimeout = 3 * time.Second
	// How long a file is left alone that bbolt panicked over: each time may leave it mapped to memory once more.
	brokenPause = time.Minute
	// How far the file grows ahead, so that not each Put needs a sync more for the new size.
	growth = 256 << 10
)

// The buckets of the file, and the keys of bucketStore.
var (
	bucketStore   = []byte("store")
	bucketEntries = []byte("entries") // ID: record
	bucketParts   = []byte("parts")   // partKey: part of a body
	keyFormat     = []byte("format")
	keyEntries    = []byte("entries")
	keyWipe       = []byte("wipe") // there from a deletion until Scrub has wiped what it left

	storeFormat = []byte{1}
)

var errPanic = errors.New("bbolt panicked")

// guard runs fn and returns a panic in it as an error, also that of memory which is mapped to a file that cannot be read.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	return fn()
}

// reopen opens the file unless it is open. The caller is the writer.
func (s *Store) reopen() error {
	if s.db != nil {
		return nil
	}
	if s.broken != nil && time.Since(s.brokenAt) < s.pause {
		return s.broken
	}
	s.broken = nil
	db, file, err := openFile(s.path, !s.verified)
	if err != nil {
		if errors.Is(err, ErrDamaged) {
			s.broken, s.brokenAt = err, time.Now()
		}
		return err
	}
	s.mu.Lock()
	s.db, s.file = db, file
	s.mu.Unlock()
	s.verified = true
	s.writable = false
	s.measure()
	return nil
}

// ready opens the file unless it is open, and makes it fit for writing. The caller is the writer.
func (s *Store) ready() error {
	if err := s.reopen(); err != nil {
		return err
	}
	if s.writable {
		return nil
	}
	if err := writeMetaAgain(s.db, s.file); err != nil {
		return err
	}
	fresh := false
	err := guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error { fresh = isNew(tx); return nil })
	})
	if err == nil && fresh {
		err = s.update(0, create)
	}
	s.writable = err == nil
	return err
}

// view runs fn in a read transaction.
func (s *Store) view(fn func(*bolt.Tx) error) error {
	for {
		s.mu.RLock()
		if s.db != nil {
			defer s.mu.RUnlock()
			return guard(func() error { return s.db.View(fn) })
		}
		s.mu.RUnlock()
		s.writer <- struct{}{}
		err := s.reopen()
		<-s.writer
		if err != nil {
			return err
		}
	}
}

// openFile opens or makes the file at path. whole says that each page is to be looked at.
func openFile(path string, whole bool) (db *bolt.DB, file *os.File, err error) {
	err = guard(func() (err error) {
		db, err = bolt.Open(path, 0o600, &bolt.Options{
			Timeout: lockTimeout,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				var err error
				file, err = os.OpenFile(name, flag, mode) //nolint:gosec // the operator's own directory
				return file, err
			},
		})
		if err != nil {
			return err
		}
		db.AllocSize = growth
		return check(db, file, whole)
	})
	if err == nil {
		return db, file, nil
	}
	abandon(db, file, errors.Is(err, errPanic))
	var errno syscall.Errno
	var pathErr *fs.PathError
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, nil, fmt.Errorf("%s: %w: most likely another process, such as a running Caddy, has it open", path, ErrLocked)
	case errors.Is(err, ErrVersion), errors.Is(err, ErrDamaged):
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	case errors.As(err, &pathErr):
		return nil, nil, err
	case errors.As(err, &errno):
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	default:
		return nil, nil, fmt.Errorf("%s: %w: %w", path, ErrDamaged, err)
	}
}

// abandon closes db, which may be nil, and its file, which may be nil.
func abandon(db *bolt.DB, file *os.File, panicked bool) {
	if !panicked {
		if db != nil {
			_ = guard(db.Close)
		}
		return
	}
	// bbolt may be left with its own locks held, and the file mapped to memory. So that it can be opened again, release the
	// lock on it. The rest follows, or stays until the process ends.
	if file != nil {
		unlock(file)
		_ = file.Close()
	}
	if db != nil {
		go func() { _ = guard(db.Close) }()
	}
}

// writeMetaAgain writes the two pages that say which pages are in use as they are, and syncs them.
//
// After a failed sync the system shows a page as written that is not on the disk, and may never try again. bbolt would take
// the new state for safe and overwrite pages of the one before, which a power cut would bring back.
func writeMetaAgain(db *bolt.DB, file *os.File) error {
	meta := make([]byte, 2*db.Info().PageSize)
	if _, err := file.ReadAt(meta, 0); err != nil {
		return err
	}
	if _, err := file.WriteAt(meta, 0); err != nil {
		return err
	}
	return file.Sync()
}

// check reports a file that is not whole, or neither new nor a store that we know.
func check(db *bolt.DB, file *os.File, whole bool) error {
	return db.View(func(tx *bolt.Tx) error {
		info, err := file.Stat()
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return fmt.Errorf("%w: file has %d of %d bytes", ErrDamaged, info.Size(), tx.Size())
		}
		if whole {
			if err := verify(tx, file); err != nil {
				return err
			}
		}
		if isNew(tx) {
			return nil
		}
		return checkFormat(tx)
	})
}

// checkFormat reports what is not a store that we know.
func checkFormat(tx *bolt.Tx) error {
	if tx.Bucket(bucketStore) == nil || tx.Bucket(bucketEntries) == nil || tx.Bucket(bucketParts) == nil {
		return fmt.Errorf("%w: file lacks the buckets of a quarantine", ErrDamaged)
	}
	if format := tx.Bucket(bucketStore).Get(keyFormat); !bytes.Equal(format, storeFormat) {
		return fmt.Errorf("%w: file has format %v, this program knows %v", ErrVersion, format, storeFormat)
	}
	return nil
}

// create makes a new file a store.
func create(tx *bolt.Tx) error {
	for _, name := range [][]byte{bucketStore, bucketEntries, bucketParts} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketStore).Put(keyFormat, storeFormat)
}

func isNew(tx *bolt.Tx) bool {
	first, _ := tx.Cursor().First()
	return first == nil
}

// makeDir makes dir and what is missing above it, each durably.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) { //nolint:gosec // the operator's own directory
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // the operator's own directory
		return err
	}
	return syncDir(parent)
}

// syncDir makes the names in dir durable. Windows has no such call and needs none.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir) //nolint:gosec // the operator's own directory
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
