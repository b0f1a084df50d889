package quarantine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/boltfile"
	"github.com/greenapi-community/caddy-green-api/internal/boltfile/boltfiletest"
)

func init() { children["limit"] = putBeyondLimit }

// TestFailingDisk has writes fail in a process of its own, because a limit on the size of files is for the whole process.
func TestFailingDisk(t *testing.T) {
	if out, err := boltfiletest.Child(t, "limit", t.TempDir()).Output(); err != nil {
		t.Errorf("child: %v\n%s", err, out)
	}
}

// putBeyondLimit puts while the system refuses to write beyond a place in the file, and again when it no longer does.
func putBeyondLimit(dir string) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	var ids []string
	put := func(n int) error {
		id, err := s.Put(testEntry(testBody(n)), 1<<30)
		if err == nil {
			ids = append(ids, id)
		}
		return err
	}
	for range 20 {
		if err := put(20_000); err != nil {
			return err
		}
	}
	st := s.Stats()
	for name, limit := range map[string]int64{
		"growing the file": st.File, "writing pages": st.Bytes &^ 0xffff, "writing at all": 0,
	} {
		if err := boltfiletest.LimitFiles(uint64(limit)); err != nil {
			return err
		}
		for range 3 {
			// bbolt passes on the text of some errors only.
			if err := put(600_000); err == nil || !strings.Contains(err.Error(), syscall.EFBIG.Error()) ||
				!strings.Contains(err.Error(), dir) || errors.Is(err, ErrFull) || errors.Is(err, boltfile.ErrPanic) {
				return fmt.Errorf("%s fails: Put returned %w", name, err)
			}
			if e, err := s.Get(ids[0]); err != nil || len(e.Body) != 20_000 {
				return fmt.Errorf("%s fails: Get returned %d bytes, %w", name, len(e.Body), err)
			}
			if _, err := s.Delete(ids[0]); limit == 0 && !errors.Is(err, syscall.EFBIG) {
				return fmt.Errorf("%s fails: Delete returned %w", name, err)
			} else if err == nil {
				ids = ids[1:]
			}
		}
		if err := boltfiletest.LimitFiles(1 << 40); err != nil {
			return err
		}
		if err := put(600_000); err != nil {
			return fmt.Errorf("%s works again: Put returned %w", name, err)
		}
		sum, err := s.Summary()
		if s.Stats().Entries != len(ids) || sum.Entries != len(ids) || len(sum.Reasons.Each) != 1 || err != nil {
			return fmt.Errorf("%s works again: %d entries, %+v, want %d; error %w", name, s.Stats().Entries, sum, len(ids), err)
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = Open(dir); err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := s.Get(id); err != nil {
			return err
		}
	}
	return s.Close()
}

// TestDiskFull fills a file system. Only root can; TestFailingDisk is for everybody.
func TestDiskFull(t *testing.T) {
	dir, unmount := boltfiletest.SmallDisk(t)
	defer unmount()
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, testBody(500_000), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	bodies := map[string][]byte{}
	for {
		id, err := s.Put(testEntry(testBody(5000)), 0)
		if errors.Is(err, syscall.ENOSPC) && !errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		bodies[id] = testBody(5000)
	}
	t.Logf("disk full after %d", len(bodies))
	checkEntries(t, s, bodies)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		bodies[mustPut(t, s, testEntry(testBody(7000)))] = testBody(7000)
	}
	checkEntries(t, s, bodies)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	checkEntries(t, s, bodies)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFault takes the file away under bbolt's mapping of it, which makes it panic. Other systems do not let one do that.
func TestFault(t *testing.T) {
	s := openStore(t, t.TempDir())
	id := mustPut(t, s, testEntry(testBody(50_000)))
	whole, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.path, int64(2*os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(id); !errors.Is(err, boltfile.ErrPanic) {
		t.Errorf("Get: got error %v", err)
	}
	if _, err := s.Put(testEntry(nil), 0); !errors.Is(err, boltfile.ErrPanic) || !strings.Contains(err.Error(), s.path) {
		t.Errorf("Put: got error %v", err)
	}
	start := mappings(t, s.path)
	for range 5 {
		if _, err := s.Put(testEntry(nil), 0); err == nil {
			t.Error("Put: got no error")
		}
	}
	if n := mappings(t, s.path); n > start {
		t.Errorf("a broken file is mapped %d times more", n-start)
	}
	if err := os.WriteFile(s.path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	s.file.Pause = 0
	next := mustPut(t, s, testEntry(testBody(9)))
	checkEntries(t, s, map[string][]byte{id: testBody(50_000), next: testBody(9)})
}

// mappings returns how often this process has the file at path mapped to memory.
func mappings(t *testing.T, path string) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(maps), path)
}
