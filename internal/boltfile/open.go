package boltfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// errReplaced means that another process has replaced the file while this one waited for its lock.
var errReplaced = errors.New("file has been replaced")

// open opens or creates the file at path. whole means that every page is checked.
func (k *Kind) open(path string, whole bool) (db *bolt.DB, file *os.File, err error) {
	for {
		if db, file, err = k.openOnce(path, whole); !errors.Is(err, errReplaced) {
			return db, file, err
		}
	}
}

func (k *Kind) openOnce(path string, whole bool) (db *bolt.DB, file *os.File, err error) {
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
		if isReplaced(path, file) {
			return errReplaced
		}
		return k.check(db, file, whole)
	})
	if err == nil {
		return db, file, nil
	}
	abandon(db, file, errors.Is(err, ErrPanic))
	var errno syscall.Errno
	var pathErr *fs.PathError
	switch {
	case errors.Is(err, errReplaced):
		return nil, nil, err
	case errors.Is(err, berrors.ErrTimeout):
		return nil, nil, fmt.Errorf("%s: %w: most likely another process, such as a running Caddy, has it open", path, k.Locked)
	case errors.Is(err, k.Version), errors.Is(err, k.Damaged):
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	case errors.As(err, &pathErr):
		return nil, nil, err
	case errors.As(err, &errno):
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	default:
		return nil, nil, fmt.Errorf("%s: %w: %w", path, k.Damaged, err)
	}
}

// isReplaced reports whether another file has the path by now.
func isReplaced(path string, file *os.File) bool {
	have, err := file.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && !os.SameFile(have, named)
}

// abandon closes db and its file; either may be nil.
func abandon(db *bolt.DB, file *os.File, panicked bool) {
	if !panicked {
		if db != nil {
			_ = guard(db.Close)
		}
		return
	}
	// bbolt may still hold its own locks and have the file mapped to memory. Release the file lock, so that
	// the file can be opened again. The rest follows, or stays until the process ends.
	if file != nil {
		unlock(file)
		_ = file.Close()
	}
	if db != nil {
		go func() { _ = guard(db.Close) }()
	}
}

// writeMetaAgain rewrites, unchanged, the two pages that say which pages are in use, and syncs them.
//
// After a failed sync the system shows a page as written that is not on the disk, and may never retry.
// bbolt would take the new state for safe and overwrite pages of the previous one, which a power cut would
// bring back.
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

// check returns an error for a file that is damaged, or neither new nor of a known kind.
func (k *Kind) check(db *bolt.DB, file *os.File, whole bool) error {
	return db.View(func(tx *bolt.Tx) error {
		info, err := file.Stat()
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return fmt.Errorf("%w: file has %d of %d bytes", k.Damaged, info.Size(), tx.Size())
		}
		if whole {
			if err := k.verify(tx, file); err != nil {
				return err
			}
		}
		if isNew(tx) {
			return nil
		}
		return k.Check(tx)
	})
}

func isNew(tx *bolt.Tx) bool {
	first, _ := tx.Cursor().First()
	return first == nil
}

// makeDir creates dir and its missing parents, each durably.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// syncDir makes the names in dir durable. Windows has no such call and does not need one.
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
