package tell

import (
	"sync/atomic"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// totals counts how requests ended, across reloads. The zero value is ready to use.
type totals struct {
	queued, delivered, dropped, quarantined, refused, failed atomic.Int64
}

// of returns the counter of an outcome.
func (t *totals) of(end outcome.Outcome) *atomic.Int64 {
	switch end {
	case outcome.Queued:
		return &t.queued
	case outcome.Delivered:
		return &t.delivered
	case outcome.Dropped:
		return &t.dropped
	case outcome.Quarantined:
		return &t.quarantined
	case outcome.Refused:
		return &t.refused
	default:
		return &t.failed
	}
}

func (t *totals) add(end outcome.Outcome) { t.of(end).Add(1) }

// counts returns the totals of all outcomes. Without a queue, nothing is queued.
func (t *totals) counts() map[outcome.Outcome]int64 {
	counts := make(map[outcome.Outcome]int64)
	for end := range messages {
		if n := t.of(end).Load(); n > 0 || end != outcome.Queued {
			counts[end] = n
		}
	}
	return counts
}
