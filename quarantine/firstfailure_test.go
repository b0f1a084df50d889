package quarantine

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

func firstFailure(n uint64, at time.Time) (f FirstFailure) {
	binary.BigEndian.PutUint64(f.Key[:], n)
	f.At = at
	return f
}

// TestFirstFailures: what is saved is there when the file is opened again, beside the entries, which do
// not mind.
func TestFirstFailures(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	if all, err := s.FirstFailures(); err != nil || len(all) != 0 {
		t.Fatalf("of a new file: %v, %v", all, err)
	}
	id, err := s.Put(testEntry([]byte("a body")), 0)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_790_000_000, 0).UTC()
	one, two, three := firstFailure(1, at), firstFailure(2, at.Add(-time.Hour)), firstFailure(3, time.Unix(-5, 0).UTC())
	for _, change := range []struct {
		set    []FirstFailure
		remove [][KeySize]byte
	}{
		{set: []FirstFailure{one, two}},
		{set: []FirstFailure{firstFailure(2, at), three}, remove: [][KeySize]byte{one.Key, {99}}},
		{set: []FirstFailure{two}},
	} {
		if err := s.SaveFirstFailures(change.set, change.remove, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	all, err := s.FirstFailures()
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	for _, f := range all {
		if f != two && f != three {
			t.Errorf("%v", f)
		}
	}
	if e, err := s.Get(id); err != nil || string(e.Body) != "a body" || s.Stats().Entries != 1 {
		t.Errorf("entry %v, %v", e, err)
	}
	if list, err := s.List("", 10); err != nil || len(list) != 1 {
		t.Errorf("list %v, %v", list, err)
	}
}

// TestFirstFailuresMany: many take little room, and when there is no room
// for them nothing else suffers.
func TestFirstFailuresMany(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	rnd := rand.New(rand.NewPCG(1, 2))
	many := make([]FirstFailure, 0, 20_000)
	for len(many) < cap(many) {
		f := firstFailure(rnd.Uint64(), time.Unix(1_790_000_000, 0))
		binary.BigEndian.PutUint64(f.Key[8:], rnd.Uint64())
		many = append(many, f)
	}
	if err := s.SaveFirstFailures(many, nil, 1<<20); !errors.Is(err, ErrFull) {
		t.Errorf("into 1 MiB: %v", err)
	}
	if _, err := s.Put(testEntry([]byte("a body")), 1<<20); err != nil {
		t.Error(err)
	}
	if err := s.SaveFirstFailures(many, nil, 1<<30); err != nil {
		t.Fatal(err)
	}
	if used := s.Stats().Bytes; used > 2<<20 {
		t.Errorf("they take %d bytes", used)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir) // each page is looked at
	if all, err := s.FirstFailures(); err != nil || len(all) != len(many) {
		t.Errorf("%d, %v", len(all), err)
	}
}

// TestFirstFailuresForeign: what somebody else has put there is passed over.
func TestFirstFailuresForeign(t *testing.T) {
	s := openUnsynced(t, t.TempDir())
	if err := s.SaveFirstFailures([]FirstFailure{firstFailure(1, time.Unix(7, 0))}, nil, 0); err != nil {
		t.Fatal(err)
	}
	err := s.file.DB.Update(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(bucketFailing)
		return errors.Join(bucket.Put([]byte("short"), []byte("12345678")), bucket.Put(make([]byte, KeySize), []byte("1")))
	})
	if err != nil {
		t.Fatal(err)
	}
	if all, err := s.FirstFailures(); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
}
