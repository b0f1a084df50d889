package greenapi

import (
	"sync/atomic"
	"time"
)

// clock is the time that whatever takes minutes to days goes by. The zero value is the machine's;
// tests put it ahead.
type clock struct{ ahead atomic.Int64 }

// skip puts the clock ahead.
func (c *clock) skip(d time.Duration) { c.ahead.Add(int64(d)) }

// An instant is a moment by both clocks of a machine.
type instant struct {
	wall time.Time     // the time of day, which may be set at any moment
	up   time.Duration // since the process began; it cannot be set, and stands still while the machine sleeps
}

// processBegan is where instants count from.
var processBegan = time.Now()

func (c *clock) now() instant {
	ahead := time.Duration(c.ahead.Load())
	return instant{wall: time.Now().Round(0).Add(ahead), up: time.Since(processBegan) + ahead}
}
