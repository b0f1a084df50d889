package notification

import (
	"bytes"
	"hash/maphash"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits of the search for duplicate names. A body of 16 MiB can have two million names in one object. They
// are remembered by their positions in the body, at some 11 bytes each.
const (
	maxListed    = 48      // names of an object that are compared one by one
	segmentSlots = 1 << 12 // 32 KiB
	freeSegments = 32      // an object with more segments, for some 70,000 names, waits for its turn
)

// members remembers the names in the objects that are open in a body, to find duplicates. It does what
// jsontext would do, in a tenth of the memory.
type members struct {
	seed   maphash.Seed
	listed []member // the names of all open objects that have few
	open   []openObject
	first  []byte // for names with escapes
	second []byte
	taken  int  // number of segments
	waited bool // has waited for its turn
}

// member is a name: its number, if it has one, and its position, without the quotes.
type member struct {
	number     int32
	tag        uint32 // half the hash of the name without escapes
	start, end int
}

// openObject is an object that is open. Once it has many names, they are in segments. Each segment has the
// names whose hashes begin with the same bits, so the table grows without ever being copied as a whole.
type openObject struct {
	begin    int // index in listed
	bits     int // bits of a hash that select a segment
	segments []*segment
}

// segment is a hash table of names. A slot is half the hash of a name, and its position plus 1.
type segment struct {
	bits  int // leading hash bits that all its names share
	count int
	slots [segmentSlots]uint64
}

var segments = sync.Pool{New: func() any { return new(segment) }}

// manyNames lets only one body at a time have very many names in an object.
var manyNames = make(chan struct{}, 1)

func newMembers() members {
	return members{seed: maphash.MakeSeed()}
}

func (m *members) begin() {
	m.open = append(m.open, openObject{begin: len(m.listed)})
}

func (m *members) end() {
	last := len(m.open) - 1
	m.listed = m.listed[:m.open[last].begin]
	m.free(&m.open[last])
	m.open = m.open[:last]
}

// reset closes all objects, and gives another body its turn.
func (m *members) reset() {
	for len(m.open) > 0 {
		m.end()
	}
	if m.waited {
		<-manyNames
	}
	clear(m.first[:cap(m.first)])
	clear(m.second[:cap(m.second)])
	m.waited, m.first, m.second = false, m.first[:0], m.second[:0]
	if cap(m.first) > maxKeptText || cap(m.second) > maxKeptText {
		m.first, m.second = nil, nil
	}
}

// add reports whether the innermost object did not have the name yet. The name's number may always be
// otherName.
func (m *members) add(body []byte, name member) bool {
	o := &m.open[len(m.open)-1]
	if name.number == otherName || o.segments != nil {
		name.tag = m.tag(body, name)
	}
	if o.segments != nil {
		return m.put(body, o, name)
	}
	for i := range m.listed[o.begin:] {
		other := &m.listed[o.begin+i]
		if other.number == name.number && (name.number != otherName || other.tag == name.tag && m.same(body, *other, name)) {
			return false
		}
	}
	m.listed = append(m.listed, name)
	if len(m.listed)-o.begin > maxListed {
		m.unlist(body, o)
	}
	return true
}

// unlist moves the names of an object with many names from listed into segments.
func (m *members) unlist(body []byte, o *openObject) {
	o.segments = []*segment{m.take(0)}
	for _, name := range m.listed[o.begin:] {
		name.tag = m.tag(body, name)
		m.put(body, o, name)
	}
	m.listed = m.listed[:o.begin]
}

// same reports whether two names are equal, however they are written.
func (m *members) same(body []byte, a, b member) bool {
	m.first = appendName(m.first[:0], body, a)
	m.second = appendName(m.second[:0], body, b)
	return bytes.Equal(m.first, m.second)
}

func appendName(to, body []byte, name member) []byte {
	to, _ = jsontext.AppendUnquote(to, body[name.start-1:name.end+1]) // a broken name is refused elsewhere
	return to
}

// put is add for an object with many names.
func (m *members) put(body []byte, o *openObject, name member) bool {
	tag := uint64(name.tag)
	s := o.segments[tag>>(32-o.bits)]
	for at := tag; ; at++ {
		slot := &s.slots[at%segmentSlots]
		if *slot == 0 {
			*slot = tag<<32 | uint64(name.start+1) //nolint:gosec // see maxBody
			s.count++
			break
		}
		if *slot>>32 != tag {
			continue
		}
		start := int(uint32(*slot)) - 1 //nolint:gosec // the lower half
		if m.same(body, member{start: start, end: stringEnd(body, start-1) - 1}, name) {
			return false
		}
	}
	if s.count > segmentSlots*7/8 {
		m.split(o, s, tag)
	}
	return true
}

func (m *members) tag(body []byte, name member) uint32 {
	text := body[name.start:name.end]
	if bytes.IndexByte(text, '\\') >= 0 {
		m.first = appendName(m.first[:0], body, name)
		text = m.first
	}
	return uint32(maphash.Bytes(m.seed, text) >> 32)
}

// split replaces a segment, the one for names like the tag's, with two.
func (m *members) split(o *openObject, full *segment, tag uint64) {
	if full.bits == o.bits {
		wider := make([]*segment, 0, 2*len(o.segments))
		for _, s := range o.segments {
			wider = append(wider, s, s)
		}
		o.segments, o.bits = wider, o.bits+1
	}
	halves := [2]*segment{m.take(full.bits + 1), m.take(full.bits + 1)}
	for _, slot := range full.slots {
		if slot == 0 {
			continue
		}
		half := halves[slot>>(63-full.bits)&1]
		at := slot >> 32
		for half.slots[at%segmentSlots] != 0 {
			at++
		}
		half.slots[at%segmentSlots] = slot
		half.count++
	}
	width := 1 << (o.bits - full.bits)           // how often full is in the list
	from := int(tag>>(32-o.bits)) &^ (width - 1) //nolint:gosec // 32 bits, or less
	for i := range width {
		o.segments[from+i] = halves[2*i/width]
	}
	segments.Put(full)
	m.taken--
}

// take returns an empty segment. A body that takes many waits until no other does.
func (m *members) take(bits int) *segment {
	if m.taken++; m.taken > freeSegments && !m.waited {
		manyNames <- struct{}{}
		m.waited = true
	}
	s := segments.Get().(*segment)
	*s = segment{bits: bits}
	return s
}

// free returns an object's segments to the pool.
func (m *members) free(o *openObject) {
	var last *segment
	for _, s := range o.segments {
		if s != last { // the same one may be in the list several times in a row
			segments.Put(s)
			m.taken--
		}
		last = s
	}
	o.segments = nil
}
