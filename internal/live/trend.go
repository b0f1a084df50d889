package live

import (
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/spans"
)

// A trend is what ended in the last quarter of an hour, and how long the delivered ones took. The zero value is ready to use.
type trend struct {
	ended spans.Quarter[[len(outcomes)]int]
	took  spans.Recent
}

func (t *trend) add(of int, d time.Duration, now time.Time) {
	t.ended.At(now)[of]++
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
	shown := Trend{Seconds: int(spans.SlotLength / time.Second)}
	for range spans.Slots {
		shown.Slots = append(shown.Slots, make(map[outcome.Outcome]int))
	}
	shown.Until = t.ended.Each(now, func(i int, ended *[len(outcomes)]int) {
		for of, n := range ended {
			if n > 0 {
				shown.Slots[i][outcomes[of]] = n
			}
		}
	})
	shown.P50, shown.P99 = t.took.Percentiles(now)
	return shown
}
