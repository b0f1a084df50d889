package delivery

import (
	"container/list"
	"crypto/sha256"
	"maps"
	"slices"
	"sync"
	"time"
)

// GREEN-API deletes a notification after 24 hours in its queue. Nobody says when it came there: it was
// when the edge first saw it fail, or before, and most likely when its own timestamp says. Shortly
// before, the edge keeps it.
const (
	keepAfter = 23*time.Hour + 30*time.Minute

	// By its timestamp alone, a notification is kept only if it goes on failing: what was sent while a
	// phone was offline comes with an old one.
	failuresByTimestamp = 3
	failingByTimestamp  = 10 * time.Minute

	// behindAfter is the age of what stands behind a head that failed for as long: it will not have a
	// second chance. A last attempt at one must not take the time of all others.
	behindAfter = 23 * time.Hour

	// headRepeats is how often a head that stands comes again at least.
	headRepeats = time.Hour

	// forgetAfter is when GREEN-API has deleted it for certain. What comes again later is another one.
	forgetAfter = 25 * time.Hour

	// clockSlack is how much the time of day may be set without a doubt about the age of anything.
	clockSlack = 10 * time.Minute

	maxFailureTimes = 100_000
)

// FailureKey stands for the body of a notification, or for an instance.
type FailureKey = [16]byte

func bodyKey(body []byte) FailureKey {
	sum := sha256.Sum256(body)
	return FailureKey(sum[:len(FailureKey{})])
}

func instanceKey(instance string) FailureKey { return bodyKey([]byte("instance " + instance)) }

// A FirstFailure says since when something fails, as it is saved.
type FirstFailure struct {
	Key FailureKey
	At  time.Time
}

// FailureTimes knows since when notifications fail, and since when instances got nothing delivered: of
// the last maxFailureTimes that failed. The quarantine's file has a copy, so that a restart does not
// begin to count anew. It lags behind, which costs no more than a second of the half hour that is left.
type FailureTimes struct {
	mu      sync.Mutex
	of      map[FailureKey]*list.Element
	oldest  list.List // of *failureTime: the one that failed the least lately first
	pending map[FailureKey]struct{}
	changed chan struct{} // has room for one call to save them
}

// failureTime is since when something fails.
type failureTime struct {
	key      FailureKey
	since    time.Duration // by the clock that cannot be set
	day      time.Time     // by the other one; as in the file
	last     time.Duration
	failures int  // in this process
	doubtful bool // the clock was set back, so that it may have failed for any time
}

// NewFailureTimes returns one that knows of no failure.
func NewFailureTimes() *FailureTimes {
	return &FailureTimes{
		of: make(map[FailureKey]*list.Element), pending: make(map[FailureKey]struct{}), changed: make(chan struct{}, 1),
	}
}

// fail notes that a notification of an instance failed, and reports whether it is to be kept now.
func (f *FailureTimes) fail(body, instance FailureKey, sent time.Time, now Instant) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for front := f.oldest.Front(); front != nil && now.up-front.Value.(*failureTime).last > forgetAfter; front = f.oldest.Front() {
		f.remove(front)
	}
	f.note(instance, now)
	return f.note(body, now).expires(sent, now)
}

// note counts a failure.
func (f *FailureTimes) note(key FailureKey, now Instant) *failureTime {
	at, known := f.of[key]
	if known {
		f.oldest.MoveToBack(at)
	} else {
		at = f.add(&failureTime{key: key, since: now.up, day: now.wall})
		f.change(key)
	}
	t := at.Value.(*failureTime)
	t.failures++
	t.last = now.up
	// A clock that was set would leave the file with a wrong age.
	if age, byDay := now.up-t.since, now.wall.Sub(t.day); byDay < age-clockSlack || byDay > forgetAfter && byDay > age+clockSlack {
		t.day = now.wall.Add(-age)
		f.change(key)
	}
	return t
}

// age is how long it fails. A machine that slept looks like one whose clock was set: then the longer
// time counts, if it is one that a notification can have.
func (t *failureTime) age(now Instant) time.Duration {
	age, byDay := now.up-t.since, now.wall.Sub(t.day)
	if byDay > age && byDay <= forgetAfter {
		return byDay
	}
	return age
}

