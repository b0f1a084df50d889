package greenapi

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/address"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// tell lets everybody know how a request ended who wants to: metrics, alerts, events, the status
// page and the access log.
func (h *Handler) tell(v *visit, said *outcome.Verdict) {
	h.count(v, said)
	op := h.app.operator
	op.totals.add(said.Outcome)
	if v.N.Instance != "" && said.Outcome != outcome.Refused {
		op.seen.Add(v.N.Instance, said.Outcome, v.Started)
		op.silent.Saw(v.N.Instance, v.Started)
	}
	if extra := accessLogFields(v.r); extra != nil {
		extra.Set(zap.String("green_api_outcome", string(said.Outcome)))
		text := func(key, value string) {
			if value != "" {
				extra.Set(zap.String(key, value))
			}
		}
		text("green_api_type", outcome.Clip(v.N.Type))
		text("green_api_message", outcome.Clip(v.N.Message))
		text("green_api_instance", v.N.Instance)
		text("green_api_reason", string(said.Reason))
	}
	if said.Level < zap.WarnLevel {
		return
	}
	h.alert(&v.Case, said.Reason, said)
	if name := eventOf[said.Outcome]; name != "" {
		op.events.emit(h, name, map[string]any{
			"name": h.Name, "type": outcome.Clip(v.N.Type), "message": outcome.Clip(v.N.Message), "instance": v.Instance(), "id": outcome.Clip(v.N.ID),
			"outcome": string(said.Outcome), "reason": string(said.Reason), "status": said.Status, "handler": v.Handler, "quarantine_id": v.QuarantineID,
		})
	}
}

// accessLogFields are what an access log says beside its own; nil if the server writes none.
func accessLogFields(r *http.Request) *caddyhttp.ExtraLogFields {
	if server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && server.Logs == nil {
		return nil
	}
	extra, _ := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields)
	return extra
}

// alert takes a note down for the operator.
func (h *Handler) alert(c *outcome.Case, why reason.Reason, said *outcome.Verdict) {
	n := outcome.Note{Reason: why, Kind: c.Kind, Level: said.Level, Instance: c.Instance(), Example: c.QuarantineID, At: time.Now()}
	switch why {
	case reason.UnlistedSender:
		n.More = h.IPFilter.lineToPaste(c.Client)
	case reason.InstanceNotAllowed:
		if !h.app.operator.daily.First(n.Instance, n.At) {
			return
		}
	}
	h.app.operator.alerts.tell(n)
}

// lineToPaste is the line of the config that lets in what is allowed now and this address, and no
// other. It is empty if there is no address to let in.
func (f *IPFilter) lineToPaste(client string) string {
	addr, err := netip.ParseAddr(client)
	if err != nil {
		return ""
	}
	allow := slices.Clone(f.Allow)
	if len(allow) == 0 && len(f.SourceRaw) == 0 { // the default, which any allow replaces
		allow = []string{vendorList}
	}
	allow = append(allow, address.Fold(addr).String())
	return "To let it in, say in ip_filter: allow " + strings.Join(allow, " ") + "."
}
