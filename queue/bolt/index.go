package bolt

import (
	"math"
	"slices"
	"sort"
	"time"
	"unique"

	"github.com/greenapi-community/caddy-green-api/queue"
)

// An item is what is in memory of a record that waits: 40 bytes, so that a million cost 40 MB.
type item struct {
	seq      uint64
	received int64 // Unix time in nanoseconds, or noTime
	chat     unique.Handle[string]
	of       *instance // nil once the item has been removed
	block    uint32    // its place in index.blocks
	size     uint32    // bytes of the body, and hasParts
}

const (
	hasParts = 1 << 31 // in item.size: a part of the record may be in bucketParts
	noTime   = math.MinInt64
)

// An instance counts its records. It exists while there are any.
type instance struct {
	name  string
	count int

	// The record whose Put has not returned nil, 0 for none. It is the instance's latest.
	unsure uint64
}

// An index has the items in order of their sequence numbers. It finds, adds and removes without moving the others.
type index struct {
	chunks    []*chunk
	entries   int
	instances map[string]*instance
	blocks    []string
	blockIDs  map[string]uint32
}

// A chunk is a part of the items. It has one or more that have not been removed.
type chunk struct {
	items []item
	live  int
}

const chunkLen = 512

func newIndex() index {
	return index{instances: make(map[string]*instance), blockIDs: make(map[string]uint32)}
}

// add adds a record with a sequence number above all others, and returns its instance.
func (x *index) add(seq uint64, s summary, parts bool) *instance {
	of := x.instances[s.instance]
	if of == nil {
		of = &instance{name: s.instance}
		x.instances[s.instance] = of
	}
	of.count++
	block, known := x.blockIDs[s.block]
	if !known {
		block = uint32(len(x.blocks)) //nolint:gosec // names in configs
		x.blocks = append(x.blocks, s.block)
		x.blockIDs[s.block] = block
	}
	size := s.size
	if parts {
		size |= hasParts
	}
	if n := len(x.chunks); n == 0 || len(x.chunks[n-1].items) == chunkLen {
		x.chunks = append(x.chunks, new(chunk))
	}
	last := x.chunks[len(x.chunks)-1]
	last.items = append(last.items, item{seq: seq, received: s.received, chat: unique.Make(s.chat), of: of, block: block, size: size})
	last.live++
	x.entries++
	return of
}

// find returns the place of the first item with a sequence number of at least seq. It may have been removed.
func (x *index) find(seq uint64) (in, at int) {
	in = sort.Search(len(x.chunks), func(i int) bool {
		items := x.chunks[i].items
		return items[len(items)-1].seq >= seq
	})
	if in == len(x.chunks) {
		return in, 0
	}
	items := x.chunks[in].items
	return in, sort.Search(len(items), func(i int) bool { return items[i].seq >= seq })
}

// get returns an item, nil if it has been removed.
func (x *index) get(seq uint64) *item {
	in, at := x.find(seq)
	if in == len(x.chunks) {
		return nil
	}
	if it := &x.chunks[in].items[at]; it.seq == seq && it.of != nil {
		return it
	}
	return nil
}

// next returns the first item after seq, nil if there is none.
func (x *index) next(seq uint64) *item {
	in, at := x.find(seq + 1)
	for ; in < len(x.chunks); in, at = in+1, 0 {
		items := x.chunks[in].items
		for ; at < len(items); at++ {
			if items[at].of != nil {
				return &items[at]
			}
		}
	}
	return nil
}

// remove removes an item, if it is there.
func (x *index) remove(seq uint64) {
	in, at := x.find(seq)
	if in == len(x.chunks) {
		return
	}
	c := x.chunks[in]
	it := &c.items[at]
	if it.seq != seq || it.of == nil {
		return
	}
	of := it.of
	if of.unsure == seq {
		of.unsure = 0
	}
	if of.count--; of.count == 0 {
		delete(x.instances, of.name)
	}
	it.of, it.chat = nil, unique.Handle[string]{}
	x.entries--
	c.live--
	isLast := in == len(x.chunks)-1 // more are added to it
	switch {
	case c.live == 0:
		x.chunks = slices.Delete(x.chunks, in, in+1)
	case !isLast && c.live <= cap(c.items)/4:
		// One lane that stands still must not keep the memory of the others.
		c.items = append(make([]item, 0, c.live), slices.DeleteFunc(c.items, func(it item) bool { return it.of == nil })...)
	}
}

// public returns what the package's users see of an item.
func (x *index) public(it *item) queue.Item {
	received := time.Time{}
	if it.received != noTime {
		received = time.Unix(0, it.received).UTC()
	}
	return queue.Item{
		Seq: it.seq, Block: x.blocks[it.block], Instance: it.of.name, Chat: it.chat.Value(), Received: received,
		Size: int(it.size &^ hasParts),
	}
}
