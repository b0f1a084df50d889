package quarantine

import (
	"bytes"
	"fmt"
	"os"

	bolt "go.etcd.io/bbolt"
)

// How many pages Scrub checks before it lets others have their turn.
const scrubPages = 4096

// Scrub overwrites with zeros every part of the file that no entry uses, durably when it returns nil, so
// that no byte deleted before is left in the file. It reads all unused pages; other calls wait for 16 MiB
// of them at a time.
//
// The file keeps its size. A copy-on-write file system, or a disk, may still have the old bytes elsewhere.
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

// wiped clears the note in the file that something has to be wiped, unless more has been deleted since
// before.
func (s *Store) wiped(before int) error {
	s.writer <- struct{}{}
	defer func() { <-s.writer }()
	if err := s.file.Ready(); err != nil {
		return err
	}
	if s.deletes != before || !s.Stats().WipeDue {
		return nil
	}
	return s.update(0, func(tx *bolt.Tx) error { return tx.Bucket(bucketStore).Delete(keyWipe) })
}

// noteWipe notes in the file that something was deleted and has to be wiped.
func noteWipe(tx *bolt.Tx) error { return tx.Bucket(bucketStore).Put(keyWipe, []byte{1}) }

func wipeDue(tx *bolt.Tx) bool { return tx.Bucket(bucketStore).Get(keyWipe) != nil }

// scrub wipes the free pages from first up to but not including end, and reports whether the file has more.
func (s *Store) scrub(first, end int) (more bool, err error) {
	s.writer <- struct{}{}
	defer func() { <-s.writer }()
	if err := s.file.Ready(); err != nil {
		return false, err
	}
	err = s.file.Alone(func(tx *bolt.Tx, file *os.File) (err error) { // a page that a reader may still read is not free
		more, err = wipeFree(tx, file, first, end)
		return err
	})
	return more, err
}

// wipeFree does the work of scrub in tx, a write transaction without readers, so that free pages are really
// free.
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
		// page is nil beyond the last page in use: such a page is left over from a failed write.
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
