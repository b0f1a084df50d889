package tell

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// A Trial is the result of a test alert at one endpoint.
type Trial struct {
	Host string // of the endpoint
	Err  error  // nil if the endpoint took the alert
}

// Try sends a test alert to every endpoint at once and returns the results in the order of the endpoints.
// Such an alert neither waits for others nor delays them, and is sent only once.
func (d *Desk) Try(ctx context.Context, now time.Time) []Trial {
	d.alerts.mu.Lock()
	to := slices.Clone(d.alerts.outbox)
	d.alerts.mu.Unlock()
	trials := make([]Trial, len(to))
	var sending sync.WaitGroup
	for i, e := range to {
		trials[i].Host = e.to.Host
		sending.Go(func() {
			g := &group{key: key{reason.Test, notification.KindNone}}
			g.add(outcome.Note{Level: zapcore.WarnLevel, At: now, More: "It was sent by 'caddy green-api alert test'."})
			trials[i].Err = e.post(ctx, g)
		})
	}
	sending.Wait()
	return trials
}
