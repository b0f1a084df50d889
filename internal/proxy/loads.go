package proxy

import "sync"

// Loads counts the requests in flight that go directly to each upstream, from all blocks and configs.
// reverse_proxy counts those that go through it, and lets nobody else count.
type Loads struct {
	mu       sync.Mutex
	requests map[string]int
}

// NewLoads returns counts of nothing.
func NewLoads() *Loads { return &Loads{requests: make(map[string]int)} }

// of returns how many requests an upstream has.
func (l *Loads) of(upstream string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests[upstream]
}

// begin counts a request and returns how many there were before.
func (l *Loads) begin(upstream string) (others int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	others = l.requests[upstream]
	l.requests[upstream] = others + 1
	return others
}

func (l *Loads) end(upstream string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.requests[upstream]--; l.requests[upstream] == 0 {
		delete(l.requests, upstream)
	}
}
