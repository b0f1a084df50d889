package quarantine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/greenapi-community/caddy-green-api/internal/boltfile"
)

// bucketFailing records, by key, since when something has been failing. A file without it is one in which
// nothing is failing. Older programs ignore it.
var bucketFailing = []byte("failing") // key: Unix time in seconds, 8 bytes, big endian

// KeySize is the size of the key of a FirstFailure.
const KeySize = 16

// A FirstFailure says since when something that is not kept yet has been failing.
type FirstFailure struct {
	// Identifies it by a hash.
	Key [KeySize]byte
	// Kept to the second.
	At time.Time
}

// FirstFailures returns what SaveFirstFailures has saved, in no particular order.
func (s *Store) FirstFailures() ([]FirstFailure, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.life.RUnlock()

	var all []FirstFailure
	err := s.file.View(func(tx *bolt.Tx) error {
		all = nil
		bucket := tx.Bucket(bucketFailing)
		if bucket == nil {
			return nil
		}
		return bucket.ForEach(func(k, v []byte) error {
			if len(k) == KeySize && len(v) == 8 {
				at := int64(binary.BigEndian.Uint64(v)) //nolint:gosec // as it was written
				all = append(all, FirstFailure{[KeySize]byte(k), time.Unix(at, 0).UTC()})
			}
			return nil
		})
	})
	return all, err
}

// failuresBatch limits what is written in one transaction. Adding to a page in memory takes longer the more
// is on it, and Puts wait meanwhile.
const failuresBatch = 1024

// SaveFirstFailures adds or replaces first failures, and removes those with the given keys. They are
// durable when it returns nil; up to about a thousand take one sync. It returns ErrFull if the file would
// have to grow past maxSize; 0 or less means no limit. After an error some may have been saved.
func (s *Store) SaveFirstFailures(set []FirstFailure, remove [][KeySize]byte, maxSize int64) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.life.RUnlock()

	for len(set) > 0 || len(remove) > 0 {
		goes := min(len(remove), failuresBatch)
		comes := min(len(set), failuresBatch-goes)
		if err := s.saveBatch(set[:comes], remove[:goes], max(maxSize, 0)); err != nil {
			return err
		}
		set, remove = set[comes:], remove[goes:]
	}
	return nil
}

// saveBatch does the work of SaveFirstFailures in one transaction.
func (s *Store) saveBatch(set []FirstFailure, remove [][KeySize]byte, maxSize int64) error {
	s.writer <- struct{}{}
	defer func() { <-s.writer }()
	if err := s.file.Ready(); err != nil {
		return err
	}
	err := s.update(maxSize, func(tx *bolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(bucketFailing)
		if err != nil {
			return err
		}
		for _, key := range remove {
			if err := bucket.Delete(key[:]); err != nil {
				return err
			}
		}
		for _, f := range set {
			at := binary.BigEndian.AppendUint64(nil, uint64(f.At.Unix())) //nolint:gosec // read back as it is
			if err := bucket.Put(bytes.Clone(f.Key[:]), at); err != nil {
				return err
			}
		}
		return nil
	})
	if boltfile.IsMaxSize(err) {
		return fmt.Errorf("%s: %w: since when notifications fail is not saved", s.path, ErrFull)
	}
	return err
}
