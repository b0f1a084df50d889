package watch

import (
	"maps"
	"slices"
	"time"
)

// The vendor may change a format for everybody overnight. If this many notifications from this many
// instances have a fault in common, the vendor has changed something, and no single sender is to blame.
const (
	// DriftInstances is how many instances must have sent it; if fewer exist, all of them.
	DriftInstances = 3

	driftBreaks = 20 // within driftWindow
	driftWindow = time.Hour

	rareBreaks = 10 // within RareWindow, for what has been coming for longer than driftWindow

	// RareWindow is how long something rare is counted.
	RareWindow = 7 * 24 * time.Hour

	// seenWindow is how long an instance counts as existing after it has sent something.
	seenWindow = 24 * time.Hour
)

const (
	// maxTallies limits how much is counted at a time.
	maxTallies = 2000

	// maxOwnTallies is how many tallies one instance may fill alone, so that no sender can make up so much
	// that there is no room to count what comes from all.
	maxOwnTallies = 100

	// tallySweep is the minimum time between two sweeps for tallies that are no longer needed.
	tallySweep = time.Minute
)

// tallies counts, by key, what comes again and again. Times must be passed roughly in order.
type tallies[K comparable] struct {
	of    map[K]*tally
	own   map[string]int // by instance, the number of tallies it fills alone
	swept time.Time
}

// A tally is how often one thing has come, and from which instances.
type tally struct {
	first  time.Time   // of a run without a pause of RareWindow
	times  []time.Time // the last driftBreaks
	from   lastInstances
	owner  string    // the only instance it came from; "" if there are others, or once it has turned
	turned time.Time // zero until it has come often enough
}

// add counts one occurrence and reports whether its key turns with it: it has now come often enough from
// DriftInstances instances, or from all that everyone returns. everyone returns nil if at least
// DriftInstances exist.
func (s *tallies[K]) add(key K, instance string, now time.Time, everyone func() []string) bool {
	t := s.count(key, instance, now)
	if t == nil || !t.suffices(now, everyone) {
		return false
	}
	s.disown(t)
	*t = tally{turned: now}
	return true
}

// count counts one occurrence. It returns the tally, nil if that has turned or there is no room for it.
func (s *tallies[K]) count(key K, instance string, at time.Time) *tally {
	t := s.of[key]
	if t == nil {
		if t = s.begin(key, instance, at); t == nil {
			return nil
		}
	}
	if !t.turned.IsZero() {
		return nil
	}
	t.add(instance, at)
	if t.owner != "" && t.owner != instance {
		s.disown(t)
	}
	return t
}

// begin starts a tally, or returns nil if there is no room for it.
func (s *tallies[K]) begin(key K, instance string, now time.Time) *tally {
	if s.of == nil {
		s.of, s.own = make(map[K]*tally), make(map[string]int)
	}
	full := func() bool { return len(s.of) >= maxTallies || s.own[instance] >= maxOwnTallies }
	if full() && now.Sub(s.swept) >= tallySweep {
		s.sweep(now)
	}
	if full() {
		return nil
	}
	t := &tally{owner: instance}
	s.of[key] = t
	s.own[instance]++
	return t
}

// sweep removes tallies that no longer count because nothing has come for so long.
func (s *tallies[K]) sweep(now time.Time) {
	s.swept = now
	maps.DeleteFunc(s.of, func(_ K, t *tally) bool {
		old := t.turned.IsZero() && now.Sub(t.times[len(t.times)-1]) > RareWindow
		if old {
			s.disown(t)
		}
		return old
	})
}

// disown records that a tally no longer belongs to one instance alone.
func (s *tallies[K]) disown(t *tally) {
	if t.owner == "" {
		return
	}
	if s.own[t.owner]--; s.own[t.owner] == 0 {
		delete(s.own, t.owner)
	}
	t.owner = ""
}

// turned reports whether a key has come often enough.
func (s *tallies[K]) turned(key K) bool {
	t := s.of[key]
	return t != nil && !t.turned.IsZero()
}

// allTurned returns the keys that have come often enough, and since when.
func (s *tallies[K]) allTurned() map[K]time.Time {
	turned := make(map[K]time.Time)
	for key, t := range s.of {
		if !t.turned.IsZero() {
			turned[key] = t.turned
		}
	}
	return turned
}

func (t *tally) add(instance string, at time.Time) {
	if len(t.times) == 0 || at.Sub(t.times[len(t.times)-1]) > RareWindow {
		t.first = at
	}
	if len(t.times) == driftBreaks {
		t.times = append(t.times[:0], t.times[1:]...)
	}
	t.times = append(t.times, at)
	t.from.add(instance, at)
}

// suffices reports whether it has come often enough, within an hour or over several days.
func (t *tally) suffices(now time.Time, everyone func() []string) bool {
	return t.came(driftBreaks, now.Add(-driftWindow)) && t.from.cover(now.Add(-driftWindow), everyone) ||
		t.first.Before(now.Add(-driftWindow)) &&
			t.came(rareBreaks, now.Add(-RareWindow)) && t.from.cover(now.Add(-RareWindow), everyone)
}

// came reports whether it has come this often since then.
func (t *tally) came(times int, then time.Time) bool {
	return len(t.times) >= times && !t.times[len(t.times)-times].Before(then)
}

// lastInstances holds the last DriftInstances instances that sent something, and when.
type lastInstances [DriftInstances]struct {
	id string
	at time.Time
}

// add replaces the instance that has been silent longest.
func (l *lastInstances) add(instance string, now time.Time) {
	oldest := 0
	for i := range l {
		if l[i].id == instance {
			oldest = i
			break
		}
		if l[i].at.Before(l[oldest].at) {
			oldest = i
		}
	}
	l[oldest].id, l[oldest].at = instance, now
}

// since returns the instances that have sent something since then. If it returns fewer than DriftInstances,
// there are no others.
func (l *lastInstances) since(then time.Time) (ids []string) {
	for _, one := range l {
		if one.id != "" && !one.at.Before(then) {
			ids = append(ids, one.id)
		}
	}
	return ids
}

// cover reports whether DriftInstances instances, or all that exist, have sent something since then.
func (l *lastInstances) cover(then time.Time, everyone func() []string) bool {
	have := l.since(then)
	if len(have) >= DriftInstances {
		return true
	}
	all := everyone()
	return all != nil && !slices.ContainsFunc(all, func(id string) bool { return !slices.Contains(have, id) })
}
