// Package boltfile keeps a bbolt file in use whatever happens to it: a full disk, a failed sync, damage that makes
// bbolt panic.
package boltfile

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	lockTimeout = 3 * time.Second
	// How long to leave a file alone after bbolt panicked over it. Each attempt may leave it mapped to
	// memory once more.
	brokenPause = time.Minute
)

// MinGrowth is how far a file grows ahead at least, so that not every transaction needs another sync for the new size.
const MinGrowth = 256 << 10

// ErrPanic means that bbolt panicked, as it does over a damaged file.
var ErrPanic = errors.New("bbolt panicked")

// A Kind is what a file holds. None of its functions may be nil.
type Kind struct {
	// The errors for a file that another process has open, that differs from what was written, and that is of an
	// unknown version. They come wrapped with the path.
	Locked, Damaged, Version error

	// Check returns an error, which is Damaged or Version, unless the file is of this kind.
	Check func(*bolt.Tx) error

	// Verify reads more than Check to find damage. The tree is sound, but the file may be of another kind.
	Verify func(*bolt.Tx) error

	// Create turns a new file into one of this kind.
	Create func(*bolt.Tx) error

	// Measure is called after the file was opened, and after each Update, with the bytes in use and the size of the
	// file.
	Measure func(tx *bolt.Tx, used, size int64)

	// How far the file grows ahead at most: an eighth of its size, but at least 256 KiB.
	Growth int64
}

// A File is a bbolt file with one writer at a time and any number of readers.
type File struct {
	path string
	kind Kind

	// Writer holds a token while there is a writer. Methods that only the writer may call say so.
	Writer chan struct{}

	// mu is held exclusively to set DB and OS, which only the writer does, and to keep readers out.
	mu sync.RWMutex
	DB *bolt.DB // the writer's; nil after a failed Update, until the next call
	OS *os.File // DB's own

	size     int64 // of the file, when it was last measured; the writer's
	named    bool  // the name of the file is on the disk; the writer's
	writable bool  // since DB was opened; the writer's
	verified bool  // all pages have been checked, and nothing has broken since; the writer's
	// The last panic or damage, and its time; the writer's. The file is left alone for Pause after it.
	broken   error
	brokenAt time.Time
	Pause    time.Duration // for tests
}

// Open opens the file at path, making its directory (mode 0700) and the file (mode 0600) when they are missing. One
// process at a time can have it open: when another has, Open waits 3 seconds and returns the Locked of kind. It checks each
// page, and changes nothing in a file that it returns an error for. Close the file in the end.
func Open(path string, kind Kind) (*File, error) {
	if err := makeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	f := &File{path: path, kind: kind, Writer: make(chan struct{}, 1), Pause: brokenPause}
	if err := f.Ready(); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Close closes the file. No other call may be in progress.
func (f *File) Close() error {
	if f.DB == nil {
		return nil
	}
	return guard(f.DB.Close)
}

// Ready opens the file unless it is open, and prepares it for an Update. Only the writer may call it.
func (f *File) Ready() error {
	if err := f.reopen(); err != nil {
		return err
	}
	if f.writable {
		return nil
	}
	if err := writeMetaAgain(f.DB, f.OS); err != nil {
		return err
	}
	fresh := false
	err := f.WriterView(func(tx *bolt.Tx) error { fresh = isNew(tx); return nil })
	if err == nil && fresh {
		err = f.Update(0, f.kind.Create)
	}
	if err == nil && !f.named {
		err = syncDir(filepath.Dir(f.path))
		f.named = err == nil
	}
	f.writable = err == nil
	return err
}

// View runs fn in a read transaction. The writer must not call it.
func (f *File) View(fn func(*bolt.Tx) error) error {
	for {
		f.mu.RLock()
		if f.DB != nil {
			defer f.mu.RUnlock()
			return guard(func() error { return f.DB.View(fn) })
		}
		f.mu.RUnlock()
		f.Writer <- struct{}{}
		err := f.reopen()
		<-f.Writer
		if err != nil {
			return err
		}
	}
}

// WriterView is View for the writer, after Ready.
func (f *File) WriterView(fn func(*bolt.Tx) error) error {
	return guard(func() error { return f.DB.View(fn) })
}

// Update runs fn in a transaction that is on the disk when Update returns nil. maxSize limits the size of the file;
// 0 means no limit. Only the writer may call it, after Ready. After an error for which something may have been written
// (all but IsMaxSize), it closes the file; writeMetaAgain says why. With a Growth in its Kind, Update may run fn twice.
func (f *File) Update(maxSize int64, fn func(*bolt.Tx) error) error {
	f.DB.MaxSize = int(min(maxSize, math.MaxInt))
	ahead := min(f.kind.Growth, f.size/8)
	if maxSize > 0 {
		ahead = min(ahead, (maxSize-f.size)/4)
	}
	f.DB.AllocSize = int(max(ahead, MinGrowth))
	err := guard(func() error { return f.DB.Update(fn) })
	if IsMaxSize(err) && f.DB.AllocSize > MinGrowth {
		f.DB.AllocSize = MinGrowth
		err = guard(func() error { return f.DB.Update(fn) })
	}
	if err == nil || IsMaxSize(err) {
		f.measure()
		return err
	}
	err = fmt.Errorf("%s: %w", f.path, err)
	panicked := errors.Is(err, ErrPanic)
	if panicked {
		f.broken, f.brokenAt, f.verified = err, time.Now(), false
	}

	f.mu.Lock() // waits for readers, which may still read what the next writer is to overwrite
	defer f.mu.Unlock()
	abandon(f.DB, f.OS, panicked)
	f.DB, f.OS = nil, nil
	return err
}

// IsMaxSize reports whether a transaction failed before writing anything because the file may not grow.
func IsMaxSize(err error) bool {
	return errors.Is(err, berrors.ErrMaxSizeReached)
}

// Alone runs fn in a write transaction while there are no readers, so that what is free in tx is really free, and
// then discards the transaction. Only the writer may call it, after Ready.
func (f *File) Alone(fn func(tx *bolt.Tx, file *os.File) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return guard(func() error {
		tx, err := f.DB.Begin(true)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		return fn(tx, f.OS)
	})
}

// guard runs fn and returns a panic in it as an error, including a fault in memory mapped to an unreadable
// file.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrPanic, p)
		}
	}()
	return fn()
}

// reopen opens the file unless it is open. Only the writer may call it.
func (f *File) reopen() error {
	if f.DB != nil {
		return nil
	}
	if f.broken != nil && time.Since(f.brokenAt) < f.Pause {
		return f.broken
	}
	f.broken = nil
	db, file, err := f.kind.open(f.path, !f.verified)
	if err != nil {
		if errors.Is(err, f.kind.Damaged) {
			f.broken, f.brokenAt = err, time.Now()
		}
		return err
	}
	f.mu.Lock()
	f.DB, f.OS = db, file
	f.mu.Unlock()
	f.verified = true
	f.writable = false
	f.measure()
	return nil
}

// measure tells the owner how full the file is.
func (f *File) measure() {
	_ = f.WriterView(func(tx *bolt.Tx) error {
		free := f.DB.Stats()
		used := tx.Size() - int64(free.FreePageN+free.PendingPageN)*int64(f.DB.Info().PageSize)
		f.size = 0
		if info, err := f.OS.Stat(); err == nil {
			f.size = info.Size()
		}
		f.kind.Measure(tx, used, f.size)
		return nil
	})
}
