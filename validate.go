package greenapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/judge"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/watch"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// largestBody leaves room for adding to a size: it is far below the largest int on any machine.
const largestBody = 1 << 30

// Validate is the gate that reads a notification and decides what becomes of it.
//
// A notification that fails is not refused: GREEN-API would send it again for a day while the instance's
// queue stands still. It is put into the quarantine, logged, and answered 200.
//
// The schemas are JSON Schema 2020-12, one for each type and message type. They require what every genuine
// notification has, check the form of known fields, and allow everything else: additional fields must not
// be forbidden (GREEN-API docs: "Working with incoming webhooks", read 2026-07).
type Validate struct {
	// Longest body to read as a notification, in bytes. A longer one is quarantined. At most 1 GiB.
	// Default: 1 MiB.
	MaxBodySize int64 `json:"max_body_size,omitempty"`

	// Longest body to keep in the quarantine, in bytes. A longer one is refused with 413. At most 1 GiB.
	// Default: 16 MiB, or max_body_size if that is more.
	MaxKeptBody int64 `json:"max_kept_body,omitempty"`

	// Types to answer with 200 and discard: a type, or a type and a message type such as
	// `incomingMessageReceived.stickerMessage`. Not together with `accept`.
	Drop []string `json:"drop,omitempty"`

	// The only types, or types and message types, to deliver; other known ones are dropped. Not together
	// with `drop`.
	Accept []string `json:"accept,omitempty"`

	// What happens to a type without a schema: `quarantine`, `pass` or `drop`. Default: `quarantine`.
	UnknownType string `json:"unknown_type,omitempty"`

	// What happens to a message type without a schema: `quarantine`, `pass` or `drop`. Default: `pass`.
	UnknownMessage string `json:"unknown_message,omitempty"`

	// What happens to a notification that violates its schema: `quarantine`, `pass` or `drop`. Default:
	// `quarantine`.
	Invalid string `json:"invalid,omitempty"`

	// A directory of schemas that replace the built-in ones with the same file name, or add types
	// (`<type>.json`) and message types (`messageData.<message type>.json`).
	Schemas string `json:"schemas,omitempty"`

	// Whether a schema rule is no longer enforced once many notifications from several instances violate
	// it, and a type without a schema is passed on once it has come as often. Default: both.
	DriftGuard *DriftGuard `json:"drift_guard,omitempty"`

	// Quarantines and drops nothing except what cannot be delivered (`too_large`, `encoding`); what would
	// have been is logged and counted.
	ReportOnly bool `json:"report_only,omitempty"`

	rules judge.Rules
	drift *watch.Drift // nil if the drift guard is off
}

func (va *Validate) provision(ctx caddy.Context) error {
	if va.MaxBodySize < 0 || va.MaxKeptBody < 0 {
		return errors.New("max_body_size, max_kept_body: want a size above 0, such as 1MiB")
	}
	rules := judge.Defaults()
	if va.MaxBodySize == 0 {
		va.MaxBodySize = rules.MaxBody
	}
	if va.MaxKeptBody == 0 {
		va.MaxKeptBody = max(judge.DefaultMaxKept, va.MaxBodySize)
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
		{"unknown_type", rules.UnknownType, &va.UnknownType},
		{"unknown_message", rules.UnknownMessage, &va.UnknownMessage},
		{"invalid", rules.Invalid, &va.Invalid},
	} {
		switch *choice.value {
		case "":
			*choice.value = choice.byDefault
		case judge.Quarantine, judge.Pass, judge.Drop:
		default:
			return fmt.Errorf("%s: invalid value %q; want quarantine, pass or drop", choice.option, *choice.value)
		}
	}
	schemas, err := notification.LoadSchemas(va.Schemas)
	if err != nil {
		return fmt.Errorf("schemas: %w", err)
	}
	for _, w := range schemas.Warnings() {
		ctx.Logger().Warn("a schema file probably does not mean what it says", zap.String("file", w.File), zap.String("pointer", w.Pointer), zap.String("found", w.Text))
	}
	wanted, unknown, err := judge.NewWanted(va.Accept, va.Drop, schemas)
	if err != nil {
		return err
	}
	if len(unknown) > 0 {
		ctx.Logger().Warn("drop names types that no schema knows", zap.Strings("drop", unknown), zap.Strings("types", schemas.Types()))
	}
	va.rules = judge.Rules{
		MaxBody: va.MaxBodySize, UnknownType: va.UnknownType, UnknownMessage: va.UnknownMessage, Invalid: va.Invalid,
		Wanted: wanted, Schemas: schemas,
	}
	return nil
}

