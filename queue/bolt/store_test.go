package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/greenapi-community/caddy-green-api/queue"
)

func openStore(t testing.TB, dir string, maxSize int64) *Store {
	t.Helper()
	s, err := Open(dir, maxSize)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, s)
	return s
}

func closeAtEnd(t testing.TB, s *Store) {
	t.Helper()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func mustPut(t testing.TB, s *Store, r *queue.Record) uint64 {
	t.Helper()
	if duplicate, err := s.Put(context.Background(), r, 0); err != nil || duplicate {
		t.Fatalf("duplicate %v, error %v", duplicate, err)
	}
	return s.Stats().LastSeq
}

func mustDone(t testing.TB, s *Store, seq uint64) {
	t.Helper()
	if err := (&share{store: s}).Done(seq); err != nil {
		t.Fatal(err)
	}
}

// stored returns what a share of a store would hand out, in order.
func stored(t testing.TB, s *Store) (items []queue.Item) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for it := s.index.next(0); it != nil; it = s.index.next(it.seq) {
		items = append(items, s.index.public(it))
	}
	return items
}

// check reports records that are not whole, and a file that bbolt finds fault with. bodies are wanted by sequence
// number.
func check(t testing.TB, s *Store, bodies map[uint64][]byte) {
	t.Helper()
	items := stored(t, s)
	for _, item := range items {
		r, err := (&share{store: s}).Load(item.Seq)
		if err != nil {
			t.Error(err)
			continue
		}
		if want, known := bodies[item.Seq]; !known || !bytes.Equal(r.Body, want) || item.Size != len(want) {
			t.Errorf("record %d: %d bytes, want %d", item.Seq, len(r.Body), len(want))
		}
	}
	if len(items) != len(bodies) || s.Stats().Entries != len(bodies) {
		t.Errorf("%d records, %d counted, want %d", len(items), s.Stats().Entries, len(bodies))
	}
	err := s.file.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		cursor := tx.Bucket(bucketParts).Cursor()
		for k, _ := cursor.First(); k != nil; k, _ = cursor.Next() {
			if seq := binary.BigEndian.Uint64(k); bodies[seq] == nil {
				return fmt.Errorf("part of record %d is left over", seq)
			}
		}
		return verifyCount(tx)
	})
	if err != nil {
		t.Errorf("tree: %v", err)
	}
}

// TestModes: directories and files are for their owner only.
func TestModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	dir := filepath.Join(t.TempDir(), "deep", "er")
	openStore(t, dir, 0)
	for name, want := range map[string]os.FileMode{dir: 0o700, filepath.Dir(dir): 0o700, filepath.Join(dir, FileName): 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v (error %v)", name, info.Mode().Perm(), want, err)
		}
	}
}

func TestLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // waits
		dir := t.TempDir()
		s := openStore(t, dir, 0)
		_, err := Open(dir, 0)
		if !errors.Is(err, queue.ErrLocked) || !strings.Contains(err.Error(), filepath.Join(dir, FileName)) {
			t.Errorf("got error %v", err)
		}
		mustPut(t, s, testRecord("1", nil))
	})
}

// TestVersion: a file of a later version, and one that is something else.
func TestVersion(t *testing.T) {
	for name, c := range map[string]struct {
		change func(tx *bolt.Tx) error
		want   error
	}{
		"format":  {func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte{2}) }, queue.ErrVersion},
		"bucket":  {func(tx *bolt.Tx) error { return tx.DeleteBucket(bucketParts) }, queue.ErrDamaged},
		"control": {func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyControl, []byte("{")) }, queue.ErrDamaged},
		"count":   {func(tx *bolt.Tx) error { return addEntries(tx, 1) }, queue.ErrDamaged},
		"summary": {func(tx *bolt.Tx) error { return putRecord(tx, 1, make([]byte, 100), nil) }, queue.ErrDamaged},
		"key": {func(tx *bolt.Tx) error {
			return errors.Join(tx.Bucket(bucketRecords).Put([]byte("k"), nil), addEntries(tx, 1))
		}, queue.ErrDamaged},
	} {
		dir := t.TempDir()
		s := openStore(t, dir, 0)
		mustPut(t, s, testRecord("1", nil))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		changeFile(t, s.path, c.change)
		if _, err := Open(dir, 0); !errors.Is(err, c.want) || !strings.Contains(err.Error(), s.path) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}

// changeFile changes the file of a store that is closed.
func changeFile(t *testing.T, path string, change func(*bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(change), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestOlderFile: a file of an older program gets a key for the lanes' IDs, and keeps it.
func TestOlderFile(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, 0)
	mustPut(t, s, testRecord("1", nil))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	changeFile(t, s.path, func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Delete(keyLanes) })
	s = openStore(t, dir, 0)
	key := s.LaneKey()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, 0)
	if len(key) == 0 || !bytes.Equal(s.LaneKey(), key) {
		t.Errorf("key is %x, was %x", s.LaneKey(), key)
	}
}

