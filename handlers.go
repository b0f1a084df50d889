package greenapi

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// tellSlow lets the operator know of a handler that is long in answering: every instance whose
// notification it has waits for it, and nothing fails that would be told of.
func (h *Handler) tellSlow(c *outcome.Case, handler string, now time.Time) {
	if !h.fleet.slow.Failed(handler, now) {
		return
	}
	fields := append(tell.NotificationFields(c), zap.Duration("after", h.limits.warnAfter))
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
		if h.fleet.failing.Took(got.handler) {
			h.app.logger.Info("handler takes notifications again", zap.String("handler", got.handler))
		}
	case notNow, brokenOff, timedOut, handlerError, misrouted:
		if !h.fleet.failing.Failed(got.handler, now) {
			return
		}
		fields := []zap.Field{zap.String("handler", got.handler), zap.String("reason", string(got.result.why()))}
		if got.status != 0 {
			fields = append(fields, zap.Int("handler_status", got.status))
		}
		if got.err != nil {
			fields = append(fields, zap.Error(got.err))
		}
		h.app.logger.Warn("handler fails, others are asked if there are any", fields...)
		h.app.operator.desk.Tell(outcome.Note{
			Reason: reason.HandlerFails, Kind: notification.KindNone, Level: zapcore.WarnLevel, At: now,
			More: "Handler " + got.handler + ": " + string(got.result.why()) + ".",
		})
	}
}
