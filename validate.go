package greenapi

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// What an option may say is to be done.
const (
	actionPass       = "pass"
	actionDrop       = "drop"
	actionQuarantine = "quarantine"
	actionRefuse     = "refuse"
)

const (
	defaultMaxBodySize = 1 << 20
	defaultMaxKeptBody = 16 << 20

	// largestBody is far below the largest integer of any machine, to which something is added.
	largestBody = 1 << 30
)

// Validate is the gate that reads a notification and says whether it is one, and one of use.
//
// A notification that fails is not refused: GREEN-API would send it again for a day while the
// instance's queue stands still. It is kept in the quarantine, logged, and answered 200.
//
// The schemas are JSON Schema 2020-12, one for each type and message type. They demand what every
// genuine notification has, check the form of what is known, and allow everything else: additional
// fields must not be forbidden (GREEN-API docs: "Working with incoming webhooks", read 2026-07).
type Validate struct {
	// Longest body that is read as a notification, in bytes. A longer one is quarantined.
	// At most 1 GiB. Default: 1 MiB.
	MaxBodySize int64 `json:"max_body_size,omitempty"`

	// Longest body that is kept in the quarantine, in bytes. A longer one is refused with 413.
	// At most 1 GiB. Default: 16 MiB, or max_body_size if that is more.
	MaxKeptBody int64 `json:"max_kept_body,omitempty"`

	// Types, or a type and a message type as `incomingMessageReceived.stickerMessage`, that are
	// answered 200 and go nowhere. Not together with `accept`.
	Drop []string `json:"drop,omitempty"`

	// The only types, or types and message types, that are delivered; other known ones are
	// dropped. Not together with `drop`.
	Accept []string `json:"accept,omitempty"`

	// What happens to a type without a schema: `quarantine`, `pass` or `drop`.
	// Default: `quarantine`.
	UnknownType string `json:"unknown_type,omitempty"`

	// What happens to a message type without a schema: `quarantine`, `pass` or `drop`.
	// Default: `pass`.
	UnknownMessage string `json:"unknown_message,omitempty"`

	// What happens to a notification that does not meet its schema: `quarantine`, `pass` or
	// `drop`. Default: `quarantine`.
	Invalid string `json:"invalid,omitempty"`

	// A directory of schemas that replace built-in ones of the same file name, or add types
	// (`<type>.json`) and message types (`messageData.<message type>.json`).
	Schemas string `json:"schemas,omitempty"`

	// Whether a rule of a schema gives way when many notifications of several instances break it, and
	// a type without a schema is passed on when it has come as often. Default: they do.
	DriftGuard *DriftGuard `json:"drift_guard,omitempty"`

	// Keeps and drops nothing but what cannot be delivered (`too_large`, `encoding`): what would
	// have been is logged and counted.
	ReportOnly bool `json:"report_only,omitempty"`

	schemas *notification.Schemas
	wanted  wantedSet
	drift   *driftDesk // nil if it is off
}

func (va *Validate) provision(ctx caddy.Context) error {
	if va.MaxBodySize < 0 || va.MaxKeptBody < 0 {
		return errors.New("max_body_size, max_kept_body: want a size above 0, such as 1MiB")
	}
	if va.MaxBodySize == 0 {
		va.MaxBodySize = defaultMaxBodySize
	}
	if va.MaxKeptBody == 0 {
		va.MaxKeptBody = max(defaultMaxKeptBody, va.MaxBodySize)
	}
	for _, size := range []struct {
		option string
		bytes  int64
	}{{"max_body_size", va.MaxBodySize}, {"max_kept_body", va.MaxKeptBody}} {
		if size.bytes > largestBody {
			return fmt.Errorf("%s: %d bytes are too many; want at most 1GiB, as a body is held in memory", size.option, size.bytes)
		}
	}
	if va.MaxKeptBody < va.MaxBodySize {
		return fmt.Errorf("max_kept_body: %d bytes are less than the %d of max_body_size; want as much or more", va.MaxKeptBody, va.MaxBodySize)
	}
	for _, choice := range []struct {
		option, byDefault string
		value             *string
	}{
		{"unknown_type", actionQuarantine, &va.UnknownType},
		{"unknown_message", actionPass, &va.UnknownMessage},
		{"invalid", actionQuarantine, &va.Invalid},
	} {
		switch *choice.value {
		case "":
			*choice.value = choice.byDefault
		case actionQuarantine, actionPass, actionDrop:
		default:
			return fmt.Errorf("%s: invalid value %q; want quarantine, pass or drop", choice.option, *choice.value)
		}
	}
	var err error
	if va.schemas, err = notification.LoadSchemas(va.Schemas); err != nil {
		return fmt.Errorf("schemas: %w", err)
	}
	for _, w := range va.schemas.Warnings() {
		ctx.Logger().Warn("a schema file probably does not mean what it says", zap.String("file", w.File), zap.String("pointer", w.Pointer), zap.String("found", w.Text))
	}
	var unknown []string
	if va.wanted, unknown, err = newWantedSet(va.Accept, va.Drop, va.schemas); err != nil {
		return err
	}
	if len(unknown) > 0 {
		ctx.Logger().Warn("drop names types that no schema knows", zap.Strings("drop", unknown), zap.Strings("types", va.schemas.Types()))
	}
	return nil
}

