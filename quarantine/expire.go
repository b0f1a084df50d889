package quarantine

import (
	"context"
	"errors"
	"time"
)

// ExpiryNotice is how long before their deletion Expiry reports entries.
const ExpiryNotice = 48 * time.Hour

// Expiry deletes entries that are too old, and wipes the remains of deleted ones. Its functions must not be
// nil.
type Expiry struct {
	MaxAge time.Duration // 0 deletes nothing
	Clock  *WallClock

	// Open returns the store and a function to release it.
	Open func() (store *Store, release func(), err error)

	ClockSet func(by time.Duration)                      // the clock was changed: nothing is deleted for ExpiryNotice
	Soon     func(count int, first Entry, now time.Time) // count entries will be deleted within ExpiryNotice
	Deleted  func(count int)
	Failed   func(error)
}

// Run works until ctx is done. wipeDue means that there is something to wipe right away.
func (x *Expiry) Run(ctx context.Context, wipeDue bool) {
	tick := time.Hour
	if x.MaxAge > 0 {
		tick = min(max(x.MaxAge/20, 100*time.Millisecond), time.Hour)
	} else {
		x.Clock.see(time.Now(), largestStep) // for a later Expiry with a MaxAge
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for now := x.MaxAge > 0 || wipeDue; ; now = true {
		if now {
			x.tick(time.Now())
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (x *Expiry) tick(now time.Time) {
	doubtful := false
	if x.MaxAge > 0 {
		var step time.Duration
		if step, doubtful = x.Clock.see(now, min(largestStep, x.MaxAge/20)); step != 0 {
			x.ClockSet(step)
		}
	}
	store, release, err := x.Open()
	if err != nil {
		x.Failed(err)
		return
	}
	defer release()
	if x.MaxAge > 0 {
		err = x.expire(store, now, doubtful)
	} else {
		err = wipe(store)
	}
	if err != nil {
		x.Failed(err)
	}
}

var errEnough = errors.New("enough")

// expire deletes what is older than MaxAge, and reports what soon will be. While the clock is in doubt it
// deletes nothing, but reports what it would delete.
func (x *Expiry) expire(store *Store, now time.Time, doubtful bool) error {
	var old []string
	var soon int
	var first Entry
	var everything Filter
	err := everything.Each(store, func(e Entry) error { // in order of receipt
		switch age := now.Sub(e.Received); {
		case e.Received.IsZero(): // it cannot be read, which does not make it old
		case age > x.MaxAge && !doubtful:
			old = append(old, e.ID)
		case age > x.MaxAge, x.MaxAge > ExpiryNotice && age > x.MaxAge-ExpiryNotice:
			if soon++; soon == 1 {
				first = e
			}
		default:
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if soon > 0 {
		x.Soon(soon, first, now)
	}
	if len(old) == 0 {
		return wipe(store)
	}
	deleted, err := store.Delete(old...)
	if err == nil {
		err = wipe(store)
	}
	if deleted > 0 {
		x.Deleted(deleted)
	}
	return err
}

// wipe removes the remains of deleted entries from the file, if there are any: from a deletion just now, or
// from an earlier one that was not wiped because of a kill or a disk fault.
func wipe(store *Store) error {
	if !store.Stats().WipeDue {
		return nil
	}
	return store.Scrub()
}
