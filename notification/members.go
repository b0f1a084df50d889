package notification

import (
	"bytes"
	"hash/maphash"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of what finding a name twice takes. A body of 16 MiB can have two million names in one
// object: they are known by their places in the body, at some 11 bytes each.
const (
	maxListed    = 48      // names of an object that are compared one by one
	segmentSlots = 1 << 12 // 32 KiB
	freeSegments = 32      // an object with more, of 70,000 names or so, waits for its turn
)

// members knows the names of the objects that are open in a body, and so finds one that is there
// twice. It does what jsontext would do, in a tenth of the memory.
type members struct {
	seed   maphash.Seed
	listed []member // of all open objects that have few
	open   []openObject
	first  []byte // for names with escapes
	second []byte
	taken  int  // segments
	waited bool // for its turn
}

// member is a name: its number, if it has one, and where it is, without the quotes.
type member struct {
	number     int32
	tag        uint32 // half the hash of what it is without escapes
	start, end int
}

// openObject is one that is open. Once it has many names they are in segments, each of which has the
// names whose hashes begin alike: so the table grows without ever being copied whole.
type openObject struct {
	begin    int // in listed
	bits     int // of a hash that choose a segment
	segments []*segment
}

// segment is a hash table of names. A slot is half the hash of the name and its place, plus 1.
type segment struct {
	bits  int // of a hash that all names in it have in common
	count int
	slots [segmentSlots]uint64
}

var segments = sync.Pool{New: func() any { return new(segment) }}

// manyNames lets one body at a time have very many names in an object.
var manyNames = make(chan struct{}, 1)

func newMembers() members {
	return members{seed: maphash.MakeSeed()}
}

// begin opens an object.
func (m *members) begin() {
	m.open = append(m.open, openObject{begin: len(m.listed)})
}

// end closes the innermost object.
func (m *members) end() {
	last := len(m.open) - 1
	m.listed = m.listed[:m.open[last].begin]
	m.free(&m.open[last])
	m.open = m.open[:last]
}

// reset closes all objects, and lets another body have its turn.
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

// add reports whether the name is the first of its kind in the innermost object. Its number may be
// otherName for all names.
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

// unlist moves the names of an object that has many.
func (m *members) unlist(body []byte, o *openObject) {
	o.segments = []*segment{m.take(0)}
	for _, name := range m.listed[o.begin:] {
		name.tag = m.tag(body, name)
		m.put(body, o, name)
	}
	m.listed = m.listed[:o.begin]
}

// same reports whether two names are, apart from how they are written.
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
		start := int(uint32(*slot)) - 1 //nolint:gosec // half of it
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

// split makes two segments of one that holds names like the tag's.
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
	width := 1 << (o.bits - full.bits)           // how often it is in the list
	from := int(tag>>(32-o.bits)) &^ (width - 1) //nolint:gosec // 32 bits, or less
	for i := range width {
		o.segments[from+i] = halves[2*i/width]
	}
	segments.Put(full)
	m.taken--
}

// take returns an empty segment. Who takes many waits until nobody else does.
func (m *members) take(bits int) *segment {
	if m.taken++; m.taken > freeSegments && !m.waited {
		manyNames <- struct{}{}
		m.waited = true
	}
	s := segments.Get().(*segment)
	*s = segment{bits: bits}
	return s
}

// free gives the segments of an object back.
func (m *members) free(o *openObject) {
	var last *segment
	for _, s := range o.segments {
		if s != last { // one may be in the list several times, side by side
			segments.Put(s)
			m.taken--
		}
		last = s
	}
	o.segments = nil
}
