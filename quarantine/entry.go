package quarantine

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strconv"
	"time"
)

// Fault is one thing in a body that its schema does not allow.
type Fault struct {
	// JSON pointer (RFC 6901) to the value at fault. Empty for the whole body.
	Pointer string `json:"pointer"`
	// Schema keyword that the value does not meet, such as "required".
	Keyword string `json:"keyword"`
}

// Answer is what a handler answered to a notification that no handler took.
type Answer struct {
	// The upstream that was asked. Empty when none could be.
	Handler string `json:"handler,omitempty"`
	// HTTP status it answered. 0 when it did not.
	Status int `json:"status,omitempty"`
	// The beginning of its text.
	Text string `json:"text,omitempty"`
	// Why there is no answer.
	Error string `json:"error,omitempty"`
}

// Entry is one kept notification.
//
// Only Body is kept byte for byte. The other fields are text: bytes that are not UTF-8 come back as U+FFFD.
// The store reads none of them but Received and Body. Keep secrets such as an Authorization header out of them.
type Entry struct {
	// Set by Put: time of receipt in UTC and a number, such as "20261121T034150123-0000002a". IDs sort by time of
	// receipt, those of one millisecond by order of keeping. Safe unquoted in a URL path, a file name and a shell.
	ID string `json:"id,omitempty"`
	// When the notification came. Kept in UTC, to the nanosecond. Default: when Put was called.
	Received time.Time `json:"received"`
	// The green_api block that took the notification, for replays.
	Name string `json:"name,omitempty"`
	// Why it was kept, one of the caller's constants.
	Reason string `json:"reason,omitempty"`
	// The sender would have been refused, if that were not only reported.
	Unadmitted bool `json:"unadmitted,omitempty"`
	// Type of the notification, typeWebhook. Empty when unknown.
	Type string `json:"type,omitempty"`
	// Type of the message, typeMessage. Empty when it has none.
	Message string `json:"message,omitempty"`
	// ID of the instance that the body names.
	Instance string `json:"instance,omitempty"`
	// ID of the chat, if any.
	Chat string `json:"chat,omitempty"`
	// The notification's own ID, idMessage or the like.
	NotificationID string `json:"notification_id,omitempty"`
	// For a malformed body: where it goes wrong, in bytes from its start.
	Offset int64 `json:"offset,omitempty"`
	// For a malformed body: what is wrong there, without quoting it.
	Cause string `json:"cause,omitempty"`
	// For a body that violates its schema: all its faults.
	Faults []Fault `json:"faults,omitempty"`
	// For one that no handler took: the last answers of handlers, in order.
	Answers []Answer `json:"answers,omitempty"`
	// The client address that was checked.
	Client string `json:"client,omitempty"`
	// Host and request URI that it was sent to, for replays.
	Host string `json:"host,omitempty"`
	URI  string `json:"uri,omitempty"`
	// Header fields that a replay needs, such as Content-Type and Content-Encoding.
	Header map[string][]string `json:"header,omitempty"`
	// Length of Body in bytes. Set by Put.
	Size int64 `json:"size"`
	// The very bytes received, still encoded as they came. Nil in what List returns.
	Body []byte `json:"body,omitempty"`
}

// The record of an entry, in format 1; numbers are big endian:
//
//	 0  format, 1 byte
//	 1  CRC-32C of all from 5 to the end of the head, 4 bytes
//	 5  length of the head, 4 bytes
//	 9  length of the body, 8 bytes
//	17  CRC-32C of the body, 4 bytes
//	21  head: the entry without its body as a JSON object
//	 …  body, unless it is longer than inlineMax
//
// A longer body is stored apart, in parts. A leaf of the tree holds at least two records in adjacent pages
// and is rewritten at each change, so 16 MiB records would need 64 MiB of adjacent pages and be copied over
// and over.
const (
	recordFormat = 1
	prefixLen    = 21
	inlineMax    = 8 << 10
	// Two parts with what the tree adds to them fill 64 KiB exactly or leave little.
	partLen = 32<<10 - 128
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeRecord returns the record of e and the parts of its body, which share its memory.
func encodeRecord(e Entry) (record []byte, parts [][]byte, err error) {
	body := e.Body
	e.ID, e.Body, e.Size = "", nil, int64(len(body))
	head, err := json.Marshal(e)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding an entry: %w", err)
	}
	record = make([]byte, prefixLen, prefixLen+len(head)+min(len(body), inlineMax))
	record[0] = recordFormat
	binary.BigEndian.PutUint32(record[5:], uint32(len(head))) //nolint:gosec // a head of 4 GiB does not fit a request
	binary.BigEndian.PutUint64(record[9:], uint64(len(body)))
	binary.BigEndian.PutUint32(record[17:], crc32.Checksum(body, castagnoli))
	record = append(record, head...)
	binary.BigEndian.PutUint32(record[1:], crc32.Checksum(record[5:], castagnoli))
	if len(body) <= inlineMax {
		return append(record, body...), nil, nil
	}
	for len(body) > 0 {
		n := min(len(body), partLen)
		parts = append(parts, body[:n:n])
		body = body[n:]
	}
	return record, parts, nil
}

