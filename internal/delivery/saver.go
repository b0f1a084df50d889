package delivery

import (
	"sync"
	"time"
)

const (
	// saveAfter is how long changes gather before they are saved with one sync, so that an outage does
	// not cost every failing notification one. A crash loses no more than that.
	saveAfter = time.Second
	// saveAgain is when a save that failed is tried again.
	saveAgain = 10 * time.Second
)

// Book is where failure times survive a restart.
type Book struct {
	Load   func() ([]FirstFailure, error)
	Save   func(set []FirstFailure, gone []FailureKey) error
	Failed func(error) // is told once that the book cannot be read or written, until it can again
}

// A Saver keeps a book up to date.
type Saver struct {
	times   *FailureTimes
	book    Book
	end     chan struct{}
	working sync.WaitGroup
	told    bool // that it fails
}

// SaveIn takes in what the book has, and saves changes in it until the saver is stopped.
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

// Stop saves what is left. The book must still be open.
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

// wait reports whether the saver was not stopped meanwhile.
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
