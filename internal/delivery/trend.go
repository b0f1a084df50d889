package delivery

import (
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/spans"
)

// A trend is what a handler took and did not take in the last quarter of an hour. The zero value is ready to use.
type trend struct {
	asked spans.Quarter[struct{ taken, notTaken uint32 }]
}

func (t *trend) add(took bool, now time.Time) {
	if asked := t.asked.At(now); took {
		asked.taken++
	} else {
		asked.notTaken++
	}
}

// A Trend is the last quarter of an hour of a handler.
type Trend struct {
	Slot            time.Duration // the length of a slot
	Until           int64         // the end of the last slot, which is not over, in Unix seconds
	Taken, NotTaken []uint32      // in each slot, oldest first
}

// show returns nil if the handler was not asked in all that time.
func (t *trend) show(now time.Time) *Trend {
	shown := &Trend{Slot: spans.SlotLength, Taken: make([]uint32, spans.Slots), NotTaken: make([]uint32, spans.Slots)}
	asked := false
	shown.Until = t.asked.Each(now, func(i int, of *struct{ taken, notTaken uint32 }) {
		shown.Taken[i], shown.NotTaken[i], asked = of.taken, of.notTaken, true
	})
	if !asked {
		return nil
	}
	return shown
}
