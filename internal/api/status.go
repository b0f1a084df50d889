package api

import (
	"encoding/json"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/address"
	"github.com/greenapi-community/caddy-green-api/internal/live"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/receiver"
	"github.com/greenapi-community/caddy-green-api/internal/watch"
	"github.com/greenapi-community/caddy-green-api/queue"
)

// Status is what /green_api/status shows.
type Status struct {
	Version   string `json:"version"`
	Caddy     string `json:"caddy"`
	Addresses struct {
		Date string   `json:"date"`
		List []string `json:"list"`
	} `json:"addresses"`
	Quarantine struct {
		Path     string `json:"path"`
		Entries  int    `json:"entries"`
		Bytes    int64  `json:"bytes"`
		MaxBytes int64  `json:"max_bytes"`
		File     int64  `json:"file_bytes"`
	} `json:"quarantine"`
	Outcomes map[outcome.Outcome]int64 `json:"outcomes"` // how many requests ended this way, across reloads

	Standing []Standing `json:"standing"` // instances that stand still, the one that does so longest first

	Queue *QueueStatus `json:"queue,omitempty"` // nil if there is none

	Waiting       int               `json:"waiting"`
	AlertsPending int               `json:"alerts_pending"`
	Alerts        []Alert           `json:"alerts"`   // the last ones, the newest first
	Warnings      []Warning         `json:"warnings"` // that were logged at load of the config in effect
	ReportOnly    []ReportOnly      `json:"report_only"`
	WouldBe       []live.Count      `json:"would_be"`  // what these gates would have done, since the process began
	Drift         []watch.RuleState `json:"drift"`     // rules that are no longer enforced
	NewTypes      []watch.TypeState `json:"new_types"` // types without a schema that are passed on
	Receivers     []receiver.State  `json:"receivers"` // of the HTTP API
	Instances     []watch.Instance  `json:"instances"`
	Silent        []watch.Silent    `json:"silent"`  // instances of which nothing has come for as long as an alert's silence, the longest first
	Refused       []watch.Refusal   `json:"refused"` // instances whose notifications are refused, the last first
	Blocks        []Block           `json:"blocks"`
}

// Standing is an instance that stands still: no handler takes the first of its notifications, and the others wait
// behind it, at the sender or in a lane of the queue. It has nothing of the notification in it.
type Standing struct {
	Instance string        `json:"instance"`
	Name     string        `json:"name"`           // of the block
	Lane     string        `json:"lane,omitempty"` // of the queue; "" if the notifications are still with the sender
	Since    time.Time     `json:"since"`          // the first one failed, or has begun to wait
	Attempts int           `json:"attempts"`       // how often handlers were asked to take it, over all re-sends; in the queue, rounds
	Reason   reason.Reason `json:"reason"`         // "" while a handler has it for the first time
	Handler  string        `json:"handler"`        // of the last answer
	Handlers []string      `json:"handlers"`       // all that did not take it, at most 8
	Said     string        `json:"said"`           // that answer: status and first line, or why there is none; in the queue, the status
	Waiting  bool          `json:"waiting"`        // it is in hand now; otherwise it will come again
	Next     time.Time     `json:"next,omitzero"`  // about when it comes again
}

// StandingOf returns the lanes of a queue that stand still, as the queue has failed to deliver their first notification.
func StandingOf(lanes []queue.Lane) (all []Standing) {
	for i := range lanes {
		l := &lanes[i]
		if l.Round == 0 || l.State != queue.StateWaiting && l.State != queue.StateDelivering {
			continue
		}
		one := Standing{
			Handlers: []string{}, Instance: l.Instance, Name: l.Block, Lane: l.ID, Since: l.Since.UTC(), Attempts: l.Round, Reason: reason.Reason(l.Why),
			Waiting: l.State == queue.StateDelivering, Next: l.Next.UTC(),
		}
		if l.Since.IsZero() { // no handler of its block can be reached, so it does not stand still alone
			one.Since = l.Oldest.UTC()
		}
		for _, answer := range l.Answers {
			if answer.Handler != "" && !slices.Contains(one.Handlers, answer.Handler) {
				one.Handlers = append(one.Handlers, answer.Handler)
			}
		}
		if n := len(l.Answers); n > 0 {
			last := l.Answers[n-1]
			one.Handler, one.Said = last.Handler, last.Error
			if last.Status != 0 { // its text may repeat the notification, which is not in memory
				one.Said = strconv.Itoa(last.Status)
			}
		}
		all = append(all, one)
	}
	return all
}

