package quarantine

import (
	"testing"
	"time"
)

// TestWallClock: a clock that is set makes the age of everything doubtful, for two days.
func TestWallClock(t *testing.T) {
	start := time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name         string
		wall         []time.Time // of looks an hour apart
		step         time.Duration
		wantDoubtful bool
	}{
		{"first look", []time.Time{now}, 0, false},
		{"it runs", []time.Time{now, now.Add(time.Hour)}, 0, false},
		{"corrected by a minute", []time.Time{now, now.Add(time.Hour + time.Minute)}, 0, false},
		{"set at boot", []time.Time{start, now}, now.Sub(start) - time.Hour, true},
		{"set back", []time.Time{now, now.Add(-24 * time.Hour)}, -25 * time.Hour, true},
		{"set, then it runs", []time.Time{start, now, now.Add(time.Hour)}, 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var c WallClock
			var step time.Duration
			for _, wall := range test.wall {
				step = c.look(wall, time.Hour, largestStep)
			}
			last := test.wall[len(test.wall)-1]
			if step != test.step || c.doubtful(last) != test.wantDoubtful {
				t.Errorf("set by %s, doubtful %v; want %s, %v", step, c.doubtful(last), test.step, test.wantDoubtful)
			}
			if c.doubtful(last.Add(ExpiryNotice)) {
				t.Error("doubtful for more than two days")
			}
		})
	}
}
