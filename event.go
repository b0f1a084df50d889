package greenapi

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// Events of Caddy's events app. Their data: type, message, instance, id, outcome, reason, status,
// handler, quarantine_id; no text, name or phone number.
const (
	eventQuarantined = "green_api.quarantined"
	eventRefused     = "green_api.refused"
	eventFailed      = "green_api.failed"
)

var eventOf = map[outcome.Outcome]string{outcome.Quarantined: eventQuarantined, outcome.Refused: eventRefused, outcome.Failed: eventFailed}

// eventDesk emits events one after the other, off the request's path: who subscribes may take its
// time.
type eventDesk struct {
	start   sync.Once
	queue   chan event
	ended   chan struct{}
	dropped atomic.Int64

	mu     sync.RWMutex // closed is changed alone
	closed bool
}

const maxEvents = 1000

type event struct {
	app  *caddyevents.App
	ctx  caddy.Context
	name string
	data map[string]any
}

// emit queues an event; if subscribers are slow and too many wait, it is dropped and counted.
func (d *eventDesk) emit(h *Handler, name string, data map[string]any) {
	if h.app.events == nil || !h.app.events.ShouldEmit(name) {
		return
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return
	}
	d.start.Do(func() {
		d.queue, d.ended = make(chan event, maxEvents), make(chan struct{})
		go d.run(h.app.logger)
	})
	select {
	case d.queue <- event{h.app.events, h.ctx, name, data}:
	default:
		d.dropped.Add(1)
	}
}

func (d *eventDesk) run(logger *zap.Logger) {
	defer close(d.ended)
	for e := range d.queue {
		// A reload ends the context of a config, not what its last requests have to say.
		e.ctx.Context = context.WithoutCancel(e.ctx.Context)
		d.one(e, logger)
		if n := d.dropped.Swap(0); n > 0 {
			logger.Warn("events dropped, their subscribers are too slow", zap.Int64("count", n))
		}
	}
}

// one emits an event. A subscriber that panics ends with its event, not with the process.
func (d *eventDesk) one(e event, logger *zap.Logger) {
	defer func() {
		if p := recover(); p != nil {
			logger.Error("panic in a subscriber of events", zap.String("event", e.name), zap.Any("panic", p))
		}
	}()
	e.app.Emit(e.ctx, e.name, e.data)
}

// eventFlush is how long the end waits for subscribers.
const eventFlush = 5 * time.Second

// close emits what is left, as far as there is time.
func (d *eventDesk) close() {
	d.mu.Lock()
	queue := d.queue
	if d.closed {
		queue = nil
	}
	d.closed = true
	if queue != nil {
		close(queue)
	}
	d.mu.Unlock()
	if queue == nil {
		return
	}
	select {
	case <-d.ended:
	case <-time.After(eventFlush):
	}
}
