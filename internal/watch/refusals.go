package watch

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

const (
	// refusedFor is how long a refusal is remembered: GREEN-API keeps a notification for as long.
	refusedFor = 24 * time.Hour

	maxUnlisted = 100

	// refusedAgain is how soon a refusal is not worth recording again: a sender waits for a minute.
	refusedAgain = time.Second
)

// Refusals are the instances whose notifications are refused, as far as the edge can tell that it is they. Those that
// it knows are kept apart from those of which it has only been told: whoever has a token can name as many as he likes,
// which must not push out any that is known. The zero value is ready to use.
type Refusals struct {
	some atomic.Bool // so that nobody waits for mu while there is none

	mu       sync.Mutex
	known    map[string]*Refusal
	unlisted map[string]*Refusal
}

// A Refusal is an instance whose notifications are refused.
type Refusal struct {
	Instance string        `json:"instance"`
	Name     string        `json:"name"` // of the block
	Reason   reason.Reason `json:"reason"`
	Known    bool          `json:"known"` // the config names it, or something of it has been let in
	Since    time.Time     `json:"since"` // nothing has been let in since then
	At       time.Time     `json:"at"`    // the last time
}

// Add records a refusal. Its Since is ignored.
func (r *Refusals) Add(one Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	of, most, other := &r.unlisted, maxUnlisted, r.known
	if one.Known {
		of, most, other = &r.known, maxSeen, r.unlisted
	}
	delete(other, one.Instance) // the config has changed
	if *of == nil {
		*of = make(map[string]*Refusal)
	}
	one.Since = one.At
	if before := (*of)[one.Instance]; before != nil {
		one.Since = before.Since
	} else if len(*of) == most {
		if one.Known { // they come again
			return
		}
		delete(*of, oldest(*of))
	}
	(*of)[one.Instance] = &one
	r.some.Store(true)
}

// Lately reports whether the same refusal was recorded just now, so that it need not be looked into again.
func (r *Refusals) Lately(instance string, why reason.Reason, at time.Time) bool {
	if !r.some.Load() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	one := cmp.Or(r.known[instance], r.unlisted[instance])
	return one != nil && one.Reason == why && at.Sub(one.At) < refusedAgain
}

func oldest(of map[string]*Refusal) (instance string) {
	for name, one := range of {
		if instance == "" || one.At.Before(of[instance].At) {
			instance = name
		}
	}
	return instance
}

// Let records that a notification of an instance was let in at some time.
func (r *Refusals) Let(instance string, at time.Time) {
	if !r.some.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range []map[string]*Refusal{r.known, r.unlisted} {
		if one := of[instance]; one != nil && at.After(one.At) {
			delete(of, instance)
		}
	}
	r.some.Store(len(r.known)+len(r.unlisted) > 0)
}

// List returns the refused instances, the one that was refused last first. knows reports which of them are known now: of
// one that no longer is, a wrong token says nothing.
func (r *Refusals) List(now time.Time, knows func(instance string) bool) []Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now)
	all := make([]Refusal, 0, len(r.known)+len(r.unlisted))
	for _, of := range []map[string]*Refusal{r.known, r.unlisted} {
		for _, one := range of {
			one := *one
			if one.Known = knows(one.Instance); one.Known || one.Reason == reason.InstanceNotAllowed {
				all = append(all, one)
			}
		}
	}
	slices.SortFunc(all, func(x, y Refusal) int { return cmp.Or(y.At.Compare(x.At), cmp.Compare(x.Instance, y.Instance)) })
	return all
}

// forget forgets what was refused too long ago. The caller holds the lock.
func (r *Refusals) forget(now time.Time) {
	for _, of := range []map[string]*Refusal{r.known, r.unlisted} {
		for instance, one := range of {
			if now.Sub(one.At) > refusedFor {
				delete(of, instance)
			}
		}
	}
	r.some.Store(len(r.known)+len(r.unlisted) > 0)
}
