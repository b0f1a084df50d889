package greenapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// outcome is what became of a notification. There is no sixth.
type outcome string

const (
	delivered   outcome = "delivered"
	dropped     outcome = "dropped"
	quarantined outcome = "quarantined"
	refused     outcome = "refused"
	failed      outcome = "failed"
)

// A verdict ends a notification's way.
type verdict struct {
	outcome outcome
	reason  reason.Reason // "" if there is nothing to say
	status  int           // the answer
	level   zapcore.Level // of the record
	faults  []notification.Fault
	syntax  *notification.SyntaxError
	err     error // of our own making, never with a piece of the body or a token in it
	fields  []zap.Field

	header, value string // to answer with, for a refusal
}

// A visit is one request on its way.
type visit struct {
	w       http.ResponseWriter
	r       *http.Request
	started time.Time
	token   tokenState
	client  string // the address that ip_filter judges
	via     string // viaHTTPAPI, or "" for what is posted

	// No gate has refused its sender so far, not even one in report_only. Only what is admitted is
	// evidence of what GREEN-API sends.
	admitted bool

	body []byte // nil until read
	n    *notification.Notification

	// Of a notification that goes on although something about it must be said: the level and
	// reason that its record carries at the end.
	remark verdict

	claimed      string // instance that the body of a refused request names
	readOff      bool   // that body was read to its end
	quarantineID string // of the entry, if it is kept

	onward   onward // makes the requests of the attempts
	handler  string // upstream that was asked last
	attempts int
	answers  []quarantine.Answer // of the last attempts

	failed     failedRound
	lastChance bool // it is asked about once, and kept if that fails
}

// asked writes an attempt down.
func (v *visit) asked(got answer) {
	if got.result == noneFree {
		return
	}
	countAttempt(got.result)
	v.failed.add(got)
	v.attempts++
	if got.handler != "" {
		v.handler = got.handler
	}
	if got.result == taken {
		return
	}
	const most = 10
	if len(v.answers) == most {
		v.answers = append(v.answers[:0], v.answers[1:]...)
	}
	said := quarantine.Answer{Handler: got.handler, Status: got.status, Text: got.text}
	if got.err != nil {
		said.Error = got.err.Error()
	}
	v.answers = append(v.answers, said)
}

func newVisit(w http.ResponseWriter, r *http.Request) *visit {
	client, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return &visit{w: w, r: r, started: time.Now(), client: client, admitted: true, n: new(notification.Notification)}
}

// passOn remarks what would have ended the way. The gravest remark is kept.
func (v *visit) passOn(remark *verdict) {
	if v.remark.reason == "" || remark.level > v.remark.level {
		v.remark = *remark
	}
}

// reportOnly remarks how the way would have ended, but for `report_only`.
func (v *visit) reportOnly(end *verdict) {
	v.admitted = v.admitted && end.outcome != refused
	remark := *end
	remark.fields = append(remark.fields, zap.Bool("report_only", true), zap.String("would_be", string(end.outcome)))
	v.passOn(&remark)
}

// placeholders sets what is known of the notification, for matchers and handlers further on.
func (v *visit) placeholders() {
	repl := replacer(v.r.Context())
	repl.Set("http.green_api.type", v.n.Type)
	repl.Set("http.green_api.message", v.n.Message)
	repl.Set("http.green_api.instance", v.n.Instance)
	repl.Set("http.green_api.chat", v.n.Chat)
	repl.Set("http.green_api.id", v.n.ID)
}

func replacer(ctx context.Context) *caddy.Replacer {
	return ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
}

// messages are constant: data goes into fields.
var messages = map[outcome]string{
	delivered:   "notification delivered",
	dropped:     "notification dropped",
	quarantined: "notification quarantined",
	refused:     "request refused",
	failed:      "notification failed",
}

