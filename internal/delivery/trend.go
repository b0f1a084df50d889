package delivery

import "time"

const (
	slotLength = 15 * time.Second
	slots      = 60 // a quarter of an hour
)

// A trend is what a handler took and did not take in each of the last slots. The zero value is ready to use.
type trend struct {
	slots [slots]slot // the one of a number is at number % slots
}

type slot struct {
	number          uint32 // its time since 1970, in slot lengths
	taken, notTaken uint32
}

func (t *trend) add(took bool, now time.Time) {
	number := slotOf(now)
	s := &t.slots[number%slots]
	if s.number != number {
		*s = slot{number: number}
	}
	if took {
		s.taken++
	} else {
		s.notTaken++
	}
}

func slotOf(now time.Time) uint32 { return uint32(now.Unix() / int64(slotLength/time.Second)) } //nolint:gosec // fits for centuries

// A Trend is the last quarter of an hour of a handler.
type Trend struct {
	Slot            time.Duration // the length of a slot
	Until           int64         // the end of the last slot, which is not over, in Unix seconds
	Taken, NotTaken []uint32      // in each slot, oldest first
}

// show returns nil if the handler was not asked in all that time.
func (t *trend) show(now time.Time) *Trend {
	last := slotOf(now)
	shown := &Trend{
		Slot: slotLength, Until: int64(last+1) * int64(slotLength/time.Second),
		Taken: make([]uint32, slots), NotTaken: make([]uint32, slots),
	}
	asked := false
	for i := range shown.Taken {
		number := last - slots + 1 + uint32(i)
		if s := &t.slots[number%slots]; s.number == number {
			shown.Taken[i], shown.NotTaken[i], asked = s.taken, s.notTaken, true
		}
	}
	if !asked {
		return nil
	}
	return shown
}
