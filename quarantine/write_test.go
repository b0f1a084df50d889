package quarantine

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// TestConcurrency shows that Puts at one time share their syncs.
func TestConcurrency(t *testing.T) {
	const writers, each = 64, 8
	s := openStore(t, t.TempDir())
	if s.file.DB.NoSync || s.file.DB.NoGrowSync || s.file.DB.NoFreelistSync {
		t.Error("syncs are off")
	}
	var mu sync.Mutex
	bodies := map[string][]byte{}
	before := transactions(s)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				body := fmt.Appendf(nil, "%d %d", w, i)
				id, err := s.Put(testEntry(body), 1<<30)
				if err != nil {
					t.Error(err)
					return
				}
				e, err := s.Get(id)
				if err != nil || !bytes.Equal(e.Body, body) {
					t.Errorf("read after write: %q, error %v", e.Body, err)
				}
				mu.Lock()
				bodies[id] = body
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(bodies) != writers*each {
		t.Errorf("%d IDs, want %d", len(bodies), writers*each)
	}
	checkEntries(t, s, bodies)
	if n := transactions(s) - before; n > writers*each/4 {
		t.Errorf("%d puts took %d transactions: they do not share", writers*each, n)
	} else {
		t.Logf("%d puts took %d transactions of two syncs", writers*each, n)
	}
}

func TestClose(t *testing.T) {
	s := openStore(t, t.TempDir())
	bodies := map[string][]byte{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			body := testBody(i * 1000)
			id, err := s.Put(testEntry(body), 0)
			if err != nil && !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
			if err == nil {
				mu.Lock()
				bodies[id] = body
				mu.Unlock()
			}
		})
	}
	time.Sleep(time.Millisecond)
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	wg.Wait()
	_, errPut := s.Put(Entry{}, 0)
	_, errGet := s.Get("x")
	_, errList := s.List("", 1)
	_, errDelete := s.Delete("x")
	for _, err := range []error{errPut, errGet, errList, errDelete, s.Scrub()} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: got error %v", err)
		}
	}
	checkEntries(t, openStore(t, filepath.Dir(s.path)), bodies)
}
