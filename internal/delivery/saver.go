package delivery

import (
	"sync"
	"time"
)

const (
	// saveAfter is how long changes are collected for one save, so that in an outage not every failing
	// notification costs a sync. A crash loses no more than that.
	saveAfter = time.Second
	// saveAgain is how long to wait after a failed save.
	saveAgain = 10 * time.Second
)

// A Book stores failure times across restarts.
type Book struct {
	Load   func() ([]FirstFailure, error)
	Save   func(set []FirstFailure, gone []FailureKey) error
	Failed func(error) // called once when the book cannot be read or written, and again only after it could be
}

// A Saver keeps a book up to date.
type Saver struct {
	times   *FailureTimes
	book    Book
	end     chan struct{}
	working sync.WaitGroup
	told    bool // Failed was called
}

// SaveIn loads the failure times from the book and saves changes to it until the Saver is stopped.
func (f *FailureTimes) SaveIn(book Book) *Saver {
	s := &Saver{times: f, book: book, end: make(chan struct{})}
	saved, err := book.Load()
	if err != nil {
		s.tell(err)
	}
	f.restore(saved, new(Clock).Now())
	s.working.Go(s.run)
	return s
}

// Stop saves the remaining changes. The book must still be open.
func (s *Saver) Stop() {
	close(s.end)
	s.working.Wait()
	_ = s.save()
}

func (s *Saver) run() {
	for {
		select {
		case <-s.times.changed:
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

// wait reports whether d passed without the Saver being stopped.
func (s *Saver) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.end:
		return false
	}
}

func (s *Saver) save() error {
	set, gone := s.times.changes()
	if len(set) == 0 && len(gone) == 0 {
		return nil
	}
	if err := s.book.Save(set, gone); err != nil {
		s.times.putBack(set, gone)
		s.tell(err)
		return err
	}
	s.told = false
	return nil
}

func (s *Saver) tell(err error) {
	if !s.told {
		s.told = true
		s.book.Failed(err)
	}
}
