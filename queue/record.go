package queue

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"
)

// A Record is a notification as a store keeps it. It has no token: whoever delivers it adds that.
type Record struct {
	Block    string    // the green_api block that took it
	Received time.Time // time of receipt
	Instance string    // the instance that the body names
	Chat     string
	Type     string // typeWebhook
	Message  string // typeMessage
	ID       string // idMessage
	Sent     int64  // the body's timestamp, in Unix seconds
	Kind     string // its type from a closed list, for labels

	Unadmitted bool // the sender would have been refused, if that were not only reported

	// How it came, to make the same request of it again.
	Via    string
	Client string // address that ip_filter checked
	Remote string // address and port of the connection
	TLS    bool   // of the connection
	Host   string
	URI    string
	Header map[string][]string

	Body []byte // the very bytes received
}

// A stored record, in format 1; numbers are big endian:
//
//	0  format, 1 byte
//	1  CRC-32C of all from 5 on, 4 bytes
//	5  length of the head, 4 bytes
//	9  head: the record without its body
//	…  body
const (
	recordFormat = 1
	prefixLen    = 9
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns a record as a store keeps it.
func (r *Record) Encode() []byte { return r.AppendTo(make([]byte, 0, r.Room())) }

// Room returns how many bytes the encoded record takes at most, unless its head is unusually long.
func (r *Record) Room() int { return prefixLen + 512 + len(r.Body) }

// AppendTo appends the encoded record.
func (r *Record) AppendTo(to []byte) []byte {
	begin := len(to)
	to = r.appendHead(append(to, make([]byte, prefixLen)...))
	text := to[begin:]
	text[0] = recordFormat
	binary.BigEndian.PutUint32(text[5:], uint32(len(text)-prefixLen)) //nolint:gosec // a head of 4 GiB does not fit a request
	to = append(to, r.Body...)
	text = to[begin:]
	binary.BigEndian.PutUint32(text[1:], crc32.Checksum(text[5:], castagnoli))
	return to
}

// Decode returns the record that Encode made. Its Body shares the memory of text. The error is ErrDamaged or
// ErrVersion.
func Decode(text []byte) (*Record, error) {
	if len(text) == 0 {
		return nil, fmt.Errorf("%w: empty record", ErrDamaged)
	}
	if text[0] != recordFormat {
		return nil, fmt.Errorf("%w: record has format %d, this program knows %d", ErrVersion, text[0], recordFormat)
	}
	if len(text) < prefixLen {
		return nil, fmt.Errorf("%w: record of %d bytes", ErrDamaged, len(text))
	}
	if crc32.Checksum(text[5:], castagnoli) != binary.BigEndian.Uint32(text[1:]) {
		return nil, fmt.Errorf("%w: checksum of a record differs", ErrDamaged)
	}
	head := uint64(binary.BigEndian.Uint32(text[5:]))
	if head > uint64(len(text)-prefixLen) { //nolint:gosec // text has a prefix
		return nil, fmt.Errorf("%w: record of %d bytes with a head of %d", ErrDamaged, len(text), head)
	}
	end := prefixLen + int(head) //nolint:gosec // not above len(text)
	r := new(Record)
	if err := r.readHead(text[prefixLen:end]); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	r.Body = text[end:]
	return r, nil
}

// Item returns what a lane has to know of a record.
func (r *Record) Item(seq uint64) Item {
	return Item{Seq: seq, Block: r.Block, Instance: r.Instance, Chat: r.Chat, Received: r.Received, Size: len(r.Body)}
}
