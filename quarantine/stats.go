package quarantine

import (
	"encoding/binary"

	bolt "go.etcd.io/bbolt"
)

// Stats says how much a store holds.
type Stats struct {
	// Number of entries.
	Entries int
	// Bytes in use: entries and the index over them, in whole pages of the file. This is what fills up; it
	// falls when entries are deleted. An empty store uses some 30 KiB, and 1/512 of the file for the list
	// of free pages.
	Bytes int64
	// Size of the file in bytes. It does not shrink; unused parts are reused.
	File int64
	// Whether the file still has bytes of deleted entries that Scrub has yet to wipe. This is recorded in
	// the file, so it is known after a kill, too.
	WipeDue bool
}

// Stats returns how much the store holds, at once and without reading the file. After Close it returns the
// last known state.
func (s *Store) Stats() Stats {
	return *s.stats.Load()
}

// measure updates the stats.
func (s *Store) measure(tx *bolt.Tx, used, size int64) {
	s.stats.Store(&Stats{
		Entries: int(countEntries(tx)), //nolint:gosec // counted up one by one
		Bytes:   used, File: size, WipeDue: wipeDue(tx),
	})
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
