package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/greenapi-community/caddy-green-api/internal/boltfile"
	"github.com/greenapi-community/caddy-green-api/queue"
)

// changes are what one transaction does.
type changes struct{ puts, removals, controls []*job }

func (c *changes) all() []*job { return slices.Concat(c.puts, c.removals, c.controls) }

// plan ends the Puts that there is nothing to do for, or no room, and sorts the other jobs.
func (s *Store) plan(jobs []*job) (c changes) {
	room := room{
		used: s.measured.Load().used, maxSize: s.maxSize.Load(), pageSize: int64(s.file.DB.Info().PageSize), puts: make(map[string]int),
	}
	for _, j := range jobs {
		switch {
		case j.control != nil:
			c.controls = append(c.controls, j)
		case j.value == nil:
			c.removals = append(c.removals, j)
		case !s.refuse(j, &room):
			c.puts = append(c.puts, j)
		}
	}
	return c
}

// room is what a transaction has left for Puts.
type room struct {
	used, maxSize, pageSize int64
	puts                    map[string]int // that the transaction has already, by instance
}

// refuse ends a Put that repeats another one or does not fit, and takes the room of any other.
func (s *Store) refuse(j *job, room *room) (refused bool) {
	duplicate, err := s.isDuplicate(j)
	if duplicate {
		s.finishDuplicate(j)
		return true
	}
	if err == nil {
		err = s.errNoRoom(j, room)
	}
	if err != nil {
		s.finish([]*job{j}, err)
		return true
	}
	room.used += (j.size()/room.pageSize + 1) * room.pageSize
	room.puts[j.summary.instance]++
	return false
}

// errNoRoom returns why a Put does not fit.
func (s *Store) errNoRoom(j *job, room *room) error {
	need := (j.size()/room.pageSize + 1 + overheadPages) * room.pageSize
	if room.maxSize > 0 && need+emptyPages*room.pageSize+boltfile.MinGrowth > room.maxSize {
		return fmt.Errorf("%s: %w: a record of %d bytes never fits, %d are allowed in all", s.path, queue.ErrTooLarge, j.size(), room.maxSize)
	}
	if j.perInstance > 0 && s.countOf(j)+room.puts[j.summary.instance] >= j.perInstance {
		return fmt.Errorf("%s: %w: %d", s.path, queue.ErrInstanceFull, j.perInstance)
	}
	if room.maxSize > 0 && room.used+need > room.maxSize {
		return s.errFull(j)
	}
	return nil
}

func (s *Store) countOf(j *job) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if of := s.index.instances[j.summary.instance]; of != nil {
		return of.count
	}
	return 0
}

// isDuplicate reports whether a Put repeats one that has stored its record and has not returned nil.
func (s *Store) isDuplicate(j *job) (bool, error) {
	s.mu.Lock()
	of := s.index.instances[j.summary.instance]
	if of == nil || of.unsure == 0 {
		s.mu.Unlock()
		return false, nil
	}
	unsure := of.unsure
	candidate := s.index.get(unsure).size&^hasParts == j.summary.size
	s.mu.Unlock()
	if !candidate {
		return false, nil
	}
	r, err := s.load(unsure, s.file.WriterView)
	switch {
	case errors.Is(err, queue.ErrDamaged), errors.Is(err, queue.ErrVersion):
		return false, nil // better twice than never
	case err != nil:
		return false, unavailable(fmt.Errorf("%s: record %d: %w", s.path, unsure, err))
	}
	return bytes.Equal(r.Body, j.body), nil
}

// finishDuplicate ends a Put that repeats another one. From now on the record counts as one whose Put returned nil.
func (s *Store) finishDuplicate(j *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !j.abandoned {
		s.index.instances[j.summary.instance].unsure = 0
	}
	j.duplicate = true
	j.end(nil)
}

// errFull returns an error that says how full the store is.
func (s *Store) errFull(j *job) error {
	m := s.measured.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Errorf("%s: %w: a record of %d bytes is too much: %d records use %d bytes, the file has %d, and %d are allowed",
		s.path, queue.ErrFull, j.size(), s.index.entries, m.used, m.size, s.maxSize.Load())
}

// finish ends jobs that have failed.
func (s *Store) finish(jobs []*job, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range jobs {
		j.end(err)
	}
}

// end ends a job. The caller holds mu.
func (j *job) end(err error) {
	j.err, j.over = err, true
	close(j.ended)
}
