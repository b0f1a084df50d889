package watch

import (
	"cmp"
	"container/list"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// Instances counts the notifications of each instance by outcome. It remembers the last maxSeen instances
// that sent something. The zero value is ready to use.
type Instances struct {
	mu     sync.Mutex
	of     map[string]*list.Element
	oldest list.List // of *Instance
}

const maxSeen = 10_000

// An Instance is an instance that has sent something with a right token.
type Instance struct {
	Instance string                  `json:"instance"`
	Last     time.Time               `json:"last"`
	Outcomes map[outcome.Outcome]int `json:"outcomes"`

	answered time.Time // the last of its notifications came that need not come again
}

// Add counts a notification of an instance.
func (s *Instances) Add(instance string, end outcome.Outcome, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.of[instance]
	if at == nil {
		if s.of == nil {
			s.of = make(map[string]*list.Element)
		}
		if s.oldest.Len() == maxSeen {
			delete(s.of, s.oldest.Remove(s.oldest.Front()).(*Instance).Instance)
		}
		at = s.oldest.PushBack(&Instance{Instance: instance, Outcomes: make(map[outcome.Outcome]int)})
		s.of[instance] = at
	}
	one := at.Value.(*Instance)
	if now.After(one.Last) { // not if it has been in the queue
		one.Last = now
		s.oldest.MoveToBack(at)
	}
	one.Outcomes[end]++
	if end != outcome.Failed && end != outcome.Refused && now.After(one.answered) {
		one.answered = now
	}
}

// Answered returns when the last notification of an instance came that need not come again, zero if none is known.
func (s *Instances) Answered(instance string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.of[instance]; at != nil {
		return at.Value.(*Instance).answered
	}
	return time.Time{}
}

// Knows reports whether something of an instance is remembered.
func (s *Instances) Knows(instance string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[instance] != nil
}

// List returns all instances, the most recent sender first.
func (s *Instances) List() []Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Instance, 0, s.oldest.Len())
	for at := s.oldest.Front(); at != nil; at = at.Next() {
		one := *at.Value.(*Instance)
		counts := make(map[outcome.Outcome]int, len(one.Outcomes))
		maps.Copy(counts, one.Outcomes)
		one.Outcomes = counts
		all = append(all, one)
	}
	slices.SortStableFunc(all, func(x, y Instance) int {
		return cmp.Or(y.Last.Compare(x.Last), cmp.Compare(x.Instance, y.Instance))
	})
	return all
}

// Recent calls do with each instance that has sent something since a time, latest first, until do
// returns false.
func (s *Instances) Recent(since time.Time, do func(instance string) (more bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at := s.oldest.Back(); at != nil; at = at.Prev() {
		one := at.Value.(*Instance)
		if one.Last.Before(since) || !do(one.Instance) {
			return
		}
	}
}

// Silences finds the configured instances that have sent nothing for long, across reloads. It tracks all
// configured instances, however many there are, and no others. The zero value is ready to use.
type Silences struct {
	mu sync.Mutex
	of map[string]*watchedInstance
}

type watchedInstance struct {
	last time.Time       // when it last sent something, or since when it is watched
	told []time.Duration // lengths of this silence already returned
}

// A Silence says that an instance has sent nothing for a length of time that an alert asks for.
type Silence struct {
	Instance string
	Length   time.Duration
}

// Saw records that an instance has sent something, and reports whether that ends a silence that Watch
// returned.
func (s *Silences) Saw(instance string, at time.Time) (ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.of[instance]; w != nil && at.After(w.last) {
		ended = len(w.told) > 0
		w.last, w.told = at, nil
	}
	return ended
}

// A Silent is an instance whose silence Watch has returned.
type Silent struct {
	Instance string    `json:"instance"`
	Since    time.Time `json:"since"` // nothing has come from it, as far as it was watched
}

// Silent returns the instances of which Watch has returned a silence that lasts, the longest first.
func (s *Silences) Silent() []Silent {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []Silent{}
	for instance, w := range s.of {
		if len(w.told) > 0 {
			all = append(all, Silent{instance, w.last.UTC()})
		}
	}
	slices.SortFunc(all, func(x, y Silent) int { return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.Instance, y.Instance)) })
	return all
}

// Watch returns the silences of these lengths among the configured instances, each once. It forgets
// instances that are no longer configured.
func (s *Silences) Watch(configured []string, lengths []time.Duration, now time.Time) (silent []Silence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.of
	s.of = make(map[string]*watchedInstance, len(configured))
	for _, instance := range configured {
		w := before[instance]
		if w == nil {
			w = &watchedInstance{last: now}
		}
		s.of[instance] = w
	}
	for instance, w := range s.of {
		w.told = slices.DeleteFunc(w.told, func(length time.Duration) bool { return !slices.Contains(lengths, length) }) // no alert asks for it any more
		for _, length := range lengths {
			if now.Sub(w.last) >= length && !slices.Contains(w.told, length) {
				w.told = append(w.told, length)
				silent = append(silent, Silence{instance, length})
			}
		}
	}
	return silent
}
