// Package watch notices what shows only over time: instances that fall silent, handlers that fail while
// others take their notifications, formats that change. It has no clock: each call is given the time.
package watch

import (
	"sync"
	"time"
)

// Daily lets each key through once a day. It remembers the last maxSeen keys. The zero value is ready to
// use.
type Daily struct {
	mu   sync.Mutex
	told map[string]time.Time
}

// First reports whether this is the first time in a day that a key comes.
func (d *Daily) First(key string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at, told := d.told[key]; told && now.Sub(at) < 24*time.Hour {
		return false
	}
	if d.told == nil || len(d.told) >= maxSeen {
		d.told = make(map[string]time.Time)
	}
	d.told[key] = now
	return true
}
