package greenapi

import (
	"context"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
)

// record reports how the notification ended, and sets the placeholders that say so.
func (h *Handler) record(v *visit, end *outcome.Verdict) {
	said := v.WithRemark(end)
	repl := replacer(v.r.Context())
	repl.Set("http.green_api.outcome", string(said.Outcome))
	repl.Set("http.green_api.reason", string(said.Reason))
	if v.N.Instance != "" && said.Outcome != outcome.Refused {
		h.app.operator.seen.Add(v.N.Instance, said.Outcome, v.Started)
		h.app.operator.silent.Saw(v.N.Instance, v.Started)
	}
	h.reporter.Record(&v.Case, &said, accessLog(v.r))
}

// newReporter returns what reports how the notifications of this block ended.
func (h *Handler) newReporter() tell.Reporter {
	return tell.Reporter{
		Desk: h.app.operator.desk, Name: h.Name, Log: h.logger, DeskLog: h.app.logger, LogBody: h.LogBody,
		PerInstance: func(instance string) bool { return h.app.perInstance() && h.configured(instance) },
		Details:     h.alertDetails,
		Emitter:     h.emitter,
	}
}

// alertDetails returns what an alert about a notification says beside the usual, and whether the operator
// is to be told at all.
func (h *Handler) alertDetails(why reason.Reason, c *outcome.Case) (more string, wanted bool) {
	switch why {
	case reason.UnlistedSender:
		return h.IPFilter.lineToPaste(c.Client), true
	case reason.InstanceNotAllowed:
		return "", h.app.operator.daily.First(c.Instance(), time.Now())
	}
	return "", true
}

// emitter returns what emits an event of Caddy's; nil if nobody has subscribed to it.
func (h *Handler) emitter(name string) func(map[string]any) {
	events := h.app.events
	if events == nil || !events.ShouldEmit(name) {
		return nil
	}
	return func(data map[string]any) {
		// A reload cancels the context of a config, but the events of its last requests still go out.
		ctx := h.ctx
		ctx.Context = context.WithoutCancel(ctx.Context)
		events.Emit(ctx, name, data)
	}
}

// accessLog is where the access log takes more fields; nil if the server writes none.
func accessLog(r *http.Request) tell.AccessLog {
	if server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && server.Logs == nil {
		return nil
	}
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok && extra != nil {
		return extra
	}
	return nil
}

// countAttempt counts an attempt to deliver.
func (h *Handler) countAttempt(got delivery.Result) {
	switch got {
	case delivery.NoneFree:
	case delivery.Taken:
		h.reporter.Attempted("taken")
	default:
		h.reporter.Attempted(string(got.Why()))
	}
}
