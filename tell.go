package greenapi

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/address"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// tell lets everybody know how a request ended who wants to: metrics, alerts, events, the status
// page and the access log.
func (h *Handler) tell(v *visit, said *verdict) {
	h.count(v, said)
	op := h.app.operator
	op.totals.add(said.outcome)
	if v.n.Instance != "" && said.outcome != refused {
		op.seen.add(v.n.Instance, said.outcome, v.started)
		op.silent.saw(v.n.Instance, v.started)
	}
	if extra := accessLogFields(v.r); extra != nil {
		extra.Set(zap.String("green_api_outcome", string(said.outcome)))
		text := func(key, value string) {
			if value != "" {
				extra.Set(zap.String(key, value))
			}
		}
		text("green_api_type", clip(v.n.Type))
		text("green_api_message", clip(v.n.Message))
		text("green_api_instance", v.n.Instance)
		text("green_api_reason", string(said.reason))
	}
	if said.level < zap.WarnLevel {
		return
	}
	h.alert(v, said.reason, said)
	if name := eventOf[said.outcome]; name != "" {
		op.events.emit(h, name, map[string]any{
			"name": h.Name, "type": clip(v.n.Type), "message": clip(v.n.Message), "instance": v.instance(), "id": clip(v.n.ID),
			"outcome": string(said.outcome), "reason": string(said.reason), "status": said.status, "handler": v.handler, "quarantine_id": v.quarantineID,
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
func (h *Handler) alert(v *visit, why reason.Reason, said *verdict) {
	n := note{reason: why, typ: h.typeLabel(v), level: said.level, instance: v.instance(), example: v.quarantineID, at: time.Now()}
	switch why {
	case reason.UnlistedSender:
		n.more = h.IPFilter.lineToPaste(v.client)
	case reason.InstanceNotAllowed:
		if !h.app.operator.daily.first(n.instance, n.at) {
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

// instance is the one that a request is of, or says it is of.
func (v *visit) instance() string {
	if v.n.Instance != "" {
		return v.n.Instance
	}
	return v.claimed
}

// daily lets one thing through a day for each key, of the last maxSeen keys.
type daily struct {
	mu   sync.Mutex
	told map[string]time.Time
}

func (d *daily) first(key string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at, told := d.told[key]; told && now.Sub(at) < 24*time.Hour {
		return false
	}
	if d.told == nil || len(d.told) >= maxSeen {
		d.told = make(map[string]time.Time)
	}
	d.told[key] = now
	return true
}
