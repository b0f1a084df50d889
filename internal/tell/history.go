package tell

import (
	"slices"
	"sync"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// A Told is an alert that an endpoint was sent, or could not be sent yet. It has nothing in it of the endpoint but the
// host, as the config says it.
type Told struct {
	At       time.Time // it was first tried
	Endpoint string
	Reason   reason.Reason
	Type     string
	Level    string
	Count    int
	Text     string
	Sent     bool
	Failing  time.Time // since when it could not be sent, zero if it could at once
	Error    string    // why it could not, the last time
}

const (
	maxTold     = 100
	maxToldText = 1 << 10
)

// history remembers the last alerts.
type history struct {
	mu   sync.Mutex
	last []*Told // oldest first
}

// failing are the alerts of an endpoint that could not be sent yet.
type failing map[key]*Told

// note records that an alert was sent, or why it could not be.
func (h *history) note(f failing, host string, g *group, err error, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	told := f[g.key]
	if told == nil {
		told = &Told{At: now, Endpoint: host, Reason: g.reason, Type: g.typ}
		if len(h.last) == maxTold {
			h.last = append(h.last[:0], h.last[1:]...)
		}
		h.last = append(h.last, told)
	}
	told.Level, told.Count, told.Text = g.level.String(), g.count, outcome.ClipTo(g.values()["{alert.text}"], maxToldText)
	if err != nil {
		f[g.key] = told
		if told.Failing.IsZero() {
			told.Failing = now
		}
		told.Error = err.Error()
		return
	}
	delete(f, g.key)
	told.Sent, told.Error = true, ""
}

// drop records that the alerts of an endpoint that could not be sent never will be.
func (h *history) drop(f failing) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, told := range f {
		told.Error = "the config no longer has its endpoint"
	}
}

// Told returns the last alerts that were sent, or tried, the newest first.
func (d *Desk) Told() []Told {
	h := &d.alerts.history
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]Told, 0, len(h.last))
	for _, one := range slices.Backward(h.last) {
		all = append(all, *one)
	}
	return all
}
