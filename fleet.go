package greenapi

import (
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/watch"
)

// fleet is what the blocks of one name share across reloads: their handlers, and which block is the
// newest.
type fleet struct {
	*delivery.Fleet
	newest  atomic.Pointer[Handler] // of the config in effect; nil before it is and after its end
	failing watch.Handlers
	slow    watch.Handlers // those that let a sender wait
	drift   watch.Drifts
}

// fleets holds the fleets of the process by the name of their blocks.
var fleets = caddy.NewUsagePool()

func holdFleet(name string) *fleet {
	shared, _, _ := fleets.LoadOrNew(name, func() (caddy.Destructor, error) { // never fails
		return &fleet{Fleet: delivery.NewFleet(exiting)}, nil
	})
	return shared.(*fleet)
}

func releaseFleet(name string) error {
	_, err := fleets.Delete(name)
	return err
}

// Destruct has nothing to close: notifications still in flight keep the fleet in memory.
func (*fleet) Destruct() error { return nil }

// exiting is closed when the process is about to end: what only waits ends.
var exiting = make(chan struct{})

var stopWaiting = sync.OnceFunc(func() { close(exiting) })
