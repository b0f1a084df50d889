package boltfile

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

// The parts of bbolt's file format that matter outside of it. Numbers are in native byte order.
const (
	PageHeaderLen = 16 // id 8 bytes, flags 2, count 2, overflow 4
	ElementLen    = 16 // branch: pos 4, ksize 4, page 8; leaf: flags 4, pos 4, ksize 4, vsize 4
	FlagBranch    = 0x01
	FlagLeaf      = 0x02
	FirstDataPage = 2

	bucketHeadLen  = 16 // root 8, sequence 8
	flagFreelist   = 0x10
	flagBucket     = 0x01 // of a leaf's element
	manyFree       = 0xffff
	maxTreeDepth   = 64
	metaRoot       = PageHeaderLen + 16
	metaFreelist   = metaRoot + 16
	metaTxID       = metaFreelist + 16
	metaLen        = metaTxID + 8
	noFreelistSync = 1<<64 - 1
)

// Order is the machine's byte order: a file from a machine with another one does not open.
var Order = binary.NativeEndian

// verifier walks the tree of a file before bbolt does, because bbolt trusts what it reads. A branch that
// leads back to itself would kill the process, a used page that is also listed as free would be
// overwritten, and the entries of a page that lost its count would silently disappear.
type verifier struct {
	file     io.ReaderAt
	damaged  error // what any damage is
	pageSize int
	pages    uint64 // how many pages the file has, used or free
	used     map[uint64]bool
}

// verify returns an error if anything in the file is not as it was written.
func (k *Kind) verify(tx *bolt.Tx, file *os.File) error {
	v := &verifier{file: file, damaged: k.Damaged, pageSize: tx.DB().Info().PageSize, used: make(map[uint64]bool)}
	v.pages = uint64(tx.Size()) / uint64(v.pageSize) //nolint:gosec // sizes are above 0
	meta, err := v.meta(uint64(tx.ID()))             //nolint:gosec // counted up
	if err != nil {
		return err
	}
	if err := v.tree(Order.Uint64(meta[metaRoot:]), true, 0, keyRange{}); err != nil {
		return err
	}
	if err := v.freelist(Order.Uint64(meta[metaFreelist:])); err != nil {
		return err
	}
	if !isNew(tx) {
		return k.Verify(tx)
	}
	if tx.ID() > 1 { // the first transaction is bbolt's own, when it creates a file
		return fmt.Errorf("%w: file has lost its buckets", k.Damaged)
	}
	return nil
}

// meta returns the meta page that the transaction uses, one of two that say where everything is.
func (v *verifier) meta(tx uint64) ([]byte, error) {
	for page := range uint64(FirstDataPage) {
		meta, err := v.read(page, metaLen)
		if err != nil {
			return nil, err
		}
		if Order.Uint64(meta[metaTxID:]) == tx {
			return meta, nil
		}
	}
	return nil, fmt.Errorf("%w: no page says where the entries are", v.damaged)
}

func (v *verifier) read(page uint64, length int) ([]byte, error) {
	data := make([]byte, length)
	if _, err := v.file.ReadAt(data, int64(page)*int64(v.pageSize)); err != nil { //nolint:gosec // within the file
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: page %d is not there", v.damaged, page)
		}
		return nil, err
	}
	return data, nil
}

func (v *verifier) damagedPage(page uint64) error {
	return fmt.Errorf("%w: page %d", v.damaged, page)
}

// take reads a page with its overflow pages, and marks them as used, which fails the second time.
func (v *verifier) take(page uint64) ([]byte, error) {
	if page < FirstDataPage || page >= v.pages {
		return nil, v.damagedPage(page)
	}
	data, err := v.read(page, v.pageSize)
	if err != nil {
		return nil, err
	}
	more := uint64(Order.Uint32(data[12:]))
	if Order.Uint64(data) != page || page+more >= v.pages {
		return nil, v.damagedPage(page)
	}
	for id := page; id <= page+more; id++ {
		if v.used[id] {
			return nil, v.damagedPage(id)
		}
		v.used[id] = true
	}
	if more == 0 {
		return data, nil
	}
	if table := v.table(data); table > v.pageSize || Order.Uint16(data[8:]) == flagFreelist {
		return v.read(page, int(more+1)*v.pageSize) //nolint:gosec // within the file
	}
	return data, nil
}

// table returns the length of a page's header and its table of elements.
func (v *verifier) table(data []byte) int {
	return PageHeaderLen + int(Order.Uint16(data[10:]))*ElementLen
}

// keyRange is the range in which the keys of a page must be. A key outside it is not found, or only until
// another one is inserted next to it. nil means no bound.
type keyRange struct{ from, below []byte }

// next checks the next key of a page, and reports whether it is in its place.
func (r *keyRange) next(key []byte, first bool) bool {
	order := bytes.Compare(r.from, key)
	if order > 0 || order == 0 && !first || r.below != nil && bytes.Compare(key, r.below) >= 0 {
		return false
	}
	r.from = key
	return true
}

// key returns a key of a page, of which data has been read. The key may be in one of its overflow pages.
func (v *verifier) key(page uint64, data []byte, at int, pos, length uint32) ([]byte, error) {
	if begin := uint64(at) + uint64(pos); begin+uint64(length) <= uint64(len(data)) { //nolint:gosec // an offset in a page
		return data[begin : begin+uint64(length)], nil
	}
	key := make([]byte, length)
	_, err := v.file.ReadAt(key, int64(page)*int64(v.pageSize)+int64(at)+int64(pos)) //nolint:gosec // within the file
	if errors.Is(err, io.EOF) {
		return nil, v.damagedPage(page)
	}
	return key, err
}

