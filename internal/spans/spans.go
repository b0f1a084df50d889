// Package spans knows how long things took lately, in classes: exact enough to look at, at a fixed cost.
package spans

import (
	"math/bits"
	"time"
)

const (
	slotLength = 15 * time.Second
	slots      = 20 // five minutes

	// Lately is how far percentiles look back.
	Lately = slots * slotLength
)

// classes is the number of classes of durations. Four classes double a duration; the last one begins at more
// than two days.
const classes = 148

// classOf returns the class of a duration.
func classOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	if us < 8 {
		return int(us)
	}
	power := bits.Len64(us) - 3                   // so that three bits remain, the first of them set
	return min(4*power+int(us>>power), classes-1) //nolint:gosec // three bits
}

// upTo returns the greatest duration of a class.
func upTo(class int) time.Duration {
	if class < 8 {
		return time.Duration(class) * time.Microsecond
	}
	power := class/4 - 1
	return time.Duration((uint64(class%4+5)<<power)-1) * time.Microsecond //nolint:gosec // class is below classes
}

// A Recent counts the durations of the last five minutes. The zero value is ready to use.
type Recent struct {
	slots [slots]slot // the one of a number is at number % slots
}

type slot struct {
	number int64 // its time since 1970, in slot lengths
	took   [classes]uint32
}

// Add counts a duration.
func (r *Recent) Add(d time.Duration, now time.Time) {
	number := now.UnixNano() / int64(slotLength)
	s := &r.slots[number%slots]
	if s.number != number {
		*s = slot{number: number}
	}
	s.took[classOf(d)]++
}

// Percentiles returns the durations that half of all, and 99 in 100, do not exceed, in milliseconds; 0 if there are
// none.
func (r *Recent) Percentiles(now time.Time) (p50, p99 float64) {
	last := now.UnixNano() / int64(slotLength)
	var took [classes]uint64
	var all uint64
	for i := range r.slots {
		if s := &r.slots[i]; s.number > last-slots && s.number <= last {
			for class, n := range s.took {
				took[class] += uint64(n)
				all += uint64(n)
			}
		}
	}
	return percentile(took[:], all, 50), percentile(took[:], all, 99)
}

// percentile returns the duration that some percent of all do not exceed, in milliseconds.
func percentile(took []uint64, all, percent uint64) float64 {
	if all == 0 {
		return 0
	}
	var below uint64
	for class, n := range took {
		if below += n; below*100 >= all*percent {
			return float64(upTo(class).Microseconds()) / 1000
		}
	}
	return 0
}
