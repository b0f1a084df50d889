package boltfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	bolt "go.etcd.io/bbolt"
)

// Replace puts a new file in the place of this one, with what fill writes after Create. A crash at any moment leaves
// one of them, whole. Only the writer may call it, after Ready. After an error either of them may be in place.
func (f *File) Replace(fill func(*bolt.Tx) error) error {
	fresh := f.path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, file, err := f.kind.open(fresh, false)
	if err != nil {
		return err
	}
	err = guard(func() error {
		return db.Update(func(tx *bolt.Tx) error {
			if err := f.kind.Create(tx); err != nil {
				return err
			}
			return fill(tx)
		})
	})
	if err != nil {
		abandon(db, file, errors.Is(err, ErrPanic))
		_ = os.Remove(fresh)
		return fmt.Errorf("%s: %w", fresh, err)
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	f.named, f.writable = false, false
	if runtime.GOOS == "windows" { // an open file keeps its name there
		abandon(db, file, false)
		abandon(f.DB, f.OS, false)
		f.DB, f.OS = nil, nil
		return os.Rename(fresh, f.path)
	}
	// The lock on the file is held throughout: nobody can have the new one before this process.
	if err := os.Rename(fresh, f.path); err != nil {
		abandon(db, file, false)
		return err
	}
	abandon(f.DB, f.OS, false)
	f.DB, f.OS = db, file
	f.measure()
	return nil
}
