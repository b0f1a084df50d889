package sender

import (
	"math"
	"slices"
	"strconv"
	"sync"
	"time"
)

// NoAnswer is the key of Report.Answers for attempts without an answer.
const NoAnswer = "none"

// Report says what became of the notifications.
type Report struct {
	Sent         int            // notifications sent at least once
	Acknowledged int            // answered 200
	Lost         int            // given up, sent or not
	Unfinished   int            // neither when Run was told to stop
	Resent       int            // attempts after a notification's first
	Answers      map[string]int // attempts by status or NoAnswer

	// How long queues stood still because attempts failed: from a notification's first attempt to the start
	// of the acknowledged one, or to its end; in total, and the longest for one.
	Stalled, LongestStall time.Duration
	Took                  time.Duration // from the first attempt to the last
	LastAcknowledged      time.Duration // from the first attempt to the last 200
	Began                 time.Time

	mu    sync.Mutex
	waits []time.Duration // of each acknowledged one, from the first attempt to the 200
}

func (r *Report) add(a Attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.Number == 1 {
		r.Sent++
	} else {
		r.Resent++
	}
	key := NoAnswer
	if a.Status != 0 {
		key = strconv.Itoa(a.Status)
	}
	if r.Answers == nil {
		r.Answers = make(map[string]int)
	}
	r.Answers[key]++
	if a.Again {
		return
	}
	if !a.Acknowledged() {
		r.Lost++
		r.stall(a.Began.Add(a.Took).Sub(a.First))
		return
	}
	r.stall(a.Began.Sub(a.First))
	r.Acknowledged++
	r.LastAcknowledged = max(r.LastAcknowledged, a.Began.Add(a.Took).Sub(r.Began))
	r.waits = append(r.waits, a.Began.Add(a.Took).Sub(a.First))
}

// stall adds the time that a queue stood still. The caller holds the lock.
func (r *Report) stall(d time.Duration) {
	r.Stalled += d
	r.LongestStall = max(r.LongestStall, d)
}

// lose counts a notification that was given up without an attempt.
func (r *Report) lose() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Lost++
}

// stop counts a notification that was still being sent when Run was told to stop.
func (r *Report) stop(first time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Unfinished++
	r.stall(time.Since(first))
}

// Quantile returns the time from first attempt to 200 that a share q of the acknowledged notifications did
// not exceed: 0.5 for the median, 1 for the longest. It is 0 if there are none.
func (r *Report) Quantile(q float64) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waits) == 0 {
		return 0
	}
	slices.Sort(r.waits)
	at := int(math.Ceil(q*float64(len(r.waits)))) - 1
	return r.waits[min(max(at, 0), len(r.waits)-1)]
}
