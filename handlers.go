package greenapi

import (
	"maps"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// failingHandlers tells of a handler that fails while others take its notifications: nothing else
// would, for weeks.
type failingHandlers struct {
	mu   sync.Mutex
	last map[string]time.Time // when it was last told of each that fails
}

const (
	tellFailingEvery = 5 * time.Minute
	maxFailing       = 1000
)

// failed tells whether to tell of a handler that failed just now.
func (f *failingHandlers) failed(handler string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if last, known := f.last[handler]; known && now.Sub(last) < tellFailingEvery {
		return false
	}
	if len(f.last) >= maxFailing { // addresses that come and go
		maps.DeleteFunc(f.last, func(_ string, last time.Time) bool { return now.Sub(last) >= tellFailingEvery })
	}
	if len(f.last) >= maxFailing {
		return false
	}
	if f.last == nil {
		f.last = make(map[string]time.Time)
	}
	f.last[handler] = now
	return true
}

// took tells whether a handler that took something had failed before.
func (f *failingHandlers) took(handler string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, failed := f.last[handler]
	delete(f.last, handler)
	return failed
}

// tellSlow lets the operator know of a handler that is long in answering: every instance whose
// notification it has waits for it, and nothing fails that would be told of.
func (h *Handler) tellSlow(v *visit, handler string, now time.Time) {
	if !h.fleet.slow.failed(handler, now) {
		return
	}
	fields := append(notificationFields(&v.Case), zap.Duration("after", warnAfter))
	if handler != "" { // without a policy of ours it is not known yet
		fields = append(fields, zap.String("handler", handler))
	}
	h.app.logger.Warn("handler is slow to answer, and the sender waits for it", fields...)
}

// watchHandler lets the operator know when a handler begins to fail, and when it is well again. That
// one refuses a notification says nothing of it.
func (h *Handler) watchHandler(got answer, now time.Time) {
	if got.handler == "" {
		return
	}
	switch got.result {
	case taken:
		if h.fleet.failing.took(got.handler) {
			h.app.logger.Info("handler takes notifications again", zap.String("handler", got.handler))
		}
	case notNow, brokenOff, timedOut, handlerError, misrouted:
		if !h.fleet.failing.failed(got.handler, now) {
			return
		}
		fields := []zap.Field{zap.String("handler", got.handler), zap.String("reason", string(failures[got.result].Reason))}
		if got.status != 0 {
			fields = append(fields, zap.Int("handler_status", got.status))
		}
		if got.err != nil {
			fields = append(fields, zap.Error(got.err))
		}
		h.app.logger.Warn("handler fails, others are asked if there are any", fields...)
		h.app.operator.alerts.tell(outcome.Note{
			Reason: reason.HandlerFails, Kind: notification.KindNone, Level: zapcore.WarnLevel, At: now,
			More: "Handler " + got.handler + ": " + string(failures[got.result].Reason) + ".",
		})
	}
}
