package delivery

import (
	"errors"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/spans"
)

// maxFigures is for how many handlers a fleet has figures: addresses of dynamic upstreams come and go.
const maxFigures = 200

// figures are what a handler has made of the notifications that it was given. The fleet's lock guards them.
type figures struct {
	taken    int64
	notTaken [Nobody + 1]int64
	fault    Fault
	took     spans.Recent
	trend    trend
	asked    time.Time
}

// A Fault is an attempt at which a handler did not take a notification.
type Fault struct {
	At     time.Time
	Reason reason.Reason
	Status int    // 0 if it did not answer
	Error  string // why it did not
}

// Figures are what is known of a handler, over all configs.
type Figures struct {
	InHand   int // notifications that it has now, or will have in a moment
	Taken    int64
	NotTaken map[reason.Reason]int64
	Fault    *Fault    // the last one, nil if there was none
	Asked    time.Time // the end of the last attempt; zero if there was none

	// Until when it is asked only if no other can be, and why. Zero if it is not left alone.
	Until time.Time
	Why   reason.Reason

	Trend *Trend // of the last quarter of an hour, nil if it was not asked

	P50, P99 float64 // how long it had a notification, in the last five minutes, in milliseconds
}

// count adds an attempt to the figures of a handler.
func (f *Fleet) count(handler string, got *Answer, took time.Duration) {
	of := f.figures[handler]
	if of == nil {
		of = f.newFigures(handler)
	}
	of.asked = got.Ended
	of.trend.add(got.Result == Taken, got.Ended)
	if got.Result == Taken {
		of.taken++
		of.took.Add(took, got.Ended)
		return
	}
	of.notTaken[got.Result]++
	of.fault = Fault{At: got.Ended, Reason: got.Result.Why(), Status: got.Status}
	if got.Err != nil {
		of.fault.Error = outcome.Clip(got.Err.Error())
	}
	if !errors.Is(got.Err, ErrNotConnected) { // which says nothing of how fast it is
		of.took.Add(took, got.Ended)
	}
}

// newFigures begins figures of a handler, in the place of those of the one that was asked longest ago if there are too
// many.
func (f *Fleet) newFigures(handler string) *figures {
	if len(f.figures) == maxFigures {
		last := ""
		for name, of := range f.figures {
			if last == "" || of.asked.Before(f.figures[last].asked) {
				last = name
			}
		}
		delete(f.figures, last)
	}
	of := new(figures)
	f.figures[handler] = of
	return of
}

// Figures returns what is known of a handler.
func (f *Fleet) Figures(handler string) Figures {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	shown := Figures{InHand: f.busy[handler], NotTaken: make(map[reason.Reason]int64)}
	if until := f.shunned[handler]; until.After(now) {
		shown.Until, shown.Why = until, reason.AttemptTimeout
	}
	of := f.figures[handler]
	if of == nil {
		return shown
	}
	shown.Taken, shown.Asked = of.taken, of.asked
	for result, n := range of.notTaken {
		if n > 0 {
			shown.NotTaken[Result(result).Why()] = n
		}
	}
	if !of.fault.At.IsZero() {
		fault := of.fault
		shown.Fault = &fault
	}
	shown.Trend = of.trend.show(now)
	shown.P50, shown.P99 = of.took.Percentiles(now)
	return shown
}
