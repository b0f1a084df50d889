package greenapi

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
)

// leaseTimes says how long it takes. Nobody knows how long a write to a storage takes, nor whether one
// that was given up still lands. That two edges do not receive side by side all the same rests on
// settle > look:
//
//   - A holder begins with a notification only if the lease had its name less than `look` ago, counted
//     from before it looked.
//   - Who takes a lease begins `settle` after its write has returned, or after it found its name there
//     without having led, and only if its name is still there.
//
// So when a name is replaced, by a write however late, its holder begins with nothing more than `look`
// later, and the one who replaced it has begun with nothing before `settle`. What the holder has in
// hand at that time it finishes; it is delivered twice at most, and no more than that.
//
// dead > beat + answer: a slow write alone does not make a holder look dead. If it did, the lease
// would wander, but still have one holder. dead/2 > beat: signs of life are written by the heart, not at
// each look.
type leaseTimes struct {
	beat   time.Duration // between two signs of life
	dead   time.Duration // without one, a holder is dead
	settle time.Duration // from taking a lease to the first notification
	look   time.Duration // for which a look at a lease is good, and between two of who stands by
	answer time.Duration // for the storage
}

func defaultLeaseTimes() leaseTimes {
	return leaseTimes{beat: 4 * time.Second, dead: 15 * time.Second, settle: 3 * time.Second, look: 2 * time.Second, answer: 10 * time.Second}
}

// leasing is the times of the process. Tests have less time.
var leasing = defaultLeaseTimes()

// check is an error if the times do not fit each other.
func (t leaseTimes) check() error {
	switch {
	case t.look <= 0 || t.settle <= t.look:
		return fmt.Errorf("settle %s is not above look %s, two edges could receive side by side", t.settle, t.look)
	case t.dead <= t.beat+t.answer:
		return fmt.Errorf("dead %s is not above beat %s and answer %s, a slow storage would move leases about", t.dead, t.beat, t.answer)
	case t.dead/2 <= t.beat:
		return fmt.Errorf("half of dead %s is not above beat %s, each look would write a sign of life", t.dead, t.beat)
	}
	return nil
}

const (
	leasePrefix = "green_api/receivers/"
	edgePrefix  = "green_api/edges/"
)

// A claimant is one of the edges that share a storage. Edges watch each other by their own clocks, so
// that these need not agree.
type claimant struct {
	id    string
	times *leaseTimes
	beats atomic.Int64 // signs of life, of which no two are the same

	mu   sync.Mutex
	seen map[string]sign // what other edges last showed of being alive
}

type sign struct {
	text  string
	since time.Time // that it is the same
}

func newClaimant(times *leaseTimes) *claimant {
	return &claimant{id: rand.Text(), times: times, seen: make(map[string]sign)}
}

// thisEdge is this process.
var thisEdge = newClaimant(&leasing)

// A sharedStore is Caddy's storage as a config has it. Another config may have another one, in which
// this edge has not yet shown that it lives.
type sharedStore struct {
	certmagic.Storage
	showing sync.Mutex // one sign at a time
	shown   atomic.Pointer[time.Time]
}

// showLife writes a sign of life.
func (c *claimant) showLife(s *sharedStore) error {
	s.showing.Lock()
	defer s.showing.Unlock()
	text := strconv.FormatInt(c.beats.Add(1), 10)
	if err := c.write(context.Background(), s, edgePrefix+c.id, text); err != nil {
		return err
	}
	now := time.Now()
	s.shown.Store(&now)
	return nil
}

// stayAlive makes sure that the last sign in a storage is not too old, as after the process stood still.
func (c *claimant) stayAlive(s *sharedStore) error {
	if last := s.shown.Load(); last != nil && passed(*last) < c.times.dead/2 {
		return nil
	}
	return c.showLife(s)
}

// takeLeave takes the sign of life away. The leases are given up before.
func (c *claimant) takeLeave(s *sharedStore) {
	s.showing.Lock()
	defer s.showing.Unlock()
	s.shown.Store(nil)
	_ = c.remove(s, edgePrefix+c.id) // or it is found dead
}

// passed is how long ago something was, also if the machine slept: the clock of durations may have
// slept, too.
func passed(since time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(since), now.Round(0).Sub(since.Round(0)).Abs())
}

