package watch

import (
	"maps"
	"sync"
	"time"
)

// Handlers remembers failing handlers, so that the operator is told of each one, but not too often. While
// other handlers take its notifications, a failing one could go unnoticed for weeks. The zero value is
// ready to use.
type Handlers struct {
	mu   sync.Mutex
	last map[string]time.Time // when the operator was last told of each failing handler
}

const (
	tellFailingEvery = 5 * time.Minute
	maxFailing       = 1000
)

// Failed reports whether to tell the operator that a handler has just failed.
func (f *Handlers) Failed(handler string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if last, known := f.last[handler]; known && now.Sub(last) < tellFailingEvery {
		return false
	}
	if len(f.last) >= maxFailing { // addresses come and go
		maps.DeleteFunc(f.last, func(_ string, last time.Time) bool { return now.Sub(last) >= tellFailingEvery })
	}
	if len(f.last) >= maxFailing {
		return false
	}
	if f.last == nil {
		f.last = make(map[string]time.Time)
	}
	f.last[handler] = now
	return true
}

// Took reports whether a handler that has just taken something had failed before.
func (f *Handlers) Took(handler string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, failed := f.last[handler]
	delete(f.last, handler)
	return failed
}
