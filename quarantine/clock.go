package quarantine

import (
	"sync"
	"time"
)

// largestStep is how far a clock may be corrected without casting doubt on an age, if the maximum age is
// long.
const largestStep = time.Hour

// WallClock detects whether the clock that dates entries was changed. When a clock jumps, entries look
// older than they are. A machine that slept looks the same. The zero value is ready to use.
type WallClock struct {
	mu   sync.Mutex
	seen time.Time
	set  time.Time // when the clock was last changed; zero for never
}

// see checks the clock. It returns by how much the clock was changed since the last check, 0 if by no more
// than tolerance, and whether ages are in doubt.
func (c *WallClock) see(now time.Time, tolerance time.Duration) (step time.Duration, doubtful bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	step = c.look(now, now.Sub(c.seen), tolerance) // measured by the monotonic clock, if both times have it
	return step, c.doubtful(now)
}

// look compares the time of day with the time that has passed since the last check.
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

// InDoubt checks the clock, and reports whether ages are in doubt for anything that is deleted or kept at an age.
// Whoever relies on it calls it at least every few minutes.
func (c *WallClock) InDoubt(now time.Time, maxAge time.Duration) bool {
	_, doubtful := c.see(now, min(largestStep, maxAge/20))
	return doubtful
}

// doubtful reports whether the clock was changed so recently that the operator may not have noticed.
func (c *WallClock) doubtful(now time.Time) bool {
	return !c.set.IsZero() && now.Round(0).Sub(c.set) < ExpiryNotice
}
