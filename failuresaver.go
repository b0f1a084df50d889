package greenapi

import (
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

const (
	// saveAfter is how long changes gather before they are saved with one sync, so that an outage does
	// not cost every failing notification one. A crash loses no more than that.
	saveAfter = time.Second
	// saveAgain is when a save that failed is tried again.
	saveAgain = 10 * time.Second
)

// saver keeps the quarantine's copy of failureTimes up to date.
type saver struct {
	times   *delivery.FailureTimes
	store   *quarantine.Store
	end     chan struct{}
	working sync.WaitGroup
	told    bool // that it fails
}

// save takes in what the store has, and saves changes in it until it is stopped.
func save(times *delivery.FailureTimes, store *quarantine.Store) *saver {
	s := &saver{times: times, store: store, end: make(chan struct{})}
	saved, err := store.FirstFailures()
	if err != nil {
		s.tell(err)
	}
	failures := make([]delivery.FirstFailure, len(saved))
	for i, f := range saved {
		failures[i] = delivery.FirstFailure(f)
	}
	times.Restore(failures, new(delivery.Clock).Now())
	s.working.Go(s.run)
	return s
}

func (s *saver) run() {
	for {
		select {
		case <-s.times.Unsaved():
		case <-s.end:
			return
		}
		if !s.wait(saveAfter) {
			return
		}
		if err := s.save(); err != nil && !s.wait(saveAgain) {
			return
		}
	}
}

// wait reports whether the saver was not stopped meanwhile.
func (s *saver) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.end:
		return false
	}
}

func (s *saver) save() error {
	set, gone := s.times.Changes()
	if len(set) == 0 && len(gone) == 0 {
		return nil
	}
	failures := make([]quarantine.FirstFailure, len(set))
	for i, f := range set {
		failures[i] = quarantine.FirstFailure(f)
	}
	err := s.store.SaveFirstFailures(failures, gone, quarantineLimit())
	if err != nil {
		s.times.PutBack(set, gone)
		s.tell(err)
		return err
	}
	s.told = false
	return nil
}

func (s *saver) tell(err error) {
	if !s.told {
		s.told = true
		caddy.Log().Named("green_api").Warn("the quarantine does not know since when notifications fail, a restart forgets it", zap.Error(err))
	}
}

// stop saves what is left. The store must still be open.
func (s *saver) stop() {
	close(s.end)
	s.working.Wait()
	_ = s.save()
}
