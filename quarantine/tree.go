package quarantine

import (
	"bytes"

	bolt "go.etcd.io/bbolt"
)

// putEntry writes the entry of p and sets its ID.
func putEntry(tx *bolt.Tx, p *put) error {
	entries, parts := tx.Bucket(bucketEntries), tx.Bucket(bucketParts)
	// Keys come in ascending order, so half-full pages would stay half full.
	entries.FillPercent, parts.FillPercent = 1, 1
	seq, err := entries.NextSequence()
	if err != nil {
		return err
	}
	p.id = newID(p.received, seq)
	if err := entries.Put([]byte(p.id), p.record); err != nil {
		return err
	}
	for i, part := range p.parts {
		if err := parts.Put(partKey(p.id, i), part); err != nil {
			return err
		}
	}
	return nil
}

// getEntry reads the entry with the given ID.
func getEntry(tx *bolt.Tx, id string) (Entry, error) {
	record := tx.Bucket(bucketEntries).Get([]byte(id))
	if record == nil {
		return Entry{}, ErrNotFound
	}
	e, rest, err := decodeHead(record)
	if err != nil {
		return Entry{}, err
	}
	e.ID = id
	e.Body = bytes.Clone(rest) // the file's memory must not be kept
	eachPart(tx, id, func(_, part []byte) { e.Body = append(e.Body, part...) })
	return e, checkBody(record, e.Body)
}

// deleteEntry deletes the entry with the given ID, if it exists, even if it is damaged.
func deleteEntry(tx *bolt.Tx, id string) (found bool, err error) {
	entries, parts := tx.Bucket(bucketEntries), tx.Bucket(bucketParts)
	if entries.Get([]byte(id)) == nil {
		return false, nil
	}
	// Deleting while walking skips keys.
	var keys [][]byte
	eachPart(tx, id, func(key, _ []byte) { keys = append(keys, bytes.Clone(key)) })
	for _, key := range keys {
		if err := parts.Delete(key); err != nil {
			return false, err
		}
	}
	return true, entries.Delete([]byte(id))
}

// eachPart calls fn with the key and the content of each part of the body of entry id, in order.
func eachPart(tx *bolt.Tx, id string, fn func(key, part []byte)) {
	prefix := append([]byte(id), 0)
	c := tx.Bucket(bucketParts).Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		fn(k, v)
	}
}
