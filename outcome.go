package greenapi

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// A visit is a notification together with the request that brought it.
type visit struct {
	outcome.Case
	w       http.ResponseWriter
	r       *http.Request
	readOff bool // the body of a refused request was read to its end

	way proxyWay // to the handlers
}

func newVisit(w http.ResponseWriter, r *http.Request) *visit {
	client, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return &visit{w: w, r: r, Case: outcome.Case{
		Kind:   notification.KindNone,
		Client: client, Host: r.Host, URI: r.RequestURI, Header: r.Header, Started: time.Now(), Admitted: true, N: new(notification.Notification),
	}}
}

// placeholders sets what is known of the notification, for matchers and handlers further on.
func (v *visit) placeholders() {
	repl := replacer(v.r.Context())
	repl.Set("http.green_api.type", v.N.Type)
	repl.Set("http.green_api.message", v.N.Message)
	repl.Set("http.green_api.instance", v.N.Instance)
	repl.Set("http.green_api.chat", v.N.Chat)
	repl.Set("http.green_api.id", v.N.ID)
}

func replacer(ctx context.Context) *caddy.Replacer {
	return ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
}

// messages are constant: data goes into fields.
var messages = map[outcome.Outcome]string{
	outcome.Delivered:   "notification delivered",
	outcome.Dropped:     "notification dropped",
	outcome.Quarantined: "notification quarantined",
	outcome.Refused:     "request refused",
	outcome.Failed:      "notification failed",
}

// record writes the one log record of a notification and sets the placeholders that say how it
// ended.
func (h *Handler) record(v *visit, end *outcome.Verdict) {
	said := *end
	if v.Remark.Reason != "" {
		if said.Reason == "" {
			said.Reason = v.Remark.Reason
		}
		said.Level = max(said.Level, v.Remark.Level)
		said.Faults = v.Remark.Faults
		if said.Syntax == nil {
			said.Syntax = v.Remark.Syntax
		}
		if said.Err == nil {
			said.Err = v.Remark.Err
		}
		said.Fields = append(said.Fields, v.Remark.Fields...)
	}
	repl := replacer(v.r.Context())
	repl.Set("http.green_api.outcome", string(said.Outcome))
	repl.Set("http.green_api.reason", string(said.Reason))
	h.tell(v, &said)

	if entry := h.logger.Check(said.Level, messages[said.Outcome]); entry != nil {
		fields := recordFields(&v.Case, &said)
		if h.LogBody && v.Body != nil {
			fields = append(fields, bodyField(&v.Case))
		}
		entry.Write(fields...)
	}
}

// recordFields are the fields of a record. No token, no text, no name and no phone number is ever
// among them; with `log_body` the body stands beside them.
func recordFields(c *outcome.Case, end *outcome.Verdict) []zap.Field {
	fields := notificationFields(c)
	fields = append(fields, zap.String("outcome", string(end.Outcome)))
	if end.Reason != "" {
		fields = append(fields, zap.String("reason", string(end.Reason)))
	}
	fields = append(fields, zap.Int("status", end.Status))
	fields = append(fields, attemptFields(c)...)
	fields = append(fields, faultFields(end)...)
	if end.Err != nil {
		fields = append(fields, zap.Error(end.Err))
	}
	return append(fields, end.Fields...)
}

// maxLoggedBody bounds what `log_body` writes of one notification.
const maxLoggedBody = 64 << 10

// bodyField is the field of `log_body`.
func bodyField(c *outcome.Case) zap.Field {
	return zap.String("body", strings.ToValidUTF8(string(outcome.PrintableJSON(c.Body[:min(len(c.Body), maxLoggedBody)])), "\uFFFD"))
}

// notificationFields say which notification it is.
func notificationFields(c *outcome.Case) []zap.Field {
	fields := make([]zap.Field, 0, 20)
	text := func(key, value string) {
		if value != "" {
			fields = append(fields, zap.String(key, value))
		}
	}
	text("type", outcome.Clip(c.N.Type))
	text("message", outcome.Clip(c.N.Message))
	text("instance", c.N.Instance)
	text("id", outcome.Clip(c.N.ID))
	if c.N.Timestamp != 0 {
		sent := time.Unix(c.N.Timestamp, 0)
		fields = append(fields, zap.Int64("timestamp", c.N.Timestamp), zap.Duration("age", c.Started.Sub(sent)))
	}
	if c.Body != nil {
		fields = append(fields, zap.Int("size", len(c.Body)))
	}
	text("via", c.Via)
	return fields
}

// attemptFields say how far it has come.
func attemptFields(c *outcome.Case) []zap.Field {
	fields := make([]zap.Field, 0, 3)
	if c.Handler != "" {
		fields = append(fields, zap.String("handler", c.Handler))
	}
	if c.Attempts > 0 {
		fields = append(fields, zap.Int("attempts", c.Attempts))
	}
	if len(c.Answers) > 0 {
		fields = append(fields, zap.Strings("tried", c.Tried()))
	}
	return append(fields, zap.Duration("duration", time.Since(c.Started)))
}

// faultFields say what is wrong with a body, without a word of the body.
func faultFields(end *outcome.Verdict) []zap.Field {
	if end.Syntax != nil {
		return []zap.Field{
			zap.Int64("offset", end.Syntax.Offset),
			// No pointer: the names in a broken body may be anything.
			zap.String("cause", end.Syntax.Cause),
		}
	}
	if len(end.Faults) == 0 {
		return nil
	}
	const most = 10 // a body with more is as wrong with ten
	pointers, keywords := make([]string, 0, most), make([]string, 0, most)
	for _, f := range end.Faults[:min(most, len(end.Faults))] {
		pointers = append(pointers, outcome.Clip(f.Pointer))
		keywords = append(keywords, f.Keyword)
	}
	return []zap.Field{zap.Strings("pointer", pointers), zap.Strings("keyword", keywords), zap.Int("faults", len(end.Faults))}
}
