package quarantine

import (
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestShared: a shared store is opened by the first who needs it, and closed once.
func TestShared(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "quarantine")
	opened, closing := 0, 0
	s := NewShared(dir, func(store *Store) func() {
		opened++
		return func() {
			closing++
			if _, err := store.List("", 1); err != nil {
				t.Errorf("when it is about to be closed: %v", err)
			}
		}
	})
	if s.Stats() != (Stats{}) || s.Close() != nil || opened+closing > 0 {
		t.Error("it is open before it is needed")
	}
	first, err := s.Open()
	if err != nil {
		t.Fatal(err)
	}
	if second, err := s.Open(); second != first || err != nil || opened != 1 {
		t.Errorf("opened %d times, error %v", opened, err)
	}
	if _, err := first.Put(Entry{Body: []byte("{}")}, 0); err != nil || s.Stats().Entries != 1 {
		t.Errorf("%+v, error %v", s.Stats(), err)
	}
	if err := s.Close(); err != nil || closing != 1 {
		t.Errorf("closed %d times, error %v", closing, err)
	}
	if _, err := first.List("", 1); !errors.Is(err, ErrClosed) {
		t.Errorf("after it was closed: %v", err)
	}
}

// TestSharedLocked: a store that another holds is opened once that one has closed it, or refused after a while.
func TestSharedLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		other, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		s := NewShared(dir, func(*Store) func() { return func() {} })
		began := time.Now()
		if _, err := s.Open(); !errors.Is(err, ErrLocked) || time.Since(began) < 3*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		time.AfterFunc(3*time.Second/2, func() { _ = other.Close() })
		if _, err := s.Open(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