// read reads the whole body, within bounds, and looks at how it is wrapped.
func (va *Validate) read(v *visit) *outcome.Verdict {
	if v.r.ContentLength > va.MaxKeptBody {
		return tooLarge()
	}
	body, err := readAll(v.r.Body, v.r.ContentLength, va.MaxKeptBody+1)
	if err != nil {
		// Nobody waits for this answer, or only to be told that it took too long to send.
		return &outcome.Verdict{Outcome: outcome.Refused, Reason: reason.Aborted, Status: http.StatusServiceUnavailable, Level: zap.DebugLevel}
	}
	if int64(len(body)) > va.MaxKeptBody {
		return tooLarge()
	}
	v.Body = body
	return va.wrapping(int64(len(body)), v.r.Header)
}

// wrapping judges what can be known of a body without a look into it: how long it is, and what its
// header says it is. A replay and the command check ask it, too.
func (va *Validate) wrapping(size int64, header http.Header) *outcome.Verdict {
	if size > va.MaxBodySize {
		return outcome.ToQuarantine(reason.TooLarge)
	}
	// An encoded body would pass the schema unseen, and of two content types the handlers may look
	// at the other.
	if encoding := header.Values("Content-Encoding"); len(encoding) > 1 || len(encoding) == 1 && !strings.EqualFold(encoding[0], "identity") {
		return outcome.ToQuarantine(reason.Encoding)
	}
	if types := header.Values("Content-Type"); len(types) > 1 || len(types) == 1 && !isJSONType(types[0]) {
		end := outcome.ToQuarantine(reason.Encoding)
		end.Fields = append(end.Fields, zap.String("content_type", outcome.Clip(strings.Join(types, ", "))))
		return end
	}
	return nil
}

// isJSONType tells whether a content type lets handlers read what was read here: a form, or JSON in
// another charset, may say something else altogether in the same bytes, such as another instance.
// GREEN-API sends "application/json; charset=utf-8" (GREEN-API docs: "Working with incoming
// webhooks", read 2026-07).
func isJSONType(text string) bool {
	if text == sentType || text == "" {
		return true
	}
	media, parameters, err := mime.ParseMediaType(text) // of two parameters with one name it makes an error
	if err != nil || media != "application/json" && !strings.HasSuffix(media, "+json") {
		return false
	}
	charset, said := parameters["charset"]
	return !said || strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "utf8")
}

// sentType is what GREEN-API says, and what is received over its HTTP API comes with.
const sentType = "application/json; charset=utf-8"

func tooLarge() *outcome.Verdict {
	return &outcome.Verdict{Outcome: outcome.Refused, Reason: reason.TooLarge, Status: http.StatusRequestEntityTooLarge, Level: zap.ErrorLevel}
}

// readAll reads up to limit bytes. The slice is never nil, and never pooled: a transport may read
// it after the request has been answered.
func readAll(r io.Reader, announced, limit int64) ([]byte, error) {
	if announced < 0 {
		announced = 512
	}
	body := make([]byte, 0, min(announced, limit)+1) // one more, to meet the end without growing
	r = io.LimitReader(r, limit)
	for {
		n, err := r.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err == io.EOF {
			return body, nil
		}
		if err != nil {
			return nil, err
		}
		if len(body) == cap(body) {
			body = append(body, 0)[:len(body)]
		}
	}
}

// parse makes a notification of the body, and checks it against its schemas in the same pass. This
// is the only parse: what is decided and what is delivered is what it saw.
func (va *Validate) parse(v *visit) *outcome.Verdict {
	n, end := va.parseBody(v.Body)
	if end != nil {
		return end
	}
	v.N, v.Kind = n, va.schemas.Kind(n.Type)
	v.placeholders()
	return nil
}