// TestMerged: Puts and removals at one time share their syncs.
func TestMerged(t *testing.T) {
	const writers, each = 64, 8
	s := openStore(t, t.TempDir(), 0)
	if s.file.DB.NoSync || s.file.DB.NoGrowSync || s.file.DB.NoFreelistSync {
		t.Error("syncs are off")
	}
	before := transactions(s)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				mustPut(t, s, testRecord(fmt.Sprint(w), fmt.Appendf(nil, "%d", n)))
			}
		})
	}
	wg.Wait()
	if n := transactions(s) - before; n > writers*each/4 {
		t.Errorf("%d Puts took %d transactions: they do not share", writers*each, n)
	}
	before = transactions(s)
	for part := range slices.Chunk(stored(t, s), each) {
		wg.Go(func() {
			for _, item := range part {
				mustDone(t, s, item.Seq)
				mustPut(t, s, testRecord(item.Instance, fmt.Appendf(nil, "again %d", item.Seq)))
			}
		})
	}
	wg.Wait()
	if n := transactions(s) - before; n > 2*writers*each/4 {
		t.Errorf("%d removals and Puts took %d transactions: they do not share", 2*writers*each, n)
	}
	if n := s.Stats().Entries; n != writers*each {
		t.Errorf("%d records, want %d", n, writers*each)
	}
}

// TestSetMaxSize: a limit can be raised, lowered below what is kept, and lifted.
func TestSetMaxSize(t *testing.T) {
	s := openUnsynced(t, t.TempDir(), 4<<20)
	bodies := map[uint64][]byte{}
	for range 50 {
		bodies[mustPut(t, s, testRecord("1", testBody(40_000)))] = testBody(40_000)
	}
	put := func() error {
		_, err := s.Put(context.Background(), testRecord("1", testBody(100)), 0)
		if err == nil {
			bodies[s.Stats().LastSeq] = testBody(100)
		}
		return err
	}
	s.SetMaxSize(1 << 20)
	if err := put(); !errors.Is(err, queue.ErrFull) {
		t.Errorf("2 MB kept, 1 MiB allowed: %v", err)
	}
	for _, maxSize := range []int64{4 << 20, 0, -1} {
		s.SetMaxSize(maxSize)
		if err := put(); err != nil {
			t.Errorf("limit %d: %v", maxSize, err)
		}
	}
	s.SetMaxSize(1 << 20)
	for _, item := range stored(t, s) {
		if item.Size > 100 {
			mustDone(t, s, item.Seq)
			delete(bodies, item.Seq)
		}
	}
	if err := put(); err != nil {
		t.Errorf("after all was removed: %v", err)
	}
	check(t, s, bodies)
}

// hasBytes reports whether the file of s has them, in use or not.
func hasBytes(t *testing.T, s *Store, what string) bool {
	t.Helper()
	data, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(data, []byte(what))
}

// TestRest: a queue that has been empty and idle for a minute has a file without a trace of what was in it. What the
// operator has ordered is still there, and no sequence number comes again.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const secret = "SECRET BODY"
		orders := queue.Control{Draining: true, Paused: []queue.Target{{Instance: "1"}}}
		dir := t.TempDir()
		s := openStore(t, dir, 0)
		if err := s.SetControl(orders); err != nil {
			t.Fatal(err)
		}
		key := s.LaneKey()
		first := mustPut(t, s, testRecord("1", []byte(secret)))
		last := mustPut(t, s, testRecord("1", bytes.Repeat([]byte(secret), 100_000)))
		grown := s.measured.Load().size
		if err := os.WriteFile(s.path+".new", []byte("left over from a kill"), 0o600); err != nil {
			t.Fatal(err)
		}
		mustDone(t, s, first)
		time.Sleep(10 * idleTime)
		if !hasBytes(t, s, secret) {
			t.Error("record that waits has been lost")
		}
		mustDone(t, s, last)
		time.Sleep(idleTime - time.Second)
		if !hasBytes(t, s, secret) {
			t.Error("test cannot see what is left over")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if hasBytes(t, s, secret) {
			t.Error("removed bodies are left in the file")
		}
		if size := s.measured.Load().size; size > grown/10 || size == 0 {
			t.Errorf("file has %d bytes, had %d", size, grown)
		}
		if _, err := os.Stat(s.path + ".new"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("file is left over: %v", err)
		}
		id := transactions(s)
		time.Sleep(10 * idleTime)
		synctest.Wait()
		if transactions(s) != id {
			t.Error("a clean file was made anew")
		}
		for range 2 {
			if got := s.Control(); fmt.Sprint(got) != fmt.Sprint(orders) {
				t.Errorf("control is %+v, want %+v", got, orders)
			}
			if !bytes.Equal(s.LaneKey(), key) {
				t.Error("the lanes have other IDs")
			}
			if seq := s.Stats().LastSeq; seq != last {
				t.Errorf("last sequence number is %d, was %d", seq, last)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openStore(t, dir, 0)
		}
		if seq := mustPut(t, s, testRecord("1", []byte("next"))); seq <= last {
			t.Errorf("sequence number %d comes again", seq)
		}
	})
}

