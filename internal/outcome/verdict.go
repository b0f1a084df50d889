package outcome

import (
	"net/http"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// Outcome is what became of a notification. There are only these six.
type Outcome string

// The outcomes, in the words of the log and the metrics.
const (
	Queued      Outcome = "queued" // later, it is another one of these
	Delivered   Outcome = "delivered"
	Dropped     Outcome = "dropped"
	Quarantined Outcome = "quarantined"
	Refused     Outcome = "refused"
	Failed      Outcome = "failed"
)

// A Verdict says how a notification ended, or what is remarkable about one that goes on.
type Verdict struct {
	Outcome Outcome
	Reason  reason.Reason // "" if there is none
	Status  int           // the answer
	Level   zapcore.Level // of the record
	Faults  []notification.Fault
	Syntax  *notification.SyntaxError
	Err     error // written by us; never contains any part of the body or a token
	Fields  []zap.Field

	Header, Value string // a header field of a refusal
}

// ToQuarantine returns the verdict on a body to be kept. A broken one is an ERROR, an unknown one a WARN
// (GREEN-API docs: "Working with incoming webhooks", read 2026-07). One that the operator has skipped is no news.
func ToQuarantine(why reason.Reason) *Verdict {
	level := zap.ErrorLevel
	switch why {
	case reason.UnknownType, reason.UnknownMessage:
		level = zap.WarnLevel
	case reason.Skipped:
		level = zap.InfoLevel
	}
	return &Verdict{Outcome: Quarantined, Reason: why, Status: http.StatusOK, Level: level}
}