// QueueStatus is the state of the queue between the 200 and the handlers.
type QueueStatus struct {
	Engine        string           `json:"engine"`
	Entries       int              `json:"entries"` // answered 200 and not yet handled, those at a handler included
	Bytes         int64            `json:"bytes"`
	MaxBytes      int64            `json:"max_bytes"`
	Lanes         int              `json:"lanes"`         // that have entries
	LanesWaiting  int              `json:"lanes_waiting"` // until their first entry is tried again
	InFlight      int              `json:"in_flight"`     // entries that a handler is being asked about
	OldestSeconds float64          `json:"oldest_seconds"`
	Paused        bool             `json:"paused"`
	Draining      bool             `json:"draining"`
	PutTotal      int64            `json:"put_total"`  // notifications taken in
	DoneTotal     map[string]int64 `json:"done_total"` // by outcome
	Connected     bool             `json:"connected"`  // with the servers of the engine
}

// Block is a green_api block and its way to the handlers.
type Block struct {
	Name     string `json:"name"`
	Delivery string `json:"delivery"`

	// Queued says that what comes waits in the queue first, and Delivery is the way from there.
	Queued bool `json:"queued,omitempty"`

	// Why the notifications of a block with a reverse_proxy go through it.
	Why string `json:"why,omitempty"`

	// The static upstreams of its reverse_proxy, as Caddy's /reverse_proxy/upstreams shows them. Requests that go
	// directly are counted here only.
	Upstreams []Upstream `json:"upstreams"`
}

// The ways to the handlers.
const (
	Directly   = "direct"
	ThroughIt  = "reverse_proxy"
	ByTheRoute = "route" // the block has no reverse_proxy: what is behind it delivers
)

// Upstream is the state of a handler.
type Upstream struct {
	Address     string `json:"address"`
	NumRequests int    `json:"num_requests"`
	Limit       int    `json:"limit,omitempty"` // of requests at a time; missing if there is none
	Fails       int    `json:"fails"`
	Healthy     bool   `json:"healthy"`

	// What this block has seen of it, over all configs.
	InHand    int                     `json:"in_hand"` // notifications that it has now
	Taken     int64                   `json:"taken"`
	NotTaken  map[reason.Reason]int64 `json:"not_taken"`
	LastFault *Fault                  `json:"last_fault,omitempty"`
	LastAsked time.Time               `json:"last_asked,omitzero"` // the end of the last attempt
	Until     time.Time               `json:"until,omitzero"`      // until when it is asked only if no other can be
	Why       reason.Reason           `json:"why,omitempty"`       // it is left alone
	P50       float64                 `json:"p50_ms"`              // how long it had a notification, in the last five minutes; 0 if it had none
	P99       float64                 `json:"p99_ms"`
	Trend     *Trend                  `json:"trend,omitempty"` // missing if it was not asked in the last quarter of an hour
}

// Trend is the last quarter of an hour of a handler.
type Trend struct {
	Seconds  int      `json:"seconds"` // the length of a slot
	Until    int64    `json:"until"`   // the end of the last slot, which is not over, in Unix seconds
	Taken    []uint32 `json:"taken"`   // in each slot, oldest first
	NotTaken []uint32 `json:"not_taken"`
}

// Fault is an attempt at which a handler did not take a notification.
type Fault struct {
	At     time.Time     `json:"at"`
	Reason reason.Reason `json:"reason"`
	Status int           `json:"status,omitempty"` // 0 if it did not answer
	Error  string        `json:"error,omitempty"`  // why it did not
}

// Warning is what was logged at load, because it may lose or expose notifications.
type Warning struct {
	Message string         `json:"message"`
	Fields  map[string]any `json:"fields"` // of the log record
}

// Alert is an alert that an endpoint was sent, or could not be sent yet.
type Alert struct {
	At       time.Time     `json:"at"`       // it was first tried
	Endpoint string        `json:"endpoint"` // its host as in the config
	Reason   reason.Reason `json:"reason"`
	Type     string        `json:"type"`
	Level    string        `json:"level"`
	Count    int           `json:"count"` // how often it has happened
	Text     string        `json:"text"`
	Sent     bool          `json:"sent"`
	Failing  time.Time     `json:"failing,omitzero"` // since when it could not be sent, if it could not at once
	Error    string        `json:"error,omitempty"`  // why it cannot be sent
}

// ReportOnly is a gate that refuses nothing.
type ReportOnly struct {
	Name string `json:"name"` // of the block
	Gate string `json:"gate"`
}

func (e *Edge) status(w http.ResponseWriter, _ *http.Request) error {
	s := e.Status()
	s.Version = Version()
	s.Addresses.Date = address.VendorDate
	for _, prefix := range address.Vendor() {
		s.Addresses.List = append(s.Addresses.List, prefix.Addr().String())
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(outcome.JSONWriter{To: w}).Encode(s)
}

// Version returns the version of this module in the binary.
func Version() string {
	const path = "github.com/greenapi-community/caddy-green-api"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, module := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if module.Path == path && module.Version != "" {
			return module.Version
		}
	}
	return "(devel)"
}
