// Package receiver takes the notifications of instances from GREEN-API's HTTP API: it polls for each of
// them, hands over what comes, and deletes it once that is done. It knows no Caddy.
package receiver

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/lease"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/vendorapi"
)

// Config says how one instance is received.
type Config struct {
	// The name of the block that receives it.
	Block string
	// The API, for the instance. Two configs with the same Client ask in the same way: a pause or a poll
	// goes on when one replaces the other.
	Client *vendorapi.Client
	// The API's address as the config has it, for the log.
	APIURL string
	// Where the instance's lease is.
	Store *lease.Store
	// Takes a notification, and reports whether it is done with: then it is deleted from the instance's
	// queue, otherwise it comes again.
	Take func(body []byte) bool
	// Takes out of an error what the config has a placeholder for.
	Hide func(error) error
	// The block's log.
	Log *zap.Logger
	// Tells the operator of what lasts.
	Tell func(outcome.Note)
}

// Times say how a receiver goes about it.
type Times struct {
	// How long the API may keep a request until something comes. It allows 60s; a connection that is idle
	// for that long is cut on many a way.
	Poll time.Duration
	// An empty answer that comes sooner is one that does not wait (a MAX instance with all switches
	// off does that): the next request is not made at once.
	Soon time.Duration
	// The pause after a failure doubles from the first to the longest.
	FirstPause, LongestPause time.Duration
	// How long the API may be unavailable before the operator is told.
	Patience time.Duration
	// How long a deletion may take once the receiver is told to stop. Without it the notification would
	// be delivered twice.
	LastCall time.Duration
}

// DefaultTimes returns the times that a receiver has outside of tests.
func DefaultTimes() Times {
	return Times{
		Poll: 30 * time.Second, Soon: time.Second,
		FirstPause: time.Second, LongestPause: time.Minute,
		Patience: time.Minute, LastCall: 5 * time.Second,
	}
}

// All holds the receivers of a process, one for each instance. A receiver outlives the config that began
// it, so that there is exactly one across reloads.
type All struct {
	edge  *lease.Edge
	times Times
	runs  sync.WaitGroup // the receivers that have not yet come to an end

	mu         sync.Mutex
	byInstance map[string]*receiver
	turns      map[string]chan struct{} // one receiver of an instance works at a time
}

// New returns a process's receivers, of which there are none yet.
func New(times Times, edge *lease.Edge) *All {
	return &All{edge: edge, times: times, byInstance: make(map[string]*receiver), turns: make(map[string]chan struct{})}
}

// Use puts a config into effect: a receiver begins with it, or the instance's receiver goes on with it,
// starting with the next call.
func (a *All) Use(c *Config) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id := notification.SameInstance(c.Client.Instance)
	if r := a.byInstance[id]; r != nil {
		r.change(func() { r.configs = append(r.configs, c) })
		return
	}
	turn := a.turns[id]
	if turn == nil {
		turn = make(chan struct{}, 1)
		a.turns[id] = turn
	}
	a.byInstance[id] = newReceiver(c, a.times, a.edge, turn)
	a.runs.Go(a.byInstance[id].run)
}

// Drop removes a config. If it was the newest, its load failed and the previous one takes effect again.
// If it was the last, the receiver ends with the notification in hand; Drop does not wait for that.
func (a *All) Drop(c *Config) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id := notification.SameInstance(c.Client.Instance)
	r := a.byInstance[id]
	if r == nil {
		return
	}
	left := r.change(func() { r.configs = slices.DeleteFunc(r.configs, func(used *Config) bool { return used == c }) })
	if left == 0 {
		delete(a.byInstance, id)
		r.end()
	}
}

// End lets all receivers come to their end, as the process is about to.
func (a *All) End() { a.each(func(r *receiver) { r.end() }) }

// Await waits until all receivers that were told to end have done so, at most for a time.
func (a *All) Await(most time.Duration) {
	ended := make(chan struct{})
	go func() {
		a.runs.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(most):
	}
}

// States returns the states of all receivers, by instance.
func (a *All) States() []State {
	all := []State{}
	a.each(func(r *receiver) {
		r.mu.Lock()
		defer r.mu.Unlock()
		all = append(all, r.state)
	})
	slices.SortFunc(all, func(a, b State) int { return cmp.Compare(a.Instance, b.Instance) })
	return all
}

// Count returns how many receivers are in a state.
func (a *All) Count(state string) (n int) {
	a.each(func(r *receiver) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.state.State == state {
			n++
		}
	})
	return n
}

func (a *All) each(do func(*receiver)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.byInstance {
		do(r)
	}
}
