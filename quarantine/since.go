package quarantine

import (
	"bytes"
	"encoding/json"
	"time"

	bolt "go.etcd.io/bbolt"
)

// EachSince calls each with the entries received since then and kept for the given reason, oldest first and
// without their bodies. It looks at no more than the last most entries, whatever their reason, and skips
// unreadable ones. each must not call the store.
func (s *Store) EachSince(then time.Time, reason string, most int, each func(Entry)) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.life.RUnlock()

	// Most entries have another reason. To see that, their heads need not be decoded.
	mark, err := json.Marshal(map[string]string{"reason": reason})
	if err != nil {
		return err
	}
	mark = bytes.Trim(mark, "{}")
	return s.file.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketEntries).Cursor()
		earliest := []byte(newID(then, 0))
		k, v := c.Last()
		for n := 1; n < most && k != nil && bytes.Compare(k, earliest) > 0; n++ {
			k, v = c.Prev()
		}
		if k == nil {
			k, v = c.First()
		}
		for ; k != nil; k, v = c.Next() {
			if !bytes.Contains(v, mark) {
				continue
			}
			e, _, err := decodeHead(v)
			if err != nil || e.Reason != reason || e.Received.Before(then) {
				continue
			}
			e.ID = string(k)
			each(e)
		}
		return nil
	})
}
