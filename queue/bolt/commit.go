package bolt

import (
	bolt "go.etcd.io/bbolt"

	"github.com/greenapi-community/caddy-green-api/internal/boltfile"
)

// commit makes changes in one transaction or, if the file has no room for that, in as many as it takes.
func (s *Store) commit(c changes) {
	limit := s.maxSize.Load()
	if limit > 0 {
		limit = max(limit, s.measured.Load().size)
	}
	if !boltfile.IsMaxSize(s.apply(c, limit)) {
		return
	}
	if len(c.controls) > 0 {
		_ = s.apply(changes{controls: c.controls}, 0) // as for all jobs, apply has told the callers
	}
	s.removeSparingly(c.removals)
	s.putSparingly(c.puts, limit)
}

// removeSparingly makes removals that need more room than there is. A smaller transaction needs less, and frees some.
// Only the smallest may let the file grow.
func (s *Store) removeSparingly(removals []*job) {
	for n, grow := len(removals), false; len(removals) > 0; {
		n = min(n, len(removals))
		limit := s.measured.Load().size
		if grow {
			limit = 0
		}
		err := s.ready()
		if err != nil {
			s.finish(removals[:n], unavailable(err))
		} else if boltfile.IsMaxSize(s.apply(changes{removals: removals[:n]}, limit)) {
			grow = n == 1
			n = max(n/2, 1)
			continue
		}
		removals = removals[n:]
		n, grow = 2*n, false
	}
}

// putSparingly writes the records that fit.
func (s *Store) putSparingly(puts []*job, limit int64) {
	if len(puts) == 0 {
		return
	}
	if err := s.ready(); err != nil {
		s.finish(puts, unavailable(err))
		return
	}
	if !boltfile.IsMaxSize(s.apply(changes{puts: puts}, limit)) {
		return
	}
	if len(puts) == 1 {
		s.finish(puts, s.errFull(puts[0]))
		return
	}
	for i := range puts {
		s.putSparingly(puts[i:i+1], limit)
	}
}

// apply makes changes in one transaction and ends their jobs, unless the error is that the file may not grow: then it
// has changed nothing.
func (s *Store) apply(c changes, limit int64) error {
	if len(c.puts)+len(c.removals)+len(c.controls) == 0 {
		return nil
	}
	s.mu.Lock()
	seq := s.last
	s.mu.Unlock()
	for _, j := range c.puts {
		seq++
		j.seq = seq
	}
	err := s.file.Update(limit, func(tx *bolt.Tx) error { return s.change(tx, c, seq) })
	if boltfile.IsMaxSize(err) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = seq // after an error, too: nobody knows whether a record has it now
	if err != nil {
		s.failed = true
		err = unavailable(err)
	} else {
		s.known = seq
		s.note(c)
	}
	for _, j := range c.all() {
		j.end(err)
	}
	return err
}

// change makes changes in a transaction. last is the last sequence number given.
func (s *Store) change(tx *bolt.Tx, c changes, last uint64) error {
	for _, j := range c.puts {
		if err := putRecord(tx, j.seq, j.value, j.parts); err != nil {
			return err
		}
	}
	removed, err := s.deleteRecords(tx, c.removals)
	if err != nil {
		return err
	}
	for _, j := range c.controls {
		if err := writeControl(tx, *j.control); err != nil {
			return err
		}
	}
	if len(c.puts)+len(c.controls) > 0 { // a control may name the last number given, which may have come to nothing
		if err := tx.Bucket(bucketRecords).SetSequence(last); err != nil {
			return err
		}
	}
	return addEntries(tx, len(c.puts)-removed)
}

// deleteRecords makes removals in a transaction, and notes in the file that it may have text of removed records.
func (s *Store) deleteRecords(tx *bolt.Tx, removals []*job) (removed int, err error) {
	for _, j := range removals {
		found, err := deleteRecord(tx, j.removes, s.mayHaveParts(j.removes))
		if err != nil {
			return 0, err
		}
		if found {
			removed++
		}
	}
	if len(removals) > 0 && !s.wipeNoted {
		err = tx.Bucket(bucketMeta).Put(keyWipe, []byte{1})
	}
	return removed, err
}

func (s *Store) mayHaveParts(seq uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	it := s.index.get(seq)
	return it != nil && it.size&hasParts != 0
}

// note brings the index to the state of the file. The caller holds mu.
func (s *Store) note(c changes) {
	for _, j := range c.puts {
		of := s.index.add(j.seq, j.summary, j.hasParts())
		of.unsure = 0
		if j.abandoned {
			of.unsure = j.seq
		}
		if !j.hasParts() {
			s.recent.add(j.seq, j.text)
		}
		s.stored++
	}
	if len(c.puts) > 0 {
		s.announce()
	}
	for _, j := range c.removals {
		s.index.remove(j.removes)
		s.recent.remove(j.removes)
	}
	s.wipeNoted = s.wipeNoted || len(c.removals) > 0
	for _, j := range c.controls {
		s.control = *j.control
	}
}
