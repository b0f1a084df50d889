package quarantine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// fileSize returns the size of the file of s, past what s itself says.
func fileSize(t testing.TB, s *Store) int64 {
	t.Helper()
	info, err := os.Stat(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.File != info.Size() {
		t.Errorf("stats say %d bytes, file has %d", st.File, info.Size())
	}
	return info.Size()
}

// TestFull fills a store, deletes and fills it again, with bodies of one size and mixed.
func TestFull(t *testing.T) {
	for _, c := range []struct{ maxSize, body int64 }{
		{600 << 10, 1000},
		{900<<10 + 1234, 3000},
		{1 << 20, inlineMax},
		{8 << 20, 200_000},
		{20 << 20, 16 << 20},
		{8 << 20, 0}, // mixed
	} {
		t.Run(fmt.Sprintf("%d of %d", c.body, c.maxSize), func(t *testing.T) {
			t.Parallel()
			s := openUnsynced(t, t.TempDir())
			rnd := rand.New(rand.NewPCG(1, uint64(c.body)))
			bodies := map[string][]byte{}
			slack := c.maxSize/256 + 1<<20
			if runtime.GOOS == "windows" {
				slack = c.maxSize // the file doubles
			}
			for round := range 3 {
				for {
					body := testBody(int(c.body))
					if c.body == 0 {
						body = testBody(1 << rnd.IntN(21))
					}
					id, err := s.Put(testEntry(body), c.maxSize)
					limit := c.maxSize
					if round > 0 {
						limit += slack // Delete has had a part in it
					}
					if size := fileSize(t, s); size > limit {
						t.Fatalf("round %d: file has %d bytes, %d are allowed", round, size, limit)
					}
					if errors.Is(err, ErrFull) && strings.Contains(err.Error(), fmt.Sprint(c.maxSize)) {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					bodies[id] = body
				}
				var kept int64
				for _, body := range bodies {
					kept += int64(len(body))
				}
				st := s.Stats()
				t.Logf("round %d: %d entries, %d bytes kept, %+v", round, len(bodies), kept, st)
				if st.Bytes > c.maxSize || st.Bytes < kept {
					t.Errorf("%d bytes in use for %d of %d", st.Bytes, kept, c.maxSize)
				}
				checkEntries(t, s, bodies)
				var ids []string
				for id := range bodies {
					if rnd.IntN(3) > 0 || len(ids) == 0 {
						ids = append(ids, id)
					}
				}
				if n, err := s.Delete(ids...); n != len(ids) || err != nil {
					t.Fatalf("deleted %d of %d: %v", n, len(ids), err)
				}
				for _, id := range ids {
					delete(bodies, id)
				}
				if size := fileSize(t, s); size > c.maxSize+slack {
					t.Errorf("round %d: file has %d bytes after deleting, %d are allowed", round, size, c.maxSize+slack)
				}
				checkEntries(t, s, bodies)
			}
		})
	}
}

// TestFullTogether has many Puts at once run into the end.
func TestFullTogether(t *testing.T) {
	const maxSize = 1 << 20
	s := openUnsynced(t, t.TempDir())
	var mu sync.Mutex
	bodies := map[string][]byte{}
	var full int
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for i := range 40 {
				body := testBody(1 + w*i)
				id, err := s.Put(testEntry(body), maxSize)
				mu.Lock()
				switch {
				case err == nil:
					bodies[id] = body
				case errors.Is(err, ErrFull) && id == "":
					full++
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(bodies) == 0 || full == 0 || fileSize(t, s) > maxSize {
		t.Errorf("%d kept, %d refused, file of %d bytes", len(bodies), full, fileSize(t, s))
	}
	checkEntries(t, s, bodies)
}

// TestLowerLimit sets a limit below what is kept already.
func TestLowerLimit(t *testing.T) {
	s := openUnsynced(t, t.TempDir())
	var ids []string
	for range 100 {
		ids = append(ids, mustPut(t, s, testEntry(testBody(40_000))))
	}
	if _, err := s.Delete(ids[:50]...); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(testEntry(nil), 1<<20); !errors.Is(err, ErrFull) {
		t.Errorf("2 MB kept, 1 MiB allowed: got error %v", err)
	}
	for _, maxSize := range []int64{3 << 20, 0, -1} {
		if _, err := s.Put(testEntry(nil), maxSize); err != nil {
			t.Errorf("limit %d: %v", maxSize, err)
		}
	}
	if _, err := s.Delete(ids[50:]...); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(testEntry(nil), 1<<20); err != nil {
		t.Errorf("after deleting: %v", err)
	}
}

// TestDamaged opens files that are no store, or not a whole one.
func TestDamaged(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a file over which bbolt panicked stays mapped, and Windows lets nobody write to such a file")
	}
	dir := t.TempDir()
	s := openStore(t, dir)
	id := mustPut(t, s, testEntry(testBody(300_000)))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	damages := map[string]func(data []byte) []byte{
		"text":           func([]byte) []byte { return []byte("not a store\n") },
		"zeros":          func(data []byte) []byte { clear(data); return data },
		"cut to a page":  func(data []byte) []byte { return data[:page] },
		"cut to metas":   func(data []byte) []byte { return data[:2*page] },
		"cut to half":    func(data []byte) []byte { return data[:len(data)/2/page*page] },
		"no metas":       func(data []byte) []byte { clear(data[:2*page]); return data },
		"nothing behind": func(data []byte) []byte { clear(data[2*page:]); return data },
	}
	for name, damage := range damages {
		data := damage(append([]byte(nil), whole...))
		if err := os.WriteFile(s.path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		bad, err := Open(dir)
		if err == nil {
			_ = bad.Close()
		}
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), filepath.Join(dir, FileName)) {
			t.Errorf("%s: got error %v", name, err)
		}
		t.Logf("%s: %v", name, err)
		if after, _ := os.ReadFile(s.path); string(after) != string(data) {
			t.Errorf("%s: the file was changed", name)
		}
	}
	if err := os.WriteFile(s.path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(t, dir).Get(id); err != nil {
		t.Errorf("after putting it back: %v", err)
	}
}

// TestDamagedEntry shows that one bad entry does not hide the others, and can be deleted.
func TestDamagedEntry(t *testing.T) {
	s := openStore(t, t.TempDir())
	var ids []string
	for _, n := range []int{10, 100_000, 20} {
		ids = append(ids, mustPut(t, s, testEntry(testBody(n))))
	}
	err := s.file.DB.Update(func(tx *bolt.Tx) error {
		if err := tx.Bucket(bucketEntries).Put([]byte(ids[0]), []byte{1, 2, 3}); err != nil {
			return err
		}
		return tx.Bucket(bucketParts).Delete(partKey(ids[1], 1))
	})
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.List("", 10)
	if len(list) != 3 || list[0].ID != ids[0] || !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), ids[0]) {
		t.Errorf("got %v, error %v", list, err)
	}
	for _, id := range ids[:2] {
		if _, err := s.Get(id); !errors.Is(err, ErrDamaged) {
			t.Errorf("got error %v", err)
		}
	}
	if n, err := s.Delete(ids[:2]...); n != 2 || err != nil {
		t.Errorf("deleted %d, error %v", n, err)
	}
	checkEntries(t, s, map[string][]byte{ids[2]: testBody(20)})
}
