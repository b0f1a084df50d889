package api

import (
	"encoding/json"
	"net/http"
	"runtime/debug"

	"github.com/greenapi-community/caddy-green-api/internal/address"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/receiver"
	"github.com/greenapi-community/caddy-green-api/internal/watch"
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

	Queue *QueueStatus `json:"queue,omitempty"` // nil if there is none

	Waiting       int               `json:"waiting"`
	AlertsPending int               `json:"alerts_pending"`
	ReportOnly    []ReportOnly      `json:"report_only"`
	Drift         []watch.RuleState `json:"drift"`     // rules that are no longer enforced
	NewTypes      []watch.TypeState `json:"new_types"` // types without a schema that are passed on
	Receivers     []receiver.State  `json:"receivers"` // of the HTTP API
	Instances     []watch.Instance  `json:"instances"`
	Blocks        []Block           `json:"blocks"`
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
	Fails       int    `json:"fails"`
	Healthy     bool   `json:"healthy"`
}

// ReportOnly is a gate that refuses nothing.
type ReportOnly struct {
	Name string `json:"name"` // of the block
	Gate string `json:"gate"`
}

func (e *Edge) status(w http.ResponseWriter, _ *http.Request) error {
	s := e.Status()
	s.Version = version()
	s.Addresses.Date = address.VendorDate
	for _, prefix := range address.Vendor() {
		s.Addresses.List = append(s.Addresses.List, prefix.Addr().String())
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(outcome.JSONWriter{To: w}).Encode(s)
}

// version returns the version of this module in the binary.
func version() string {
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
