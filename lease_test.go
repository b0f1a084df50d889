package greenapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/standin"
)

// slowStorage is a storage in memory that takes the time that the test says.
type slowStorage struct {
	certmagic.Storage
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

func TestLeaseTimes(t *testing.T) {
	if err := defaultLeaseTimes().check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*leaseTimes){
		"settle": func(l *leaseTimes) { l.settle = l.look }, "dead": func(l *leaseTimes) { l.dead = l.answer + l.beat },
		"half": func(l *leaseTimes) { l.beat, l.answer = l.dead/2, time.Second },
	} {
		times := defaultLeaseTimes()
		if change(&times); times.check() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestLeaseSlowWrite: a write that lands after another edge has taken the lease does not give both of
// them the lease.
func TestLeaseSlowWrite(t *testing.T) {
	for _, took := range []time.Duration{time.Second, 4 * time.Second, 9 * time.Second, 11 * time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			times := defaultLeaseTimes()
			files := &slowStorage{disk: newDisk()}
			slow := &slowStorage{disk: files.disk}
			slow.before = func(op, key string) time.Duration {
				if op == "store" && strings.HasPrefix(key, leasePrefix) {
					return took
				}
				return 0
			}
			a := &lease{by: newClaimant(&times), store: &sharedStore{Storage: files}, instance: "1"}
			b := &lease{by: newClaimant(&times), store: &sharedStore{Storage: slow}, instance: "1"}
			var late sync.WaitGroup
			var bMine bool
			var bAt time.Time
			late.Go(func() {
				_, _ = b.take(t.Context()) // it is given up after 10 s
				bMine, _ = b.take(t.Context())
				bAt = time.Now()
			})
			time.Sleep(30 * time.Millisecond)
			if mine, err := a.take(t.Context()); err == nil && mine {
				for until := time.Now().Add(2 * time.Minute); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
					if mine, err := a.held(); err != nil || !mine {
						break
					}
				}
			}
			aEnd := time.Now()
			late.Wait()
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

// TestLeaseSideBySide lets three edges with a slow, unreliable storage stand still, give up and take
// leases for hours, and none begins with a notification after another has taken over. That does not
// depend on signs of life: without any, each takes the lease as soon as it tries.
func TestLeaseSideBySide(t *testing.T) {
	for name, lives := range map[string]bool{"with signs of life": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { sideBySide(t, lives) })
		})
	}
}

func sideBySide(t *testing.T, lives bool) {
	times := defaultLeaseTimes()
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
			return random(2 * times.answer) // many are given up, and land all the same
		case n == 0:
			return random(times.answer)
		case n < 5:
			return random(times.look)
		}
		return random(10 * time.Millisecond)
	}
	files := &slowStorage{disk: newDisk(), before: delay, after: delay}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Hour)
	defer cancel()
	found := &side{ended: make(map[string]bool)}
	var edges sync.WaitGroup
	for range 3 {
		edges.Go(func() { runEdge(ctx, &times, files, lives, random, found) })
	}
	edges.Wait()
	files.open.Wait()
	if len(found.both) > 0 || found.changes < 200 {
		t.Errorf("%d times two went on side by side, among %d changes", len(found.both), found.changes)
	}
}

// runEdge is an edge that receives for one instance, without the API.
func runEdge(ctx context.Context, times *leaseTimes, files certmagic.Storage, lives bool, random func(time.Duration) time.Duration, found *side) {
	l := &lease{by: newClaimant(times), store: &sharedStore{Storage: files}, instance: "1"}
	var still atomic.Bool
	var heart sync.WaitGroup
	heart.Go(func() {
		for ; lives && ctx.Err() == nil; time.Sleep(times.beat) {
			if !still.Load() {
				_ = l.by.showLife(l.store)
			}
		}
	})
	for lead := 0; ctx.Err() == nil; lead++ {
		if mine, err := l.take(ctx); err != nil || !mine {
			time.Sleep(random(4 * times.look))
			continue
		}
		for {
			if mine, err := l.held(); err != nil || !mine {
				break
			}
			found.begins(fmt.Sprint(l.by.id, lead))
			time.Sleep(random(time.Second))
			switch random(100) {
			case 0:
				still.Store(true)
				time.Sleep(2 * times.dead)
				still.Store(false)
			case 1:
				l.drop()
			}
		}
	}
	heart.Wait()
}

