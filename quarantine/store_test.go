package quarantine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"
)

func openStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.SummarizeBy(labelOf)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// openUnsynced is openStore without syncs, which take most of the time, for tests of what is in the file: it
// is the same without them, as long as nothing fails.
func openUnsynced(t testing.TB, dir string) *Store {
	t.Helper()
	s := openStore(t, dir)
	s.file.DB.NoSync = true
	return s
}

func mustPut(t testing.TB, s *Store, e Entry) string {
	t.Helper()
	id, err := s.Put(e, 0)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// checkEntries reports entries that are not whole, a wrong count or summary, and a file that bbolt finds fault with.
func checkEntries(t testing.TB, s *Store, want map[string][]byte) {
	t.Helper()
	for id, body := range want {
		e, err := s.Get(id)
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(e.Body, body) || e.ID != id || e.Size != int64(len(body)) {
			t.Errorf("entry %s: got ID %q and %d bytes, want %d bytes", id, e.ID, len(e.Body), len(body))
		}
	}
	list, err := s.List("", len(want)+1)
	if err != nil || len(list) != len(want) || s.Stats().Entries != len(want) {
		t.Errorf("%d entries listed, %d counted, want %d (error %v)", len(list), s.Stats().Entries, len(want), err)
	}
	err = s.file.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		return nil
	})
	if err != nil {
		t.Errorf("tree: %v", err)
	}
	checkSummary(t, s)
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "deep", "er")
	s := openStore(t, dir)
	bodies := map[string][]byte{}
	for _, n := range []int{0, 1, 3000, inlineMax, inlineMax + 1, partLen, 5*partLen + 3, 16 << 20} {
		bodies[mustPut(t, s, testEntry(testBody(n)))] = testBody(n)
	}
	broken := []byte("\x00\xff{\"a\":\"\xed\xa0\x80\"}\r\n")
	bodies[mustPut(t, s, testEntry(broken))] = broken
	before := s.Stats()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = openStore(t, dir)
	checkEntries(t, s, bodies)
	if after := s.Stats(); after.Entries != before.Entries || after.Bytes != before.Bytes || after.File != before.File {
		t.Errorf("stats were %+v, are %+v after reopening", before, after)
	}
	for id := range bodies {
		want := testEntry(bodies[id])
		want.ID, want.Size = id, int64(len(want.Body))
		got, err := s.Get(id)
		if len(want.Body) == 0 {
			want.Body, got.Body = nil, nil
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("entry of %d bytes came back changed (error %v)", len(want.Body), err)
		}
	}
	if runtime.GOOS == "windows" {
		return
	}
	for name, want := range map[string]os.FileMode{dir: 0o700, filepath.Dir(dir): 0o700, filepath.Join(dir, FileName): 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v (error %v)", name, info.Mode().Perm(), want, err)
		}
	}
}

func TestPutDefaults(t *testing.T) {
	s := openUnsynced(t, t.TempDir())
	from := time.Now()
	e, err := s.Get(mustPut(t, s, Entry{ID: "mine", Size: 99}))
	if err != nil {
		t.Fatal(err)
	}
	if e.Received.Before(from.Round(0)) || e.Received.After(time.Now()) || e.ID == "mine" || e.Size != 0 {
		t.Errorf("got %+v", e)
	}
}

func TestList(t *testing.T) {
	s := openUnsynced(t, t.TempDir())
	var want []string
	for i := range 250 {
		e := testEntry([]byte(fmt.Sprint(i)))
		e.Received = testTime.Add(time.Duration(i%7) * time.Minute) // not in order of time
		want = append(want, mustPut(t, s, e))
	}
	slices.Sort(want)
	var got []string
	after := ""
	for {
		page, err := s.List(after, 40)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			if e.Body != nil || e.Size == 0 || e.Reason != "schema" {
				t.Fatalf("got %+v", e)
			}
			got = append(got, e.ID)
		}
		if len(page) < 40 {
			break
		}
		after = page[len(page)-1].ID
	}
	if !slices.Equal(got, want) {
		t.Errorf("pages hold %d IDs, want %d in order", len(got), len(want))
	}
	if page, _ := s.List(want[9]+"0", 1); len(page) != 1 || page[0].ID != want[10] {
		t.Errorf("after an ID that is not there: got %v, want %s", page, want[10])
	}
	if page, _ := s.List("", 0); len(page) != defaultListLimit {
		t.Errorf("without a limit: got %d", len(page))
	}
	if page, err := s.List("Z", 5); len(page) != 0 || err != nil {
		t.Errorf("after the end: got %v, error %v", page, err)
	}
}

