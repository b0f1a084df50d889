package outcome

import (
	"net/http"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// Outcome is what became of a notification. There is no sixth.
type Outcome string

const (
	Delivered   Outcome = "delivered"
	Dropped     Outcome = "dropped"
	Quarantined Outcome = "quarantined"
	Refused     Outcome = "refused"
	Failed      Outcome = "failed"
)

// A Verdict says how a notification ended, or what there is to say about one that goes on.
type Verdict struct {
	Outcome Outcome
	Reason  reason.Reason // "" if there is nothing to say
	Status  int           // the answer
	Level   zapcore.Level // of the record
	Faults  []notification.Fault
	Syntax  *notification.SyntaxError
	Err     error // written by us; it never has a piece of the body or a token in it
	Fields  []zap.Field

	Header, Value string // a header field of the answer, for a refusal
}

// ToQuarantine returns the verdict on a body that is to be kept. A broken one is an ERROR, an unknown
// one a WARN (GREEN-API docs: "Working with incoming webhooks", read 2026-07).
func ToQuarantine(why reason.Reason) *Verdict {
	level := zap.ErrorLevel
	if why == reason.UnknownType || why == reason.UnknownMessage {
		level = zap.WarnLevel
	}
	return &Verdict{Outcome: Quarantined, Reason: why, Status: http.StatusOK, Level: level}
}
