package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/boltfile"
	"github.com/greenapi-community/caddy-green-api/queue"
)

// damaged is a queue with bytes of its file changed.
type damaged struct {
	whole  []byte
	bodies map[uint64][]byte // all that it holds
	last   uint64            // of these, what the last transaction wrote
}

// newDamaged makes a queue with records of all sizes, and room of some that were removed.
func newDamaged(t testing.TB) damaged {
	t.Helper()
	s := openStore(t, t.TempDir(), 0)
	d := damaged{bodies: make(map[uint64][]byte)}
	for i := range 12 {
		body := testBody([]int{10, 3000, 9000, 40_000}[i%4] + i)
		seq := mustPut(t, s, testRecord(fmt.Sprint(i%3), body))
		d.bodies[seq], d.last = body, seq
		if i%5 == 0 {
			mustDone(t, s, seq)
			delete(d.bodies, seq)
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

// try opens the queue with patch in its file at offset at, and cut bytes less. What was kept must be there, or an error
// must say that it is not; and nothing may be lost by going on.
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
	s, err := Open(dir, 0)
	if err != nil {
		if !errors.Is(err, queue.ErrDamaged) && !errors.Is(err, queue.ErrVersion) {
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
	if !d.complete(t, s) {
		return
	}
	_, err = s.Put(context.Background(), testRecord("1", []byte("one more")), 0)
	if err != nil {
		return // said
	}
	seq := s.Stats().LastSeq
	if _, err := s.Put(context.Background(), testRecord("1", testBody(100_000)), 0); err != nil {
		return
	}
	if r, err := (&share{store: s}).Load(seq); err != nil || string(r.Body) != "one more" {
		t.Errorf("got %+v, error %v", r, err)
	}
	if !d.complete(t, s) {
		t.Error("records were lost by a Put")
	}
}

// complete reports whether all records are there. It fails if some are not and nobody says so.
func (d damaged) complete(t *testing.T, s *Store) bool {
	t.Helper()
	complete := true
	items := stored(t, s)
	for _, item := range items {
		r, err := (&share{store: s}).Load(item.Seq)
		switch body, known := d.bodies[item.Seq]; {
		case err != nil:
			complete = false // said
		case known && !bytes.Equal(r.Body, body):
			t.Errorf("record %d: another body", item.Seq)
		case r.Instance != item.Instance:
			t.Errorf("record %d: of instance %s, not %s", item.Seq, r.Instance, item.Instance)
		}
	}
	if len(items) < len(d.bodies) {
		t.Errorf("%d records, want %d, and nobody says so", len(items), len(d.bodies))
	}
	return complete
}

func place(page, offset int) uint32 {
	return uint32(page*os.Getpagesize() + offset)
}

// FuzzFile changes bytes of a queue's file: it is opened without loss, or refused, or what is lost is said; never a
// panic, nor the end of the process.
func FuzzFile(f *testing.F) {
	if runtime.GOOS == "windows" {
		f.Skip("a file over which bbolt panicked stays mapped, and Windows lets nobody write to such a file")
	}
	d := newDamaged(f)
	f.Add(uint32(0), []byte{}, uint32(0))
	f.Add(uint32(0), []byte{}, uint32(5000))
	for page := range 4 { // TestDamagedPages has them all
		f.Add(place(page, 8), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, uint32(0)) // flags, count, overflow
		f.Add(place(page, 24), []byte{byte(page)}, uint32(0))                                    // of a branch, to itself
		f.Add(place(page, 0), d.whole[:16], uint32(0))
	}
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, cut uint32) { d.try(t, at, patch, cut) })
}

// TestDamagedPages changes how many elements each page says it has, and a byte of each: bbolt would not miss them.
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
			for offset := 100; offset < os.Getpagesize(); offset += 1499 {
				d.try(t, place(page, offset), []byte{data[offset] ^ 0x10}, 0)
			}
		})
	}
	if pages < 8 {
		t.Errorf("only %d pages", pages)
	}
}

// TestDamaged opens files that are no queue, or not a whole one.
func TestDamaged(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a file over which bbolt panicked stays mapped, and Windows lets nobody write to such a file")
	}
	d := newDamaged(t)
	page := os.Getpagesize()
	for name, damage := range map[string]func(data []byte) []byte{
		"text":           func([]byte) []byte { return []byte("not a queue\n") },
		"zeros":          func(data []byte) []byte { clear(data); return data },
		"cut to a page":  func(data []byte) []byte { return data[:page] },
		"cut to metas":   func(data []byte) []byte { return data[:2*page] },
		"cut to half":    func(data []byte) []byte { return data[:len(data)/4/page*page] },
		"no metas":       func(data []byte) []byte { clear(data[:2*page]); return data },
		"nothing behind": func(data []byte) []byte { clear(data[2*page:]); return data },
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, FileName)
		data := damage(bytes.Clone(d.whole))
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		bad, err := Open(dir, 0)
		if err == nil {
			_ = bad.Close()
		}
		if !errors.Is(err, queue.ErrDamaged) {
			t.Errorf("%s: got error %v", name, err)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(after, data) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}
