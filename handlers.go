package greenapi

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// tellSlow lets the operator know of a handler that takes long to answer: the instances whose
// notifications it has wait for it, and nothing fails that would be reported.
func (h *Handler) tellSlow(c *outcome.Case, handler string, now time.Time) {
	if !h.fleet.slow.Failed(handler, now) {
		return
	}
	fields := append(tell.NotificationFields(c), zap.Duration("after", h.limits.WarnAfter))
	if handler != "" { // without a policy of ours it is not known yet
		fields = append(fields, zap.String("handler", handler))
	}
	h.app.logger.Warn("handler is slow to answer, and the sender waits for it", fields...)
}

// watchHandler lets the operator know when a handler begins to fail, and when it is well again. A handler
// that refuses a notification may be well.
func (h *Handler) watchHandler(got delivery.Answer, now time.Time) {
	if got.Handler == "" {
		return
	}
	switch got.Result {
	case delivery.Taken:
		if h.fleet.failing.Took(got.Handler) {
			h.app.logger.Info("handler takes notifications again", zap.String("handler", got.Handler))
		}
	case delivery.NotNow, delivery.BrokenOff, delivery.TimedOut, delivery.HandlerError, delivery.Misrouted:
		if !h.fleet.failing.Failed(got.Handler, now) {
			return
		}
		fields := []zap.Field{zap.String("handler", got.Handler), zap.String("reason", string(got.Result.Why()))}
		if got.Status != 0 {
			fields = append(fields, zap.Int("handler_status", got.Status))
		}
		if got.Err != nil {
			fields = append(fields, zap.Error(got.Err))
		}
		h.app.logger.Warn("handler fails, others are asked if there are any", fields...)
		h.app.operator.desk.Tell(outcome.Note{
			Reason: reason.HandlerFails, Kind: notification.KindNone, Level: zapcore.WarnLevel, At: now,
			More: "Handler " + got.Handler + ": " + string(got.Result.Why()) + ".",
		})
	}
}