// TestListBytes: entries with long heads come in shorter lists, and all of them.
func TestListBytes(t *testing.T) {
	s := openUnsynced(t, t.TempDir())
	const entries = 12
	for range entries {
		mustPut(t, s, Entry{NotificationID: strings.Repeat("x", 1<<20)})
	}
	found, after := 0, ""
	for {
		page, err := s.List(after, entries)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		if len(page) > 5 {
			t.Errorf("%d MiB at once", len(page))
		}
		found += len(page)
		after = page[len(page)-1].ID
	}
	if found != entries {
		t.Errorf("%d of %d entries", found, entries)
	}
}

func TestDelete(t *testing.T) {
	s := openUnsynced(t, t.TempDir())
	bodies := map[string][]byte{}
	var ids []string
	for i := range 60 {
		body := testBody(i * 2000)
		id := mustPut(t, s, testEntry(body))
		bodies[id] = body
		ids = append(ids, id)
	}
	n, err := s.Delete(ids[50], "nope", "", ids[3], ids[50])
	if n != 2 || err != nil {
		t.Errorf("deleted %d, error %v", n, err)
	}
	delete(bodies, ids[50])
	delete(bodies, ids[3])
	checkEntries(t, s, bodies)
	if _, err := s.Get(ids[3]); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), ids[3]) {
		t.Errorf("got error %v", err)
	}
	if n, err := s.Delete(ids...); n != 58 || err != nil {
		t.Errorf("deleted %d, error %v", n, err)
	}
	checkEntries(t, s, nil)
	if st := s.Stats(); st.Bytes > 64<<10 {
		t.Errorf("empty store: %+v", st)
	}
	_ = s.file.View(func(tx *bolt.Tx) error {
		if k, _ := tx.Bucket(bucketParts).Cursor().First(); k != nil {
			t.Errorf("part %q left", k)
		}
		return nil
	})
}

// transactions returns how many write transactions the file has had.
func transactions(s *Store) (n int) {
	_ = s.file.View(func(tx *bolt.Tx) error { n = tx.ID(); return nil })
	return n
}

func TestLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // waits
		dir := t.TempDir()
		s := openStore(t, dir)
		id := mustPut(t, s, testEntry(nil))
		_, err := Open(dir)
		if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), filepath.Join(dir, FileName)) {
			t.Errorf("got error %v", err)
		}
		if _, err := s.Get(id); err != nil {
			t.Error(err)
		}
	})
}

// TestScrub looks for deleted bodies in the file.
func TestScrub(t *testing.T) {
	s := openStore(t, t.TempDir())
	secret := []byte("+0 000 000 00 00 is a secret. ")
	kept := map[string][]byte{}
	var ids []string
	for i := range 40 {
		body := testBody(i * 3000)
		kept[mustPut(t, s, testEntry(body))] = body
		ids = append(ids, mustPut(t, s, testEntry(bytes.Repeat(secret, 1+i*100))))
	}
	if _, err := s.Delete(ids...); err != nil {
		t.Fatal(err)
	}
	has := func() bool {
		data, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(data, secret)
	}
	if !has() {
		t.Error("nothing to scrub: the test shows nothing")
	}
	if err := s.Scrub(); err != nil {
		t.Fatal(err)
	}
	if has() {
		t.Error("a deleted body is in the file")
	}
	checkEntries(t, s, kept)
	kept[mustPut(t, s, testEntry(testBody(9)))] = testBody(9)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	checkEntries(t, openStore(t, filepath.Dir(s.path)), kept)
}
