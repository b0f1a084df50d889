package quarantine

import (
	"bytes"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/greenapi-community/caddy-green-api/internal/boltfile"
)

// The buckets of the file, and the keys of bucketStore.
var (
	bucketStore   = []byte("store")
	bucketEntries = []byte("entries") // ID: record
	bucketParts   = []byte("parts")   // partKey: part of a body
	keyFormat     = []byte("format")
	keyEntries    = []byte("entries")
	keyWipe       = []byte("wipe") // set by a deletion, until Scrub has wiped what it left

	storeFormat = []byte{1}
)

// kind is what the file of s is.
func (s *Store) kind() boltfile.Kind {
	return boltfile.Kind{
		Locked: ErrLocked, Damaged: ErrDamaged, Version: ErrVersion,
		Check: checkFormat, Verify: verifyEntries, Create: create, Measure: s.measure,
	}
}

// update runs fn in a transaction; see boltfile.File.Update. Only the writer may call it.
func (s *Store) update(maxSize int64, fn func(*bolt.Tx) error) error {
	err := s.file.Update(maxSize, fn)
	if err != nil && !boltfile.IsMaxSize(err) {
		s.shares.used = nil // it is unknown whether it was written
		s.summary.forget()
	}
	return err
}

// checkFormat returns an error unless the file is a store in a known format.
func checkFormat(tx *bolt.Tx) error {
	if tx.Bucket(bucketStore) == nil || tx.Bucket(bucketEntries) == nil || tx.Bucket(bucketParts) == nil {
		return fmt.Errorf("%w: file lacks the buckets of a quarantine", ErrDamaged)
	}
	if format := tx.Bucket(bucketStore).Get(keyFormat); !bytes.Equal(format, storeFormat) {
		return fmt.Errorf("%w: file has format %v, this program knows %v", ErrVersion, format, storeFormat)
	}
	return nil
}

// verifyEntries counts the entries. The tree must be sound.
func verifyEntries(tx *bolt.Tx) error {
	entries := tx.Bucket(bucketEntries)
	if entries == nil || tx.Bucket(bucketStore) == nil {
		return nil // checkFormat reports that
	}
	var n uint64
	var last []byte
	cursor := entries.Cursor()
	for k, _ := cursor.First(); k != nil; k, _ = cursor.Next() {
		if !isID(k) { // a list would skip it
			return fmt.Errorf("%w: entry without an ID", ErrDamaged)
		}
		if n > 0 && bytes.Compare(last, k) >= 0 {
			return fmt.Errorf("%w: entries out of order", ErrDamaged)
		}
		last = k
		n++
	}
	if want := countEntries(tx); n != want {
		return fmt.Errorf("%w: file has %d of %d entries", ErrDamaged, n, want)
	}
	return nil
}

// create turns a new file into a store.
func create(tx *bolt.Tx) error {
	for _, name := range [][]byte{bucketStore, bucketEntries, bucketParts} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketStore).Put(keyFormat, storeFormat)
}
