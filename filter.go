package greenapi

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// A filter says which entries are meant.
type filter struct {
	values       map[string][]string // of fields; any of a field's values will do
	since, until time.Time
	after        string
	limit        int // 0 for none
	options      url.Values
}

// says tells whether an option is set.
func (f *filter) says(option string) bool { return f.options.Get(option) == "true" }

// filterFields are the fields that a filter can ask for.
var filterFields = map[string]func(quarantine.Entry) string{
	"id":       func(e quarantine.Entry) string { return e.ID },
	"reason":   func(e quarantine.Entry) string { return e.Reason },
	"type":     func(e quarantine.Entry) string { return e.Type },
	"message":  func(e quarantine.Entry) string { return e.Message },
	"instance": func(e quarantine.Entry) string { return e.Instance },
	"chat":     func(e quarantine.Entry) string { return e.Chat },
	"name":     func(e quarantine.Entry) string { return e.Name },
}

// parseFilter reads the filter of a request. options are the other parameters it may have.
func parseFilter(r *http.Request, options ...string) (filter, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return filter{}, badRequest(fmt.Errorf("query: %w", err))
	}
	// Caddy logs the URI of each request, so that a phone number had better be in the body.
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return filter{}, badRequest(err)
	}
	more, err := url.ParseQuery(strings.TrimSpace(string(body)))
	if err != nil {
		return filter{}, badRequest(errors.New("body: want parameters as in a query"))
	}
	for name, values := range more {
		query[name] = append(query[name], values...)
	}
	f := filter{values: make(map[string][]string), options: query}
	if id := r.PathValue("id"); id != "" {
		f.values["id"] = []string{id}
	}
	for name, values := range query {
		switch last := values[len(values)-1]; {
		case filterFields[name] != nil:
			f.values[name] = append(f.values[name], values...)
		case name == "since":
			f.since, err = pointInTime(last)
		case name == "until":
			f.until, err = pointInTime(last)
		case name == "after":
			f.after = last
		case name == "limit":
			if f.limit, err = strconv.Atoi(last); err == nil && f.limit < 1 {
				err = errors.New("want 1 or more")
			}
		case slices.Contains(options, name):
		default:
			err = errors.New("unknown parameter")
		}
		if err != nil {
			return filter{}, badRequest(fmt.Errorf("%s: %w", name, err))
		}
	}
	return f, nil
}

// pointInTime reads a time, or a duration before now.
func pointInTime(text string) (time.Time, error) {
	if ago, err := caddy.ParseDuration(text); err == nil && ago >= 0 {
		return time.Now().Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("invalid time %q; want a duration such as 24h, or RFC 3339 such as 2026-11-21T15:04:05Z", text)
	}
	return at, nil
}

func (f *filter) everything() bool { return len(f.values) == 0 && f.since.IsZero() && f.until.IsZero() }

func (f *filter) matches(e quarantine.Entry) bool {
	for field, wanted := range f.values {
		if !slices.Contains(wanted, filterFields[field](e)) {
			return false
		}
	}
	if e.Received.IsZero() && (!f.since.IsZero() || !f.until.IsZero()) {
		return false // it cannot be read
	}
	return (f.since.IsZero() || !e.Received.Before(f.since)) && (f.until.IsZero() || e.Received.Before(f.until))
}

// each calls do with each entry that the filter means, without its body, until do returns an error.
// A batch is read at a time, so that nothing waits for whoever reads a long list.
func (f *filter) each(store *quarantine.Store, do func(quarantine.Entry) error) error {
	after, left := f.after, f.limit
	for {
		const batch = 1000
		entries, err := store.List(after, batch)
		if err != nil && len(entries) == 0 {
			return err
		}
		for entry := range f.meant(entries) {
			if err := do(entry); err != nil {
				return err
			}
			if left--; left == 0 {
				return nil
			}
		}
		if len(entries) == 0 {
			return nil
		}
		after = entries[len(entries)-1].ID
	}
}

// meant are those of the entries that the filter means.
func (f *filter) meant(entries []quarantine.Entry) iter.Seq[quarantine.Entry] {
	return func(yield func(quarantine.Entry) bool) {
		for _, entry := range entries {
			if f.matches(entry) && !yield(entry) {
				return
			}
		}
	}
}
