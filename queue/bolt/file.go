package bolt

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"

	bolt "go.etcd.io/bbolt"

	"github.com/greenapi-community/caddy-green-api/internal/boltfile"
	"github.com/greenapi-community/caddy-green-api/queue"
)

// The buckets of the file, and the keys of bucketMeta. The sequence number of bucketRecords is the last one that a
// record has had.
var (
	bucketMeta    = []byte("queue")
	bucketRecords = []byte("records") // sequence number, 8 bytes, big endian: summary, beginning of the record
	bucketParts   = []byte("parts")   // sequence number and number of the part, 4 bytes: the rest of the record
	keyFormat     = []byte("format")
	keyEntries    = []byte("entries") // how many records there are, 8 bytes, big endian
	keyControl    = []byte("control") // queue.Control as JSON
	keyLanes      = []byte("lanes")   // Store.laneKey
	keyWipe       = []byte("wipe")    // set by a removal, until the file is made anew

	storeFormat = []byte{1}
)

const (
	// A longer record is stored in parts: a leaf of the tree is rewritten as a whole at each change.
	inlineMax = 8 << 10
	// Two parts with what the tree adds to them fill 64 KiB exactly or leave little.
	partLen = 32<<10 - 128
)

// kind is what the file of s is.
func (s *Store) kind() boltfile.Kind {
	return boltfile.Kind{
		Locked: queue.ErrLocked, Damaged: queue.ErrDamaged, Version: queue.ErrVersion,
		Check: checkFormat, Verify: verifyCount, Create: create, Measure: s.measure, Growth: 8 << 20,
	}
}

// checkFormat returns an error unless the file is a queue in a known format.
func checkFormat(tx *bolt.Tx) error {
	if tx.Bucket(bucketMeta) == nil || tx.Bucket(bucketRecords) == nil || tx.Bucket(bucketParts) == nil {
		return fmt.Errorf("%w: file lacks the buckets of a queue", queue.ErrDamaged)
	}
	if format := tx.Bucket(bucketMeta).Get(keyFormat); !bytes.Equal(format, storeFormat) {
		return fmt.Errorf("%w: file has format %v, this program knows %v", queue.ErrVersion, format, storeFormat)
	}
	return nil
}

// verifyCount counts the records: those of a page that lost some would silently disappear.
func verifyCount(tx *bolt.Tx) error {
	records := tx.Bucket(bucketRecords)
	if records == nil || tx.Bucket(bucketMeta) == nil {
		return nil // checkFormat reports that
	}
	var n uint64
	cursor := records.Cursor()
	for k, _ := cursor.First(); k != nil; k, _ = cursor.Next() {
		n++
	}
	if want := countEntries(tx); n != want {
		return fmt.Errorf("%w: file has %d of %d records", queue.ErrDamaged, n, want)
	}
	return nil
}

// create turns a new file into an empty queue.
func create(tx *bolt.Tx) error {
	for _, name := range [][]byte{bucketMeta, bucketRecords, bucketParts} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	if err := writeLaneKey(tx, queue.NewLaneKey()); err != nil {
		return err
	}
	return tx.Bucket(bucketMeta).Put(keyFormat, storeFormat)
}

func writeLaneKey(tx *bolt.Tx, key []byte) error { return tx.Bucket(bucketMeta).Put(keyLanes, key) }

// countEntries returns the number of records.
func countEntries(tx *bolt.Tx) uint64 {
	if v := tx.Bucket(bucketMeta).Get(keyEntries); len(v) == 8 {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// addEntries adds n to the number of records.
func addEntries(tx *bolt.Tx, n int) error {
	count := countEntries(tx) + uint64(n) //nolint:gosec // wraps around rightly for n below 0
	return tx.Bucket(bucketMeta).Put(keyEntries, binary.BigEndian.AppendUint64(nil, count))
}

// readControl returns what the operator has ordered.
func readControl(tx *bolt.Tx) (c queue.Control, err error) {
	text := tx.Bucket(bucketMeta).Get(keyControl)
	if text == nil {
		return c, nil
	}
	if json.Unmarshal(text, &c) != nil {
		return c, fmt.Errorf("%w: the operator's orders are not their JSON", queue.ErrDamaged)
	}
	return c, nil
}

func writeControl(tx *bolt.Tx, c queue.Control) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketMeta).Put(keyControl, text)
}

// A summary is what the index needs of a record. It stands before the record, so that opening the file decodes no
// JSON:
//
//	 0  CRC-32C of the rest of the summary, 4 bytes, big endian
//	 4  time of receipt as in item.received, 8 bytes, big endian
//	12  bytes of the body, 4 bytes, big endian
//	16  block, instance and chat, each after its length as a varint
const summaryFixed = 16

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type summary struct {
	received              int64
	size                  uint32
	block, instance, chat string
}

func summarize(r *queue.Record) summary {
	received := int64(noTime)
	if !r.Received.IsZero() {
		received = r.Received.UnixNano()
	}
	return summary{
		received: received, size: uint32(len(r.Body)), //nolint:gosec // checked by Put
		block: r.Block, instance: r.Instance, chat: r.Chat,
	}
}

