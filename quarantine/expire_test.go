package quarantine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// aging is a store in which entries expire, and what is told of it.
type aging struct {
	*Expiry
	t   *testing.T
	dir string

	mu     sync.Mutex
	told   []string
	broken error // of Open
}

func newAging(t *testing.T, maxAge time.Duration) *aging {
	x := &aging{t: t, dir: t.TempDir()}
	x.Expiry = &Expiry{
		MaxAge: maxAge, Clock: new(WallClock),
		Open: func() (*Store, func(), error) {
			x.mu.Lock()
			defer x.mu.Unlock()
			if x.broken != nil {
				return nil, nil, x.broken
			}
			store, err := Open(x.dir)
			if err != nil {
				return nil, nil, err
			}
			return store, func() { x.must(store.Close()) }, nil
		},
		ClockSet: func(by time.Duration) { x.tell("clock set by %s", by) },
		Soon:     func(count int, first Entry, _ time.Time) { x.tell("%d soon, first %s", count, first.NotificationID) },
		Deleted:  func(count int) { x.tell("%d deleted", count) },
		Failed:   func(err error) { x.tell("failed: %v", err) },
	}
	return x
}

func (x *aging) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *aging) tell(format string, args ...any) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.told = append(x.told, fmt.Sprintf(format, args...))
}

// breaks makes Open fail with an error, or work again.
func (x *aging) breaks(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.broken = err
}

// with calls do with the store.
func (x *aging) with(do func(*Store) error) {
	x.t.Helper()
	store, release, err := x.Open()
	x.must(err)
	defer release()
	x.must(do(store))
}

// put adds entries of an age, in the order of their names.
func (x *aging) put(now time.Time, ages map[string]time.Duration, names ...string) {
	x.t.Helper()
	x.with(func(store *Store) error {
		for _, name := range names {
			if _, err := store.Put(Entry{Received: now.Add(-ages[name]), NotificationID: name, Body: []byte("body of " + name)}, 0); err != nil {
				return err
			}
		}
		return nil
	})
}

// left returns the names of the entries in the store.
func (x *aging) left() string {
	x.t.Helper()
	var names []string
	x.with(func(store *Store) error {
		return new(Filter).Each(store, func(e Entry) error { names = append(names, e.NotificationID); return nil })
	})
	return strings.Join(names, " ")
}

// wants fails the test unless so many are left, and that was told since the last call.
func (x *aging) wants(left string, told ...string) {
	x.t.Helper()
	if got := x.left(); got != left {
		x.t.Errorf("left %q, want %q", got, left)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if !slices.Equal(x.told, told) {
		x.t.Errorf("told %q, want %q", x.told, told)
	}
	x.told = nil
}

// hasInFile reports whether the file has a text in it.
func (x *aging) hasInFile(text string) bool {
	x.t.Helper()
	raw, err := os.ReadFile(filepath.Join(x.dir, FileName))
	x.must(err)
	return bytes.Contains(raw, []byte(text))
}

const day = 24 * time.Hour

// TestExpiry: in a week's time, what is older than a week is deleted and leaves nothing behind, and what will be
// within two days is told at each look.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newAging(t, 7*day)
		x.put(time.Now(), map[string]time.Duration{"OLD": 8 * day, "SOON": 6*day + 12*time.Hour, "NEXT": 5*day + 12*time.Hour, "NEW": time.Hour}, "OLD", "SOON", "NEXT", "NEW")
		ctx, stop := context.WithCancel(t.Context())
		go x.Run(ctx, false)
		synctest.Wait()
		x.wants("SOON NEXT NEW", "2 soon, first SOON", "1 deleted")
		if x.hasInFile("body of OLD") || !x.hasInFile("body of SOON") {
			t.Error("the file still has what was deleted, or has lost what was not")
		}
		time.Sleep(11*time.Hour + time.Minute)
		synctest.Wait()
		x.wants("SOON NEXT NEW", slices.Repeat([]string{"2 soon, first SOON"}, 11)...)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		x.wants("NEXT NEW", "2 soon, first SOON", "1 soon, first NEXT", "1 deleted")
		stop()
		time.Sleep(30 * day)
		x.wants("NEXT NEW")
	})
}

// TestExpiryShort: what is to be deleted within two days of its receipt is told of no further.
func TestExpiryShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newAging(t, time.Second)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go x.Run(ctx, false)
		x.put(time.Now(), nil, "ONE")
		time.Sleep(950 * time.Millisecond)
		synctest.Wait()
		x.wants("ONE")
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		x.wants("", "1 deleted")
	})
}

// TestExpiryDoubt: while the clock is in doubt nothing is deleted, and what would be is told.
func TestExpiryDoubt(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	x := newAging(t, 7*day)
	x.put(now, map[string]time.Duration{"OLD": 8 * day, "SOON": 6 * day, "NEW": time.Hour}, "OLD", "SOON", "NEW")
	x.Clock.set, x.Clock.seen = now.Add(-time.Hour), now
	x.tick(now)
	x.wants("OLD SOON NEW", "2 soon, first OLD")
	x.Clock.seen = now.Add(ExpiryNotice)
	x.tick(now.Add(ExpiryNotice))
	x.wants("NEW", "2 deleted")
	x.Clock.look(now.Add(-day), 0, 0) // set back
	x.tick(now.Add(-day))
	x.wants("NEW")
}

// TestExpiryWipes: what a deletion left behind, because of a kill or of a disk that failed, is wiped at the next
// occasion, with a maximum age and without.
func TestExpiryWipes(t *testing.T) {
	for _, test := range []struct {
		maxAge time.Duration
		due    bool
		after  time.Duration // it is wiped
	}{{0, true, 0}, {0, false, time.Hour}, {day, false, 0}} {
		synctest.Test(t, func(t *testing.T) {
			x := newAging(t, test.maxAge)
			x.put(time.Now(), nil, "OLD", "NEW")
			x.with(func(store *Store) error {
				list, err := store.List("", 1)
				if err == nil {
					_, err = store.Delete(list[0].ID)
				}
				return err
			})
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			go x.Run(ctx, test.due)
			if test.after > 0 {
				time.Sleep(test.after - time.Second)
				synctest.Wait()
				if !x.hasInFile("body of OLD") {
					t.Errorf("%+v: wiped sooner", test)
				}
				time.Sleep(2 * time.Second)
			}
			synctest.Wait()
			if x.hasInFile("body of OLD") {
				t.Errorf("%+v: the file still has what was deleted", test)
			}
			x.wants("NEW")
		})
	}
}

// TestExpiryFails: what cannot be done is told, and tried again.
func TestExpiryFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newAging(t, 20*time.Hour)
		x.put(time.Now(), map[string]time.Duration{"OLD": day}, "OLD")
		x.breaks(errors.New("no disk"))
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go x.Run(ctx, false)
		time.Sleep(time.Hour + time.Minute)
		synctest.Wait()
		x.breaks(nil)
		x.wants("OLD", "failed: no disk", "failed: no disk")
		time.Sleep(time.Hour)
		synctest.Wait()
		x.wants("", "1 deleted")
	})
}
