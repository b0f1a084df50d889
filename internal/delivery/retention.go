package delivery

import (
	"container/list"
	"crypto/sha256"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// GREEN-API deletes a notification after 24 hours in its queue, but does not say when it was queued. That
// was no later than when the edge first saw it fail, and most likely at its own timestamp. The edge keeps
// it shortly before the deletion.
const (
	keepAfter = 23*time.Hour + 30*time.Minute

	// By timestamp alone, a notification is kept only if it keeps failing: what was sent while a phone was
	// offline arrives with an old timestamp.
	failuresByTimestamp = 3
	failingByTimestamp  = 10 * time.Minute

	// behindAfter is the age at which a notification behind a head that has failed for as long will get no
	// second chance. The last attempt at one must not use up the time of the others.
	behindAfter = 23 * time.Hour

	// headRepeats is how often a blocked head comes again at least.
	headRepeats = time.Hour

	// forgetAfter is when GREEN-API has certainly deleted it. What comes again after that is another one.
	forgetAfter = 25 * time.Hour

	// clockSlack is how far the time of day may be changed without casting doubt on an age.
	clockSlack = 10 * time.Minute

	maxFailureTimes = 100_000
)

// A FailureKey identifies a notification by its body, or an instance.
type FailureKey = [16]byte

func keyOf(d outcome.Digest) FailureKey { return FailureKey(d[:len(FailureKey{})]) }

func instanceKey(instance string) FailureKey {
	return keyOf(sha256.Sum256([]byte("instance " + instance)))
}

// A FirstFailure is a saved record of when something began to fail.
type FirstFailure struct {
	Key FailureKey
	At  time.Time
}

// FailureTimes knows since when notifications have been failing, and since when instances have had nothing
// delivered, for the last maxFailureTimes that failed. The quarantine's file has a copy, so that a restart
// does not reset them. The copy lags behind, which costs at most a second of the remaining half hour.
type FailureTimes struct {
	mu      sync.Mutex
	of      map[FailureKey]*list.Element
	oldest  list.List // of *failureTime, the least recent failure first
	pending map[FailureKey]struct{}
	changed chan struct{} // has room for one request to save
}

// failureTime is since when something has been failing.
type failureTime struct {
	key      FailureKey
	since    time.Duration // by the clock that cannot be changed
	day      time.Time     // the same by the time of day, as in the file
	last     time.Duration
	failures int  // in this process
	doubtful bool // the clock was set back, so it may have been failing for any length of time
}

// NewFailureTimes returns empty FailureTimes.
func NewFailureTimes() *FailureTimes {
	return &FailureTimes{
		of: make(map[FailureKey]*list.Element), pending: make(map[FailureKey]struct{}), changed: make(chan struct{}, 1),
	}
}

// fail records that a notification of an instance failed, and reports whether to keep it now.
func (f *FailureTimes) fail(body, instance FailureKey, sent time.Time, now Instant) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for front := f.oldest.Front(); front != nil && now.up-front.Value.(*failureTime).last > forgetAfter; front = f.oldest.Front() {
		f.remove(front)
	}
	f.note(instance, now)
	return f.note(body, now).expires(sent, now)
}

// since returns since when a notification has been failing, zero if that is not known.
func (f *FailureTimes) since(body FailureKey, now Instant) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if at, known := f.of[body]; known {
		return now.wall.Add(-at.Value.(*failureTime).age(now))
	}
	return time.Time{}
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
	// If the clock has been changed, the file would show a wrong age.
	if age, byDay := now.up-t.since, now.wall.Sub(t.day); byDay < age-clockSlack || byDay > forgetAfter && byDay > age+clockSlack {
		t.day = now.wall.Add(-age)
		f.change(key)
	}
	return t
}

// age returns how long it has been failing. A machine that slept looks like one whose clock was changed, so
// the longer time is used if a notification can be that old.
func (t *failureTime) age(now Instant) time.Duration {
	age, byDay := now.up-t.since, now.wall.Sub(t.day)
	if byDay > age && byDay <= forgetAfter {
		return byDay
	}
	return age
}

// expires reports whether GREEN-API is about to delete the notification.
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

// behind reports whether a notification is old and stands behind another one of its instance that has been
// failing for long.
func (f *FailureTimes) behind(body FailureKey, instance string, sent time.Time, now Instant) bool {
	if sent.IsZero() || now.wall.Sub(sent) < behindAfter || f.empty() {
		return false
	}
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
	own, known := f.of[body]
	return !known || own.Value.(*failureTime).since > stands.since
}

// delivered forgets a notification that a handler took, and that its instance is blocked.
func (f *FailureTimes) delivered(body FailureKey, instance string) {
	if !f.empty() {
		f.forget(body, instanceKey(instance))
	}
}

// kept forgets a notification that was quarantined.
func (f *FailureTimes) kept(body FailureKey) {
	if !f.empty() {
		f.forget(body)
	}
}

// empty reports whether nothing is failing, so there is nothing to forget.
func (f *FailureTimes) empty() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.of) == 0
}

// forget removes what is no longer failing.
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
	if len(f.pending) >= 2*maxFailureTimes { // the file cannot be written; what is left over in it expires
		maps.DeleteFunc(f.pending, func(key FailureKey, _ struct{}) bool { return f.of[key] == nil })
	}
	f.pending[key] = struct{}{}
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// restore loads what was saved. Little or nothing has failed in this process by then.
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
		if known := at.Value.(*failureTime); known != t { // it has failed in this process, too
			known.since, known.day, known.doubtful = min(known.since, t.since), t.day, t.doubtful
		}
		if age < 0 {
			at.Value.(*failureTime).day = now.wall
			f.change(s.Key)
		}
	}
}

// changes returns what is missing from the file and what has to be deleted from it.
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

// putBack puts changes back that could not be saved.
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
