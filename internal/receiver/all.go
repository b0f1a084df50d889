// Package receiver receives notifications of instances from GREEN-API's HTTP API: it polls for each
// instance, hands over what comes, and deletes it once that is done. It does not know Caddy.
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

// Config sets how one instance is received.
type Config struct {
	// The name of the block that receives it.
	Block string
	// The API client for the instance. Two configs with equal Clients ask in the same way: a pause or a
	// poll goes on when one replaces the other.
	Client *vendorapi.Client
	// The API's address as in the config, for the log.
	APIURL string
	// Where the instance's lease is kept.
	Store *lease.Store
	// Takes a notification and reports whether it is done. If so, it is deleted from the instance's queue;
	// otherwise it comes again.
	Take func(body []byte) bool
	// Replaces in an error the value of a placeholder with the placeholder.
	Hide func(error) error
	// The block's log.
	Log *zap.Logger
	// Tells the operator of lasting trouble.
	Tell func(outcome.Note)
}

// Times set the pace of a receiver.
type Times struct {
	// How long the API may hold a request until something comes. It allows 60s, but many networks cut a
	// connection that is idle for that long.
	Poll time.Duration
	// An empty answer that comes sooner comes from an API that does not wait (as for a MAX instance with
	// all switches off), so the next request has to pause.
	Soon time.Duration
	// The pause after a failure doubles from FirstPause to LongestPause.
	FirstPause, LongestPause time.Duration
	// How long the API may be unavailable before the operator is told.
	Patience time.Duration
	// How long a deletion may take once the receiver is told to stop. Without the deletion the notification
	// would be delivered twice.
	LastCall time.Duration
}

// DefaultTimes returns the times used outside tests.
func DefaultTimes() Times {
	return Times{
		Poll: 30 * time.Second, Soon: time.Second,
		FirstPause: time.Second, LongestPause: time.Minute,
		Patience: time.Minute, LastCall: 5 * time.Second,
	}
}

// All holds the receivers of a process, one per instance. A receiver outlives the config that started it,
// so there is exactly one across reloads.
type All struct {
	edge  *lease.Edge
	times Times
	runs  sync.WaitGroup // the receivers that have not ended yet

	mu         sync.Mutex
	byInstance map[string]*receiver
	turns      map[string]chan struct{} // only one receiver of an instance works at a time
}

// New returns a process's receivers, none so far.
func New(times Times, edge *lease.Edge) *All {
	return &All{edge: edge, times: times, byInstance: make(map[string]*receiver), turns: make(map[string]chan struct{})}
}

// Use puts a config into effect. It starts a receiver, or the instance's receiver switches to the config
// with its next call.
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

// End tells all receivers to stop, because the process is about to exit.
func (a *All) End() { a.each(func(r *receiver) { r.end() }) }

// Await waits, up to a limit, until all receivers that were told to stop have ended.
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
