// Package live keeps what ended lately, for those who look on: the last notifications, how many ended in which way, and
// how long the delivered ones took. It holds no part of a body.
package live

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// kept is how many rows a feed keeps.
const kept = 4096

// maxNames is how many instances and clients a feed keeps the names of.
const maxNames = 10_000

// A Feed gets everything that ends, across reloads. Nobody who looks on can hold it up.
type Feed struct {
	mu     sync.Mutex
	first  int64 // the first sequence number
	next   int64
	rows   [kept]Row // the one with the number n is at (n - first) % kept
	counts [len(outcomes)]map[reason.Reason]int64
	names  map[string]string // instances and clients: a part of a body would keep all of it in memory
	trend  trend
}

var outcomes = [...]outcome.Outcome{outcome.Delivered, outcome.Dropped, outcome.Failed, outcome.Quarantined, outcome.Queued, outcome.Refused}

// place returns the place of an outcome in outcomes.
func place(of outcome.Outcome) int {
	for i := range outcomes {
		if outcomes[i] == of {
			return i
		}
	}
	panic("unknown outcome " + of)
}

// A Row is a notification, or a refused request, that ended. Its fields have the names of the log record's.
type Row struct {
	Seq          int64           `json:"seq"`
	At           int64           `json:"at"` // when it ended, in Unix milliseconds
	Outcome      outcome.Outcome `json:"outcome"`
	Reason       reason.Reason   `json:"reason,omitempty"`
	Status       int             `json:"status"`
	Type         string          `json:"type"` // as in the metrics: from a closed list
	Instance     string          `json:"instance,omitempty"`
	Name         string          `json:"name"` // of the block
	Via          string          `json:"via,omitempty"`
	Client       string          `json:"client_ip,omitempty"` // of a refused request
	Handler      string          `json:"handler,omitempty"`
	Attempts     int             `json:"attempts,omitempty"`
	Round        int             `json:"round,omitempty"` // in which it left the queue
	Milliseconds float64         `json:"ms"`              // from its receipt
	Age          int64           `json:"age,omitempty"`   // on arrival, in seconds, by its own timestamp
	Pointer      string          `json:"pointer,omitempty"`
	Keyword      string          `json:"keyword,omitempty"`
	QuarantineID string          `json:"quarantine_id,omitempty"`

	bad bool
}

// New returns a feed. Its sequence numbers are greater than those of feeds from before now, so that who asks on after a
// restart is told of a gap.
func New(now time.Time) *Feed {
	first := now.UnixMicro()
	f := &Feed{first: first, next: first, names: make(map[string]string)}
	for i := range f.counts {
		f.counts[i] = make(map[reason.Reason]int64)
	}
	return f
}

// Add notes how a notification of a block ended.
func (f *Feed) Add(c *outcome.Case, end *outcome.Verdict, block string, now time.Time) {
	took := max(0, now.Sub(c.Started)) // unless the clock has been set back
	row := Row{
		At: now.UnixMilli(), Outcome: end.Outcome, Reason: end.Reason, Status: end.Status, Type: c.Kind, Name: block, Via: c.Via,
		Handler: c.Handler, Attempts: c.Attempts, Round: c.Round, Milliseconds: float64(took.Microseconds()) / 1000,
		QuarantineID: c.QuarantineID,
		bad:          end.Level >= zap.WarnLevel || end.Outcome == outcome.Failed || end.Outcome == outcome.Quarantined,
	}
	if c.N.Timestamp > 0 && c.Round == 0 {
		row.Age = max(0, c.Started.Unix()-c.N.Timestamp)
	}
	if len(end.Faults) > 0 {
		row.Pointer, row.Keyword = strings.Clone(outcome.Clip(end.Faults[0].Pointer)), end.Faults[0].Keyword
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	row.Seq, row.Instance = f.next, f.name(c.N.Instance)
	if end.Outcome == outcome.Refused {
		row.Client = f.name(c.Client)
	}
	f.rows[(f.next-f.first)%kept] = row
	f.next++
	of := place(end.Outcome)
	f.counts[of][end.Reason]++
	f.trend.add(of, took, now)
}

// name returns a copy of the ID of an instance, or the address of a client, that is used again.
func (f *Feed) name(of string) string {
	if name, ok := f.names[of]; ok || of == "" {
		return name
	}
	if len(f.names) == maxNames {
		clear(f.names)
	}
	name := strings.Clone(of)
	f.names[name] = name
	return name
}

// A View is what a feed shows.
type View struct {
	Seq    int64   `json:"seq"` // of the newest row
	Counts []Count `json:"counts"`
	Rows   []Row   `json:"rows"`          // oldest first
	Of     int     `json:"of"`            // how many there were to show
	Gap    *Gap    `json:"gap,omitempty"` // nil if nothing is missing
}

// A Count is how many ended in one way since the process began.
type Count struct {
	Outcome outcome.Outcome `json:"outcome"`
	Reason  reason.Reason   `json:"reason"`
	N       int64           `json:"n"`
}

// A Gap is a range of rows that are no longer kept. If it begins before a restart, its length is no count.
type Gap struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// Newest is where a view begins that shows the newest rows, and of which nothing is missing.
const Newest = 0

// Since returns the rows after a sequence number, at most some: first those that tell of something wrong, then the
// newest. The counts are complete.
func (f *Feed) Since(seq int64, most int) View {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := View{Seq: f.next - 1, Rows: []Row{}}
	oldest := max(f.first, f.next-kept)
	if seq > v.Seq { // of a clock that has been set back since
		seq = Newest
	}
	switch {
	case seq == Newest:
		seq = max(oldest, f.next-int64(most)) - 1
	case seq+1 < oldest:
		v.Gap = &Gap{seq + 1, oldest - 1}
		seq = oldest - 1
	}
	v.Of = int(v.Seq - seq)
	for _, bad := range []bool{true, false} {
		for n := v.Seq; n > seq && len(v.Rows) < most; n-- {
			if row := &f.rows[(n-f.first)%kept]; row.bad == bad {
				v.Rows = append(v.Rows, *row)
			}
		}
	}
	slices.SortFunc(v.Rows, func(x, y Row) int { return cmp.Compare(x.Seq, y.Seq) })
	v.Counts = []Count{}
	for i, counts := range f.counts {
		for _, why := range slices.Sorted(maps.Keys(counts)) {
			v.Counts = append(v.Counts, Count{outcomes[i], why, counts[why]})
		}
	}
	return v
}

// Totals returns how many requests ended in each way. Without a queue, nothing is queued.
func (f *Feed) Totals() map[outcome.Outcome]int64 {
	totals := make(map[outcome.Outcome]int64)
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, counts := range f.counts {
		for _, n := range counts {
			totals[outcomes[i]] += n
		}
		if len(counts) == 0 && outcomes[i] != outcome.Queued {
			totals[outcomes[i]] = 0
		}
	}
	return totals
}

// Trend returns the last quarter of an hour.
func (f *Feed) Trend(now time.Time) Trend {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trend.show(now)
}
