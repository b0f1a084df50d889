// Package api is the JSON API for the operator of an edge: what it is doing, what the quarantine and the queue
// hold, replays, and orders to the queue. It knows net/http and an abstract edge, but not what serves it. The commands share its types.
package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/live"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/quarantine"
	"github.com/greenapi-community/caddy-green-api/queue"
)

// Edge is what the API knows of the config in effect.
type Edge struct {
	// Status returns what only the edge knows. The API adds Version and Addresses.
	Status func() Status

	// Quarantine opens the store. The caller calls release when done.
	Quarantine func() (store *quarantine.Store, release func(), err error)

	// Queue returns the queue, nil if there is none.
	Queue func() *queue.Dispatcher

	// Hide replaces the value of a placeholder in an error by the placeholder.
	Hide func(error) error

	// ParseDuration parses a duration as the config does, such as 1d12h.
	ParseDuration func(string) (time.Duration, error)

	// Blocks are the names of the green_api blocks, sorted.
	Blocks []string

	// IsFor reports whether a block takes the notifications of an instance.
	IsFor func(block, instance string) bool

	// Replay delivers an entry to the handlers of a block; if recheck is set, only if the block's rules
	// would let it pass now. tried are the handlers that did not take it, with the answer of each.
	Replay func(block string, entry quarantine.Entry, recheck bool) (end *outcome.Verdict, tried []string)

	// Feed has what ended lately, Waiting returns how many notifications wait for a handler, and Ending is closed when the
	// config is about to be replaced or the process to end.
	Feed    *live.Feed
	Waiting func() int
	Ending  <-chan struct{}
	Exiting func() bool // the process is about to end
	Streams *Streams

	// Activity outlives a config, too.
	Activity *Activity

	// Replays outlives a config, so that an entry is not replayed twice at the same time.
	Replays *Replays

	// TestAlerts sends a test alert through each alert of the config.
	TestAlerts func(context.Context) []AlertTest

	// Fit returns whether an instance's webhookUrl and webhookUrlToken fit the edge.
	Fit func(instance, webhookURL, token string) Fit

	Log *zap.Logger
}

// Replays holds the entries that are being replayed.
type Replays struct{ inHand sync.Map }

// Error is an error with its own HTTP status.
type Error struct {
	Status int
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// ErrNoEdge is the error of a Caddy that has the plugin but does not use it.
var ErrNoEdge = errors.New("the config that runs has no green_api in it")

// badRequest returns the error for a request that cannot be understood.
func badRequest(err error) error { return &Error{http.StatusBadRequest, err} }

// notFound returns the error for a request for something that does not exist.
func notFound(err error) error { return &Error{http.StatusNotFound, err} }

// conflict returns the error for a request that cannot be met as things are now.
func conflict(err error) error { return &Error{http.StatusConflict, err} }

// Route is a path of the API, as a pattern of net/http.
type Route struct {
	Pattern string
	methods map[string]func(*Edge, http.ResponseWriter, *http.Request) error
}

// Routes returns the paths of the API.
func Routes() []Route {
	type methods = map[string]func(*Edge, http.ResponseWriter, *http.Request) error
	return []Route{
		{"/green_api/status", methods{http.MethodGet: (*Edge).status}},
		{"/green_api/live", methods{http.MethodGet: (*Edge).live}},
		{"/green_api/activity", methods{http.MethodGet: (*Edge).activity, http.MethodPost: (*Edge).noteActivity}},
		{"/green_api/fit", methods{http.MethodPost: (*Edge).fit}},
		{"/green_api/alert/test", methods{http.MethodPost: (*Edge).testAlerts}},
		{"/green_api/quarantine", methods{http.MethodGet: (*Edge).list, http.MethodDelete: (*Edge).delete}},
		{"/green_api/quarantine/search", methods{http.MethodPost: (*Edge).search}},
		{"/green_api/quarantine/summary", methods{http.MethodGet: (*Edge).summary}},
		{"/green_api/quarantine/replay", methods{http.MethodPost: (*Edge).replay}},
		{"/green_api/quarantine/{id}", methods{http.MethodGet: (*Edge).show, http.MethodDelete: (*Edge).delete}},
		{"/green_api/queue", methods{http.MethodGet: (*Edge).lanes}},
		{"/green_api/queue/{lane}", methods{http.MethodGet: (*Edge).lane}},
		{"/green_api/queue/state", methods{http.MethodGet: (*Edge).queueState}},
		{"/green_api/queue/pause", methods{http.MethodPost: (*Edge).pause}},
		{"/green_api/queue/resume", methods{http.MethodPost: (*Edge).resume}},
		{"/green_api/queue/drain", methods{http.MethodPost: (*Edge).drain}},
		{"/green_api/queue/retry", methods{http.MethodPost: (*Edge).retry}},
		{"/green_api/queue/skip", methods{http.MethodPost: (*Edge).skip}},
		{"/green_api/queue/move", methods{http.MethodPost: (*Edge).move}},
	}
}

// Handler serves the paths of the API, with errors in JSON as Caddy's admin endpoint has them. edge returns the edge that is
// asked, or nil if there is none.
func Handler(edge func() *Edge) http.Handler {
	mux := http.NewServeMux()
	for _, route := range Routes() {
		mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, r *http.Request) {
			err := route.Serve(w, r, edge)
			if err == nil {
				return
			}
			status := http.StatusInternalServerError
			if said, ok := err.(*Error); ok { //nolint:errorlint // as Serve sets it
				status = said.Status
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_ = writeJSON(w, map[string]string{"error": err.Error()}) // the client may be gone
		})
	}
	return mux
}

// Serve answers a request. edge returns the edge in effect, or nil if there is none. If the error is an
// *Error, it has the status to answer with.
func (route Route) Serve(w http.ResponseWriter, r *http.Request, edge func() *Edge) error {
	do := route.methods[r.Method]
	if do == nil {
		return &Error{http.StatusMethodNotAllowed, fmt.Errorf("method %s not allowed", r.Method)}
	}
	e := edge()
	if e == nil {
		return notFound(ErrNoEdge)
	}
	err := do(e, w, r)
	if _, said := err.(*Error); said { //nolint:errorlint // a wrapped one does not set the status
		return err
	}
	return e.Hide(err)
}
