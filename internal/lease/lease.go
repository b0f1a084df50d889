// Package lease lets edges that share a storage agree on the one that receives for an instance.
//
// A lease is a file in the storage that names its holder. Each edge that wants a lease shows that it is
// alive in a file of its own, with one write for all its leases. The storage's own lock would not do: its
// holder does not learn that it was lost, for example on a machine that was suspended, and a reload may
// close it.
package lease

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// Times set the timing of leases. It is unknown how long a write to a storage takes, and whether a write that
// timed out still lands. Even so, two edges never receive at the same time, because Settle > Look:
//
//   - A holder starts on a notification only if the lease named it less than Look ago, counted from before
//     it looked.
//   - An edge that takes a lease starts Settle after its write has returned, or after it found its name there
//     without having led, and only if its name is still there.
//
// So when a name is replaced, however late the write, its holder starts on nothing more than Look later, and
// the edge that replaced it starts on nothing before Settle. The holder finishes the notification that it has
// in hand at that time. That one may be delivered twice, no other.
//
// Dead > Beat + Answer: a slow write alone does not make a holder look dead. If it did, the lease would
// wander, but still have one holder. Dead/2 > Beat: signs of life are written by the heartbeat, not at each
// look.
type Times struct {
	Beat   time.Duration // between two signs of life
	Dead   time.Duration // without a sign of life, a holder is dead
	Settle time.Duration // from taking a lease to the first notification
	Look   time.Duration // how long a look at a lease is valid, and the time between two looks of an edge that stands by
	Answer time.Duration // how long a storage may take to answer
}

// DefaultTimes returns the times used outside tests.
func DefaultTimes() Times {
	return Times{Beat: 4 * time.Second, Dead: 15 * time.Second, Settle: 3 * time.Second, Look: 2 * time.Second, Answer: 10 * time.Second}
}

// check returns an error if the times do not fit together.
func (t Times) check() error {
	switch {
	case t.Look <= 0 || t.Settle <= t.Look:
		return fmt.Errorf("settle %s is not above look %s, two edges could receive side by side", t.Settle, t.Look)
	case t.Dead <= t.Beat+t.Answer:
		return fmt.Errorf("dead %s is not above beat %s and answer %s, a slow storage would move leases about", t.Dead, t.Beat, t.Answer)
	case t.Dead/2 <= t.Beat:
		return fmt.Errorf("half of dead %s is not above beat %s, each look would write a sign of life", t.Dead, t.Beat)
	}
	return nil
}

const (
	// Prefix is the prefix of all lease keys in a storage. The instance follows.
	Prefix = "green_api/receivers/"
	// EdgePrefix is the prefix of all signs of life in a storage. The edge's ID follows.
	EdgePrefix = "green_api/edges/"
)

// A Lease decides whether this edge receives for an instance. It is not safe for concurrent use.
type Lease struct {
	edge     *Edge
	instance string
	storage  func() *Store // of the config in effect
	store    *Store        // where the lease was taken, or is about to be
	led      time.Time     // when the look began that last found it ours; zero if it is not
}

// Take takes the lease unless another live edge has it, and reports whether this edge has it now.
func (l *Lease) Take(ctx context.Context) (bool, error) {
	l.store, l.led = l.storage(), time.Time{}
	if err := l.edge.stayAlive(l.store); err != nil {
		return false, err
	}
	holder, err := l.edge.read(l.store, l.key())
	if err != nil {
		return false, err
	}
	if holder != "" && holder != l.edge.ID {
		if lives, err := l.edge.sees(l.store, holder); err != nil || lives {
			return false, err
		}
	}
	if holder != l.edge.ID {
		if err := l.edge.write(ctx, l.store, l.key(), l.edge.ID); err != nil {
			return false, err
		}
	}
	select {
	case <-time.After(l.edge.times.Settle):
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return l.look()
}

// Held reports whether a taken lease has not been lost, for example because the process was suspended for
// long. It seldom reads the storage. A newer config may have another storage, in which the lease has yet to
// be taken.
func (l *Lease) Held() (bool, error) {
	store := l.storage()
	if err := l.edge.stayAlive(store); err != nil {
		return false, err
	}
	if l.store != store {
		l.moveTo(store)
	}
	if l.led.IsZero() {
		return false, nil
	}
	if passed(l.led) < l.edge.times.Look {
		return true, nil
	}
	return l.look()
}

// Release releases the lease. With the edge's last lease, its sign of life is removed, too.
func (l *Lease) Release() {
	l.giveUp()
	l.edge.release(l)
}

func (l *Lease) key() string { return Prefix + l.instance }

// look reports whether the lease is ours.
func (l *Lease) look() (bool, error) {
	began := time.Now()
	l.led = time.Time{}
	holder, err := l.edge.read(l.store, l.key())
	if err != nil || holder != l.edge.ID {
		return false, err
	}
	if took := passed(began); took >= l.edge.times.Look { // another edge may have it by now
		return false, fmt.Errorf("the storage took %s to answer; want less than %s", took.Round(time.Millisecond), l.edge.times.Look)
	}
	l.led = began
	return true, nil
}

// moveTo switches to the store of another config. If our sign of life shows that it is the same storage,
// the lease is kept. Otherwise it is released, so that no edge has to wait for this one in the old storage.
func (l *Lease) moveTo(store *Store) {
	before, err := l.edge.read(l.store, EdgePrefix+l.edge.ID)
	now, nextErr := l.edge.read(store, EdgePrefix+l.edge.ID)
	if err != nil || nextErr != nil || before != now || now == "" {
		l.giveUp()
	}
	l.store = store
}

// giveUp removes the lease from the storage, if it is ours.
func (l *Lease) giveUp() {
	l.led = time.Time{}
	if holder, err := l.edge.read(l.store, l.key()); err == nil && holder == l.edge.ID {
		_ = l.edge.remove(l.store, l.key()) // if that fails, another edge takes it once we are gone
	}
}

// passed returns the time since a moment, correct even if the machine slept: the monotonic clock may have
// stopped then, so the wall clock is consulted, too.
func passed(since time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(since), now.Round(0).Sub(since.Round(0)).Abs())
}

// read returns the value of a key, "" if there is none.
func (e *Edge) read(s Storage, key string) (text string, err error) {
	err = e.guarded(context.Background(), func(ctx context.Context) error {
		value, err := s.Load(ctx, key)
		text = string(value)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return text, err
}

func (e *Edge) write(ctx context.Context, s Storage, key, text string) error {
	return e.guarded(ctx, func(ctx context.Context) error { return s.Store(ctx, key, []byte(text)) })
}

func (e *Edge) remove(s Storage, key string) error {
	return e.guarded(context.Background(), func(ctx context.Context) error { return s.Delete(ctx, key) })
}

// guarded limits how long the storage may take, and turns a panic in it into an error.
func (e *Edge) guarded(ctx context.Context, do func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, e.times.Answer)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return do(ctx)
}
