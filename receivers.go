package greenapi

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/notification"
)

// receivers holds the receivers of the process by instance. Each outlives the config that began it,
// so that there is exactly one over reloads.
var receivers = caddy.NewUsagePool()

// runsOf lets one receiver of an instance work at a time: of each instance a chan struct{} with a place.
var runsOf sync.Map

// receiverRuns are the receivers that have not yet come to an end.
var receiverRuns sync.WaitGroup

// startReceivers lets the receivers of this config begin, or those that run go on with it.
func (a *App) startReceivers() {
	if a.receiving {
		return
	}
	a.receiving = true
	for id, c := range a.receives {
		shared, loaded, _ := receivers.LoadOrNew(id, func() (caddy.Destructor, error) { // never fails
			return newReceiver(c), nil
		})
		if loaded {
			shared.(*receiver).use(c)
		}
	}
}

// stopReceivers gives them up. Those that no other config has end with the notification in hand.
func (a *App) stopReceivers() error {
	if !a.receiving {
		return nil
	}
	a.receiving = false
	var err error
	for id, c := range a.receives {
		eachReceiver(func(r *receiver) {
			if notification.SameInstance(r.instance) == id {
				r.drop(c)
			}
		})
		_, deleteErr := receivers.Delete(id)
		err = errors.Join(err, deleteErr)
	}
	return err
}

// eachReceiver calls do with all that run.
func eachReceiver(do func(*receiver)) {
	receivers.Range(func(_, value any) bool {
		do(value.(*receiver))
		return true
	})
}

// endReceivers lets all come to their end together with the HTTP server, at the end of the process.
func endReceivers() { eachReceiver((*receiver).end) }

// awaitReceivers waits until those that have a notification in hand are done with it, as long as the
// HTTP server would for a request.
func awaitReceivers(grace time.Duration) {
	if grace == 0 {
		grace = senderTimeout
	}
	ended := make(chan struct{})
	go func() {
		receiverRuns.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(grace):
	}
}

// receiverStates are the states of all receivers, by instance.
func receiverStates() []receiverState {
	all := []receiverState{}
	eachReceiver(func(r *receiver) {
		r.mu.Lock()
		defer r.mu.Unlock()
		all = append(all, r.state)
	})
	slices.SortFunc(all, func(a, b receiverState) int { return cmp.Compare(a.Instance, b.Instance) })
	return all
}

// countReceivers is how many are in a state.
func countReceivers(state string) (n int) {
	for _, r := range receiverStates() {
		if r.State == state {
			n++
		}
	}
	return n
}
