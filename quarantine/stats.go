package quarantine

import (
	"encoding/binary"

	bolt "go.etcd.io/bbolt"
)

// Stats says how much a store holds.
type Stats struct {
	// Number of entries.
	Entries int
	// Bytes in use: entries and what it takes to find them, in whole pages of the file. This is what fills up; it falls
	// when entries are deleted. An empty store has some 30 KiB, and 1/512 of the file for the list of what is free.
	Bytes int64
	// Size of the file in bytes. It does not shrink; what is not in use is used again.
	File int64
	// Reports whether the file still has bytes of deleted entries, which Scrub has yet to wipe. The file itself says so, so
	// that it is known after a kill, too.
	WipeDue bool
}

// Stats says how much the store holds: at once, without reading the file. After Close it says what was last known.
func (s *Store) Stats() Stats {
	return *s.stats.Load()
}

// measure brings the stats up to date. The caller is the writer.
func (s *Store) measure() {
	st := Stats{}
	err := guard(func() error {
		return s.db.View(func(tx *bolt.Tx) error {
			free := s.db.Stats()
			st.Entries = int(countEntries(tx)) //nolint:gosec // counted up one by one
			st.WipeDue = wipeDue(tx)
			st.Bytes = tx.Size() - int64(free.FreePageN+free.PendingPageN)*int64(s.db.Info().PageSize)
			return nil
		})
	})
	if err != nil {
		return
	}
	if info, err := s.file.Stat(); err == nil {
		st.File = info.Size()
	}
	s.stats.Store(&st)
}

// countEntries returns the number of entries.
func countEntries(tx *bolt.Tx) uint64 {
	if v := tx.Bucket(bucketStore).Get(keyEntries); len(v) == 8 {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// addEntries adds n to the number of entries.
func addEntries(tx *bolt.Tx, n int) error {
	count := countEntries(tx) + uint64(n) //nolint:gosec // wraps around rightly for n below 0
	return tx.Bucket(bucketStore).Put(keyEntries, binary.BigEndian.AppendUint64(nil, count))
}
