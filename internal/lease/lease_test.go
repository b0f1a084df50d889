package lease

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slowStorage is a storage in memory that takes the time that the test says.
type slowStorage struct {
	before, after func(op, key string) time.Duration // the file is read or written

	*disk
}

// disk is the files of a storage in memory.
type disk struct {
	mu    sync.Mutex
	files map[string]string
	open  sync.WaitGroup // what is on its way, also if nobody waits for it any longer
}

func newDisk() *disk { return &disk{files: make(map[string]string)} }

// text is what stands in a file, "" if there is none.
func (d *disk) text(key string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.files[key]
}

var errGivenUp = errors.New("timed out")

// at does something to the files, after the one delay and before the other. What is given up lands
// all the same.
func (s *slowStorage) at(ctx context.Context, op, key string, do func()) error {
	done := make(chan struct{})
	s.open.Go(func() {
		defer close(done)
		if s.before != nil {
			time.Sleep(s.before(op, key))
		}
		s.mu.Lock()
		do()
		s.mu.Unlock()
		if s.after != nil {
			time.Sleep(s.after(op, key))
		}
	})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return errGivenUp
	}
}

func (s *slowStorage) Load(ctx context.Context, key string) ([]byte, error) {
	text, found := make(chan string, 1), make(chan bool, 1)
	if err := s.at(ctx, "load", key, func() { value, there := s.files[key]; text <- value; found <- there }); err != nil {
		return nil, err
	}
	if !<-found {
		return nil, fs.ErrNotExist
	}
	return []byte(<-text), nil
}

func (s *slowStorage) Store(ctx context.Context, key string, value []byte) error {
	return s.at(ctx, "store", key, func() { s.files[key] = string(value) })
}

func (s *slowStorage) Delete(ctx context.Context, key string) error {
	return s.at(ctx, "delete", key, func() { delete(s.files, key) })
}

func TestTimes(t *testing.T) {
	if err := DefaultTimes().check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Times){
		"settle": func(l *Times) { l.Settle = l.Look }, "dead": func(l *Times) { l.Dead = l.Answer + l.Beat },
		"half": func(l *Times) { l.Beat, l.Answer = l.Dead/2, time.Second },
	} {
		times := DefaultTimes()
		if change(&times); times.check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// claim returns an edge's lease of the one instance, in a storage.
func claim(e *Edge, files Storage) *Lease {
	store := NewStore(files)
	return e.Claim("1", func() *Store { return store })
}

// TestSlowWrite: a write that lands after another edge has taken the lease does not give both of them
// the lease.
func TestSlowWrite(t *testing.T) {
	for _, took := range []time.Duration{time.Second, 4 * time.Second, 9 * time.Second, 11 * time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			files := &slowStorage{disk: newDisk()}
			slow := &slowStorage{disk: files.disk}
			slow.before = func(op, key string) time.Duration {
				if op == "store" && strings.HasPrefix(key, Prefix) {
					return took
				}
				return 0
			}
			a, b := claim(NewEdge(DefaultTimes()), files), claim(NewEdge(DefaultTimes()), slow)
			var late sync.WaitGroup
			var bMine bool
			var bAt time.Time
			late.Go(func() {
				_, _ = b.Take(t.Context()) // it is given up after 10 s
				bMine, _ = b.Take(t.Context())
				bAt = time.Now()
			})
			time.Sleep(30 * time.Millisecond)
			if mine, err := a.Take(t.Context()); err == nil && mine {
				for until := time.Now().Add(2 * time.Minute); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
					if mine, err := a.Held(); err != nil || !mine {
						break
					}
				}
			}
			aEnd := time.Now()
			late.Wait()
			a.Release()
			b.Release()
			files.open.Wait()
			if bMine && bAt.Before(aEnd) {
				t.Errorf("a write of %s: the second leads %s before the first has learnt that it does not", took, aEnd.Sub(bAt))
			}
		})
	}
}

// side is what the edges of a test do: it finds two that go on side by side.
type side struct {
	mu      sync.Mutex
	now     string
	ended   map[string]bool
	changes int
	both    []string
}

// begins is called by an edge that begins with a notification, with what names its lead.
func (s *side) begins(lead string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == lead {
		return
	}
	if s.ended[lead] {
		s.both = append(s.both, lead)
	}
	s.ended[s.now], s.now = true, lead
	s.changes++
}

// TestSideBySide lets three edges with a slow, unreliable storage stand still, give up and take leases
// for hours, and none begins with a notification after another has taken over. That does not depend on
// signs of life: without any, each takes the lease as soon as it tries.
func TestSideBySide(t *testing.T) {
	for name, lives := range map[string]bool{"with signs of life": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { sideBySide(t, lives) })
		})
	}
}

func sideBySide(t *testing.T, lives bool) {
	times := DefaultTimes()
	chance := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	random := func(n time.Duration) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration(chance.Int64N(int64(n)))
	}
	delay := func(op, _ string) time.Duration {
		switch n := random(10); {
		case n == 0 && op == "store":
			return random(2 * times.Answer) // many are given up, and land all the same
		case n == 0:
			return random(times.Answer)
		case n < 5:
			return random(times.Look)
		}
		return random(10 * time.Millisecond)
	}
	files := &slowStorage{disk: newDisk(), before: delay, after: delay}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Hour)
	defer cancel()
	found := &side{ended: make(map[string]bool)}
	var edges sync.WaitGroup
	for range 3 {
		edges.Go(func() { runEdge(ctx, times, files, lives, random, found) })
	}
	edges.Wait()
	files.open.Wait()
	if len(found.both) > 0 || found.changes < 100 {
		t.Errorf("%d times two went on side by side, among %d changes", len(found.both), found.changes)
	}
}

