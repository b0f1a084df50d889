package greenapi

import (
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/receiver"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
	"github.com/greenapi-community/caddy-green-api/internal/watch"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// operator is what the operator wants to know, and is told, over config reloads.
type operator struct {
	desk   *tell.Desk
	seen   watch.Instances
	daily  watch.Daily
	clock  quarantine.WallClock
	silent watch.Silences

	replays api.Replays

	quarantineLimit atomic.Int64 // max_size of the config in effect
}

// operators holds the one operator of the process.
var operators = caddy.NewUsagePool()

const theOperator = "operator"

func newOperator(times tell.Times) *operator {
	return &operator{desk: tell.NewDesk(gauges(), times, nil)}
}

// gauges are what the metrics show of the moment.
func gauges() tell.Gauges {
	g := tell.Gauges{
		Waiting:            func() float64 { return float64(waitingNotifications()) },
		QuarantineEntries:  func() float64 { return float64(quarantineStats().Entries) },
		QuarantineBytes:    func() float64 { return float64(quarantineStats().Bytes) },
		QuarantineMaxBytes: func() float64 { return float64(quarantineLimit()) },
		Receivers:          make(map[string]func() float64),
	}
	for _, state := range []string{receiver.Receiving, receiver.Standby, receiver.Failing} {
		g.Receivers[state] = func() float64 { return float64(receivers.Count(state)) }
	}
	return g
}

// waitingNotifications is how many wait for a handler.
func waitingNotifications() (n int) {
	fleets.Range(func(_, value any) bool {
		n += value.(*fleet).Waits()
		return true
	})
	return n
}

func holdOperator() *operator {
	shared, _, _ := operators.LoadOrNew(theOperator, func() (caddy.Destructor, error) { // never fails
		return newOperator(tell.DefaultTimes()), nil
	})
	return shared.(*operator)
}

func releaseOperator() error {
	_, err := operators.Delete(theOperator)
	return err
}

// quarantineLimit returns the max_size of the config in effect, 0 if there is none.
func quarantineLimit() (limit int64) {
	operators.Range(func(_, value any) bool {
		limit = value.(*operator).quarantineLimit.Load()
		return true
	})
	return limit
}

// Destruct sends what is left to tell, at the end of the process or of the last config with a
// green_api in it.
func (o *operator) Destruct() error {
	o.desk.Close()
	return nil
}
