// Package api is the JSON API for the operator of an edge: what it is doing, what the quarantine
// keeps, and replays of that. It knows net/http and a view of the edge, and not who serves it. The
// commands share its types.
package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// Edge is what the API sees of the config in effect.
type Edge struct {
	// Status returns what only the edge knows. The API adds Version and Addresses.
	Status func() Status

	// Quarantine opens the store. The caller calls release when it no longer uses the store.
	Quarantine func() (store *quarantine.Store, release func(), err error)

	// Hide takes out of an error what the config says by a placeholder.
	Hide func(error) error

	// ParseDuration reads a duration as the config writes it, such as 1d12h.
	ParseDuration func(string) (time.Duration, error)

	// Blocks are the names of the green_api blocks, sorted.
	Blocks []string

	// IsFor reports whether a block takes the notifications of an instance.
	IsFor func(block, instance string) bool

	// Replay takes an entry to the handlers of a block, and if recheck is set only if its rules would
	// let the entry pass now. tried are the handlers that did not take it, with what each said.
	Replay func(block string, entry quarantine.Entry, recheck bool) (end *outcome.Verdict, tried []string)

	// Replays outlives a config: an entry is not replayed twice at the same time.
	Replays *Replays

	// TestAlerts sends a test alert through each alert of the config.
	TestAlerts func(context.Context) []AlertTest

	// Fit says whether the webhookUrl and the webhookUrlToken of an instance fit the edge.
	Fit func(instance, webhookURL, token string) Fit

	Log *zap.Logger
}

// Replays are the entries that are being replayed.
type Replays struct{ inHand sync.Map }

// Error is an error with an HTTP status of its own.
type Error struct {
	Status int
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// ErrNoEdge is the error of a Caddy that has the plugin and makes no use of it.
var ErrNoEdge = errors.New("the config that runs has no green_api in it")

// badRequest is the error of a request that cannot be understood.
func badRequest(err error) error { return &Error{http.StatusBadRequest, err} }

// notFound is the error of a request for something that is not there.
func notFound(err error) error { return &Error{http.StatusNotFound, err} }

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
		{"/green_api/fit", methods{http.MethodPost: (*Edge).fit}},
		{"/green_api/alert/test", methods{http.MethodPost: (*Edge).testAlerts}},
		{"/green_api/quarantine", methods{http.MethodGet: (*Edge).list, http.MethodDelete: (*Edge).delete}},
		{"/green_api/quarantine/replay", methods{http.MethodPost: (*Edge).replay}},
		{"/green_api/quarantine/{id}", methods{http.MethodGet: (*Edge).show, http.MethodDelete: (*Edge).delete}},
	}
}

// Serve answers a request. edge returns the edge in effect, or nil if there is none. If the error is
// an *Error, that says with which status to answer.
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
	if _, said := err.(*Error); said { //nolint:errorlint // one that is wrapped has no say in the status
		return err
	}
	return e.Hide(err)
}
