package bolt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/boltfile"
	"github.com/greenapi-community/caddy-green-api/internal/boltfile/boltfiletest"
	"github.com/greenapi-community/caddy-green-api/queue"
)

func init() { children["limit"] = putBeyondLimit }

// TestFailingDisk has writes fail in a process of its own, because a limit on the size of files is for the whole process.
func TestFailingDisk(t *testing.T) {
	if out, err := boltfiletest.Child(t, "limit", t.TempDir()).Output(); err != nil {
		t.Errorf("child: %v\n%s", err, out)
	}
}

// putBeyondLimit puts and removes while the system refuses to write beyond a place in the file, and again when it no
// longer does.
func putBeyondLimit(dir string) error {
	s, err := Open(dir, 1<<30)
	if err != nil {
		return err
	}
	put := func(n int) error {
		_, err := s.Put(context.Background(), testRecord("1", testBody(n)), 0)
		return err
	}
	for n := range 20 {
		if err := put(20_000 + n); err != nil {
			return err
		}
	}
	done := uint64(1)
	for _, c := range []struct {
		what  string
		limit int64
	}{
		{"growing the file", s.measured.Load().size}, {"writing pages", s.measured.Load().used &^ 0xffff}, {"writing at all", 0},
	} {
		if err := boltfiletest.LimitFiles(uint64(c.limit)); err != nil {
			return err
		}
		entries, last := s.Stats().Entries, s.Stats().LastSeq
		for range 3 {
			// bbolt passes on the text of some errors only.
			if err := put(600_000); !errors.Is(err, queue.ErrUnavailable) || !strings.Contains(err.Error(), syscall.EFBIG.Error()) ||
				!strings.Contains(err.Error(), dir) || errors.Is(err, queue.ErrFull) || errors.Is(err, boltfile.ErrPanic) {
				return fmt.Errorf("%s fails: Put returned %w", c.what, err)
			}
			if c.limit > 0 && s.Stats().LastSeq == last {
				return fmt.Errorf("%s fails: sequence number %d may be in the file, and comes again", c.what, last+1)
			}
			if r, err := (&share{store: s}).Load(20); err != nil || len(r.Body) != 20_019 {
				return fmt.Errorf("%s fails: Load returned %w", c.what, err)
			}
			if err := (&share{store: s}).Done(done); c.limit == 0 && !errors.Is(err, syscall.EFBIG) {
				return fmt.Errorf("%s fails: Done returned %w", c.what, err)
			} else if err == nil {
				done++
				entries--
			}
			if n := s.Stats().Entries; n != entries {
				return fmt.Errorf("%s fails: %d records, want %d", c.what, n, entries)
			}
		}
		if err := boltfiletest.LimitFiles(1 << 40); err != nil {
			return err
		}
		if err := put(600_000); err != nil {
			return fmt.Errorf("%s works again: Put returned %w", c.what, err)
		}
		if err := (&share{store: s}).Done(done); err != nil {
			return fmt.Errorf("%s works again: Done returned %w", c.what, err)
		}
		done++
		if n := s.Stats().Entries; n != entries {
			return fmt.Errorf("%s works again: %d records, want %d", c.what, n, entries)
		}
	}
	entries := s.Stats().Entries
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = Open(dir, 0); err != nil {
		return err
	}
	if n := s.Stats().Entries; n != entries {
		return fmt.Errorf("opened again: %d records, want %d", n, entries)
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
	s, err := Open(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	bodies := map[uint64][]byte{}
	for {
		_, err := s.Put(context.Background(), testRecord("1", testBody(5000)), 0)
		if errors.Is(err, syscall.ENOSPC) && errors.Is(err, queue.ErrUnavailable) && !errors.Is(err, queue.ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		bodies[s.Stats().LastSeq] = testBody(5000)
	}
	t.Logf("disk full after %d", len(bodies))
	check(t, s, bodies)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		bodies[mustPut(t, s, testRecord("1", testBody(7000)))] = testBody(7000)
	}
	check(t, s, bodies)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, 0); err != nil {
		t.Fatal(err)
	}
	check(t, s, bodies)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFault takes the file away under bbolt's mapping of it, which makes it panic. Other systems do not let one do that.
func TestFault(t *testing.T) {
	s := openStore(t, t.TempDir(), 0)
	s.file.Pause = 0
	seq := mustPut(t, s, testRecord("1", testBody(50_000)))
	whole, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.path, int64(2*os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	if _, err := (&share{store: s}).Load(seq); !errors.Is(err, boltfile.ErrPanic) {
		t.Errorf("Load: got error %v", err)
	}
	_, err = s.Put(context.Background(), testRecord("1", nil), 0)
	if !errors.Is(err, boltfile.ErrPanic) || !errors.Is(err, queue.ErrUnavailable) || !strings.Contains(err.Error(), s.path) {
		t.Errorf("Put: got error %v", err)
	}
	if err := (&share{store: s}).Done(seq); !errors.Is(err, queue.ErrDamaged) {
		t.Errorf("Done: got error %v", err)
	}
	if err := os.WriteFile(s.path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	next := mustPut(t, s, testRecord("1", testBody(9)))
	check(t, s, map[uint64][]byte{seq: testBody(50_000), next: testBody(9)})
}
