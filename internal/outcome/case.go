// Package outcome holds what every part of the edge says about a notification: the case, how it ended
// and what the operator is told of it. It knows no request and no Caddy.
package outcome

import (
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/notification"
)

// A Case is one notification on its way, whether it was posted, received from the HTTP API or
// replayed.
type Case struct {
	Via     string // how it came: "" if it was posted
	Client  string // the address that ip_filter judges
	Host    string // of the request; "" if there was none
	URI     string
	Header  http.Header // of the request
	Started time.Time   // receipt
	Token   TokenState

	// No gate has refused its sender so far, not even one in report_only. Only what is admitted is
	// evidence of what GREEN-API sends.
	Admitted bool

	Body []byte                     // nil until it was read
	N    *notification.Notification // never nil
	Kind string                     // its type from a closed list, for labels

	// What the record says at the end about a notification that goes on all the same.
	Remark Verdict

	Claimed      string // the instance that the body of a refused request names
	QuarantineID string // of the entry, if it is kept

	Trail
}

// A Trail is how far a notification came with the handlers. Only delivery writes it.
type Trail struct {
	Handler  string // the upstream that was asked last
	Attempts int
	Answers  []Attempt // of the last attempts, without those that took it
}

// Attempt is what one attempt brought.
type Attempt struct {
	Handler string // the upstream; "" if it is not known
	Status  int    // 0 if it did not answer
	Text    string // the beginning of its answer
	Error   string // why there is no answer
}

// TokenState is what the token of a request is worth.
type TokenState string

const (
	TokenOff   TokenState = "off" // no token is asked for
	TokenNone  TokenState = "none"
	TokenWrong TokenState = "wrong"
	TokenRight TokenState = "right" // for some instance, maybe not for the one in the body
)

// PassOn notes a finding that would have stopped the notification and lets it continue. The most
// severe one is kept.
func (c *Case) PassOn(remark *Verdict) {
	if c.Remark.Reason == "" || remark.Level > c.Remark.Level {
		c.Remark = *remark
	}
}

// WithRemark returns a verdict together with what the remark adds to it.
func (c *Case) WithRemark(end *Verdict) Verdict {
	said := *end
	if c.Remark.Reason == "" {
		return said
	}
	if said.Reason == "" {
		said.Reason = c.Remark.Reason
	}
	said.Level = max(said.Level, c.Remark.Level)
	said.Faults = c.Remark.Faults
	if said.Syntax == nil {
		said.Syntax = c.Remark.Syntax
	}
	if said.Err == nil {
		said.Err = c.Remark.Err
	}
	said.Fields = append(said.Fields, c.Remark.Fields...)
	return said
}

// ReportOnly notes how the notification would have ended without `report_only`.
func (c *Case) ReportOnly(end *Verdict) {
	c.Admitted = c.Admitted && end.Outcome != Refused
	remark := *end
	remark.Fields = append(remark.Fields, zap.Bool("report_only", true), zap.String("would_be", string(end.Outcome)))
	c.PassOn(&remark)
}

// Instance is the instance that the notification comes from, or says it comes from.
func (c *Case) Instance() string {
	if c.N.Instance != "" {
		return c.N.Instance
	}
	return c.Claimed
}

// Sent is the notification's own timestamp; zero if it has none.
func (c *Case) Sent() time.Time {
	if c.N.Timestamp <= 0 {
		return time.Time{}
	}
	return time.Unix(c.N.Timestamp, 0)
}

// Tried lists the handlers that did not take the notification, with what each said.
func (t *Trail) Tried() []string {
	tried := make([]string, 0, len(t.Answers))
	for _, said := range t.Answers {
		text := said.Handler + ": " + said.Error
		if said.Status != 0 {
			text = said.Handler + ": " + strconv.Itoa(said.Status)
		}
		tried = append(tried, text)
	}
	return tried
}
