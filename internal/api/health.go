package api

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// HealthPath is the path of the health. It answers even if no config has green_api in it.
const HealthPath = "/green_api/health"

// Health is what HealthPath returns: whether notifications may be sent to this edge, and which config is
// running.
type Health struct {
	Ready   bool      `json:"ready"`
	Reasons []Unready `json:"reasons"` // why it is not ready
	Config  string    `json:"config"`  // SHA-256 of the green_api app and all green_api blocks, as they were loaded
	Loaded  string    `json:"loaded"`  // when the config took effect, RFC 3339
}

// Unready is a reason why an edge is not ready. Scripts rely on the texts.
type Unready string

// Why an edge is not ready.
const (
	NotConfigured    Unready = "not_configured"
	Starting         Unready = "starting"
	QuarantineClosed Unready = "quarantine_closed"
	QueueDraining    Unready = "queue_draining"
	Ending           Unready = "ending"
)

// ServeHealth answers a request for the health, with 200 or, if the edge is not ready, with 503.
func ServeHealth(w http.ResponseWriter, r *http.Request, health func() Health) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return &Error{http.StatusMethodNotAllowed, fmt.Errorf("method %s not allowed", r.Method)}
	}
	h := health()
	if h.Ready = len(h.Reasons) == 0; h.Ready {
		h.Reasons = []Unready{}
	}
	w.Header().Set("Content-Type", "application/json")
	if !h.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	return json.NewEncoder(outcome.JSONWriter{To: w}).Encode(h)
}
