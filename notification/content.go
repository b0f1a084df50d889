package notification

import (
	"encoding/binary"
	"hash/maphash"
)

// uncountedType is the type of notification that comes once for each reader of a group without naming the
// reader: two equal ones stand for two readers.
const uncountedType = "incomingMessageStatus"

// contentSeeds make keys that nobody outside the process can aim at. Two seeds make up for short hashes.
var contentSeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// Content returns a key that two notifications share if one is a duplicate of the other: their bodies have
// the same values except for the timestamp, in whatever order of members. Without an idMessage the
// timestamp counts, too, because nothing else distinguishes two events. ok is false if duplicates cannot be
// recognized at all. Keys are valid only in this process.
func (n *Notification) Content() (key [16]byte, ok bool) {
	if n.Type == uncountedType || n.Type == "" {
		return key, false
	}
	c := contents{body: n.body}
	if n.ID != "" {
		c.skip = `"timestamp"`
	}
	sum, ok := c.value()
	if !ok {
		return key, false
	}
	binary.LittleEndian.PutUint64(key[:], sum[0])
	binary.LittleEndian.PutUint64(key[8:], sum[1])
	return key, true
}

// contents walks through a body value by value. The body has been parsed, so it is well-formed and not
// deep.
type contents struct {
	body []byte
	at   int
	open int    // objects and arrays begun so far
	skip string // the name of the member to skip, as written
}

type contentSum [2]uint64

func sumOf(raw []byte) contentSum {
	return contentSum{maphash.Bytes(contentSeeds[0], raw), maphash.Bytes(contentSeeds[1], raw)}
}

// join returns one sum of two, whose order matters. kind says what is summed.
func join(kind byte, a, b contentSum) contentSum {
	var both [1 + 4*8]byte
	both[0] = kind
	for i, part := range [...]uint64{a[0], a[1], b[0], b[1]} {
		binary.LittleEndian.PutUint64(both[1+8*i:], part)
	}
	return sumOf(both[:])
}

// value returns the sum of the next value.
func (c *contents) value() (sum contentSum, ok bool) {
	switch c.next() {
	case '{':
		return c.object()
	case '[':
		return c.array()
	case '"':
		return sumOf(c.text()), true
	}
	begin := c.at
	for c.at < len(c.body) && !isBetween(c.body[c.at]) {
		c.at++
	}
	return sumOf(c.body[begin:c.at]), c.at > begin
}

// object adds up the members, so that their order does not matter.
func (c *contents) object() (sum contentSum, ok bool) {
	c.at++
	c.open++
	for c.next() == '"' {
		name := c.text()
		skipped := c.open == 1 && string(name) == c.skip
		value, ok := c.value()
		if !ok {
			return sum, false
		}
		if !skipped {
			member := join('m', sumOf(name), value)
			sum[0], sum[1] = sum[0]+member[0], sum[1]+member[1]
		}
	}
	return join('{', sum, contentSum{}), c.close('}')
}

// array joins the elements in order.
func (c *contents) array() (sum contentSum, ok bool) {
	c.at++
	c.open++
	for end := c.next(); end != ']' && end != 0; end = c.next() {
		element, ok := c.value()
		if !ok {
			return sum, false
		}
		sum = join('e', sum, element)
	}
	return join('[', sum, contentSum{}), c.close(']')
}

func (c *contents) close(end byte) bool {
	c.open--
	c.at++
	return c.at <= len(c.body) && c.body[c.at-1] == end
}

// next moves to the first byte of the next value, name or end, and returns it; 0 if there is none.
func (c *contents) next() byte {
	for ; c.at < len(c.body); c.at++ {
		switch b := c.body[c.at]; b {
		case ' ', '\t', '\r', '\n', ',', ':':
		default:
			return b
		}
	}
	return 0
}

// text moves past a string and returns it, with its quotes and escapes.
func (c *contents) text() []byte {
	begin := c.at
	for c.at++; c.at < len(c.body) && c.body[c.at] != '"'; c.at++ {
		if c.body[c.at] == '\\' {
			c.at++
		}
	}
	c.at = min(c.at+1, len(c.body))
	return c.body[begin:c.at]
}

// isBetween reports whether a byte ends a number, true, false or null.
func isBetween(b byte) bool {
	return b == ',' || b == ']' || b == '}' || b <= ' '
}
