package tell

import (
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// messages are the log messages. They are constant: data goes into fields.
var messages = map[outcome.Outcome]string{
	outcome.Delivered:   "notification delivered",
	outcome.Dropped:     "notification dropped",
	outcome.Quarantined: "notification quarantined",
	outcome.Refused:     "request refused",
	outcome.Failed:      "notification failed",
}

// A Reporter reports how the notifications of one green_api block ended: to the log, the access log,
// metrics, alerts and events.
type Reporter struct {
	Desk    *Desk
	Name    string      // of the block
	Log     *zap.Logger // gets the records
	DeskLog *zap.Logger // gets what goes wrong with reporting
	LogBody bool        // records have the body in them

	// PerInstance reports whether an instance is counted on its own.
	PerInstance func(instance string) bool

	// Details returns what an alert says beside the usual, and whether the alert is wanted at all.
	Details func(why reason.Reason, c *outcome.Case) (more string, wanted bool)

	// Emitter returns what emits an event of this name; nil if nobody has subscribed to it.
	Emitter func(name string) func(data map[string]any)
}

// An AccessLog takes fields for the access log's record of the request.
type AccessLog interface{ Set(field zap.Field) }

// Record reports how a notification ended. It writes the one log record of it. access may be nil.
func (r *Reporter) Record(c *outcome.Case, end *outcome.Verdict, access AccessLog) {
	r.count(c, end)
	r.Desk.totals.add(end.Outcome)
	if access != nil {
		setAccessFields(access, c, end)
	}
	if end.Outcome == outcome.Delivered && r.Desk.InTrouble() {
		r.movesOn(c)
	}
	if end.Level >= zap.WarnLevel {
		trouble := ""
		if end.Outcome == outcome.Failed {
			trouble = standstill(c)
		}
		r.alert(c, end.Reason, end.Level, trouble)
		r.emit(c, end)
	}
	if entry := r.Log.Check(end.Level, messages[end.Outcome]); entry != nil {
		fields := RecordFields(c, end)
		if r.LogBody && c.Body != nil {
			fields = append(fields, bodyField(c))
		}
		entry.Write(fields...)
	}
}

// Waits tells the operator of a notification that waits for a handler.
func (r *Reporter) Waits(c *outcome.Case) { r.alert(c, reason.NotNow, zap.WarnLevel, standstill(c)) }

// standstill is the trouble of an instance whose notification is not delivered: all that is behind it waits.
func standstill(c *outcome.Case) string {
	if c.N.Instance == "" {
		return ""
	}
	return "instance " + c.N.Instance
}

// movesOn tells the operator of an instance that stood still and does not any longer.
func (r *Reporter) movesOn(c *outcome.Case) {
	if trouble := standstill(c); trouble != "" {
		r.Desk.Tell(outcome.Note{Reason: reason.Recovered, Instance: c.N.Instance, More: "Notifications are delivered again.", At: time.Now(), Trouble: trouble})
	}
}

// alert tells the operator something about a notification, and what is in trouble with it.
func (r *Reporter) alert(c *outcome.Case, why reason.Reason, level zapcore.Level, trouble string) {
	more, wanted := r.Details(why, c)
	if !wanted {
		return
	}
	r.Desk.Tell(outcome.Note{Reason: why, Kind: c.Kind, Level: level, Instance: c.Instance(), Example: c.QuarantineID, More: more, At: time.Now(), Trouble: trouble})
}

func setAccessFields(access AccessLog, c *outcome.Case, end *outcome.Verdict) {
	access.Set(zap.String("green_api_outcome", string(end.Outcome)))
	text := func(key, value string) {
		if value != "" {
			access.Set(zap.String(key, value))
		}
	}
	text("green_api_type", outcome.Clip(c.N.Type))
	text("green_api_message", outcome.Clip(c.N.Message))
	text("green_api_instance", c.N.Instance)
	text("green_api_reason", string(end.Reason))
}

// RecordFields returns the fields of a record. They never contain a token, a text, a name or a phone
// number; with `log_body` the body stands beside them.
func RecordFields(c *outcome.Case, end *outcome.Verdict) []zap.Field {
	fields := NotificationFields(c)
	fields = append(fields, zap.String("outcome", string(end.Outcome)))
	if end.Reason != "" {
		fields = append(fields, zap.String("reason", string(end.Reason)))
	}
	fields = append(fields, zap.Int("status", end.Status))
	fields = append(fields, AttemptFields(c)...)
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

// NotificationFields returns the fields that say which notification it is.
func NotificationFields(c *outcome.Case) []zap.Field {
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

// AttemptFields returns the fields that say how far the notification came with the handlers.
func AttemptFields(c *outcome.Case) []zap.Field {
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

// faultFields returns the fields that say what is wrong with a body, without a word of the body.
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
