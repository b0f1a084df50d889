package watch

import "sync"

// A Trouble is something that begins and ends, such as a queue that is nearly full. The zero value is ready to use.
type Trouble struct {
	mu sync.Mutex
	on bool
}

// See notes whether it is there, and reports whether that has changed.
func (t *Trouble) See(there bool) (began, ended bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.on
	t.on = there
	return there && !was, !there && was
}

// Troubles are troubles of a kind, by name. The zero value is ready to use.
type Troubles struct {
	mu sync.Mutex
	on map[string]bool
}

// See notes which ones are there, and returns those that were not there before, and those that no longer are.
func (t *Troubles) See(there []string) (began, ended []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.on
	t.on = make(map[string]bool, len(there))
	for _, name := range there {
		t.on[name] = true
		if !was[name] {
			began = append(began, name)
		}
	}
	for name := range was {
		if !t.on[name] {
			ended = append(ended, name)
		}
	}
	return began, ended
}
