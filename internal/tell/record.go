package tell

import (
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// messages are the log messages. They are constant; data goes into fields.
var messages = map[outcome.Outcome]string{
	outcome.Queued:      "notification queued",
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
	DeskLog *zap.Logger // gets problems with reporting
	LogBody bool        // records contain the body

	// PerInstance reports whether an instance is counted on its own.
	PerInstance func(instance string) bool

	// Details returns what an alert says in addition, and whether to send it at all.
	Details func(why reason.Reason, c *outcome.Case) (more string, wanted bool)

	// Emitter returns a function that emits an event of this name, nil if nobody has subscribed to it.
	Emitter func(name string) func(data map[string]any)
}

// An AccessLog adds fields to the access log's record of the request.
type AccessLog interface{ Set(field zap.Field) }

// Record reports how a notification ended. It writes its only log record. access may be nil.
func (r *Reporter) Record(c *outcome.Case, end *outcome.Verdict, access AccessLog) {
	r.count(c, end)
	r.Desk.Feed.Add(c, end, r.Name, time.Now())
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

// Waits tells the operator that a notification is waiting for a handler, or for room in the queue.
func (r *Reporter) Waits(c *outcome.Case, why reason.Reason) {
	r.alert(c, why, zap.WarnLevel, standstill(c))
}

// standstill returns the trouble of an instance with an undelivered notification, which blocks its queue.
func standstill(c *outcome.Case) string {
	if c.N.Instance == "" {
		return ""
	}
	return "instance " + c.N.Instance
}

// movesOn tells the operator that an instance's queue was blocked and no longer is.
func (r *Reporter) movesOn(c *outcome.Case) {
	if trouble := standstill(c); trouble != "" {
		r.Desk.Tell(outcome.Note{Reason: reason.Recovered, Instance: c.N.Instance, More: "Notifications are delivered again.", At: time.Now(), Trouble: trouble})
	}
}

// alert sends the operator an alert about a notification. trouble is what is in trouble because of it.
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
// number; the body that `log_body` adds is not among them.
func RecordFields(c *outcome.Case, end *outcome.Verdict) []zap.Field {
	fields := NotificationFields(c)
	fields = append(fields, zap.String("outcome", string(end.Outcome)))
	if end.Reason != "" {
		fields = append(fields, zap.String("reason", string(end.Reason)))
	}
	fields = append(fields, zap.Int("status", end.Status))
	fields = appendAttempt(fields, c)
	fields = append(fields, faultFields(end)...)
	if end.Err != nil {
		fields = append(fields, zap.Error(end.Err))
	}
	return append(fields, end.Fields...)
}

// maxLoggedBody limits how much of a body `log_body` writes.
const maxLoggedBody = 64 << 10

// bodyField returns the field of `log_body`.
func bodyField(c *outcome.Case) zap.Field {
	return zap.String("body", strings.ToValidUTF8(string(outcome.PrintableJSON(c.Body[:min(len(c.Body), maxLoggedBody)])), "\uFFFD"))
}

// NotificationFields returns the fields that identify a notification.
func NotificationFields(c *outcome.Case) []zap.Field {
	fields := make([]zap.Field, 0, 14) // enough for one that was delivered
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

// AttemptFields returns the fields about a notification's attempts.
func AttemptFields(c *outcome.Case) []zap.Field { return appendAttempt(nil, c) }

func appendAttempt(fields []zap.Field, c *outcome.Case) []zap.Field {
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

// faultFields returns the fields that say what is wrong with a body, without quoting it.
func faultFields(end *outcome.Verdict) []zap.Field {
	if end.Syntax != nil {
		return []zap.Field{
			zap.Int64("offset", end.Syntax.Offset),
			// No pointer: names in a broken body may be anything.
			zap.String("cause", end.Syntax.Cause),
		}
	}
	if len(end.Faults) == 0 {
		return nil
	}
	const most = 10 // ten faults are enough to show what is wrong
	pointers, keywords := make([]string, 0, most), make([]string, 0, most)
	for _, f := range end.Faults[:min(most, len(end.Faults))] {
		pointers = append(pointers, outcome.Clip(f.Pointer))
		keywords = append(keywords, f.Keyword)
	}
	return []zap.Field{zap.Strings("pointer", pointers), zap.Strings("keyword", keywords), zap.Int("faults", len(end.Faults))}
}
