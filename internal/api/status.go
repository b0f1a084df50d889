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
	Outcomes map[outcome.Outcome]int64 `json:"outcomes"` // how many requests ended so, across reloads

	Waiting       int               `json:"waiting"`
	AlertsPending int               `json:"alerts_pending"`
	ReportOnly    []ReportOnly      `json:"report_only"`
	Drift         []watch.RuleState `json:"drift"`     // rules that are no longer enforced
	NewTypes      []watch.TypeState `json:"new_types"` // types without a schema that are passed on
	Receivers     []receiver.State  `json:"receivers"` // of the HTTP API
	Instances     []watch.Instance  `json:"instances"`
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
