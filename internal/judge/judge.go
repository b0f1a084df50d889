// Package judge decides what becomes of a body: whether it goes on to the handlers, is dropped, or is put
// into the quarantine. The gate validate, the command check and a replay with recheck all use it, so they
// cannot disagree.
package judge

import (
	"errors"
	"mime"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// What an option can do with a notification.
const (
	Pass       = "pass"
	Drop       = "drop"
	Quarantine = "quarantine"
)

// DefaultMaxKept is the longest body that the quarantine takes, in bytes, unless the config says otherwise.
const DefaultMaxKept = 16 << 20

// Rules decide what becomes of bodies. Start from Defaults and set Schemas.
type Rules struct {
	MaxBody int64 // longest body to read as a notification, in bytes

	UnknownType    string // Pass, Drop or Quarantine, for a type without a schema
	UnknownMessage string // the same, for a message type without a schema
	Invalid        string // the same, for a notification that violates its schema

	Wanted  Wanted
	Schemas *notification.Schemas
	Drift   *Drift // nil if the drift guard is off
}

// Drift is what the drift guard has learned.
type Drift struct {
	// Learned reports whether a type that no schema knows has come often enough to be passed on.
	Learned func(typ string) bool

	// Holds reports whether a rule that the notification violates is still enforced. more means that the
	// notification may violate rules beyond those of faults.
	Holds func(schemas *notification.Schemas, n *notification.Notification, faults []notification.Fault, more bool) bool
}

// Defaults returns the rules of a validate gate without options. They have no schemas yet.
func Defaults() Rules {
	return Rules{MaxBody: 1 << 20, UnknownType: Quarantine, UnknownMessage: Pass, Invalid: Quarantine}
}

// Wrapping judges what can be known about a body without parsing it: its length, and what its header says
// it is. It returns nil if the body can be read.
func (r *Rules) Wrapping(size int64, header http.Header) *outcome.Verdict {
	if size > r.MaxBody {
		return outcome.ToQuarantine(reason.TooLarge)
	}
	// The schema cannot check an encoded body, and with two content types the handler may believe the
	// other one.
	if encoding := header["Content-Encoding"]; len(encoding) > 1 || len(encoding) == 1 && !strings.EqualFold(encoding[0], "identity") {
		return outcome.ToQuarantine(reason.Encoding)
	}
	if types := header["Content-Type"]; len(types) > 1 || len(types) == 1 && !IsJSON(types[0]) {
		end := outcome.ToQuarantine(reason.Encoding)
		end.Fields = append(end.Fields, zap.String("content_type", outcome.Clip(strings.Join(types, ", "))))
		return end
	}
	return nil
}

// IsJSON reports whether a handler that trusts the content type reads the same as was judged here. As a
// form, or in another charset, the same bytes may say something else, such as another instance.
func IsJSON(contentType string) bool {
	if contentType == notification.ContentType || contentType == "" {
		return true
	}
	media, parameters, err := mime.ParseMediaType(contentType) // two parameters with one name are an error
	if err != nil || media != "application/json" && !strings.HasSuffix(media, "+json") {
		return false
	}
	charset, said := parameters["charset"]
	return !said || strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "utf8")
}

// Parse parses a body into a notification and checks it against its schemas in the same pass.
func (r *Rules) Parse(body []byte) (*notification.Notification, *outcome.Verdict) {
	n, err := r.Schemas.Parse(body)
	if err == nil {
		return n, nil
	}
	end := outcome.ToQuarantine(reason.Malformed)
	errors.As(err, &end.Syntax)
	return nil, end
}

// Judge decides whether a notification is wanted, known, and valid under its schema. end is nil if it goes
// on; remark is then what the operator should know about it, or nil.
func (r *Rules) Judge(n *notification.Notification) (end, remark *outcome.Verdict) {
	if !r.Wanted.wants(n) {
		return &unwanted, nil
	}
	if !r.Schemas.KnownType(n.Type) {
		end := outcome.ToQuarantine(reason.UnknownType)
		if r.UnknownType == Quarantine && r.Drift != nil && r.Drift.Learned(n.Type) {
			end.Fields = append(end.Fields, zap.Bool("drift", true))
			return nil, end
		}
		return act(r.UnknownType, end)
	}
	if faults, more := r.Schemas.Faults(n); faults != nil {
		end := outcome.ToQuarantine(reason.Schema)
		end.Faults = faults
		if r.Drift != nil && !r.Drift.Holds(r.Schemas, n, faults, more) {
			end.Fields = append(end.Fields, zap.Bool("drift", true))
			return nil, end
		}
		return act(r.Invalid, end)
	}
	if n.Message != "" && !r.Schemas.KnownMessage(n.Message) {
		return act(r.UnknownMessage, outcome.ToQuarantine(reason.UnknownMessage))
	}
	return nil, nil
}

// unwanted is shared by all notifications. Nobody changes it.
var unwanted = outcome.Verdict{Outcome: outcome.Dropped, Reason: reason.Unwanted, Status: http.StatusOK, Level: zap.DebugLevel}

// JudgeBody takes a body through Wrapping, Parse and Judge, in the order of the gate. If the body is not a
// notification, n is an empty one.
func (r *Rules) JudgeBody(body []byte, header http.Header) (n *notification.Notification, end, remark *outcome.Verdict) {
	if end = r.Wrapping(int64(len(body)), header); end == nil {
		if n, end = r.Parse(body); end == nil {
			end, remark = r.Judge(n)
			return n, end, remark
		}
	}
	return new(notification.Notification), end, nil
}

// act applies the action of an option to a notification.
func act(action string, v *outcome.Verdict) (end, remark *outcome.Verdict) {
	switch action {
	case Pass:
		return nil, v
	case Drop:
		v.Outcome = outcome.Dropped
	}
	return v, nil
}
