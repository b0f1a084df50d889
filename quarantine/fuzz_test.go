package quarantine

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/boltfile"
)

// damaged is a store with bytes of its file changed.
type damaged struct {
	whole  []byte
	bodies map[string][]byte // by ID, all that it holds
	last   string            // of these, what the last transaction wrote
}

// newDamaged makes a store with entries of all sizes, and room of some that were deleted.
func newDamaged(t testing.TB) damaged {
	t.Helper()
	dir := t.TempDir()
	s := openStore(t, dir)
	d := damaged{bodies: make(map[string][]byte)}
	for i := range 12 {
		body := testBody([]int{10, 3000, 9000, 40_000}[i%4])
		id := mustPut(t, s, testEntry(body))
		d.bodies[id], d.last = body, id
		if i%5 == 0 {
			if _, err := s.Delete(id); err != nil {
				t.Fatal(err)
			}
			delete(d.bodies, id)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	if d.whole, err = os.ReadFile(s.path); err != nil {
		t.Fatal(err)
	}
	return d
}

// try opens the store with patch in it at offset at, and cut bytes less. What was kept must be
// there, or an error must say that it is not; and nothing may be lost by going on.
func (d damaged) try(t *testing.T, at uint32, patch []byte, cut uint32) {
	t.Helper()
	data := bytes.Clone(d.whole)
	at %= uint32(len(data))
	copy(data[at:], patch)
	data = data[:len(data)-int(cut%uint32(len(data)))]
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
			t.Errorf("got error %v", err)
		}
		after, readErr := os.ReadFile(path)
		if readErr != nil || !bytes.Equal(after, data) {
			t.Error("the file was changed")
		}
		return
	}
	defer s.Close()
	if at < place(boltfile.FirstDataPage, 0) {
		// When the newer of the two pages that say where all is cannot be read, the older one counts:
		// so it is after a power cut in the middle of writing it. Nobody can tell that from damage.
		d.bodies = maps.Clone(d.bodies)
		delete(d.bodies, d.last)
	}
	if d.complete(t, s) {
		id, err := s.Put(testEntry([]byte("one more")), 0)
		if err != nil {
			return // said
		}
		if _, err := s.Put(testEntry(testBody(100_000)), 0); err != nil {
			return
		}
		if got, err := s.Get(id); err != nil || string(got.Body) != "one more" {
			t.Errorf("got %q, error %v", got.Body, err)
		}
		if !d.complete(t, s) {
			t.Error("entries were lost by a Put")
		}
	}
}

// complete reports whether all entries are there. It fails if some are not and nobody says so.
func (d damaged) complete(t *testing.T, s *Store) bool {
	t.Helper()
	list, err := s.List("", 1000)
	complete := err == nil
	for id, body := range d.bodies {
		e, getErr := s.Get(id)
		switch {
		case getErr == nil && !bytes.Equal(e.Body, body):
			t.Errorf("%s: another body", id)
		case getErr != nil:
			complete = false
			there := slices.ContainsFunc(list, func(e Entry) bool { return e.ID == id })
			if err == nil && !there && len(list) < len(d.bodies) { // as many: it has another ID now
				t.Errorf("%s is not there, and nobody says so: %v", id, getErr)
			}
		}
	}
	return complete
}

func place(page, offset int) uint32 {
	return uint32(page*os.Getpagesize() + offset)
}

// FuzzFile changes bytes of a store's file: it is opened without loss, or refused, or what is lost
// is said; never a panic, nor the end of the process.
func FuzzFile(f *testing.F) {
	if runtime.GOOS == "windows" {
		f.Skip("a file over which bbolt panicked stays mapped, and Windows lets nobody write to such a file")
	}
	d := newDamaged(f)
	f.Add(uint32(0), []byte{}, uint32(0))
	f.Add(uint32(0), []byte{}, uint32(5000))
	for page := range 8 { // TestDamagedPages has them all
		f.Add(place(page, 8), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, uint32(0)) // flags, count, overflow
		f.Add(place(page, 24), []byte{byte(page)}, uint32(0))                                    // of a branch, to itself
		f.Add(place(page, 0), d.whole[:16], uint32(0))
	}
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, cut uint32) { d.try(t, at, patch, cut) })
}

// TestDamagedPages changes how many elements each page says it has: bbolt would not miss the others.
func TestDamagedPages(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a file over which bbolt panicked stays mapped, and Windows lets nobody write to such a file")
	}
	d := newDamaged(t)
	pages := 0
	for page := boltfile.FirstDataPage; page < len(d.whole)/os.Getpagesize(); page++ {
		data := d.whole[place(page, 0):]
		if kind := boltfile.Order.Uint16(data[8:]); boltfile.Order.Uint64(data) != uint64(page) || kind != boltfile.FlagBranch && kind != boltfile.FlagLeaf {
			continue
		}
		pages++
		t.Run(fmt.Sprint(page), func(t *testing.T) {
			t.Parallel()
			d.try(t, place(page, 10), boltfile.Order.AppendUint16(nil, boltfile.Order.Uint16(data[10:])-1), 0)
		})
	}
	if pages < 8 {
		t.Errorf("only %d pages", pages)
	}
}

// TestDamagedCycle: a branch that leads back to itself would end the process.
func TestDamagedCycle(t *testing.T) {
	d := newDamaged(t)
	for page := boltfile.FirstDataPage; page < len(d.whole)/os.Getpagesize(); page++ {
		if data := d.whole[place(page, 0):]; boltfile.Order.Uint64(data) == uint64(page) && boltfile.Order.Uint16(data[8:]) == boltfile.FlagBranch {
			d.try(t, place(page, boltfile.PageHeaderLen+8), boltfile.Order.AppendUint64(nil, uint64(page)), 0)
			return
		}
	}
	t.Error("no branch")
}