// TestLeaseOtherStorage: an edge whose config names another storage shows in that one that it lives,
// before it takes a lease there; and it takes none over into it.
func TestLeaseOtherStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		times := defaultLeaseTimes()
		one, two := &slowStorage{disk: newDisk()}, &slowStorage{disk: newDisk()}
		lead := func(c *claimant, s *slowStorage) *lease {
			l := &lease{by: c, store: &sharedStore{Storage: s}, instance: "1"}
			if err := c.stayAlive(l.store); err != nil {
				t.Fatal(err)
			}
			if mine, err := l.take(t.Context()); err != nil || !mine {
				t.Fatal(mine, err)
			}
			return l
		}
		a, b := newClaimant(&times), newClaimant(&times)
		before := lead(a, one)
		if again := before.in(&sharedStore{Storage: one}); again.led.IsZero() {
			t.Error("a reload with the same storage ends the lease")
		}
		other := before.in(&sharedStore{Storage: two})
		if !other.led.IsZero() {
			t.Error("the lease is taken over into a storage that it is not of")
		}
		if mine, err := other.held(); mine || err != nil {
			t.Error(mine, err)
		}
		lead(a, two)
		bs := &lease{by: b, store: &sharedStore{Storage: two}, instance: "1"}
		for range 5 { // times.dead is not over
			if mine, err := bs.take(t.Context()); mine || err != nil {
				t.Errorf("the second takes the lease of one that lives: %t, %v", mine, err)
			}
			time.Sleep(times.look)
		}
	})
}

// TestReceiveOtherStorage: after a reload that changes Caddy's storage, the edge has its lease and its
// sign of life in the new one, and none in the old one.
func TestReceiveOtherStorage(t *testing.T) {
	const instance = "1101000001"
	v := edgetest.NewVendor(t, standin.Options{}, instance)
	handler := edgetest.NewUpstream(t, 200, nil)
	dir := t.TempDir()
	config := func(name string) string {
		return edgetest.SiteWith("storage file_system "+filepath.Join(dir, name), "green_api {\n"+v.Receives(instance)+"reverse_proxy "+handler.Address+"\n}\nrespond 404\n")
	}
	names := func(name string) []string {
		files := &certmagic.FileStorage{Path: filepath.Join(dir, name)}
		var found []string
		for _, prefix := range []string{leasePrefix, edgePrefix} {
			keys, err := files.List(t.Context(), strings.TrimSuffix(prefix, "/"), false)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			found = append(found, keys...)
		}
		return found
	}
	want := []string{edgePrefix + thisEdge.id, leasePrefix + instance}
	e := edgetest.Start(t, config("one"))
	all := edgetest.NoteAll(v, instance, 1)
	edgetest.Eventually(t, "the first to be received", func() bool { return v.Queued(instance) == 0 })
	if err := e.Load(config("two")); err != nil {
		t.Fatal(err)
	}
	all = append(all, edgetest.NoteAll(v, instance, 1)...)
	edgetest.Eventually(t, "the second to be received", func() bool { return v.Queued(instance) == 0 })
	got := names("two")
	for _, name := range want {
		if !slices.Contains(got, name) {
			t.Errorf("in the new storage: %q, want %s", got, name)
		}
	}
	if got := names("one"); slices.Contains(got, leasePrefix+instance) {
		t.Errorf("in the old storage: %q", got)
	}
	handler.WantTaken(t, all)
}

// TestReceiveInHandAlive: a receiver that was told to stop shows that it lives as long as it has a
// notification in hand, or another edge would deliver that, too.
func TestReceiveInHandAlive(t *testing.T) {
	const instance = "1101000001"
	v := edgetest.NewVendor(t, standin.Options{}, instance)
	began, goOn := make(chan struct{}), make(chan struct{})
	handler := edgetest.NewUpstream(t, 0, func(http.ResponseWriter, *http.Request) {
		close(began)
		<-goOn
	})
	files := &certmagic.FileStorage{Path: t.TempDir()}
	config := func(receives string) string {
		return edgetest.SiteWith("storage file_system "+files.Path, "green_api {\n"+edgetest.Loopback+receives+"reverse_proxy "+handler.Address+"\n}\nrespond 404\n")
	}
	e := edgetest.Start(t, config(v.Receives(instance)))
	edgetest.NoteAll(v, instance, 1)
	<-began
	if err := e.Load(config("")); err != nil {
		t.Fatal(err)
	}
	sign := func() string {
		text, err := files.Load(t.Context(), edgePrefix+thisEdge.id)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	before := sign()
	time.Sleep(leasing.dead)
	if sign() == before {
		t.Error("it looks dead with a notification in hand")
	}
	close(goOn)
	edgetest.Eventually(t, "the notification to be deleted", func() bool { return v.Queued(instance) == 0 })
}
