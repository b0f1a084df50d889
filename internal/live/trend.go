package live

import (
	"math/bits"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

const (
	slotLength = 15 * time.Second
	slots      = 60 // a quarter of an hour
	recent     = 20 // the slots that the percentiles are of: five minutes
)

// A trend is what ended in each of the last slots, and how long the delivered ones took. The zero value is ready to use.
type trend struct {
	slots [slots]slot // the one of a number is at number % slots
}

type slot struct {
	number int64 // its time since 1970, in slot lengths
	ended  [len(outcomes)]int
	took   [took]uint32
}

// took is the number of classes of durations. Four classes double a duration; the last one begins at some 18 minutes.
const took = 120

// classOf returns the class of a duration.
func classOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	if us < 8 {
		return int(us)
	}
	power := bits.Len64(us) - 3 // so that three bits remain, the first of them set
	return min(4*power+int(us>>power), took-1)
}

// upTo returns the greatest duration of a class.
func upTo(class int) time.Duration {
	if class < 8 {
		return time.Duration(class) * time.Microsecond
	}
	power := class/4 - 1
	return time.Duration((uint64(class%4+5)<<power)-1) * time.Microsecond
}

func (t *trend) add(of int, d time.Duration, now time.Time) {
	number := now.UnixNano() / int64(slotLength)
	s := &t.slots[number%slots]
	if s.number != number {
		*s = slot{number: number}
	}
	s.ended[of]++
	if outcomes[of] == outcome.Delivered {
		s.took[classOf(d)]++
	}
}

// A Trend is the last quarter of an hour.
type Trend struct {
	Seconds int                       `json:"seconds"` // the length of a slot
	Until   int64                     `json:"until"`   // the end of the last slot, which is not over, in Unix seconds
	Slots   []map[outcome.Outcome]int `json:"slots"`   // how many ended in which way, oldest first
	P50     float64                   `json:"p50_ms"`  // of the deliveries of the last five minutes, 0 if there are none
	P99     float64                   `json:"p99_ms"`
}

func (t *trend) show(now time.Time) Trend {
	last := now.UnixNano() / int64(slotLength)
	shown := Trend{Seconds: int(slotLength / time.Second), Until: (last + 1) * int64(slotLength/time.Second)}
	var classes [took]uint64
	var all uint64
	for number := last - slots + 1; number <= last; number++ {
		ended := make(map[outcome.Outcome]int)
		if s := &t.slots[number%slots]; s.number == number {
			for of, n := range s.ended {
				if n > 0 {
					ended[outcomes[of]] = n
				}
			}
			for class, n := range s.took {
				if number > last-recent {
					classes[class] += uint64(n)
					all += uint64(n)
				}
			}
		}
		shown.Slots = append(shown.Slots, ended)
	}
	shown.P50, shown.P99 = percentile(classes[:], all, 50), percentile(classes[:], all, 99)
	return shown
}

// percentile returns the duration that some percent of all do not exceed, in milliseconds.
func percentile(classes []uint64, all, percent uint64) float64 {
	if all == 0 {
		return 0
	}
	var below uint64
	for class, n := range classes {
		if below += n; below*100 >= all*percent {
			return float64(upTo(class).Microseconds()) / 1000
		}
	}
	return 0
}
