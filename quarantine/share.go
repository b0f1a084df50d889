package quarantine

import (
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/greenapi-community/caddy-green-api/internal/boltfile"
)

// ErrShare is returned by PutShare when the entry would take its share past the limit.
var ErrShare = errors.New("share of the quarantine is full")

// shares counts the bytes of entries by share. Only the writer uses it.
type shares struct {
	of   func(Entry) (share string, counted bool)
	used map[string]int64 // nil until needed, and after a failed write

	wanted bool // it has been needed once
}

// ShareBy sets the function that returns which share an entry counts against, if any. It must always return
// the same for the same entry, and is called without the body. Call ShareBy before the first Put.
func (s *Store) ShareBy(of func(Entry) (share string, counted bool)) {
	s.writer <- struct{}{}
	defer func() { <-s.writer }()
	s.shares = shares{of: of}
}

// PutShare is Put with one more limit: it returns ErrShare, and changes nothing, if e would take the bytes
// used by the entries of its share past maxShare; 0 or less means no limit. ShareBy defines the shares.
func (s *Store) PutShare(e Entry, maxSize, maxShare int64) (id string, err error) {
	return s.put(e, &put{maxSize: max(maxSize, 0), maxShare: max(maxShare, 0), done: make(chan struct{})})
}

// footprint returns how many bytes of the file an entry takes, given the length of its record and of the
// rest of its body. When a leaf of the tree is full, bbolt splits it so that it keeps two elements fewer
// than fit, but at least two.
func footprint(record, rest int64, pageSize int) int64 {
	const header, element = boltfile.PageHeaderLen, boltfile.ElementLen + len("20060102T150405000-00000000") + 5
	one := func(length int64) int64 {
		length += int64(element)
		page := int64(pageSize)
		n := max((page-int64(header))/length-2, 2)
		return (n*length + int64(header) + page - 1) / page * page / n
	}
	bytes := one(record) + rest/partLen*one(partLen)
	if last := rest % partLen; last > 0 {
		bytes += one(last)
	}
	return bytes
}

// entryFootprint is footprint for an entry given as a whole record.
func entryFootprint(record []byte, pageSize int) int64 {
	var rest int64
	if body := int64(binary.BigEndian.Uint64(record[9:])); body > inlineMax { //nolint:gosec // written from a length
		rest = body
	}
	return footprint(int64(len(record)), rest, pageSize)
}

// share returns which share a record counts against, and how many bytes. An unreadable one counts against
// none.
func (s *shares) share(record []byte, pageSize int) (name string, bytes int64, counted bool) {
	e, _, err := decodeHead(record)
	if err != nil {
		return "", 0, false
	}
	if name, counted = s.of(e); !counted {
		return "", 0, false
	}
	return name, entryFootprint(record, pageSize), true
}

// countShares counts the existing entries, unless that is done. Only the writer may call it.
func (s *Store) countShares() error {
	if s.shares.used != nil {
		return nil
	}
	used := make(map[string]int64)
	err := s.file.WriterView(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketEntries).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if name, bytes, counted := s.shares.share(v, tx.DB().Info().PageSize); counted {
				used[name] += bytes
			}
		}
		return nil
	})
	if err == nil {
		s.shares.used = used
	}
	return err
}

// refuseShare ends p if its share is full, and otherwise adds p to pending. Only the writer may call it.
func (s *Store) refuseShare(p *put, pending map[string]int64) (refused bool) {
	if s.shares.of == nil || !s.shares.wanted && s.shares.used == nil {
		return false
	}
	if err := s.countShares(); err != nil {
		finish([]*put{p}, err)
		return true
	}
	name, bytes, counted := s.shares.share(p.record, s.file.DB.Info().PageSize)
	if !counted {
		return false
	}
	used := s.shares.used[name] + pending[name] + bytes
	if p.maxShare > 0 && used > p.maxShare {
		finish([]*put{p}, fmt.Errorf("%s: %w: with an entry of %d bytes more, it would use %d bytes, and %d are allowed",
			s.path, ErrShare, p.size(), used, p.maxShare))
		return true
	}
	pending[name] += bytes
	p.share, p.shareBytes = name, bytes
	return false
}

// addShares counts entries that were written. Only the writer may call it.
func (s *Store) addShares(batch []*put) {
	for _, p := range batch {
		s.changeShare(p.share, p.shareBytes)
	}
}

func (s *Store) changeShare(name string, bytes int64) {
	if s.shares.used == nil || bytes == 0 {
		return
	}
	s.shares.used[name] += bytes
	if s.shares.used[name] <= 0 {
		delete(s.shares.used, name)
	}
}

// shareOf returns what the entry with the given ID uses of its share; counted is false if it counts against
// none, or shares are not being counted. Only the writer may call it.
func (s *Store) shareOf(tx *bolt.Tx, id string) (name string, bytes int64, counted bool) {
	record := tx.Bucket(bucketEntries).Get([]byte(id))
	if s.shares.used == nil || record == nil {
		return "", 0, false
	}
	return s.shares.share(record, tx.DB().Info().PageSize)
}
