package quarantine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// The parts of bbolt's file format that verify reads. Numbers are in the machine's order.
const (
	pageHeaderLen  = 16 // id 8 bytes, flags 2, count 2, overflow 4
	elementLen     = 16 // branch: pos 4, ksize 4, page 8; leaf: flags 4, pos 4, ksize 4, vsize 4
	bucketHeadLen  = 16 // root 8, sequence 8
	flagBranch     = 0x01
	flagLeaf       = 0x02
	flagFreelist   = 0x10
	flagBucket     = 0x01 // of a leaf's element
	manyFree       = 0xffff
	maxTreeDepth   = 64
	metaRoot       = pageHeaderLen + 16
	metaFreelist   = metaRoot + 16
	metaTxID       = metaFreelist + 16
	metaLen        = metaTxID + 8
	firstDataPage  = 2
	noFreelistSync = 1<<64 - 1
)

// order is that of the machine: a file of another one does not open.
var order = binary.NativeEndian

// verifier walks the tree of a file before bbolt does. bbolt trusts what it reads: a branch that
// leads back to itself would end the process, a page that is also in the list of free ones would be
// overwritten, and of a page that has lost its count nobody would miss the entries.
type verifier struct {
	file     io.ReaderAt
	pageSize int
	pages    uint64 // how many the file has in use or free
	used     map[uint64]bool
}

// verify reports a file of which something is not as it was written.
func verify(tx *bolt.Tx, file *os.File) error {
	v := &verifier{file: file, pageSize: tx.DB().Info().PageSize, used: make(map[uint64]bool)}
	v.pages = uint64(tx.Size()) / uint64(v.pageSize) //nolint:gosec // sizes are above 0
	meta, err := v.meta(uint64(tx.ID()))             //nolint:gosec // counted up
	if err != nil {
		return err
	}
	if err := v.tree(order.Uint64(meta[metaRoot:]), true, 0, keyRange{}); err != nil {
		return err
	}
	if err := v.freelist(order.Uint64(meta[metaFreelist:])); err != nil {
		return err
	}
	if !isNew(tx) {
		return verifyEntries(tx)
	}
	if tx.ID() > 1 { // of bbolt's own, when it makes a file
		return fmt.Errorf("%w: file has lost its buckets", ErrDamaged)
	}
	return nil
}

// verifyEntries counts the entries. The tree must be sound.
func verifyEntries(tx *bolt.Tx) error {
	entries := tx.Bucket(bucketEntries)
	if entries == nil || tx.Bucket(bucketStore) == nil {
		return nil // check says so
	}
	var n uint64
	var last []byte
	cursor := entries.Cursor()
	for k, _ := cursor.First(); k != nil; k, _ = cursor.Next() {
		if !isID(k) { // a list would pass it over
			return fmt.Errorf("%w: entry without an ID", ErrDamaged)
		}
		if n > 0 && bytes.Compare(last, k) >= 0 {
			return fmt.Errorf("%w: entries out of order", ErrDamaged)
		}
		last = k
		n++
	}
	if want := countEntries(tx); n != want {
		return fmt.Errorf("%w: file has %d of %d entries", ErrDamaged, n, want)
	}
	return nil
}

// meta returns the one of the two pages that say where all is that the transaction goes by.
func (v *verifier) meta(tx uint64) ([]byte, error) {
	for page := range uint64(firstDataPage) {
		meta, err := v.read(page, metaLen)
		if err != nil {
			return nil, err
		}
		if order.Uint64(meta[metaTxID:]) == tx {
			return meta, nil
		}
	}
	return nil, fmt.Errorf("%w: no page says where the entries are", ErrDamaged)
}

func (v *verifier) read(page uint64, length int) ([]byte, error) {
	data := make([]byte, length)
	if _, err := v.file.ReadAt(data, int64(page)*int64(v.pageSize)); err != nil { //nolint:gosec // within the file
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: page %d is not there", ErrDamaged, page)
		}
		return nil, err
	}
	return data, nil
}

func damagedPage(page uint64) error { return fmt.Errorf("%w: page %d", ErrDamaged, page) }

// take reads a page with the pages that go on from it, and notes them as used, once.
func (v *verifier) take(page uint64) ([]byte, error) {
	if page < firstDataPage || page >= v.pages {
		return nil, damagedPage(page)
	}
	data, err := v.read(page, v.pageSize)
	if err != nil {
		return nil, err
	}
	more := uint64(order.Uint32(data[12:]))
	if order.Uint64(data) != page || page+more >= v.pages {
		return nil, damagedPage(page)
	}
	for id := page; id <= page+more; id++ {
		if v.used[id] {
			return nil, damagedPage(id)
		}
		v.used[id] = true
	}
	if more == 0 {
		return data, nil
	}
	if table := v.table(data); table > v.pageSize || order.Uint16(data[8:]) == flagFreelist {
		return v.read(page, int(more+1)*v.pageSize) //nolint:gosec // within the file
	}
	return data, nil
}

// table is how long a page's header and its table of elements are.
func (v *verifier) table(data []byte) int {
	return pageHeaderLen + int(order.Uint16(data[10:]))*elementLen
}

// keyRange is where the keys of a page must be: a key elsewhere is not found, or found until something
// else is put beside it. There is no bound where it is nil.
type keyRange struct{ from, below []byte }

// next takes the next key of a page in, and reports whether it is in its place.
func (r *keyRange) next(key []byte, first bool) bool {
	order := bytes.Compare(r.from, key)
	if order > 0 || order == 0 && !first || r.below != nil && bytes.Compare(key, r.below) >= 0 {
		return false
	}
	r.from = key
	return true
}

