package quarantine

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// byInstance has a share for each instance, and none for what no handler took.
func byInstance(e Entry) (string, bool) { return e.Instance, e.Reason != "undeliverable" }

func openShared(t *testing.T, dir string) *Store {
	t.Helper()
	s := openUnsynced(t, dir)
	s.ShareBy(byInstance)
	return s
}

const testShare = 3 << 18

// fill puts entries of an instance until its share is full, and returns them.
func fill(t *testing.T, s *Store, instance string, body func() []byte) (bodies map[string][]byte) {
	t.Helper()
	bodies = make(map[string][]byte)
	for {
		e := testEntry(body())
		e.Instance = instance
		id, err := s.PutShare(e, 4*testShare, testShare)
		if errors.Is(err, ErrShare) {
			return bodies
		}
		if err != nil {
			t.Fatal(err)
		}
		bodies[id] = e.Body
	}
}

// TestShare: one instance fills its share and no more, whatever the sizes of its bodies; others, and
// what counts against none, have the rest.
func TestShare(t *testing.T) {
	const maxShare = testShare
	for name, sizes := range map[string]func(rnd *rand.Rand) int{
		"short":   func(*rand.Rand) int { return 300 },
		"awkward": func(*rand.Rand) int { return 2500 },
		"inline":  func(*rand.Rand) int { return inlineMax },
		"long":    func(*rand.Rand) int { return 100_000 },
		"mixed":   func(rnd *rand.Rand) int { return 1 << rnd.IntN(18) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(1, 2))
			body := func() []byte { return testBody(sizes(rnd)) }
			dir := t.TempDir()
			s := openShared(t, dir)
			empty := s.Stats().Bytes
			bodies := fill(t, s, "1101000001", body)
			used := s.Stats().Bytes - empty
			if used > maxShare*21/20 || used < maxShare*3/4 {
				t.Errorf("%d bytes in use, %d are the share", used, maxShare)
			}
			other := fill(t, s, "1101000002", body)
			if len(other) < len(bodies)/2 {
				t.Errorf("%d of another instance, %d of the first", len(other), len(bodies))
			}
			uncounted := testEntry(testBody(1000))
			uncounted.Reason = "undeliverable"
			mustPut(t, s, uncounted)
			if _, err := s.PutShare(uncounted, 0, maxShare); err != nil {
				t.Errorf("counts against none: %v", err)
			}
			if _, err := s.PutShare(testEntry(body()), 0, 0); err != nil {
				t.Errorf("without a bound: %v", err)
			}

			// It is known again when the file is opened, and what is deleted makes room.
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openShared(t, dir)
			before := s.Stats().Bytes
			maps.Copy(bodies, fill(t, s, "1101000001", body)) // in what was left
			if more := s.Stats().Bytes - before; more > maxShare/8 {
				t.Errorf("%d bytes more after opening it again", more)
			}
			ids := slices.Collect(maps.Keys(bodies))
			if _, err := s.Delete(append(ids, ids...)...); err != nil {
				t.Fatal(err)
			}
			if more := fill(t, s, "1101000001", body); len(more) < len(bodies)*3/4 {
				t.Errorf("%d after deleting %d", len(more), len(bodies))
			}
		})
	}
}

// TestShareTogether: Puts at once do not take a share past its limit, and what failed counts for nothing.
func TestShareTogether(t *testing.T) {
	const maxShare = 1 << 20
	s := openShared(t, t.TempDir())
	var full sync.Map
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := range 40 {
				e := testEntry(testBody(20_000 + w*i))
				e.Instance = fmt.Sprint(w % 2)
				_, err := s.PutShare(e, 0, maxShare)
				if errors.Is(err, ErrShare) {
					full.Store(e.Instance, true)
				} else if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, instance := range []string{"0", "1"} {
		if _, ok := full.Load(instance); !ok {
			t.Errorf("share of %s is not full: the test shows nothing", instance)
		}
	}
	if st := s.Stats(); st.Bytes > 2*maxShare*21/20+64<<10 {
		t.Errorf("%d bytes in use, %d are allowed", st.Bytes, 2*maxShare)
	}
	counted := s.shares.used
	s.shares.used = nil
	if err := s.countShares(); err != nil || fmt.Sprint(s.shares.used) != fmt.Sprint(counted) {
		t.Errorf("kept count %v, counted anew %v, error %v", counted, s.shares.used, err)
	}
}

// TestShareFirst: one that is written together with the first that has a share counts, too.
func TestShareFirst(t *testing.T) {
	s := openShared(t, t.TempDir())
	var puts sync.WaitGroup
	queued := func(n int) {
		for {
			s.queueMu.Lock()
			have := len(s.queue)
			s.queueMu.Unlock()
			if have == n {
				return
			}
			runtime.Gosched()
		}
	}
	s.writer <- struct{}{} // so that both are in one batch
	for i, maxShare := range []int64{0, 1 << 20} {
		puts.Go(func() {
			if _, err := s.PutShare(testEntry(testBody(20_000)), 0, maxShare); err != nil {
				t.Error(err)
			}
		})
		queued(i + 1)
	}
	<-s.writer
	puts.Wait()
	counted := s.shares.used
	s.shares.used = nil
	if err := s.countShares(); err != nil || fmt.Sprint(s.shares.used) != fmt.Sprint(counted) {
		t.Errorf("kept count %v, counted anew %v, error %v", counted, s.shares.used, err)
	}
}

// TestShareAfterFailure: after a write of which nobody knows whether it is on the disk, it is counted anew.
func TestShareAfterFailure(t *testing.T) {
	s := openShared(t, t.TempDir())
	if _, err := s.PutShare(testEntry(testBody(10)), 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	s.writer <- struct{}{}
	err := s.update(0, func(*bolt.Tx) error { return errors.New("disk fails") })
	<-s.writer
	if err == nil || s.shares.used != nil {
		t.Errorf("error %v, count %v", err, s.shares.used)
	}
	if _, err := s.PutShare(testEntry(testBody(10)), 0, 1<<20); err != nil || len(s.shares.used) != 1 {
		t.Errorf("error %v, count %v", err, s.shares.used)
	}
}