// still is the storage of an edge that shows no sign of life for a while, or never.
type still struct {
	Storage
	now atomic.Bool
}

func (s *still) Store(ctx context.Context, key string, value []byte) error {
	if strings.HasPrefix(key, EdgePrefix) && s.now.Load() {
		return nil
	}
	return s.Storage.Store(ctx, key, value)
}

// runEdge is an edge that receives for one instance, without the API.
func runEdge(ctx context.Context, times Times, files Storage, lives bool, random func(time.Duration) time.Duration, found *side) {
	e := NewEdge(times)
	signs := &still{Storage: files}
	signs.now.Store(!lives)
	l := claim(e, signs)
	defer l.Release()
	for lead := 0; ctx.Err() == nil; lead++ {
		if mine, err := l.Take(ctx); err != nil || !mine {
			time.Sleep(random(4 * times.Look))
			continue
		}
		for {
			if mine, err := l.Held(); err != nil || !mine {
				break
			}
			found.begins(fmt.Sprint(e.ID, lead))
			time.Sleep(random(time.Second))
			switch random(100) {
			case 0:
				signs.now.Store(true)
				time.Sleep(2 * times.Dead)
				signs.now.Store(!lives)
			case 1:
				l.giveUp()
			}
		}
	}
}

// TestOtherStorage: an edge whose config names another storage shows in that one that it is alive,
// before it takes a lease there; and it takes no lease over into it.
func TestOtherStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		times := DefaultTimes()
		one, two := &slowStorage{disk: newDisk()}, &slowStorage{disk: newDisk()}
		var store atomic.Pointer[Store]
		store.Store(NewStore(one))
		a := NewEdge(times)
		lead := a.Claim("1", store.Load)
		defer lead.Release()
		take := func() {
			t.Helper()
			if mine, err := lead.Take(t.Context()); err != nil || !mine {
				t.Fatal(mine, err)
			}
		}
		take()
		store.Store(NewStore(one))
		if mine, err := lead.Held(); err != nil || !mine {
			t.Errorf("a reload with the same storage ends the lease: %t, %v", mine, err)
		}
		store.Store(NewStore(two))
		if mine, err := lead.Held(); err != nil || mine {
			t.Errorf("the lease is taken over into a storage that it is not of: %t, %v", mine, err)
		}
		if one.text(Prefix+"1") != "" {
			t.Error("the lease is still in the old storage")
		}
		take()
		bs := claim(NewEdge(times), two)
		defer bs.Release()
		for range 5 { // times.Dead is not over
			if mine, err := bs.Take(t.Context()); mine || err != nil {
				t.Errorf("the second takes the lease of one that lives: %t, %v", mine, err)
			}
			time.Sleep(times.Look)
		}
	})
}

// TestTakeover: another edge takes over from one that is killed once it looks dead, and at once from
// one that releases its lease.
func TestTakeover(t *testing.T) {
	times := DefaultTimes()
	for name, test := range map[string]struct {
		kill      bool
		min, most time.Duration
	}{
		"killed":   {true, times.Dead, times.Dead + times.Beat + 2*times.Look + times.Settle},
		"released": {false, times.Settle, times.Look + times.Settle},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				files := &slowStorage{disk: newDisk()}
				killed := &still{Storage: files}
				a, b := claim(NewEdge(times), killed), claim(NewEdge(times), files)
				defer b.Release()
				if mine, err := a.Take(t.Context()); err != nil || !mine {
					t.Fatal(mine, err)
				}
				for range 30 { // longer than Dead: the heart beats
					if mine, err := b.Take(t.Context()); err != nil || mine {
						t.Fatal("two hold the lease:", mine, err)
					}
					time.Sleep(times.Look)
				}
				began := time.Now()
				if killed.now.Store(test.kill); test.kill {
					defer a.Release()
				} else if a.Release(); files.text(EdgePrefix+a.edge.ID) != "" {
					t.Error("it still looks alive")
				}
				for {
					mine, err := b.Take(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if mine {
						break
					}
					time.Sleep(times.Look)
				}
				if took := time.Since(began); took < test.min || took > test.most {
					t.Errorf("after %s, want %s to %s", took, test.min, test.most)
				}
				if mine, err := a.Held(); err != nil || mine {
					t.Errorf("the first still has it: %t, %v", mine, err)
				}
			})
		})
	}
}

// TestPanic: a panic in a storage is an error, and a storage that hangs is given up.
func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := &slowStorage{disk: newDisk(), before: func(string, string) time.Duration { return time.Minute }}
		for want, files := range map[string]Storage{"panic:": Storage(nil), errGivenUp.Error(): hangs} {
			l := claim(NewEdge(DefaultTimes()), files)
			began := time.Now()
			if mine, err := l.Take(t.Context()); mine || err == nil || !strings.Contains(err.Error(), want) || time.Since(began) > DefaultTimes().Answer {
				t.Errorf("%t, %v after %s; want %s", mine, err, time.Since(began), want)
			}
			l.Release()
		}
		hangs.open.Wait()
	})
}
