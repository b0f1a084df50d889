package quarantine

import (
	"sync"
	"time"
)

// largestStep is how much a clock may be corrected without a doubt about the age of anything, if
// the maximum age is long.
const largestStep = time.Hour

// WallClock finds out whether the clock that entries are dated with was set. A clock that jumps makes
// entries look old that are not. A machine that slept looks the same. The zero value is ready to use.
type WallClock struct {
	mu   sync.Mutex
	seen time.Time
	set  time.Time // when it last was; zero for never
}

// see looks at the clock. It returns by how much the clock was set since the look before, 0 for no more than
// tolerance, and whether the age of anything is in doubt.
func (c *WallClock) see(now time.Time, tolerance time.Duration) (step time.Duration, doubtful bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	step = c.look(now, now.Sub(c.seen), tolerance) // by the clock of durations, if both have it
	return step, c.doubtful(now)
}

// look compares the time of day with what has passed since the look before.
func (c *WallClock) look(now time.Time, passed, tolerance time.Duration) (step time.Duration) {
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

// doubtful reports whether the clock was set so lately that nobody can have seen it.
func (c *WallClock) doubtful(now time.Time) bool {
	return !c.set.IsZero() && now.Round(0).Sub(c.set) < ExpiryNotice
}
