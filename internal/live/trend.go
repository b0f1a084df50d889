package live

import (
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/spans"
)

const (
	slotLength = 15 * time.Second
	slots      = 60 // a quarter of an hour
)

// A trend is what ended in each of the last slots, and how long the delivered ones took. The zero value is ready to use.
type trend struct {
	slots [slots]slot // the one of a number is at number % slots
	took  spans.Recent
}

type slot struct {
	number int64 // its time since 1970, in slot lengths
	ended  [len(outcomes)]int
}

func (t *trend) add(of int, d time.Duration, now time.Time) {
	number := now.UnixNano() / int64(slotLength)
	s := &t.slots[number%slots]
	if s.number != number {
		*s = slot{number: number}
	}
	s.ended[of]++
	if outcomes[of] == outcome.Delivered {
		t.took.Add(d, now)
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
	for number := last - slots + 1; number <= last; number++ {
		ended := make(map[outcome.Outcome]int)
		if s := &t.slots[number%slots]; s.number == number {
			for of, n := range s.ended {
				if n > 0 {
					ended[outcomes[of]] = n
				}
			}
		}
		shown.Slots = append(shown.Slots, ended)
	}
	shown.P50, shown.P99 = t.took.Percentiles(now)
	return shown
}
