package greenapi

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

const (

	// expiryNotice is how long before they are deleted the operator is told of entries.
	expiryNotice = 48 * time.Hour

	errStop = stopError("enough")
)

type stopError string

func (e stopError) Error() string { return string(e) }

// expire deletes what is older than max_age, and wipes what deletions left behind, as long as the
// config runs. wipeDue says that there is something to wipe from the start.
func (a *App) expire(ctx context.Context, wipeDue bool) {
	maxAge := time.Duration(a.Quarantine.MaxAge)
	tick := time.Hour
	if maxAge > 0 {
		tick = min(max(maxAge/20, 100*time.Millisecond), time.Hour)
	} else {
		a.operator.clock.see(time.Now(), largestStep) // for a config that has a max_age
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for now := maxAge > 0 || wipeDue; ; now = true {
		if now {
			a.expireTick(maxAge, time.Now())
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (a *App) expireTick(maxAge time.Duration, now time.Time) {
	if maxAge == 0 {
		if err := a.wipeLeft(); err != nil {
			a.logger.Error("what is left of deleted quarantine entries could not be wiped", zap.Error(a.Quarantine.hide(err)))
		}
		return
	}
	step, doubtful := a.operator.clock.see(now, min(largestStep, maxAge/20))
	if step != 0 {
		a.logger.Warn("the clock was set: no quarantine entry is deleted for its age in the next 48 hours, unless Caddy is restarted", zap.Duration("by", step))
	}
	if err := a.expireNow(maxAge, now, doubtful); err != nil {
		a.logger.Error("quarantine entries older than max_age could not be deleted", zap.Error(a.Quarantine.hide(err)))
	}
}

// wallClock finds out whether the clock that entries are dated with was set: one that jumps makes
// entries old that are not. A machine that slept looks the same. It outlives a config.
type wallClock struct {
	mu   sync.Mutex
	seen time.Time
	set  time.Time // when it last was; zero for never
}

// see looks at the clock. It returns by how much it was set since the look before, 0 for no more than
// tolerance, and whether the age of anything is in doubt.
func (c *wallClock) see(now time.Time, tolerance time.Duration) (step time.Duration, doubtful bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	step = c.look(now, now.Sub(c.seen), tolerance) // by the clock of durations, if both have it
	return step, c.doubtful(now)
}

// largestStep is how much a clock may be corrected without a doubt about the age of anything, if
// max_age is long.
const largestStep = time.Hour

// look compares the time of day with what has passed since the look before.
func (c *wallClock) look(now time.Time, passed, tolerance time.Duration) (step time.Duration) {
	if !c.seen.IsZero() {
		step = now.Round(0).Sub(c.seen.Round(0)) - passed
	}
	c.seen = now
	if step.Abs() <= tolerance {
		return 0
	}
	c.set = now.Round(0)
	return step
}

// doubtful tells whether the clock was set so lately that nobody can have seen it.
func (c *wallClock) doubtful(now time.Time) bool {
	return !c.set.IsZero() && now.Round(0).Sub(c.set) < expiryNotice
}

// expireNow deletes what is older than maxAge, and tells of what will be soon. With the clock in doubt
// nothing is deleted, and what would be is told of.
func (a *App) expireNow(maxAge time.Duration, now time.Time, doubtful bool) error {
	store, release, err := a.openQuarantine()
	if err != nil {
		return err
	}
	defer release()
	var old []string
	var soon int
	var first quarantine.Entry
	var everything quarantine.Filter
	err = everything.Each(store, func(e quarantine.Entry) error { // in the order of receipt
		switch age := now.Sub(e.Received); {
		case e.Received.IsZero(): // it cannot be read, which does not make it old
		case age > maxAge && !doubtful:
			old = append(old, e.ID)
		case age > maxAge, maxAge > expiryNotice && age > maxAge-expiryNotice:
			if soon++; soon == 1 {
				first = e
			}
		default:
			return errStop
		}
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return err
	}
	if soon > 0 && a.operator.daily.First(reason.Expiring, now) {
		a.operator.desk.Tell(outcome.Note{
			Reason: reason.Expiring, Kind: notification.KindNone, Level: zapcore.WarnLevel, Instance: first.Instance, Example: first.ID, At: now,
			More: strconv.Itoa(soon) + " will be deleted within 48 hours. Replay or export them: caddy green-api quarantine list.",
		})
	}
	if len(old) == 0 {
		return wipe(store)
	}
	deleted, err := store.Delete(old...)
	if err == nil {
		err = wipe(store)
	}
	if deleted > 0 {
		a.logger.Warn("quarantine entries deleted, they were older than max_age", zap.Int("count", deleted), zap.Duration("max_age", maxAge))
	}
	return err
}

// wipe takes what is left of deleted entries out of the file, if anything is: of a deletion just now,
// or of one that a kill or a fault of the disk kept from being wiped.
func wipe(store *quarantine.Store) error {
	if !store.Stats().WipeDue {
		return nil
	}
	return store.Scrub()
}

// wipeLeft is wipe of a quarantine that nothing expires in.
func (a *App) wipeLeft() error {
	store, release, err := a.openQuarantine()
	if err != nil {
		return err
	}
	defer release()
	return wipe(store)
}
