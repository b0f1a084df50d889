package watch

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestTally: how often, within what time and from how many instances something must come.
func TestTally(t *testing.T) {
	const a, b, c = "1", "2", "3"
	every := func(n int, pause time.Duration, instances ...string) (from []string, pauses []time.Duration) {
		for i := range n {
			from, pauses = append(from, instances[i%len(instances)]), append(pauses, pause)
		}
		return from, pauses
	}
	day := 24 * time.Hour
	for _, test := range []struct {
		name      string
		n         int
		pause     time.Duration
		instances []string
		everyone  []string // nil: three or more
		turns     int      // by the how many-eth; 0 for never
	}{
		{"at once", 40, 0, []string{a, b, c}, nil, 20},
		{"within the hour", 40, time.Hour / 19, []string{a, b, c}, nil, 20},
		{"not within the hour", 40, time.Hour/19 + 1, []string{a, b, c}, nil, 20}, // the tenth within seven days, once an hour is over
		{"twice an hour", 40, time.Hour / 2, []string{a, b, c}, nil, 10},
		{"once in 18 hours", 40, 18 * time.Hour, []string{a, b, c}, nil, 10},
		{"ten in just over seven days", 40, 7*day/9 + 1, []string{a, b, c}, nil, 0},
		{"two of many", 40, 0, []string{a, b}, nil, 0},
		{"two of many, over the days", 40, 18 * time.Hour, []string{a, b}, nil, 0},
		{"the only one", 40, 0, []string{a}, []string{a}, 20},
		{"the only one, over the days", 40, 18 * time.Hour, []string{a}, []string{a}, 10},
		{"one of two", 40, 0, []string{a}, []string{a, b}, 0},
		{"both of two", 40, 0, []string{a, b}, []string{a, b}, 20},
		{"two, of which one is there no more", 40, 0, []string{a, b}, []string{b}, 20},
	} {
		t.Run(test.name, func(t *testing.T) {
			var s tallies[string]
			now, turned := time.Now(), 0
			from, pauses := every(test.n, test.pause, test.instances...)
			for i := range from {
				if s.add("x", from[i], now, func() []string { return test.everyone }) {
					if turned != 0 {
						t.Errorf("turned again by %d", i+1)
					}
					turned = i + 1
				}
				if s.turned("x") != (turned != 0) || s.turned("y") {
					t.Fatalf("%d: turned(x) is %t", i+1, s.turned("x"))
				}
				now = now.Add(pauses[i])
			}
			if turned != test.turns {
				t.Errorf("turned by %d, want %d", turned, test.turns)
			}
		})
	}
}

// TestTallyBurst: some more of a burst count as what comes seldom only when an hour is over; and an
// instance that sends far more than others does not hide them.
func TestTallyBurst(t *testing.T) {
	many := func() []string { return nil }
	var s tallies[string]
	now := time.Now()
	for i := range driftBreaks - 1 {
		if s.add("burst", fmt.Sprint(i), now, many) {
			t.Fatalf("turned by %d at once", i+1)
		}
	}
	if !s.add("burst", "1", now.Add(driftWindow+time.Second), many) {
		t.Error("not turned after an hour")
	}
	for i := range 1000 {
		s.add("loud", "1", now.Add(time.Duration(i)*time.Minute), many)
	}
	s.add("loud", "2", now.Add(1001*time.Minute), many)
	if s.add("loud", "2", now.Add(1500*time.Minute), many) || !s.add("loud", "3", now.Add(2000*time.Minute), many) {
		t.Error("two of many turned it, or three did not")
	}
}

// TestTallyBounds: no instance fills more than its share, all of them no more than there is room for,
// and what has not come for long makes room.
func TestTallyBounds(t *testing.T) {
	many := func() []string { return nil }
	var s tallies[string]
	now := time.Now()
	for i := range 10 * maxTallies {
		s.add(fmt.Sprint("made up ", i), "evil", now, many)
	}
	if len(s.of) != maxOwnTallies {
		t.Errorf("one instance fills %d, want %d", len(s.of), maxOwnTallies)
	}
	for i := range driftBreaks {
		s.add("genuine", fmt.Sprint(i%DriftInstances), now, many)
	}
	if !s.turned("genuine") {
		t.Error("one instance hides what comes from all")
	}
	for i := range 3 * maxTallies {
		s.add(fmt.Sprint("x", i), fmt.Sprint("instance ", i), now, many)
	}
	if len(s.of) != maxTallies || len(s.own) > maxTallies {
		t.Errorf("%d tallies, %d owners, want %d", len(s.of), len(s.own), maxTallies)
	}
	later := now.Add(RareWindow + tallySweep)
	s.add("new", "evil", later, many)
	if _, kept := s.of["genuine"]; !kept || len(s.of) != 2 || len(s.own) != 1 || s.own["evil"] != 1 {
		t.Errorf("%d tallies and %v are left; want the one that has turned, and the new one", len(s.of), s.own)
	}
}

func TestLastInstances(t *testing.T) {
	var l lastInstances
	now := time.Now()
	for i, id := range strings.Fields("1 2 1 3 1 4") {
		l.add(id, now.Add(time.Duration(i)*time.Minute))
	}
	got := l.since(now)
	slices.Sort(got)
	if !slices.Equal(got, []string{"1", "3", "4"}) {
		t.Errorf("the last three are %v", got)
	}
	if got = l.since(now.Add(5 * time.Minute)); !slices.Equal(got, []string{"4"}) {
		t.Errorf("since then %v", got)
	}
}
