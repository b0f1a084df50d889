package quarantine

import (
	"bytes"
	"fmt"
	"os"

	bolt "go.etcd.io/bbolt"
)

// How many pages Scrub looks at before it lets others have their turn.
const scrubPages = 4096

// Scrub overwrites with zeros all of the file that no entry is in, durably when it returns nil, so that no byte of what was
// deleted before is left in the file. It reads all that is not in use; other calls wait for 16 MiB of that at a time.
//
// The file keeps its size. A file system that copies on write, or a disk, may still have the old bytes elsewhere.
func (s *Store) Scrub() error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.life.RUnlock()

	s.writer <- struct{}{}
	before := s.deletes
	<-s.writer
	for from, more := 0, true; more; from += scrubPages {
		var err error
		if more, err = s.scrub(from, from+scrubPages); err != nil {
			return fmt.Errorf("%s: wiping what is not in use: %w", s.path, err)
		}
	}
	return s.wiped(before)
}

// wiped takes the note out of the file that something is to be wiped, unless more was deleted since before.
func (s *Store) wiped(before int) error {
	s.writer <- struct{}{}
	defer func() { <-s.writer }()
	if err := s.ready(); err != nil {
		return err
	}
	if s.deletes != before || !s.Stats().WipeDue {
		return nil
	}
	return s.update(0, func(tx *bolt.Tx) error { return tx.Bucket(bucketStore).Delete(keyWipe) })
}

// noteWipe notes that something was deleted and is to be wiped.
func noteWipe(tx *bolt.Tx) error { return tx.Bucket(bucketStore).Put(keyWipe, []byte{1}) }

func wipeDue(tx *bolt.Tx) bool { return tx.Bucket(bucketStore).Get(keyWipe) != nil }

// scrub wipes the free pages from the first to before the end, and reports whether the file has more.
func (s *Store) scrub(first, end int) (more bool, err error) {
	s.writer <- struct{}{}
	defer func() { <-s.writer }()
	if err := s.ready(); err != nil {
		return false, err
	}
	s.mu.Lock() // pages that a reader may still look at are not free
	defer s.mu.Unlock()

	err = guard(func() error {
		tx, err := s.db.Begin(true)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		more, err = wipeFree(tx, s.file, first, end)
		return err
	})
	return more, err
}

// wipeFree does the work of scrub in tx, a write transaction without readers, so that what is free is free for good.
func wipeFree(tx *bolt.Tx, file *os.File, first, end int) (more bool, err error) {
	pageSize := tx.DB().Info().PageSize
	info, err := file.Stat()
	if err != nil {
		return false, err
	}
	pages := int(info.Size()) / pageSize
	buf, zeros := make([]byte, pageSize), make([]byte, pageSize)
	for id := max(first, 2); id < min(end, pages); id++ {
		page, err := tx.Page(id)
		if err != nil {
			return false, err
		}
		// No page beyond the last in use: left behind by a write that failed.
		if page != nil && page.Type != "free" {
			continue
		}
		offset := int64(id) * int64(pageSize)
		if _, err := file.ReadAt(buf, offset); err != nil {
			return false, err
		}
		if bytes.Equal(buf, zeros) {
			continue
		}
		if _, err := file.WriteAt(zeros, offset); err != nil {
			return false, err
		}
	}
	return end < pages, file.Sync()
}
