// Package tell tells how notifications ended, in records of the log, metrics, alerts and events. It knows
// no Caddy: what it needs of a config is handed in.
package tell

import (
	"net/http"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// A Desk does what all green_api blocks do together to report, across reloads.
type Desk struct {
	metrics *metrics
	totals  totals
	alerts  alerts
	events  events
}

// NewDesk returns a desk. transport carries the alerts; nil stands for the default of net/http.
func NewDesk(gauges Gauges, times Times, transport http.RoundTripper) *Desk {
	return &Desk{metrics: newMetrics(gauges), alerts: alerts{times: times, transport: transport}}
}

// Totals returns how many requests ended in each way.
func (d *Desk) Totals() map[outcome.Outcome]int64 { return d.totals.counts() }

// Close sends the alerts and emits the events that are left, as far as there is time.
func (d *Desk) Close() {
	d.alerts.close()
	d.events.close()
}