// expires reports whether GREEN-API is about to delete a notification.
func (t *failureTime) expires(sent time.Time, now Instant) bool {
	age := t.age(now)
	if age >= keepAfter {
		return true
	}
	if t.failures < failuresByTimestamp || age < failingByTimestamp {
		return false
	}
	return t.doubtful || !sent.IsZero() && now.wall.Sub(sent) >= keepAfter
}

// behind reports whether a notification stands behind one of its instance that has failed for long, and
// is old itself.
func (f *FailureTimes) behind(body []byte, instance string, sent time.Time, now Instant) bool {
	if sent.IsZero() || now.wall.Sub(sent) < behindAfter || f.empty() {
		return false
	}
	key := bodyKey(body) // nobody waits for it
	f.mu.Lock()
	defer f.mu.Unlock()
	at, known := f.of[instanceKey(instance)]
	if !known {
		return false
	}
	stands := at.Value.(*failureTime)
	if stands.age(now) < behindAfter || now.up-stands.last > headRepeats {
		return false
	}
	own, known := f.of[key]
	return !known || own.Value.(*failureTime).since > stands.since
}

// delivered forgets a notification that a handler took, and that its instance stands.
func (f *FailureTimes) delivered(body []byte, instance string) {
	if !f.empty() {
		f.forget(bodyKey(body), instanceKey(instance))
	}
}

// kept forgets a notification that went into the quarantine.
func (f *FailureTimes) kept(body []byte) {
	if !f.empty() {
		f.forget(bodyKey(body))
	}
}

// empty reports whether nothing fails, so that nothing need be forgotten.
func (f *FailureTimes) empty() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.of) == 0
}

// forget removes what does not fail any longer.
func (f *FailureTimes) forget(keys ...FailureKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range keys {
		if at, known := f.of[key]; known {
			f.remove(at)
		}
	}
}

func (f *FailureTimes) add(t *failureTime) *list.Element {
	if f.oldest.Len() >= maxFailureTimes {
		f.remove(f.oldest.Front())
	}
	at := f.oldest.PushBack(t)
	f.of[t.key] = at
	return at
}

func (f *FailureTimes) remove(at *list.Element) {
	key := f.oldest.Remove(at).(*failureTime).key
	delete(f.of, key)
	f.change(key)
}

func (f *FailureTimes) change(key FailureKey) {
	if len(f.pending) >= 2*maxFailureTimes { // the file cannot be written; what it has too much gets old
		maps.DeleteFunc(f.pending, func(key FailureKey, _ struct{}) bool { return f.of[key] == nil })
	}
	f.pending[key] = struct{}{}
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// restore takes in what the file has, before which nothing or little has failed.
func (f *FailureTimes) restore(saved []FirstFailure, now Instant) {
	slices.SortFunc(saved, func(x, y FirstFailure) int { return x.At.Compare(y.At) })
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range saved {
		age := now.wall.Sub(s.At)
		if age > forgetAfter {
			f.change(s.Key)
			continue
		}
		t := &failureTime{key: s.Key, since: now.up - max(age, 0), day: s.At, last: now.up, doubtful: age < -clockSlack}
		at, known := f.of[s.Key]
		if !known {
			at = f.add(t)
		}
		if known := at.Value.(*failureTime); known != t { // it has failed already
			known.since, known.day, known.doubtful = min(known.since, t.since), t.day, t.doubtful
		}
		if age < 0 {
			at.Value.(*failureTime).day = now.wall
			f.change(s.Key)
		}
	}
}

// changes returns what the file lacks and what it must not have any longer.
func (f *FailureTimes) changes() (set []FirstFailure, gone []FailureKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.pending {
		if at, known := f.of[key]; known {
			set = append(set, FirstFailure{Key: key, At: at.Value.(*failureTime).day})
		} else {
			gone = append(gone, key)
		}
	}
	clear(f.pending)
	return set, gone
}

// putBack takes changes back that could not be saved.
func (f *FailureTimes) putBack(set []FirstFailure, gone []FailureKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range set {
		f.change(s.Key)
	}
	for _, key := range gone {
		f.change(key)
	}
}
