package delivery

import (
	"sync/atomic"
	"time"
)

// A Clock measures what takes minutes to days. The zero value is the machine's clock; tests put it ahead.
type Clock struct{ ahead atomic.Int64 }

// Skip puts the clock ahead.
func (c *Clock) Skip(d time.Duration) { c.ahead.Add(int64(d)) }

// An Instant is a moment by both clocks of a machine.
type Instant struct {
	wall time.Time     // the time of day, which may be set at any moment
	up   time.Duration // since the process began; it cannot be set, and stands still while the machine sleeps
}

// processBegan is where instants count from.
var processBegan = time.Now()

// Now returns the moment.
func (c *Clock) Now() Instant {
	ahead := time.Duration(c.ahead.Load())
	return Instant{wall: time.Now().Round(0).Add(ahead), up: time.Since(processBegan) + ahead}
}
