package greenapi

import (
	"cmp"
	"container/list"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// operator is what the operator wants to know, and is told, over config reloads.
type operator struct {
	seen   seenInstances
	alerts alertDesk
	events eventDesk
	daily  daily
	clock  wallClock
	silent silentInstances
	totals totals

	replaying sync.Map // of quarantine ids: those in hand
}

// operators holds the one operator of the process.
var operators = caddy.NewUsagePool()

const theOperator = "operator"

func holdOperator() *operator {
	shared, _, _ := operators.LoadOrNew(theOperator, func() (caddy.Destructor, error) { // never fails
		return new(operator), nil
	})
	return shared.(*operator)
}

func releaseOperator() error {
	_, err := operators.Delete(theOperator)
	return err
}

// Destruct sends what is left to tell, at the end of the process or of the last config with a
// green_api in it.
func (o *operator) Destruct() error {
	o.alerts.close()
	o.events.close()
	return nil
}

// seenInstances counts what came from which instance, of the last maxSeen that sent something.
type seenInstances struct {
	mu     sync.Mutex
	of     map[string]*list.Element
	oldest list.List // of *seenInstance
}

const maxSeen = 10_000

// seenInstance is one instance that has sent something with a right token.
type seenInstance struct {
	Instance string                  `json:"instance"`
	Last     time.Time               `json:"last"`
	Outcomes map[outcome.Outcome]int `json:"outcomes"`
}

func (s *seenInstances) add(instance string, end outcome.Outcome, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.of[instance]
	if at == nil {
		if s.of == nil {
			s.of = make(map[string]*list.Element)
		}
		if s.oldest.Len() == maxSeen {
			delete(s.of, s.oldest.Remove(s.oldest.Front()).(*seenInstance).Instance)
		}
		at = s.oldest.PushBack(&seenInstance{Instance: instance, Outcomes: make(map[outcome.Outcome]int)})
		s.of[instance] = at
	} else {
		s.oldest.MoveToBack(at)
	}
	one := at.Value.(*seenInstance)
	one.Last = now
	one.Outcomes[end]++
}

// list returns all, the last to send first.
func (s *seenInstances) list() []seenInstance {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]seenInstance, 0, s.oldest.Len())
	for at := s.oldest.Front(); at != nil; at = at.Next() {
		one := *at.Value.(*seenInstance)
		counts := make(map[outcome.Outcome]int, len(one.Outcomes))
		maps.Copy(counts, one.Outcomes)
		one.Outcomes = counts
		all = append(all, one)
	}
	slices.SortStableFunc(all, func(x, y seenInstance) int {
		return cmp.Or(y.Last.Compare(x.Last), cmp.Compare(x.Instance, y.Instance))
	})
	return all
}
