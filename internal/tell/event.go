package tell

import (
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// Events in Caddy's events app. Their data: name (of the block), type, message, instance, id, outcome,
// reason, status, handler, quarantine_id; no text, name or phone number.
const (
	eventQuarantined = "green_api.quarantined"
	eventRefused     = "green_api.refused"
	eventFailed      = "green_api.failed"
)

var eventOf = map[outcome.Outcome]string{outcome.Quarantined: eventQuarantined, outcome.Refused: eventRefused, outcome.Failed: eventFailed}

// emit emits an event for a notification that did not end well.
func (r *Reporter) emit(c *outcome.Case, end *outcome.Verdict) {
	name := eventOf[end.Outcome]
	if name == "" {
		return
	}
	emit := r.Emitter(name)
	if emit == nil {
		return
	}
	data := map[string]any{
		"name": r.Name, "type": outcome.Clip(c.N.Type), "message": outcome.Clip(c.N.Message), "instance": c.Instance(), "id": outcome.Clip(c.N.ID),
		"outcome": string(end.Outcome), "reason": string(end.Reason), "status": end.Status, "handler": c.Handler, "quarantine_id": c.QuarantineID,
	}
	r.Desk.events.put(event{name, func() { emit(data) }}, r.DeskLog)
}

// events emits events one after another, off the request's path, because subscribers may be slow.
type events struct {
	start   sync.Once
	queue   chan event
	ended   chan struct{}
	dropped atomic.Int64

	mu     sync.RWMutex // guards closed
	closed bool
}

const maxEvents = 1000

type event struct {
	name string
	emit func()
}

// put queues an event. If subscribers are slow and too many events wait, it is dropped and counted.
// Problems with any event are logged where the first event's log says.
func (d *events) put(e event, log *zap.Logger) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return
	}
	d.start.Do(func() {
		d.queue, d.ended = make(chan event, maxEvents), make(chan struct{})
		go d.run(log)
	})
	select {
	case d.queue <- e:
	default:
		d.dropped.Add(1)
	}
}

func (d *events) run(log *zap.Logger) {
	defer close(d.ended)
	for e := range d.queue {
		e.run(log)
		if n := d.dropped.Swap(0); n > 0 {
			log.Warn("events dropped, their subscribers are too slow", zap.Int64("count", n))
		}
	}
}

// run emits the event. If a subscriber panics, that ends the event, not the process.
func (e event) run(log *zap.Logger) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("panic in a subscriber of events", zap.String("event", e.name), zap.Any("panic", p))
		}
	}()
	e.emit()
}

// eventFlush is how long the end of the process waits for subscribers.
const eventFlush = 5 * time.Second

// close emits the remaining events, as long as time allows.
func (d *events) close() {
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
