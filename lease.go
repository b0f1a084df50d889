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

// A lease says which of the edges that share Caddy's storage receives for an instance. It is a file
// in the storage with the name of its holder, and each holder shows in a file of its own that it is
// alive: one write for all its leases. It is not the storage's own Lock, of which nobody learns that
// it was lost, as by a machine that stood still for a while, and which a reload may close.
//
// Edges watch each other by their own clocks, so that these need not agree.

// leasing says how long it takes. Tests have less time.
var leasing = struct {
	beat   time.Duration // between two signs of life
	dead   time.Duration // without one, a holder is dead
	settle time.Duration // until somebody who took the same lease at the same time has written it
	look   time.Duration // between two looks at a lease that somebody else holds
	answer time.Duration // for the storage
}{beat: 4 * time.Second, dead: 12 * time.Second, settle: time.Second, look: 2 * time.Second, answer: 10 * time.Second}

const (
	leasePrefix = "green_api/receivers/"
	edgePrefix  = "green_api/edges/"
)

// edgeID names this process among those that share a storage.
var edgeID = rand.Text()

// signs are what other edges last showed of being alive.
var signs = struct {
	mu   sync.Mutex
	seen map[string]sign
}{seen: make(map[string]sign)}

type sign struct {
	text  string
	since time.Time // that it is the same
}

// heart shows that this process is alive, while it has a receiver.
var heart struct {
	mu     sync.Mutex
	owners int
	stop   context.CancelFunc

	beating sync.Mutex // one at a time
	beats   int
	last    atomic.Pointer[time.Time] // when it was last shown
}

// holdHeart lets the heart beat until releaseHeart.
func holdHeart() {
	heart.mu.Lock()
	defer heart.mu.Unlock()
	if heart.owners++; heart.owners > 1 {
		return
	}
	var ctx context.Context
	ctx, heart.stop = context.WithCancel(context.Background())
	go func() {
		ticker := time.NewTicker(leasing.beat)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				var newest certmagic.Storage
				eachReceiver(func(r *receiver) { newest = r.storage() })
				if newest != nil {
					_ = showLife(newest) // whoever needs it to be fresh looks after it
				}
			}
		}
	}()
}

// releaseHeart gives the sign up with the last receiver. The leases are given up before.
func releaseHeart(storage certmagic.Storage) {
	heart.mu.Lock()
	defer heart.mu.Unlock()
	if heart.owners--; heart.owners > 0 {
		return
	}
	heart.stop()
	heart.last.Store(nil)
	_ = guarded(func() error { return withTime(storage.Delete, edgePrefix+edgeID) }) // or it is found dead
}

// showLife writes a sign of life.
func showLife(storage certmagic.Storage) error {
	heart.beating.Lock()
	defer heart.beating.Unlock()
	heart.beats++
	err := guarded(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), leasing.answer)
		defer cancel()
		return storage.Store(ctx, edgePrefix+edgeID, []byte(strconv.Itoa(heart.beats)))
	})
	if now := time.Now(); err == nil {
		heart.last.Store(&now)
	}
	return err
}

// stayAlive makes sure that the last sign is not too old, as after the process stood still.
func stayAlive(storage certmagic.Storage) error {
	if last := heart.last.Load(); last != nil && passed(*last) < leasing.dead/2 {
		return nil
	}
	return showLife(storage)
}

// passed is how long ago something was, also if the machine slept: the clock of durations may have
// slept, too.
func passed(since time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(since), now.Round(0).Sub(since.Round(0)).Abs())
}

// holdsLease tells whether this edge has the lease of an instance.
func holdsLease(storage certmagic.Storage, instance string) (bool, error) {
	holder, err := leaseHolder(storage, instance)
	return holder == edgeID, err
}

func leaseHolder(storage certmagic.Storage, instance string) (holder string, err error) {
	return readStorage(storage, leasePrefix+instance)
}

// takeLease takes the lease of an instance if nobody who is alive has it.
func takeLease(ctx context.Context, storage certmagic.Storage, instance string) (bool, error) {
	holder, err := leaseHolder(storage, instance)
	if err != nil || holder == edgeID {
		return err == nil, err
	}
	if holder != "" {
		lives, err := edgeLives(storage, holder)
		if err != nil || lives {
			return false, err
		}
	}
	err = guarded(func() error {
		ctx, cancel := context.WithTimeout(ctx, leasing.answer)
		defer cancel()
		return storage.Store(ctx, leasePrefix+instance, []byte(edgeID))
	})
	if err != nil {
		return false, err
	}
	select { // of two that write, the last has it
	case <-time.After(leasing.settle):
	case <-ctx.Done():
	}
	return holdsLease(storage, instance)
}

// edgeLives tells whether another edge has shown a sign of life since it was first looked at, or
// still has time to.
func edgeLives(storage certmagic.Storage, id string) (bool, error) {
	text, err := readStorage(storage, edgePrefix+id)
	if err != nil || text == "" { // it has taken its leave
		return false, err
	}
	now := time.Now()
	signs.mu.Lock()
	defer signs.mu.Unlock()
	last, known := signs.seen[id]
	if !known || last.text != text {
		signs.seen[id] = sign{text, now}
		return true, nil
	}
	if now.Sub(last.since) < leasing.dead {
		return true, nil
	}
	delete(signs.seen, id)
	return false, guarded(func() error { return withTime(storage.Delete, edgePrefix+id) }) // so that nobody waits again
}

// dropLease gives the lease of an instance up, if this edge has it.
func dropLease(storage certmagic.Storage, instance string) {
	if mine, err := holdsLease(storage, instance); err == nil && mine {
		_ = guarded(func() error { return withTime(storage.Delete, leasePrefix+instance) }) // or it is taken when we are gone
	}
}

// readStorage returns what stands under a key, "" if there is nothing.
func readStorage(storage certmagic.Storage, key string) (text string, err error) {
	err = guarded(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), leasing.answer)
		defer cancel()
		value, err := storage.Load(ctx, key)
		text = string(value)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return text, err
}

func withTime(do func(context.Context, string) error, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), leasing.answer)
	defer cancel()
	return do(ctx, key)
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
