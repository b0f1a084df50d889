// Package tell reports how notifications ended, in log records, metrics, alerts and events. It does not
// know Caddy: it is given what it needs of a config.
package tell

import (
	"net/http"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// A Desk is what all green_api blocks share to report, across reloads.
type Desk struct {
	metrics *metrics
	totals  totals
	alerts  alerts
	events  events
}

// NewDesk returns a desk. transport sends the alerts; nil is the default of net/http.
func NewDesk(gauges Gauges, times Times, transport http.RoundTripper) *Desk {
	return &Desk{metrics: newMetrics(gauges), alerts: alerts{times: times, transport: transport}}
}

// Totals returns how many requests ended in each way.
func (d *Desk) Totals() map[outcome.Outcome]int64 { return d.totals.counts() }

// Close sends the remaining alerts and emits the remaining events, as long as time allows.
func (d *Desk) Close() {
	d.alerts.close()
	d.events.close()
}
