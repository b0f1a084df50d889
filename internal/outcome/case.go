// Package outcome holds what every part of the edge says about a notification: the case, how it ended and
// what the operator is told about it. It knows neither requests nor Caddy.
package outcome

import (
	"crypto/sha256"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/notification"
)

// A Case is one notification on its way through the edge, whether it was posted, received from the HTTP API
// or replayed.
type Case struct {
	Via     string // how it came; "" if it was posted
	Client  string // the address that ip_filter checks
	Remote  string // address and port of the connection; "" if there was none
	TLS     bool   // of the connection
	Host    string // of the request; "" if there was none
	URI     string
	Header  http.Header // of the request
	Started time.Time   // time of receipt
	Token   TokenState

	// No gate has refused its sender so far, not even one in report_only. Only admitted notifications are
	// evidence of what GREEN-API sends.
	Admitted bool

	Body []byte                     // nil until it has been read
	N    *notification.Notification // never nil
	Kind string                     // its type from a closed list, for labels

	// What the record finally says about a notification that goes on nevertheless; nil if there is nothing.
	Remark *Verdict

	digest Digest
	hashed bool

	Round int // in which the queue delivers it, from 1; 0 if it does not come from the queue

	Claimed      string // the instance that the body of a refused request names
	QuarantineID string // of the entry, if it was kept

	Trail
}

// A Digest is the SHA-256 of a body.
type Digest = [sha256.Size]byte

// Digest returns the digest of the body, by which a notification is recognized when it comes again. The body must
// not change any more.
func (c *Case) Digest() Digest {
	if !c.hashed {
		c.digest, c.hashed = sha256.Sum256(c.Body), true
	}
	return c.digest
}

// A Trail is how far a notification got with the handlers. Only delivery writes it.
type Trail struct {
	Handler  string // the upstream whose answer decided, or the one asked last
	Attempts int
	Answers  []Attempt // of those who did not take it, the latest at the end
}

// Attempt is the result of one attempt, or of several that ended alike at the same upstream.
type Attempt struct {
	Handler string // the upstream; "" if unknown
	Status  int    // 0 if it did not answer
	Text    string // the beginning of its answer
	Error   string // why there is no answer
	Times   int    // how often
}

// TokenState is the result of checking a request's token.
type TokenState string

// The states of a token.
const (
	TokenOff   TokenState = "off" // the check is off
	TokenNone  TokenState = "none"
	TokenWrong TokenState = "wrong"
	TokenRight TokenState = "right" // for some instance, maybe not for the one in the body
)

// PassOn records a finding that would have stopped the notification, and lets it continue. The most severe
// one is kept.
func (c *Case) PassOn(remark *Verdict) {
	if c.Remark == nil || remark.Level > c.Remark.Level {
		c.Remark = remark
	}
}

// WithRemark returns a verdict with what the remark adds to it.
func (c *Case) WithRemark(end *Verdict) Verdict {
	said := *end
	if c.Remark == nil {
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

// ReportOnly records how the notification would have ended without `report_only`.
func (c *Case) ReportOnly(end *Verdict) {
	c.Admitted = c.Admitted && end.Outcome != Refused
	remark := *end
	remark.Fields = append(remark.Fields, zap.Bool("report_only", true), zap.String("would_be", string(end.Outcome)))
	c.PassOn(&remark)
}

// Instance returns the instance that the notification comes from, or claims to come from.
func (c *Case) Instance() string {
	if c.N.Instance != "" {
		return c.N.Instance
	}
	return c.Claimed
}

// Sent returns the notification's own timestamp, zero if it has none.
func (c *Case) Sent() time.Time {
	if c.N.Timestamp <= 0 {
		return time.Time{}
	}
	return time.Unix(c.N.Timestamp, 0)
}

// Tried lists the handlers that did not take the notification, with the answer of each.
func (t *Trail) Tried() []string {
	tried := make([]string, 0, len(t.Answers))
	for _, said := range t.Answers {
		text := said.Handler + ": " + said.Error
		if said.Status != 0 {
			text = said.Handler + ": " + strconv.Itoa(said.Status)
		}
		if said.Times > 1 {
			text += " (" + strconv.Itoa(said.Times) + " times)"
		}
		tried = append(tried, text)
	}
	return tried
}