// key reads a key of a page. It need not be in the page itself, but in one that goes on from it.
func (v *verifier) key(page uint64, at int, pos, length uint32) ([]byte, error) {
	key := make([]byte, length)
	_, err := v.file.ReadAt(key, int64(page)*int64(v.pageSize)+int64(at)+int64(pos)) //nolint:gosec // within the file
	if errors.Is(err, io.EOF) {
		return nil, damagedPage(page)
	}
	return key, err
}

// tree walks the tree below a page; root is the one that has the buckets.
func (v *verifier) tree(page uint64, root bool, depth int, keys keyRange) error {
	data, err := v.take(page)
	if err != nil {
		return err
	}
	size := (int(order.Uint32(data[12:])) + 1) * v.pageSize
	if depth > maxTreeDepth || v.table(data) > min(size, len(data)) {
		return damagedPage(page)
	}
	switch order.Uint16(data[8:]) {
	case flagBranch:
		return v.branch(page, data, size, root, depth, keys)
	case flagLeaf:
		return v.leaf(page, data, size, root, depth, keys)
	}
	return damagedPage(page)
}

func (v *verifier) branch(page uint64, data []byte, size int, root bool, depth int, keys keyRange) error {
	table := v.table(data)
	if table == pageHeaderLen {
		return damagedPage(page)
	}
	below, from := keys.below, keys.from
	var child uint64
	for at := pageHeaderLen; at < table; at += elementLen {
		pos, ksize := order.Uint32(data[at:]), order.Uint32(data[at+4:])
		if !within(at, table, size, pos, ksize, 0) {
			return damagedPage(page)
		}
		key, err := v.key(page, at, pos, ksize)
		if err != nil {
			return err
		}
		if !keys.next(key, at == pageHeaderLen) {
			return damagedPage(page)
		}
		if at > pageHeaderLen { // the keys of the child before are below this one
			if err := v.tree(child, root, depth+1, keyRange{from, key}); err != nil {
				return err
			}
			from = key
		}
		child = order.Uint64(data[at+8:])
	}
	return v.tree(child, root, depth+1, keyRange{from, below})
}

// leaf looks at the elements of a leaf: buckets in the root, anything else below.
func (v *verifier) leaf(page uint64, data []byte, size int, root bool, depth int, keys keyRange) error {
	table := v.table(data)
	for at := pageHeaderLen; at < table; at += elementLen {
		flags, pos, ksize, vsize := order.Uint32(data[at:]), order.Uint32(data[at+4:]), order.Uint32(data[at+8:]), order.Uint32(data[at+12:])
		if !within(at, table, size, pos, ksize, vsize) || (flags == flagBucket) != root {
			return damagedPage(page)
		}
		key, err := v.key(page, at, pos, ksize)
		if err != nil {
			return err
		}
		if !keys.next(key, at == pageHeaderLen) {
			return damagedPage(page)
		}
		if !root {
			continue
		}
		value := at + int(pos) + int(ksize)
		if vsize < bucketHeadLen || value+int(vsize) > len(data) {
			return damagedPage(page)
		}
		if err := v.bucket(page, data[value:value+int(vsize)], depth); err != nil {
			return err
		}
	}
	return nil
}

// bucket looks at what is below the head of a bucket: a tree of its own, or what stands behind the
// head in the same page.
func (v *verifier) bucket(page uint64, value []byte, depth int) error {
	if below := order.Uint64(value); below != 0 {
		return v.tree(below, false, depth+1, keyRange{})
	}
	if !v.inline(value[bucketHeadLen:]) {
		return damagedPage(page)
	}
	return nil
}

// inline looks at a bucket that is so small that it is a leaf in a leaf.
func (v *verifier) inline(data []byte) bool {
	if len(data) < pageHeaderLen || order.Uint16(data[8:]) != flagLeaf || v.table(data) > len(data) {
		return false
	}
	table := v.table(data)
	for at := pageHeaderLen; at < table; at += elementLen {
		if order.Uint32(data[at:]) != 0 ||
			!within(at, table, len(data), order.Uint32(data[at+4:]), order.Uint32(data[at+8:]), order.Uint32(data[at+12:])) {
			return false
		}
	}
	return true
}

// within reports whether an element at offset at has its key and value behind the table and inside
// the page.
func within(at, table, size int, pos, ksize, vsize uint32) bool {
	begin := uint64(at) + uint64(pos) //nolint:gosec // an offset in a page
	end := begin + uint64(ksize) + uint64(vsize)
	return begin >= uint64(table) && end <= uint64(size) //nolint:gosec // a length of pages
}

// freelist looks at the list of pages that may be overwritten: none of them is in use.
func (v *verifier) freelist(page uint64) error {
	if page == noFreelistSync {
		return nil
	}
	data, err := v.take(page)
	if err != nil {
		return err
	}
	count, ids := uint64(order.Uint16(data[10:])), data[pageHeaderLen:]
	if count == manyFree {
		count, ids = order.Uint64(ids), ids[8:]
	}
	if order.Uint16(data[8:]) != flagFreelist || count > uint64(len(ids)/8) {
		return damagedPage(page)
	}
	free := make([]uint64, 0, count)
	for i := range count {
		free = append(free, order.Uint64(ids[8*i:]))
	}
	slices.Sort(free)
	for i, id := range free {
		if id < firstDataPage || id >= v.pages || v.used[id] || i > 0 && free[i-1] == id {
			return damagedPage(page)
		}
	}
	return nil
}
