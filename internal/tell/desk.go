// Package tell reports how notifications ended, in log records, metrics, alerts and events. It does not
// know Caddy: it is given what it needs of a config.
package tell

import (
	"net/http"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/live"
)

// A Desk is what all green_api blocks share to report, across reloads.
type Desk struct {
	metrics *metrics
	Feed    *live.Feed
	alerts  alerts
	events  events
	wouldBe wouldBe
}

// NewDesk returns a desk. transport sends the alerts; nil is the default of net/http.
func NewDesk(gauges Gauges, times Times, transport http.RoundTripper) *Desk {
	return &Desk{Feed: live.New(time.Now()), metrics: newMetrics(gauges), alerts: alerts{times: times, transport: transport}}
}

// Close sends the remaining alerts and emits the remaining events, as long as time allows.
func (d *Desk) Close() {
	d.alerts.close()
	d.events.close()
}