// record writes the one log record of a notification and sets the placeholders that say how it
// ended.
func (h *Handler) record(v *visit, end *verdict) {
	said := *end
	if v.remark.reason != "" {
		if said.reason == "" {
			said.reason = v.remark.reason
		}
		said.level = max(said.level, v.remark.level)
		said.faults = v.remark.faults
		if said.syntax == nil {
			said.syntax = v.remark.syntax
		}
		if said.err == nil {
			said.err = v.remark.err
		}
		said.fields = append(said.fields, v.remark.fields...)
	}
	repl := replacer(v.r.Context())
	repl.Set("http.green_api.outcome", string(said.outcome))
	repl.Set("http.green_api.reason", string(said.reason))
	h.tell(v, &said)

	if entry := h.logger.Check(said.level, messages[said.outcome]); entry != nil {
		fields := recordFields(v, &said)
		if h.LogBody && v.body != nil {
			fields = append(fields, bodyField(v))
		}
		entry.Write(fields...)
	}
}

// recordFields are the fields of a record. No token, no text, no name and no phone number is ever
// among them; with `log_body` the body stands beside them.
func recordFields(v *visit, end *verdict) []zap.Field {
	fields := notificationFields(v)
	fields = append(fields, zap.String("outcome", string(end.outcome)))
	if end.reason != "" {
		fields = append(fields, zap.String("reason", string(end.reason)))
	}
	fields = append(fields, zap.Int("status", end.status))
	fields = append(fields, attemptFields(v)...)
	fields = append(fields, faultFields(end)...)
	if end.err != nil {
		fields = append(fields, zap.Error(end.err))
	}
	return append(fields, end.fields...)
}

// maxLoggedBody bounds what `log_body` writes of one notification.
const maxLoggedBody = 64 << 10

// bodyField is the field of `log_body`.
func bodyField(v *visit) zap.Field {
	return zap.String("body", strings.ToValidUTF8(string(printableJSON(v.body[:min(len(v.body), maxLoggedBody)])), "\uFFFD"))
}

// notificationFields say which notification it is.
func notificationFields(v *visit) []zap.Field {
	fields := make([]zap.Field, 0, 20)
	text := func(key, value string) {
		if value != "" {
			fields = append(fields, zap.String(key, value))
		}
	}
	text("type", clip(v.n.Type))
	text("message", clip(v.n.Message))
	text("instance", v.n.Instance)
	text("id", clip(v.n.ID))
	if v.n.Timestamp != 0 {
		sent := time.Unix(v.n.Timestamp, 0)
		fields = append(fields, zap.Int64("timestamp", v.n.Timestamp), zap.Duration("age", v.started.Sub(sent)))
	}
	if v.body != nil {
		fields = append(fields, zap.Int("size", len(v.body)))
	}
	text("via", v.via)
	return fields
}

// attemptFields say how far it has come.
func attemptFields(v *visit) []zap.Field {
	fields := make([]zap.Field, 0, 3)
	if v.handler != "" {
		fields = append(fields, zap.String("handler", v.handler))
	}
	if v.attempts > 0 {
		fields = append(fields, zap.Int("attempts", v.attempts))
	}
	if len(v.answers) > 0 {
		fields = append(fields, zap.Strings("tried", v.tried()))
	}
	return append(fields, zap.Duration("duration", time.Since(v.started)))
}

// tried says who did not take it, and why.
func (v *visit) tried() []string {
	tried := make([]string, 0, len(v.answers))
	for _, said := range v.answers {
		text := said.Handler + ": " + said.Error
		if said.Status != 0 {
			text = said.Handler + ": " + strconv.Itoa(said.Status)
		}
		tried = append(tried, text)
	}
	return tried
}

// faultFields say what is wrong with a body, without a word of the body.
func faultFields(end *verdict) []zap.Field {
	if end.syntax != nil {
		return []zap.Field{
			zap.Int64("offset", end.syntax.Offset),
			// No pointer: the names in a broken body may be anything.
			zap.String("cause", end.syntax.Cause),
		}
	}
	if len(end.faults) == 0 {
		return nil
	}
	const most = 10 // a body with more is as wrong with ten
	pointers, keywords := make([]string, 0, most), make([]string, 0, most)
	for _, f := range end.faults[:min(most, len(end.faults))] {
		pointers = append(pointers, clip(f.Pointer))
		keywords = append(keywords, f.Keyword)
	}
	return []zap.Field{zap.Strings("pointer", pointers), zap.Strings("keyword", keywords), zap.Int("faults", len(end.faults))}
}

// clip bounds what a body may write into the log, which somebody reads on a terminal.
func clip(s string) string { return printable(clipTo(s, maxKeptHead)) }

// clipTo bounds a text, in bytes.
func clipTo(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