// decodeHead returns the entry that record holds, without its body, and the bytes after the head.
func decodeHead(record []byte) (e Entry, rest []byte, err error) {
	head, rest, err := splitHead(record)
	if err != nil {
		return Entry{}, nil, err
	}
	if e, err = decodeEntry(head); err != nil {
		return Entry{}, nil, err
	}
	return e, rest, nil
}

// splitHead returns the head of record, whose checksum it checks, and the bytes after it.
func splitHead(record []byte) (head, rest []byte, err error) {
	if len(record) == 0 {
		return nil, nil, fmt.Errorf("%w: empty record", ErrDamaged)
	}
	if record[0] != recordFormat {
		return nil, nil, fmt.Errorf("%w: record has format %d, this program knows %d", ErrVersion, record[0], recordFormat)
	}
	if len(record) < prefixLen {
		return nil, nil, fmt.Errorf("%w: record of %d bytes", ErrDamaged, len(record))
	}
	headLen := uint64(binary.BigEndian.Uint32(record[5:]))
	if headLen > uint64(len(record)-prefixLen) { //nolint:gosec // not below 0
		return nil, nil, fmt.Errorf("%w: record of %d bytes with a head of %d", ErrDamaged, len(record), headLen)
	}
	end := prefixLen + int(headLen) //nolint:gosec // not above len(record)
	if crc32.Checksum(record[5:end], castagnoli) != binary.BigEndian.Uint32(record[1:]) {
		return nil, nil, fmt.Errorf("%w: checksum of the head differs", ErrDamaged)
	}
	return record[prefixLen:end], record[end:], nil
}

// decodeEntry returns the entry of a head.
func decodeEntry(head []byte) (e Entry, err error) {
	if err := json.Unmarshal(head, &e); err != nil {
		// The library's error text would quote what it read.
		return Entry{}, fmt.Errorf("%w: head is not the JSON of an entry", ErrDamaged)
	}
	return e, nil
}

// checkBody returns an error unless body is the one that record was made for.
func checkBody(record, body []byte) error {
	if want := binary.BigEndian.Uint64(record[9:]); want != uint64(len(body)) {
		return fmt.Errorf("%w: body has %d bytes, %d were received", ErrDamaged, len(body), want)
	}
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(record[17:]) {
		return fmt.Errorf("%w: checksum of the body differs", ErrDamaged)
	}
	return nil
}

// newID returns an ID made of the time of receipt and seq, which no other entry of the store has.
func newID(received time.Time, seq uint64) string {
	received = received.UTC()
	return fmt.Sprintf("%s%03d-%08x", received.Format("20060102T150405"), received.Nanosecond()/int(time.Millisecond), seq)
}

// TimeOf returns the time of receipt in an ID made by Put, to the millisecond; ok is false for anything
// else.
func TimeOf(id string) (received time.Time, ok bool) {
	const seconds = "20060102T150405"
	if !isID([]byte(id)) {
		return time.Time{}, false
	}
	// Go parses fractions of a second only after a point.
	received, err := time.Parse(seconds+".000", id[:len(seconds)]+"."+id[len(seconds):len(seconds)+3])
	return received, err == nil
}

// numberOf returns the number in an ID made by Put.
func numberOf(id string) (number uint64, ok bool) {
	if !isID([]byte(id)) {
		return 0, false
	}
	number, err := strconv.ParseUint(id[len("20060102T150405000-"):], 16, 64)
	return number, err == nil
}

// isID reports whether newID could have made the ID.
func isID(id []byte) bool {
	const times = len("20060102T150405000")
	if len(id) < times+len("-00000000") || id[8] != 'T' || id[times] != '-' {
		return false
	}
	for i, c := range id {
		isDigit := c >= '0' && c <= '9'
		if i != 8 && i != times && !isDigit && (i < times || c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// partKey returns the key of the nth part of an entry's body. The zero byte ends the ID, so that no key is
// a prefix of another.
func partKey(id string, n int) []byte {
	return binary.BigEndian.AppendUint32(append([]byte(id), 0), uint32(n)) //nolint:gosec // counts parts of a body in memory
}