// guard turns the drift guard on: rules and types that d has learned are no longer held against
// notifications.
func (va *Validate) guard(d *watch.Drift) {
	va.drift = d
	va.rules.Drift = &judge.Drift{Learned: d.Learned, Holds: d.Holds}
}

// read reads the whole body, up to the limit, and checks how it is wrapped.
func (va *Validate) read(v *visit) *outcome.Verdict {
	if v.r.ContentLength > va.MaxKeptBody {
		return tooLarge()
	}
	body, err := readAll(v.r.Body, v.r.ContentLength, va.MaxKeptBody+1)
	if err != nil {
		// The sender has hung up or was too slow.
		return &outcome.Verdict{Outcome: outcome.Refused, Reason: reason.Aborted, Status: http.StatusServiceUnavailable, Level: zap.DebugLevel}
	}
	if int64(len(body)) > va.MaxKeptBody {
		return tooLarge()
	}
	v.Body = body
	return va.rules.Wrapping(int64(len(body)), v.r.Header)
}

func tooLarge() *outcome.Verdict {
	return &outcome.Verdict{Outcome: outcome.Refused, Reason: reason.TooLarge, Status: http.StatusRequestEntityTooLarge, Level: zap.ErrorLevel}
}

// The room for a body before any of it has come: for one of that length or less, and for one of unknown length.
// An announced length costs a sender nothing, so the memory for it comes only with the body.
const (
	roomAtOnce  = 64 << 10
	roomUnknown = 1 << 10
)

// readAll reads up to limit bytes. The slice is never nil and never from a pool: a transport may still read
// it after the request has been answered.
func readAll(r io.Reader, announced, limit int64) ([]byte, error) {
	room := min(announced, limit) + 1 // one more byte, so that reaching the end does not grow the slice
	if announced < 0 {
		room = roomUnknown
	}
	body := make([]byte, 0, min(room, roomAtOnce))
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
			body = widened(body, room, limit)
		}
	}
}

// widened returns a body that has filled its room with more room, of which it needs this much as far as that
// is known.
func widened(body []byte, room, limit int64) []byte {
	filled := int64(len(body))
	switch {
	case filled >= room:
		room = 2 * filled
	case filled < room/32: // so little is copied, and a sender has to send a part of what it takes
		room = 32 * filled
	}
	wide := make([]byte, filled, min(room, limit+1))
	copy(wide, body)
	return wide
}

// parse parses the body into a notification and checks it against its schemas in the same pass. The body is
// parsed only here, so what is delivered is what was checked.
func (va *Validate) parse(v *visit) *outcome.Verdict {
	n, end := va.rules.Parse(v.Body)
	if end != nil {
		return end
	}
	v.N, v.Kind = n, va.rules.Schemas.Kind(n.Type)
	v.placeholders()
	return nil
}

