package quarantine

import "sync"

// Shared is a store that is opened on first use. All its methods are safe for concurrent use.
type Shared struct {
	dir    string
	opened func(*Store) (closing func())

	mu      sync.Mutex
	store   *Store
	closing func()
}

// NewShared returns a Shared for the store in a directory. It calls opened after it has opened the store,
// and the function that opened returned before it closes the store.
func NewShared(dir string, opened func(*Store) (closing func())) *Shared {
	return &Shared{dir: dir, opened: opened}
}

// Open returns the store. The first call opens it.
func (s *Shared) Open() (*Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store != nil {
		return s.store, nil
	}
	store, err := Open(s.dir)
	if err != nil {
		return nil, err
	}
	s.store, s.closing = store, s.opened(store)
	return store, nil
}

// Stats returns the Stats of the store, the zero Stats if it is not open.
func (s *Shared) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store == nil {
		return Stats{}
	}
	return s.store.Stats()
}

// Close closes the store if it is open.
func (s *Shared) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store == nil {
		return nil
	}
	s.closing()
	return s.store.Close()
}
