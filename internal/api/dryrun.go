package api

import (
	"fmt"
	"net/http"
	"time"

	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// optionDryRun is the option that says what a replay or a deletion means, and does nothing.
const optionDryRun = "dry_run"

// DryRun is what a replay or a deletion would be about.
type DryRun struct {
	Count int `json:"count"`
	// When the first and the last of them were received.
	Oldest time.Time `json:"oldest,omitzero"`
	Newest time.Time `json:"newest,omitzero"`
	// With this as until, the same request means none that is kept after the dry run.
	Until string `json:"until"`
	// Entries that a replay would skip.
	Skipped int `json:"skipped,omitempty"`
	// Entries that cannot be read. They are not counted, because they meet no until.
	Unreadable int `json:"unreadable,omitempty"`
	// Requested IDs that do not exist.
	Missing []string `json:"missing,omitempty"`
}

// dryRun answers what is meant. included reports whether something would be done with a selected entry.
func (p *parameters) dryRun(w http.ResponseWriter, store *quarantine.Store, included func(quarantine.Entry) bool) error {
	next, err := store.Next()
	if err != nil {
		return err
	}
	if p.KeptBefore == 0 || next < p.KeptBefore {
		p.KeptBefore = next
	}
	var run DryRun
	err = p.Each(store, func(entry quarantine.Entry) error {
		switch {
		case entry.Received.IsZero():
			run.Unreadable++
			return nil
		case !included(entry):
			run.Skipped++
			return nil
		}
		if run.Count++; run.Count == 1 {
			run.Oldest = entry.Received
		}
		run.Newest = entry.Received
		return nil
	})
	if err != nil {
		return err
	}
	until := p.Until
	if until.IsZero() {
		until = time.Now()
		if run.Newest.After(until) { // the clock was set
			until = run.Newest.Add(time.Second)
		}
	}
	run.Until = fmt.Sprintf("%s-%08x", until.UTC().Format(time.RFC3339Nano), p.KeptBefore)
	run.Missing = p.Missing(store)
	return writeJSON(w, run)
}