// TestRestAfterKill: what a process left over that was killed is wiped by the next one.
func TestRestAfterKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, dir, 0)
		mustDone(t, s, mustPut(t, s, testRecord("1", []byte("SECRET"))))
		if err := s.Close(); err != nil { // for all that the file knows, it was a kill
			t.Fatal(err)
		}
		s = openStore(t, dir, 0)
		time.Sleep(idleTime + time.Second)
		synctest.Wait()
		if hasBytes(t, s, "SECRET") {
			t.Error("a removed body is left in the file")
		}
	})
}

// TestRestFails: what could not be wiped is wiped later.
func TestRestFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), 0)
		inTheWay := filepath.Join(s.path+".new", "deep")
		if err := os.MkdirAll(inTheWay, 0o700); err != nil {
			t.Fatal(err)
		}
		mustDone(t, s, mustPut(t, s, testRecord("1", bytes.Repeat([]byte("SECRET"), 50_000))))
		time.Sleep(idleTime + time.Second)
		synctest.Wait()
		if !hasBytes(t, s, "SECRET") {
			t.Error("the file was made anew: the test shows nothing")
		}
		if err := os.Remove(inTheWay); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * idleTime)
		synctest.Wait()
		if hasBytes(t, s, "SECRET") {
			t.Error("a removed body is left in the file")
		}
	})
}

// TestRestLocked: whoever waits for the lock while the file is replaced gets the new one.
func TestRestLocked(t *testing.T) {
	dir := t.TempDir()
	s, err := open(dir, 0, 5*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	go s.write()
	closeAtEnd(t, s)
	opened := make(chan *Store)
	go func() {
		other, err := Open(dir, 0)
		if err != nil {
			t.Error(err)
		}
		opened <- other
	}()
	time.Sleep(20 * time.Millisecond) // it has opened the file, and waits for the lock
	before, err := os.Stat(s.path)
	if err != nil {
		t.Fatal(err)
	}
	mustDone(t, s, mustPut(t, s, testRecord("1", []byte("gone"))))
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if after, err := os.Stat(s.path); err == nil && !os.SameFile(before, after) {
			break
		}
	}
	seq := mustPut(t, s, testRecord("1", []byte("kept")))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if other := <-opened; other != nil {
		check(t, other, map[uint64][]byte{seq: []byte("kept")})
		_ = other.Close()
	}
}

