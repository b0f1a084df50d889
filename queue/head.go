package queue

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"
)

// The head of a record is a list of fields, each with a tag, its length and its text; numbers are varints. What is
// empty is left out. A tag that this program does not know is passed over, so that a record can get more fields.
//
// It is no JSON, because each notification is encoded once and decoded at each round, and JSON takes several times as
// long.
const (
	tagBlock      = 1
	tagReceived   = 2 // seconds since 1970, and nanoseconds
	tagInstance   = 3
	tagChat       = 4
	tagType       = 5
	tagMessage    = 6
	tagID         = 7
	tagSent       = 8
	tagKind       = 9
	tagUnadmitted = 10
	tagVia        = 11
	tagClient     = 12
	tagRemote     = 13
	tagTLS        = 14
	tagHost       = 15
	tagURI        = 16
	tagHeader     = 17 // one field of the header: its name, and its values
)

// texts are the fields that are texts.
func (r *Record) texts() [12]struct {
	tag  byte
	text *string
} {
	return [12]struct {
		tag  byte
		text *string
	}{
		{tagBlock, &r.Block},
		{tagInstance, &r.Instance},
		{tagChat, &r.Chat},
		{tagType, &r.Type},
		{tagMessage, &r.Message},
		{tagID, &r.ID},
		{tagKind, &r.Kind},
		{tagVia, &r.Via},
		{tagClient, &r.Client},
		{tagRemote, &r.Remote},
		{tagHost, &r.Host},
		{tagURI, &r.URI},
	}
}

// appendHead appends the head of a record.
func (r *Record) appendHead(to []byte) []byte {
	for _, f := range r.texts() {
		if *f.text != "" {
			to = appendText(append(to, f.tag), *f.text)
		}
	}
	var number [2 * binary.MaxVarintLen64]byte
	if !r.Received.IsZero() {
		n := binary.PutVarint(number[:], r.Received.Unix())
		n += binary.PutUvarint(number[n:], uint64(r.Received.Nanosecond())) //nolint:gosec // not below 0
		to = appendText(append(to, tagReceived), number[:n])
	}
	if r.Sent != 0 {
		to = appendText(append(to, tagSent), number[:binary.PutVarint(number[:], r.Sent)])
	}
	if r.Unadmitted {
		to = append(to, tagUnadmitted, 0)
	}
	if r.TLS {
		to = append(to, tagTLS, 0)
	}
	var few [16]string // spares an allocation
	names := few[:0]
	for name := range r.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	var field []byte
	for _, name := range names {
		field = appendText(field[:0], name)
		for _, value := range r.Header[name] {
			field = appendText(field, value)
		}
		to = appendText(append(to, tagHeader), field)
	}
	return to
}

func appendText[T string | []byte](to []byte, text T) []byte {
	return append(binary.AppendUvarint(to, uint64(len(text))), text...)
}

var errHead = errors.New("head of a record is none")

// readHead sets the fields of a record.
func (r *Record) readHead(head []byte) error {
	texts := r.texts()
	for len(head) > 0 {
		tag := head[0]
		text, rest, ok := cutText(head[1:])
		if !ok {
			return errHead
		}
		head = rest
		if i := slices.IndexFunc(texts[:], func(f struct {
			tag  byte
			text *string
		},
		) bool {
			return f.tag == tag
		}); i >= 0 {
			*texts[i].text = string(text)
			continue
		}
		switch tag {
		case tagReceived:
			seconds, n := binary.Varint(text)
			if n <= 0 {
				return errHead
			}
			nanoseconds, m := binary.Uvarint(text[n:])
			if m <= 0 || nanoseconds >= uint64(time.Second) {
				return errHead
			}
			r.Received = time.Unix(seconds, int64(nanoseconds)).UTC()
		case tagSent:
			sent, n := binary.Varint(text)
			if n <= 0 {
				return errHead
			}
			r.Sent = sent
		case tagUnadmitted:
			r.Unadmitted = true
		case tagTLS:
			r.TLS = true
		case tagHeader:
			if !r.readField(text) {
				return errHead
			}
		}
	}
	return nil
}

// readField adds a field of the header.
func (r *Record) readField(field []byte) bool {
	name, rest, ok := cutText(field)
	if !ok {
		return false
	}
	var values []string
	for len(rest) > 0 {
		var value []byte
		if value, rest, ok = cutText(rest); !ok {
			return false
		}
		values = append(values, string(value))
	}
	if r.Header == nil {
		r.Header = make(map[string][]string)
	}
	r.Header[string(name)] = values
	return true
}

// cutText cuts a text with its length off the beginning.
func cutText(from []byte) (text, rest []byte, ok bool) {
	length, n := binary.Uvarint(from)
	if n <= 0 || length > uint64(len(from)-n) { //nolint:gosec // n bytes of from were read
		return nil, nil, false
	}
	end := n + int(length) //nolint:gosec // not above len(from)
	return from[n:end], from[end:], true
}