// check judges the notification, and counts signs that the vendor has changed the format.
func (h *Handler) check(v *visit) *outcome.Verdict {
	if h.Validate.drift != nil && v.Admitted {
		h.Validate.drift.Saw(v.N.Instance, v.Started)
	}
	end, remark := h.Validate.rules.Judge(v.N)
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
	actions := []string{judge.Quarantine, judge.Pass, judge.Drop}
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

// DriftGuard sets whether schemas give way when the vendor seems to have changed a format, and whether new
// types are learned.
type DriftGuard struct {
	// Enforces every rule on every notification and learns no type, whatever happens. Default: false.
	Off bool `json:"off,omitempty"`
}

// watchDrift counts what is wrong with an admitted notification, only once however often it is re-sent, and
// tells the operator when the guard gives way.
func (h *Handler) watchDrift(v *visit, said *outcome.Verdict) {
	if h.Validate.drift == nil || !v.Admitted {
		return
	}
	var watch func(*visit, *outcome.Verdict)
	switch {
	case said.Reason == reason.Schema:
		watch = h.watchRules
	case said.Reason == reason.UnknownType && h.Validate.UnknownType == judge.Quarantine:
		watch = h.watchType
	default:
		return
	}
	if !h.Validate.drift.IsResent(v.Body) {
		watch(v, said)
	}
}

func (h *Handler) watchRules(v *visit, said *outcome.Verdict) {
	rules := watch.RulesOf(h.Validate.rules.Schemas, v.N, said.Faults)
	for _, rule := range h.Validate.drift.AddRules(rules, v.N.Instance, v.Started, h.namedInstances()) {
		h.logger.Error("format changed: a rule of a schema is no longer held against notifications, replay what it has kept", zap.String("name", h.Name),
			zap.String("type", rule.Kind), zap.String("pointer", rule.Pointer), zap.String("keyword", rule.Keyword))
		h.app.operator.desk.Tell(outcome.Note{
			Reason: reason.FormatChanged, Kind: v.Kind, Level: zap.ErrorLevel, Instance: v.N.Instance, At: time.Now(),
			More: "The rule " + rule.Pointer + " " + rule.Keyword + " of " + rule.Kind + " is no longer held against notifications of block " + h.Name + ". " +
				"Replay what it has kept: caddy green-api quarantine replay --reason schema --recheck.",
		})
	}
}

// watchType does not log the type: it may contain anything.
func (h *Handler) watchType(v *visit, _ *outcome.Verdict) {
	drift := h.Validate.drift
	drift.RecallOnce(func() bool { return h.recallTypes(drift, v.Started) })
	if !drift.AddType(v.N.Type, v.N.Instance, v.Started, h.namedInstances()) {
		return
	}
	h.logger.Warn("new type: a type of notification that no schema knows is passed on from now on, replay what was kept",
		zap.String("name", h.Name), zap.String("type", v.Kind), zap.String("instance", v.N.Instance))
	h.app.operator.desk.Tell(outcome.Note{
		Reason: reason.NewType, Kind: v.Kind, Level: zap.WarnLevel, Instance: v.N.Instance, At: time.Now(),
		More: "It is passed on to the handlers of block " + h.Name + " from now on. GET /green_api/status names it. " +
			"Replay what was kept: caddy green-api quarantine replay --reason unknown_type --recheck.",
	})
}

// maxRecalled limits how many quarantine entries are searched for earlier types.
const maxRecalled = 100_000

// recallTypes counts the quarantined entries of unknown types, because a rare type may have come before
// Caddy was started. It reports whether the quarantine could be opened.
func (h *Handler) recallTypes(drift *watch.Drift, now time.Time) bool {
	// An error shows up when this notification is kept, too.
	store, release, err := h.app.openQuarantine()
	if err != nil {
		return false
	}
	defer release()
	_ = store.EachSince(now.Add(-watch.RareWindow), reason.UnknownType, maxRecalled, func(e quarantine.Entry) {
		if e.Name == h.Name && !e.Unadmitted && !e.Received.After(now) {
			drift.CountType(e.Type, e.Instance, e.Received)
		}
	})
	return true
}

// namedInstances returns instances that the config names, at most watch.DriftInstances.
func (h *Handler) namedInstances() (ids []string) {
	for id := range h.Auth.set.Load().Own {
		if ids = append(ids, id); len(ids) == watch.DriftInstances {
			return ids
		}
	}
	for _, c := range h.Receive {
		if ids = append(ids, notification.SameInstance(c.Instance)); len(ids) == watch.DriftInstances {
			return ids
		}
	}
	return ids
}
