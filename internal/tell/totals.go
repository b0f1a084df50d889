package tell

import (
	"maps"
	"sync"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// totals counts how requests have ended, across reloads. The zero value is ready.
type totals struct {
	mu sync.Mutex
	of map[outcome.Outcome]int64
}

func (t *totals) add(end outcome.Outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = make(map[outcome.Outcome]int64)
	}
	t.of[end]++
}

// counts returns the totals of all outcomes.
func (t *totals) counts() map[outcome.Outcome]int64 {
	counts := make(map[outcome.Outcome]int64)
	for end := range messages {
		counts[end] = 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.Copy(counts, t.of)
	return counts
}
