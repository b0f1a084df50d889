package greenapi

import (
	"maps"
	"sync"
)

// totals counts how requests have ended, over reloads. The zero value is ready.
type totals struct {
	mu sync.Mutex
	of map[outcome]int64
}

func (t *totals) add(end outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = make(map[outcome]int64)
	}
	t.of[end]++
}

// counts are the totals of all outcomes.
func (t *totals) counts() map[outcome]int64 {
	counts := make(map[outcome]int64)
	for end := range messages {
		counts[end] = 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.Copy(counts, t.of)
	return counts
}
