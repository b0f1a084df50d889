package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// Found is the answer to a search: some entries, newest first.
type Found struct {
	Entries []Entry `json:"entries"` // without their bodies
	// Entries that cannot be read and may be meant.
	Unreadable []LineError `json:"unreadable,omitempty"`
	// Where to go on, as before. Empty if that was all.
	More string `json:"more,omitempty"`
	// How many entries were looked at for this answer.
	LookedAt int `json:"looked_at"`
}

// MostFound is how many entries a search returns at most.
const MostFound = 500

const (
	defaultFound = 100
	// How long a search may take. A filter that meets little would otherwise read the whole file before it answers.
	searchTime = 50 * time.Millisecond
)

// search returns the newest entries that a filter selects, or those before one.
func (e *Edge) search(w http.ResponseWriter, r *http.Request) error {
	p, err := e.parse(r, OptionBefore)
	if err != nil {
		return err
	}
	before := p.options.Get(OptionBefore)
	_, known := quarantine.TimeOf(before)
	switch {
	case p.After != "":
		return badRequest(errors.New("after: unknown parameter; a search goes from the newest to the oldest: want before"))
	case before != "" && !known:
		return badRequest(fmt.Errorf("%s: invalid id %q; want the more of an earlier answer, or an id", OptionBefore, outcome.Clip(before)))
	case p.Limit > MostFound:
		return badRequest(fmt.Errorf("limit: want at most %d", MostFound))
	}
	p.Limit = cmp.Or(p.Limit, defaultFound)
	store, release, err := e.Quarantine()
	if err != nil {
		return err
	}
	defer release()
	found := Found{Entries: []Entry{}}
	p.Unreadable = func(id string, err error) error {
		found.Unreadable = append(found.Unreadable, LineError{err.Error(), id})
		return nil
	}
	page, err := p.Newest(store, quarantine.Scan{Before: before, Time: searchTime})
	if err != nil {
		return err
	}
	for _, entry := range page.Entries {
		found.Entries = append(found.Entries, Show(entry))
	}
	found.More, found.LookedAt = page.More, page.LookedAt
	return writeJSON(w, found)
}

// writeJSON answers with one JSON object.
func writeJSON(w http.ResponseWriter, object any) error {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(outcome.JSONWriter{To: w})
	encoder.SetEscapeHTML(false)
	return encoder.Encode(object)
}