func (va *Validate) parseBody(body []byte) (*notification.Notification, *outcome.Verdict) {
	n, err := va.schemas.Parse(body)
	if err == nil {
		return n, nil
	}
	end := outcome.ToQuarantine(reason.Malformed)
	errors.As(err, &end.Syntax)
	return nil, end
}

// check says whether the notification is wanted, known, and as its schema demands.
func (h *Handler) check(v *visit) *outcome.Verdict {
	if h.Validate.drift != nil && v.Admitted {
		h.Validate.drift.saw(v.N.Instance, v.Started)
	}
	end, remark := h.Validate.judge(v.N)
	for _, said := range []*outcome.Verdict{end, remark} {
		if said != nil {
			h.watchDrift(v, said)
		}
	}
	if remark != nil {
		v.PassOn(remark)
	}
	return end
}

// judge returns how the notification's way ends here, or what to remark about one that goes on.
func (va *Validate) judge(n *notification.Notification) (end, remark *outcome.Verdict) {
	if !va.wanted.wants(n) {
		return &outcome.Verdict{Outcome: outcome.Dropped, Reason: reason.Unwanted, Status: http.StatusOK, Level: zap.DebugLevel}, nil
	}
	if !va.schemas.KnownType(n.Type) {
		end := outcome.ToQuarantine(reason.UnknownType)
		if va.UnknownType == actionQuarantine && va.drift != nil && va.drift.learned(n.Type) {
			end.Fields = append(end.Fields, zap.Bool("drift", true))
			return nil, end
		}
		return act(va.UnknownType, end)
	}
	if faults, more := va.schemas.Faults(n); faults != nil {
		end := outcome.ToQuarantine(reason.Schema)
		end.Faults = faults
		if va.drift != nil && !va.drift.holds(va.schemas, n, faults, more) {
			end.Fields = append(end.Fields, zap.Bool("drift", true))
			return nil, end
		}
		return act(va.Invalid, end)
	}
	if n.Message != "" && !va.schemas.KnownMessage(n.Message) {
		return act(va.UnknownMessage, outcome.ToQuarantine(reason.UnknownMessage))
	}
	return nil, nil
}

// wholly judges a body from without and from within, as the gates do one after the other. What it
// finds of a body that is not a notification is an empty one.
func (va *Validate) wholly(body []byte, header http.Header) (n *notification.Notification, end, remark *outcome.Verdict) {
	if end = va.wrapping(int64(len(body)), header); end == nil {
		if n, end = va.parseBody(body); end == nil {
			end, remark = va.judge(n)
			return n, end, remark
		}
	}
	return new(notification.Notification), end, nil
}

// act does to a notification what an option says.
func act(action string, v *outcome.Verdict) (end, remark *outcome.Verdict) {
	switch action {
	case actionPass:
		return nil, v
	case actionDrop:
		v.Outcome = outcome.Dropped
	}
	return v, nil
}

// unmarshalCaddyfile sets up the gate from Caddyfile tokens. Syntax:
//
//	validate {
//	    max_body_size   <size>
//	    max_kept_body   <size>
//	    drop            <types...>
//	    accept          <types...>
//	    unknown_type    <quarantine|pass|drop>
//	    unknown_message <quarantine|pass|drop>
//	    invalid         <quarantine|pass|drop>
//	    schemas         <directory>
//	    drift_guard     off
//	    report_only
//	}
func (va *Validate) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := noArgs(d); err != nil {
		return err
	}
	actions := []string{actionQuarantine, actionPass, actionDrop}
	return eachOption(d, "validate", []option{
		{name: "max_body_size", parse: func() error { return sizeArg(d, &va.MaxBodySize) }},
		{name: "max_kept_body", parse: func() error { return sizeArg(d, &va.MaxKeptBody) }},
		{name: "drop", parse: func() error { return listArgs(d, &va.Drop) }},
		{name: "accept", parse: func() error { return listArgs(d, &va.Accept) }},
		{name: "unknown_type", parse: func() error { return choiceArg(d, &va.UnknownType, actions...) }},
		{name: "unknown_message", parse: func() error { return choiceArg(d, &va.UnknownMessage, actions...) }},
		{name: "invalid", parse: func() error { return choiceArg(d, &va.Invalid, actions...) }},
		{name: "schemas", parse: func() error { return textArg(d, &va.Schemas) }},
		{name: "drift_guard", parse: func() error {
			var off string
			err := choiceArg(d, &off, "off")
			va.DriftGuard = &DriftGuard{Off: true}
			return err
		}},
		{name: "report_only", parse: func() error { return flagArg(d, &va.ReportOnly) }},
	})
}
