package tell

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

const alertTimeout = 10 * time.Second

// Times set how long alerts wait.
type Times struct {
	Gather time.Duration // how long the first alert of a reason and type waits for others

	// The pause before a failed alert is sent again doubles from FirstPause to LongestPause.
	FirstPause, LongestPause time.Duration

	Flush time.Duration // how long the end of the process waits
}

// DefaultTimes returns times that tell an operator soon, without flooding them.
func DefaultTimes() Times {
	return Times{Gather: 2 * time.Second, FirstPause: time.Second, LongestPause: time.Minute, Flush: 5 * time.Second}
}

// alerts collects notes and sends them. Collecting a note only adds it to a group; other goroutines wait
// for the network. There are as many groups as there are reasons and types.
type alerts struct {
	times     Times
	transport http.RoundTripper

	inTrouble atomic.Bool // set under the lock
	history   history

	mu     sync.Mutex
	outbox []*outbox
}

// Configure replaces the endpoints of alerts. Unsent alerts move to the new endpoint with the same URL
// and body.
func (d *Desk) Configure(endpoints []Endpoint, log *zap.Logger) {
	a := &d.alerts
	a.mu.Lock()
	defer a.mu.Unlock()
	old := slices.Clone(a.outbox)
	for _, before := range old {
		before.stop()
	}
	a.outbox = nil
	for _, endpoint := range endpoints {
		e := newOutbox(endpoint, a.times, a.transport, log)
		e.history = &a.history
		same := func(before *outbox) bool {
			return before.to.URL == endpoint.URL && before.to.Body.text == endpoint.Body.text
		}
		if at := slices.IndexFunc(old, same); at >= 0 { // each moves to one endpoint only
			e.groups, e.sent, e.troubles, e.failing = old[at].groups, old[at].sent, old[at].troubles, old[at].failing
			old = slices.Delete(old, at, at+1)
		}
		a.outbox = append(a.outbox, e)
		go e.run()
	}
	for _, gone := range old {
		a.history.drop(gone.failing)
	}
}

// Tell collects a note for the operator. A note with the reason Recovered goes only to endpoints that know
// of the trouble.
func (d *Desk) Tell(n outcome.Note) {
	d.alerts.mu.Lock()
	defer d.alerts.mu.Unlock()
	if n.Reason == reason.Recovered {
		d.alerts.over(n)
		return
	}
	if n.Trouble != "" && len(d.alerts.outbox) > 0 {
		d.alerts.inTrouble.Store(true)
	}
	for _, e := range d.alerts.outbox {
		if n.Silence == 0 || n.Silence == e.to.Silence {
			e.add(n)
		}
	}
}

// Pending returns how many alerts are waiting to be sent.
func (d *Desk) Pending() (n int) {
	d.alerts.mu.Lock()
	defer d.alerts.mu.Unlock()
	for _, e := range d.alerts.outbox {
		e.mu.Lock()
		n += len(e.groups)
		if len(e.troubles.over) > 0 {
			n++
		}
		e.mu.Unlock()
	}
	return n
}

// close sends the remaining alerts, to all endpoints at once.
func (a *alerts) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	var flushing sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), a.times.Flush)
	defer cancel()
	for _, e := range a.outbox {
		e.stop()
		flushing.Go(func() {
			left := slices.Collect(maps.Values(e.groups))
			if g := e.troubles.take(); g != nil {
				left = append(left, g)
			}
			for _, g := range left {
				if err := e.post(ctx, g); err != nil {
					e.log.Error("alert could not be sent before the end", zap.String("endpoint", e.to.Host), zap.String("reason", string(g.reason)), zap.Error(err))
				}
			}
		})
	}
	flushing.Wait()
	a.outbox = nil
}