// sees reports whether another edge has shown a sign of life since it was first looked at, or still
// has time to.
func (c *claimant) sees(s *sharedStore, id string) (bool, error) {
	text, err := c.read(s, edgePrefix+id)
	if err != nil || text == "" { // it has taken its leave
		return false, err
	}
	now := time.Now()
	c.mu.Lock()
	last, known := c.seen[id]
	changed := !known || last.text != text
	if changed {
		c.seen[id] = sign{text, now}
	}
	dead := !changed && now.Sub(last.since) >= c.times.dead
	if dead {
		delete(c.seen, id)
	}
	c.mu.Unlock()
	if !dead {
		return true, nil
	}
	return false, c.remove(s, edgePrefix+id) // so that nobody waits again
}

// A lease says which of the edges that share Caddy's storage receives for an instance. It is a file
// in the storage with the name of its holder, and each holder shows in a file of its own that it is
// alive: one write for all its leases. It is not the storage's own Lock, of which nobody learns that
// it was lost, as by a machine that stood still for a while, and which a reload may close.
type lease struct {
	by       *claimant
	store    *sharedStore
	instance string
	led      time.Time // when it was last seen to be ours, from before the look; zero for not
}

func (l *lease) key() string { return leasePrefix + l.instance }

// take takes the lease if nobody who is alive has it.
func (l *lease) take(ctx context.Context) (bool, error) {
	l.led = time.Time{}
	holder, err := l.by.read(l.store, l.key())
	if err != nil {
		return false, err
	}
	if holder != "" && holder != l.by.id {
		if lives, err := l.by.sees(l.store, holder); err != nil || lives {
			return false, err
		}
	}
	if holder != l.by.id {
		if err := l.by.write(ctx, l.store, l.key(), l.by.id); err != nil {
			return false, err
		}
	}
	select {
	case <-time.After(l.by.times.settle):
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return l.look()
}

// held reports whether a lease that was taken is not lost, as by standing still for long. It looks
// seldom.
func (l *lease) held() (bool, error) {
	if l.led.IsZero() {
		return false, nil
	}
	if passed(l.led) < l.by.times.look {
		return true, nil
	}
	return l.look()
}

// look reads whose the lease is.
func (l *lease) look() (bool, error) {
	began := time.Now()
	l.led = time.Time{}
	holder, err := l.by.read(l.store, l.key())
	if err != nil || holder != l.by.id {
		return false, err
	}
	if took := passed(began); took >= l.by.times.look { // it may be another's by now
		return false, fmt.Errorf("the storage took %s to answer; want less than %s", took.Round(time.Millisecond), l.by.times.look)
	}
	l.led = began
	return true, nil
}

// in is the lease in the storage of another config. If that is the same storage, which is seen by our
// sign of life, the lease goes on; else it has yet to be taken.
func (l *lease) in(s *sharedStore) *lease {
	next := &lease{by: l.by, store: s, instance: l.instance}
	before, err := l.by.read(l.store, edgePrefix+l.by.id)
	now, nextErr := l.by.read(s, edgePrefix+l.by.id)
	if err == nil && nextErr == nil && before == now && now != "" {
		next.led = l.led
	}
	return next
}

// drop gives the lease up, if it is ours.
func (l *lease) drop() {
	l.led = time.Time{}
	if holder, err := l.by.read(l.store, l.key()); err == nil && holder == l.by.id {
		_ = l.by.remove(l.store, l.key()) // or it is taken when we are gone
	}
}

// read returns what stands under a key, "" if there is nothing.
func (c *claimant) read(s certmagic.Storage, key string) (text string, err error) {
	err = c.guarded(context.Background(), func(ctx context.Context) error {
		value, err := s.Load(ctx, key)
		text = string(value)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return text, err
}

func (c *claimant) write(ctx context.Context, s certmagic.Storage, key, text string) error {
	return c.guarded(ctx, func(ctx context.Context) error { return s.Store(ctx, key, []byte(text)) })
}

func (c *claimant) remove(s certmagic.Storage, key string) error {
	return c.guarded(context.Background(), func(ctx context.Context) error { return s.Delete(ctx, key) })
}

// guarded gives the storage its time.
func (c *claimant) guarded(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.times.answer)
	defer cancel()
	return guarded(func() error { return do(ctx) })
}

// guarded makes an error of a panic, as in a storage module.
func guarded(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return do()
}
