package queue

import (
	"container/heap"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	mathrand "math/rand/v2"
	"time"
	"unique"
)

// A lane is what must be delivered one after another: the items of one instance, or of one chat. At most one of
// them is being delivered at a time, and while the first one is not taken, no other is. The dispatcher's lock
// guards it.
type lane struct {
	laneKey
	entries fifo[entry] // never empty
	bytes   int64
	state   state

	// About the first entry.
	round   int       // rounds that have failed
	since   time.Time // end of the first one that failed; zero if none did
	why     string    // the last one failed
	answers []Answer  // in the last one that asked handlers
	due     time.Time // time of the next one, if waiting
	place   int       // in the heap, if waiting

	began  time.Time // the delivery under way
	hung   bool      // its last round that asked a handler failed after a long time
	placed bool      // the delivery under way counts as that of a lane that hung

	// If its share was lost during its delivery: the lane that goes on with the same items, nil if none has come yet.
	successor *lane
}

type laneKey struct {
	share    Share
	instance string
	chat     string // "" if lanes are by instance
}

func (k laneKey) withoutShare() laneKey { return laneKey{instance: k.instance, chat: k.chat} }

// entry is an item in its lane, in 32 bytes: there may be a million.
type entry struct {
	seq      uint64
	received int64 // Unix nanoseconds
	chat     unique.Handle[string]
	size     int32
	ended    ending // it only has to be removed
}

type state uint8

const (
	ready      state = iota // to be delivered as soon as there is a free place
	delivering              // or being moved to the quarantine
	waiting                 // for the time of its next round
	held                    // paused, or no block delivers it
	behind                  // for a delivery of the same lane that began before its share was lost
)

// ending is what became of an entry that is still in the store.
type ending uint8

const (
	notEnded ending = iota
	delivered
	quarantined
)

// endingOf returns what an outcome means for an entry.
func endingOf(o Outcome) ending {
	switch o {
	case "":
		return notEnded
	case Delivered:
		return delivered
	}
	return quarantined
}

// NewLaneKey makes the key of a store.
func NewLaneKey() []byte {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails
	return key
}

// A laneNamer returns the IDs of lanes. An ID stands in URLs and logs, so it tells nothing of the chat, which is a phone
// number that one could find by trying if there were no key.
type laneNamer struct{ mac hash.Hash }

func newLaneNamer(key []byte) laneNamer { return laneNamer{hmac.New(sha256.New, key)} }

func (n laneNamer) id(block, instance, chat string) string {
	n.mac.Reset()
	_, _ = n.mac.Write([]byte(block + "\x00" + instance + "\x00" + chat)) // never fails
	var sum [sha256.Size]byte
	return hex.EncodeToString(n.mac.Sum(sum[:0])[:6])
}

// failed notes a failed round and returns the pause before the next.
func (l *lane) failed(r Result, retry []time.Duration, now time.Time) time.Duration {
	if l.round == 0 {
		l.since = now
	}
	l.round++
	l.why = r.Why
	if len(r.Answers) > 0 {
		l.answers = r.Answers
	}
	if r.asked && !r.Unreachable {
		l.hung = now.Sub(l.began) >= hangs
	}
	pause := spread(retry[min(l.round, len(retry))-1])
	return max(pause, min(r.RetryAfter, longestRetryAfter))
}

// longestRetryAfter limits how long a handler may ask for.
const longestRetryAfter = time.Hour

// spread returns a duration up to a fifth shorter or longer, so that lanes that failed together do not come again
// together.
func spread(d time.Duration) time.Duration {
	return d - d/5 + mathrand.N(2*d/5+1) //nolint:gosec // no secret
}

// next makes the lane forget its first entry, and reports whether it has another.
func (l *lane) next() bool {
	l.bytes -= int64(l.entries.pop().size)
	l.round, l.since, l.why, l.answers = 0, time.Time{}, "", nil
	return l.entries.len() > 0
}

// byDue orders waiting lanes by the time of their next round.
type byDue []*lane

func (h byDue) Len() int           { return len(h) }
func (h byDue) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h byDue) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *byDue) Push(x any) {
	l := x.(*lane)
	l.place = len(*h)
	*h = append(*h, l)
}

func (h *byDue) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return l
}

var _ heap.Interface = (*byDue)(nil)
