package bolt

import (
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/greenapi-community/caddy-green-api/queue"
)

const (
	// Limits of what is written with one sync, so that no call waits long and memory is bounded.
	batchJobs  = 1024
	batchBytes = 32 << 20
	// How long the writer waits for another job while it expects some, and how often.
	gatherTime  = 200 * time.Microsecond
	gatherTimes = 10
	// Pages that the tree, the list of free pages and the buckets may need in addition to the record itself.
	overheadPages = 8
	// Pages in use of an empty file.
	emptyPages = 12
	// How long after a failed transaction the writer looks by itself for what has become of it.
	lookAgain = time.Second
	// How long the queue must have been empty and idle before it gets a new file.
	idleTime = time.Minute
)

// A job is a call that waits for the writer: a Put, a removal, or a new control.
type job struct {
	value       []byte // of a Put: what to write into bucketRecords, and into bucketParts
	parts       [][]byte
	text        []byte // all of the record, in the memory of value and parts
	summary     summary
	body        []byte
	perInstance int
	seq         uint64 // its sequence number; the writer's

	removes uint64 // of a removal

	control *queue.Control

	// Guarded by Store.mu.
	writing, over bool
	abandoned     bool // its caller does not wait any more

	ended     chan struct{} // closed when err and duplicate are set
	err       error
	duplicate bool
}

// writer is the state of the goroutine that writes, which only it uses.
type writer struct {
	idle      time.Duration // idleTime, but for tests
	expected  int           // how many jobs may come at once
	known     uint64        // the index has all records up to this sequence number
	failed    bool          // the last transaction failed, and may have been written
	wipeNoted bool          // the file has keyWipe
}

// newPut returns the job of a Put.
func newPut(r *queue.Record, perInstance int) *job {
	j := &job{summary: summarize(r), body: r.Body, perInstance: perInstance, ended: make(chan struct{})}
	j.value = j.summary.encode(r.Room())
	before := len(j.value)
	j.value = r.AppendTo(j.value)
	j.text = j.value[before:]
	if len(j.text) > inlineMax {
		j.value = j.value[:before+inlineMax]
		j.parts = slices.Collect(slices.Chunk(j.text[inlineMax:], partLen))
	}
	return j
}

// size is how many bytes a job writes.
func (j *job) size() int64 {
	n := int64(len(j.value))
	for _, part := range j.parts {
		n += int64(len(part))
	}
	return n
}

// hasParts reports whether bucketParts may have something of the record.
func (j *job) hasParts() bool { return len(j.parts) > 0 || len(j.value) >= inlineMax }

// enqueue hands a job to the writer.
func (s *Store) enqueue(j *job) {
	s.mu.Lock()
	s.jobs = append(s.jobs, j)
	n := len(s.jobs)
	wake := n == 1 || n == s.crowd
	s.mu.Unlock()
	if wake {
		s.rouse()
	}
}

func (s *Store) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write does the jobs until stop is closed and none is left.
func (s *Store) write() {
	defer close(s.stopped)
	rest := time.NewTimer(s.idle)
	defer rest.Stop()
	for {
		select {
		case <-s.wake:
			s.gather()
			s.batch()
		case <-rest.C:
			s.rest()
		case <-s.stop:
			for s.batch() {
			}
			return
		}
		pause := s.idle
		if s.failed {
			pause = min(s.idle, lookAgain)
		}
		rest.Reset(pause)
	}
}

// gather waits a little if several jobs came along last time: their callers may be about to come again, beside those
// that came meanwhile. A lone one does not wait.
func (s *Store) gather() {
	if s.expected < 2 {
		return
	}
	here := s.await(s.expected)
	timer := time.NewTimer(gatherTime)
	defer timer.Stop()
	for range gatherTimes {
		if here >= s.expected {
			return
		}
		select {
		case <-s.wake:
			return
		case <-timer.C:
		}
		before := here
		if here = s.await(s.expected); here == before {
			return
		}
		timer.Reset(gatherTime)
	}
}

// await returns how many jobs there are, and has wake tell when there are as many as crowd.
func (s *Store) await(crowd int) (here int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crowd = crowd
	return len(s.jobs)
}

// batch does up to one batch of jobs, and reports whether there were any.
func (s *Store) batch() bool {
	s.mu.Lock()
	s.crowd = 0
	var n int
	var size int64
	for n < len(s.jobs) && n < batchJobs && (n == 0 || size+s.jobs[n].size() <= batchBytes) {
		size += s.jobs[n].size()
		s.jobs[n].writing = true
		n++
	}
	jobs := slices.Clone(s.jobs[:n])
	s.jobs = slices.Delete(s.jobs, 0, n) // also releases the bodies
	s.mu.Unlock()
	if n == 0 {
		return false
	}

	s.file.Writer <- struct{}{}
	defer func() { <-s.file.Writer }()
	if err := s.ready(); err != nil {
		s.finish(jobs, unavailable(err))
	} else {
		s.commit(s.plan(jobs))
	}
	if s.expected = n + s.await(0); s.expected > n {
		s.rouse()
	}
	return true
}

// ready prepares the file for a transaction, and finds out what has become of the last one if that failed.
func (s *Store) ready() error {
	if err := s.file.Ready(); err != nil {
		return err
	}
	if !s.failed {
		return nil
	}
	// Its removals stay in the index: their callers try again.
	err := s.file.WriterView(func(tx *bolt.Tx) (err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.control, err = readControl(tx); err != nil {
			return err
		}
		s.wipeNoted = tx.Bucket(bucketMeta).Get(keyWipe) != nil
		return scan(tx, s.known+1, func(seq uint64, sum summary, parts bool) {
			s.known = seq // so that it is not found twice
			s.found(seq, sum, parts)
		})
	})
	if err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	s.failed, s.known = false, s.last
	s.announce()
	return nil
}

// announce tells the share that there may be a new item.
func (s *Store) announce() {
	select {
	case s.arrivals <- struct{}{}:
	default:
	}
}

// rest is called when nothing has happened for a while. It makes the file anew if that is empty and may have text of
// removed records.
func (s *Store) rest() {
	s.file.Writer <- struct{}{}
	defer func() { <-s.file.Writer }()
	if s.ready() != nil {
		return // whoever comes next is told
	}
	s.mu.Lock()
	empty, last, control := s.index.entries == 0, s.last, cloneControl(s.control)
	s.mu.Unlock()
	if !empty || !s.wipeNoted {
		return
	}
	err := s.file.Replace(func(tx *bolt.Tx) error {
		if err := tx.Bucket(bucketRecords).SetSequence(last); err != nil {
			return err
		}
		if err := writeLaneKey(tx, s.laneKey); err != nil {
			return err
		}
		return writeControl(tx, control)
	})
	// After an error it is tried again in a minute: the mark is in the file, or in the memory of it.
	s.wipeNoted = err != nil
	_ = s.ready() // as above
}
