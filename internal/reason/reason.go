// Package reason is the closed list of reasons: why a notification ended as it did, and what else the
// operator is told. Scripts, metrics and alerts rely on their texts.
package reason

import (
	"maps"
	"slices"
	"strings"
)

// Reason says why. "" is no reason. The constants are untyped, so that they also compare with stored text.
type Reason string

// Why a request is refused.
const (
	IPNotAllowed       = "ip_not_allowed"
	UnlistedSender     = "unlisted_sender"
	ProxyNotStrict     = "proxy_not_strict"
	NoToken            = "no_token"
	BadToken           = "bad_token"
	InstanceNotAllowed = "instance_not_allowed"
	EarlyData          = "early_data"
	Method             = "method"
	Aborted            = "aborted"
)

// What validate finds. TooLarge also refuses requests.
const (
	TooLarge       = "too_large"
	Encoding       = "encoding"
	Malformed      = "malformed"
	Unwanted       = "unwanted"
	UnknownType    = "unknown_type"
	UnknownMessage = "unknown_message"
	Schema         = "schema"
)

// What becomes of a notification on its way to a handler.
const (
	NotNow         = "not_now"
	BrokenOff      = "broken_off"
	AttemptTimeout = "attempt_timeout"
	HandlerError   = "handler_error"
	Misrouted      = "misrouted"
	HandlerRefused = "handler_refused"
	NoHandler      = "no_handler"
	Undeliverable  = "undeliverable"
	Retention      = "retention"
	Duplicate      = "duplicate"
)

// About the quarantine.
const (
	Quarantine = "quarantine_unavailable"
	NotFound   = "not_found"
	Expiring   = "expiring"
)

// About the queue.
const (
	QueueFull        = "queue_full"
	InstanceFull     = "instance_full"
	Draining         = "draining"
	QueueUnavailable = "queue_unavailable"
	Expired          = "expired"
	Skipped          = "skipped"
	QueueBehind      = "queue_behind"
	LaneStands       = "lane_stands"
	QueueExpiring    = "queue_expiring"
)

// About receiving from the HTTP API.
const (
	WebhookURLSet  = "webhook_url_set"
	APIRefused     = "api_refused"
	APIUnavailable = "api_unavailable"
	Storage        = "storage_unavailable"
	Panic          = "panic"
)

// What shows only over time.
const (
	HandlerFails  = "handler_fails"
	Silence       = "silence"
	BadFile       = "bad_file"
	FormatChanged = "format_changed"
	NewType       = "new_type"
	DiskLow       = "disk_low"

	ConsoleRefused = "console_refused"

	Recovered = "recovered"
)

// What the operator asks for.
const (
	Test = "test"
)

// sentences has one for every reason that an alert may have.
var sentences = map[Reason]string{ //nolint:gosec // sentences, no credentials
	UnlistedSender:     "a right token came from an address that is not allowed, queues may stand still",
	NoToken:            "an allowed address sends without a token, its queue stands still",
	BadToken:           "an allowed address sends a wrong token, its queue stands still",
	InstanceNotAllowed: "an instance is not listed for its token, its queue stands still",
	ProxyNotStrict:     "trusted_proxies_strict is missing, everything through a proxy is refused",
	TooLarge:           "a body is longer than max_body_size",
	Encoding:           "a body is encoded or has two content types, it is kept",
	Malformed:          "a body is no notification",
	Schema:             "a notification fails its schema",
	UnknownType:        "a type of notification is unknown",
	UnknownMessage:     "a message type is unknown",
	NotNow:             "no handler takes notifications, queues stand still",
	BrokenOff:          "handlers break off",
	AttemptTimeout:     "handlers take too long",
	HandlerError:       "handlers answer with errors",
	Misrouted:          "what answers is no handler",
	HandlerRefused:     "a handler refuses a notification, its queue stands still",
	Undeliverable:      "a notification failed too often, it is kept",
	Retention:          "a notification was about to be deleted by GREEN-API undelivered, it is kept",
	NoHandler:          "there is no handler behind green_api",
	Quarantine:         "the quarantine cannot keep more",
	QueueFull:          "the queue is full, what comes stays with its sender",
	InstanceFull:       "an instance has as much in the queue as it may, what comes stays with its sender",
	Draining:           "the queue is being drained, what comes stays with its sender",
	QueueUnavailable:   "the queue cannot store notifications, they stay with their sender",
	Expired:            "a notification has waited in the queue for longer than max_age, it is kept",
	QueueBehind:        "the oldest notification in the queue has waited for more than 5 minutes",
	LaneStands:         "a lane of the queue has stood still for 15 minutes",
	QueueExpiring:      "a notification in the queue will be kept from the handlers within an hour, by max_age",
	Silence:            "nothing has come for long",
	BadFile:            "a file that is followed cannot be used, its last good copy stays in force",
	HandlerFails:       "a handler fails, others are asked if there are any",
	Expiring:           "what is in the quarantine is about to be deleted by max_age",
	WebhookURLSet:      "an instance cannot be received because it has a webhookUrl",
	APIRefused:         "the HTTP API refuses to let an instance be received",
	APIUnavailable:     "the HTTP API is not available, an instance cannot be received",
	Storage:            "Caddy's storage fails, an instance is not received",
	Panic:              "a panic on the way of a notification",
	FormatChanged:      "GREEN-API seems to have changed a format",
	NewType:            "GREEN-API seems to have a new type of notification",
	Test:               "this is a test of the alerts, nothing is wrong",
	ConsoleRefused:     "somebody tries to log in to the console with a wrong token",
	DiskLow:            "little space is left on the quarantine's disk",
	Recovered:          "a trouble that an alert told of is over",
}

// Sentence returns what a reason means to the operator, "" for one that no alert has.
func (r Reason) Sentence() string { return sentences[r] }

// Alerted returns the reasons that an alert may have, sorted.
func Alerted() []Reason { return slices.Sorted(maps.Keys(sentences)) }

// Kept returns the reasons for which the quarantine keeps an entry: those that validate finds, followed by
// those of notifications that no handler took, in the queue or without one.
func Kept() []Reason {
	return []Reason{TooLarge, Encoding, Malformed, UnknownType, UnknownMessage, Schema, Undeliverable, Retention, Expired, Skipped}
}

// Join returns a list of reasons as a message shows it.
func Join(list []Reason) string {
	texts := make([]string, len(list))
	for i, r := range list {
		texts[i] = string(r)
	}
	return strings.Join(texts, ", ")
}