// TestUnknown: after a transaction of which nobody knows whether it was written, what is in the file counts.
func TestUnknown(t *testing.T) {
	for _, written := range []bool{true, false} {
		t.Run(fmt.Sprint("written ", written), func(t *testing.T) {
			s, err := open(t.TempDir(), 0, idleTime) // without a writer: the test does its work
			if err != nil {
				t.Fatal(err)
			}
			do := func(j *job) *job {
				s.enqueue(j)
				s.batch()
				return j
			}
			put := func(instance, body string) *job {
				return do(newPut(testRecord(instance, []byte(body)), 0))
			}
			put("1", "old")
			put("2", "old")
			known, last, orders := s.known, s.last+2, s.control
			if written {
				put("1", "new")
				put("2", "new")
				do(&job{removes: 1, ended: make(chan struct{})})
				do(&job{control: &queue.Control{Draining: true}, ended: make(chan struct{})})
				// As it was before, but for the file.
				s.index, s.stored, s.control = newIndex(), 0, orders
				for seq, instance := range []string{1: "1", 2: "2"} {
					if seq > 0 {
						s.index.add(uint64(seq), summary{instance: instance, size: 3}, false)
						s.stored++
					}
				}
			}
			s.failed, s.known, s.last = true, known, last

			if j := do(&job{removes: 1, ended: make(chan struct{})}); j.err != nil {
				t.Error(j.err)
			}
			if j := put("1", "new"); j.err != nil || j.duplicate != written {
				t.Errorf("duplicate %v, error %v", j.duplicate, j.err)
			}
			if j := put("2", "other"); j.err != nil || j.duplicate {
				t.Errorf("duplicate %v, error %v", j.duplicate, j.err)
			}
			if s.control.Draining != written {
				t.Errorf("control is %+v", s.control)
			}
			want := map[uint64][]byte{2: []byte("old"), 5: []byte("new"), 6: []byte("other")}
			if written {
				want = map[uint64][]byte{2: []byte("old"), 3: []byte("new"), 4: []byte("new"), 5: []byte("other")}
			}
			check(t, s, want)
			go s.write()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAbandoned: a Put whose context ends while its record is being written has stored it, and the next one of the
// same body is its duplicate.
func TestAbandoned(t *testing.T) {
	s := openStore(t, t.TempDir(), 0)
	mustPut(t, s, testRecord("1", []byte("before")))
	s.file.Writer <- struct{}{} // the disk stands still
	ctx, cancel := context.WithCancelCause(context.Background())
	hasEnded := errors.New("sender has gone")
	failed := make(chan error)
	r := testRecord("1", []byte("body"))
	go func() {
		_, err := s.Put(ctx, r, 0)
		failed <- err
	}()
	for begun := false; !begun; runtime.Gosched() {
		s.mu.Lock()
		begun = len(s.jobs) == 0 && s.crowd == 0
		s.mu.Unlock()
	}
	time.Sleep(time.Millisecond)
	waiting := make(chan error)
	go func() { // comes too late for that transaction
		time.Sleep(time.Millisecond)
		_, err := s.Put(ctx, testRecord("2", []byte("late")), 0)
		waiting <- err
	}()
	time.Sleep(10 * time.Millisecond)
	cancel(hasEnded)
	for name, c := range map[string]chan error{"may have been stored": failed, "nothing was stored": waiting} {
		if err := <-c; !errors.Is(err, queue.ErrUnavailable) || !errors.Is(err, hasEnded) || !strings.Contains(err.Error(), name) {
			t.Errorf("got error %v, want one that says: %s", err, name)
		}
	}
	<-s.file.Writer
	duplicate, err := s.Put(context.Background(), r, 1) // the instance is full, too
	if err != nil || !duplicate {
		t.Errorf("duplicate %v, error %v", duplicate, err)
	}
	mustPut(t, s, r)
	if n := s.Stats().Entries; n != 3 {
		t.Errorf("%d records, want 3", n)
	}
}

// TestDuplicateDamaged: a record that cannot be read does not keep the sender's next one out.
func TestDuplicateDamaged(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, 0)
	seq := mustPut(t, s, testRecord("1", []byte("body")))
	err := s.file.DB.Update(func(tx *bolt.Tx) error {
		value := bytes.Clone(tx.Bucket(bucketRecords).Get(recordKey(seq)))
		value[len(value)-1]++
		return putRecord(tx, seq, value, nil)
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, 0)
	if _, err := (&share{store: s}).Load(seq); !errors.Is(err, queue.ErrDamaged) {
		t.Errorf("Load: %v", err)
	}
	next := mustPut(t, s, testRecord("1", []byte("body")))
	mustDone(t, s, seq)
	check(t, s, map[uint64][]byte{next: []byte("body")})
}

// TestSkipDamaged: a lane can go on behind a record that cannot be read.
func TestSkipDamaged(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, 0)
	seq := mustPut(t, s, testRecord("1", []byte("body")))
	mustPut(t, s, testRecord("1", []byte("next")))
	err := s.file.DB.Update(func(tx *bolt.Tx) error {
		value := bytes.Clone(tx.Bucket(bucketRecords).Get(recordKey(seq)))
		value[len(value)-1]++
		return putRecord(tx, seq, value, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.recent = newRecent() // so that it is read from the file
	delivered := make(chan string, 1)
	failed := make(chan error, 1)
	d := queue.New(s, queue.Hooks{
		Deliver: func(d queue.Delivery) queue.Result {
			delivered <- string(d.Body)
			return queue.Result{Outcome: queue.Delivered}
		},
		Failed: func(err error) { failed <- err },
	})
	d.Configure(map[string]queue.Options{testRecord("1", nil).Block: {InFlight: 1, Retry: []time.Duration{time.Hour}}})
	d.Start()
	defer d.Close(t.Context())
	if err := <-failed; !errors.Is(err, queue.ErrDamaged) {
		t.Error(err)
	}
	for d.Lanes()[0].State != queue.StateWaiting {
		time.Sleep(time.Millisecond)
	}
	if err := d.Skip(d.Lanes()[0].ID, seq); !errors.Is(err, queue.ErrGone) {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, queue.ErrDamaged) {
		t.Error(err)
	}
	if body := <-delivered; body != "next" {
		t.Error(body)
	}
}