// encode returns a summary with room for more after it.
func (s *summary) encode(more int) []byte {
	to := make([]byte, 4, summaryFixed+len(s.block)+len(s.instance)+len(s.chat)+3*binary.MaxVarintLen32+more)
	to = binary.BigEndian.AppendUint64(to, uint64(s.received)) //nolint:gosec // read back as it is
	to = binary.BigEndian.AppendUint32(to, s.size)
	for _, text := range [...]string{s.block, s.instance, s.chat} {
		to = append(binary.AppendUvarint(to, uint64(len(text))), text...)
	}
	binary.BigEndian.PutUint32(to, crc32.Checksum(to[4:], castagnoli))
	return to
}

// cutSummary returns the summary at the start of a value in bucketRecords, and the record's beginning after it.
func cutSummary(value []byte) (s summary, text []byte, err error) {
	if len(value) < summaryFixed {
		return s, nil, fmt.Errorf("%w: record of %d bytes", queue.ErrDamaged, len(value))
	}
	s.received = int64(binary.BigEndian.Uint64(value[4:])) //nolint:gosec // as it was written
	s.size = binary.BigEndian.Uint32(value[12:])
	rest := value[summaryFixed:]
	for _, to := range [...]*string{&s.block, &s.instance, &s.chat} {
		length, n := binary.Uvarint(rest)
		if n <= 0 || length > uint64(len(rest)-n) { //nolint:gosec // n bytes of rest were read
			return s, nil, fmt.Errorf("%w: summary of a record is cut off", queue.ErrDamaged)
		}
		end := n + int(length) //nolint:gosec // not above len(rest)
		*to = string(rest[n:end])
		rest = rest[end:]
	}
	if crc32.Checksum(value[4:len(value)-len(rest)], castagnoli) != binary.BigEndian.Uint32(value) {
		return s, nil, fmt.Errorf("%w: checksum of a summary differs", queue.ErrDamaged)
	}
	return s, rest, nil
}

func recordKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 0, 12), seq) }

// scan calls each with all records from the given sequence number on.
func scan(tx *bolt.Tx, from uint64, each func(seq uint64, s summary, parts bool)) error {
	cursor := tx.Bucket(bucketRecords).Cursor()
	for k, v := cursor.Seek(recordKey(from)); k != nil; k, v = cursor.Next() {
		if len(k) != 8 {
			return fmt.Errorf("%w: record without a sequence number", queue.ErrDamaged)
		}
		seq := binary.BigEndian.Uint64(k)
		s, text, err := cutSummary(v)
		if err != nil {
			return fmt.Errorf("record %d: %w", seq, err)
		}
		each(seq, s, len(text) >= inlineMax)
	}
	return nil
}

// putRecord writes a record.
func putRecord(tx *bolt.Tx, seq uint64, value []byte, parts [][]byte) error {
	key := recordKey(seq)
	records := tx.Bucket(bucketRecords)
	records.FillPercent = 1 // keys come in ascending order, so half-full pages would stay half full
	if err := records.Put(key, value); err != nil || len(parts) == 0 {
		return err
	}
	bucket := tx.Bucket(bucketParts)
	bucket.FillPercent = 1
	for i, part := range parts {
		if err := bucket.Put(binary.BigEndian.AppendUint32(key, uint32(i)), part); err != nil {
			return err
		}
	}
	return nil
}

// getRecord reads a record, for queue.Decode: that is to be done after the transaction.
func getRecord(tx *bolt.Tx, seq uint64) (text []byte, err error) {
	key := recordKey(seq)
	value := tx.Bucket(bucketRecords).Get(key)
	if value == nil {
		return nil, queue.ErrNotFound
	}
	if _, text, err = cutSummary(value); err != nil {
		return nil, err
	}
	text = bytes.Clone(text) // the file's memory must not be kept
	if len(text) >= inlineMax {
		cursor := tx.Bucket(bucketParts).Cursor()
		for k, part := cursor.Seek(key); bytes.HasPrefix(k, key); k, part = cursor.Next() {
			text = append(text, part...)
		}
	}
	return text, nil
}

// deleteRecord deletes a record, if it is there, even if it is damaged.
func deleteRecord(tx *bolt.Tx, seq uint64, parts bool) (found bool, err error) {
	key := recordKey(seq)
	records := tx.Bucket(bucketRecords)
	if records.Get(key) == nil {
		return false, nil
	}
	if parts {
		// Deleting while walking skips keys.
		var keys [][]byte
		bucket := tx.Bucket(bucketParts)
		cursor := bucket.Cursor()
		for k, _ := cursor.Seek(key); bytes.HasPrefix(k, key); k, _ = cursor.Next() {
			keys = append(keys, bytes.Clone(k))
		}
		for _, k := range keys {
			if err := bucket.Delete(k); err != nil {
				return false, err
			}
		}
	}
	return true, records.Delete(key)
}
