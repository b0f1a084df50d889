package delivery

import (
	"sync/atomic"
	"time"
)

// A Clock measures spans of minutes to days. The zero value is the machine's clock; tests put it ahead.
type Clock struct{ ahead atomic.Int64 }

// Skip puts the clock ahead.
func (c *Clock) Skip(d time.Duration) { c.ahead.Add(int64(d)) }

// An Instant is a moment on both of the machine's clocks.
type Instant struct {
	wall time.Time     // the time of day, which may be changed at any time
	up   time.Duration // since the process started; cannot be changed, and stops while the machine sleeps
}

// processBegan is the zero of Instant.up.
var processBegan = time.Now()

// Now returns the current moment.
func (c *Clock) Now() Instant {
	ahead := time.Duration(c.ahead.Load())
	return Instant{wall: time.Now().Round(0).Add(ahead), up: time.Since(processBegan) + ahead}
}