// tree walks the tree below a page. root means that it is the page with the buckets.
func (v *verifier) tree(page uint64, root bool, depth int, keys keyRange) error {
	data, err := v.take(page)
	if err != nil {
		return err
	}
	size := (int(Order.Uint32(data[12:])) + 1) * v.pageSize
	if depth > maxTreeDepth || v.table(data) > min(size, len(data)) {
		return v.damagedPage(page)
	}
	switch Order.Uint16(data[8:]) {
	case FlagBranch:
		return v.branch(page, data, size, root, depth, keys)
	case FlagLeaf:
		return v.leaf(page, data, size, root, depth, keys)
	}
	return v.damagedPage(page)
}

func (v *verifier) branch(page uint64, data []byte, size int, root bool, depth int, keys keyRange) error {
	table := v.table(data)
	if table == PageHeaderLen {
		return v.damagedPage(page)
	}
	below, from := keys.below, keys.from
	var child uint64
	for at := PageHeaderLen; at < table; at += ElementLen {
		pos, ksize := Order.Uint32(data[at:]), Order.Uint32(data[at+4:])
		if !within(at, table, size, pos, ksize, 0) {
			return v.damagedPage(page)
		}
		key, err := v.key(page, data, at, pos, ksize)
		if err != nil {
			return err
		}
		if !keys.next(key, at == PageHeaderLen) {
			return v.damagedPage(page)
		}
		if at > PageHeaderLen { // the keys of the previous child are below this one
			if err := v.tree(child, root, depth+1, keyRange{from, key}); err != nil {
				return err
			}
			from = key
		}
		child = Order.Uint64(data[at+8:])
	}
	return v.tree(child, root, depth+1, keyRange{from, below})
}

// leaf checks the elements of a leaf: buckets in the root, anything else below.
func (v *verifier) leaf(page uint64, data []byte, size int, root bool, depth int, keys keyRange) error {
	table := v.table(data)
	for at := PageHeaderLen; at < table; at += ElementLen {
		flags, pos, ksize, vsize := Order.Uint32(data[at:]), Order.Uint32(data[at+4:]), Order.Uint32(data[at+8:]), Order.Uint32(data[at+12:])
		if !within(at, table, size, pos, ksize, vsize) || (flags == flagBucket) != root {
			return v.damagedPage(page)
		}
		key, err := v.key(page, data, at, pos, ksize)
		if err != nil {
			return err
		}
		if !keys.next(key, at == PageHeaderLen) {
			return v.damagedPage(page)
		}
		if !root {
			continue
		}
		value := at + int(pos) + int(ksize)
		if vsize < bucketHeadLen || value+int(vsize) > len(data) {
			return v.damagedPage(page)
		}
		if err := v.bucket(page, data[value:value+int(vsize)], depth); err != nil {
			return err
		}
	}
	return nil
}

// bucket checks what is below the head of a bucket: a tree of its own, or an inline page behind the head.
func (v *verifier) bucket(page uint64, value []byte, depth int) error {
	if below := Order.Uint64(value); below != 0 {
		return v.tree(below, false, depth+1, keyRange{})
	}
	if !v.inline(value[bucketHeadLen:]) {
		return v.damagedPage(page)
	}
	return nil
}

// inline checks a bucket so small that it is a leaf within a leaf.
func (v *verifier) inline(data []byte) bool {
	if len(data) < PageHeaderLen || Order.Uint16(data[8:]) != FlagLeaf || v.table(data) > len(data) {
		return false
	}
	table := v.table(data)
	for at := PageHeaderLen; at < table; at += ElementLen {
		if Order.Uint32(data[at:]) != 0 ||
			!within(at, table, len(data), Order.Uint32(data[at+4:]), Order.Uint32(data[at+8:]), Order.Uint32(data[at+12:])) {
			return false
		}
	}
	return true
}

// within reports whether an element at offset at has its key and value after the table and inside the page.
func within(at, table, size int, pos, ksize, vsize uint32) bool {
	begin := uint64(at) + uint64(pos) //nolint:gosec // an offset in a page
	end := begin + uint64(ksize) + uint64(vsize)
	return begin >= uint64(table) && end <= uint64(size) //nolint:gosec // a length of pages
}

// freelist checks the list of pages that may be overwritten: none of them may be in use.
func (v *verifier) freelist(page uint64) error {
	if page == noFreelistSync {
		return nil
	}
	data, err := v.take(page)
	if err != nil {
		return err
	}
	count, ids := uint64(Order.Uint16(data[10:])), data[PageHeaderLen:]
	if count == manyFree {
		count, ids = Order.Uint64(ids), ids[8:]
	}
	if Order.Uint16(data[8:]) != flagFreelist || count > uint64(len(ids)/8) {
		return v.damagedPage(page)
	}
	free := make([]uint64, 0, count)
	for i := range count {
		free = append(free, Order.Uint64(ids[8*i:]))
	}
	slices.Sort(free)
	for i, id := range free {
		if id < FirstDataPage || id >= v.pages || v.used[id] || i > 0 && free[i-1] == id {
			return v.damagedPage(page)
		}
	}
	return nil
}
