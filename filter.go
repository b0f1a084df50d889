package greenapi

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// A filter says which entries are meant.
type filter struct {
	values       map[string]map[string]bool // of fields; any of a field's values will do
	since, until time.Time
	after        string
	limit        int // 0 for none
	options      url.Values

	// Is called for what cannot be read and may be meant. Without it, such an entry is one that has
	// nothing but its id.
	unreadable func(id string, err error) error
	met        map[string]bool // which of the ids asked for there are
}

// says reports whether an option is set.
func (f *filter) says(option string) bool { return f.options.Get(option) == "true" }

// names reports whether the value of a field is asked for by name.
func (f *filter) names(field, value string) bool { return f.values[field][value] }

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

// maxParameters bounds the body of a request, in bytes: some 30,000 ids.
const maxParameters = 1 << 20

// parseFilter reads the filter of a request. options are the other parameters it may have.
func parseFilter(r *http.Request, options ...string) (filter, error) {
	query, err := parametersOf(r)
	if err != nil {
		return filter{}, badRequest(err)
	}
	f := filter{values: make(map[string]map[string]bool), options: query}
	if id := r.PathValue("id"); id != "" {
		f.values["id"] = map[string]bool{id: true}
	}
	for name, values := range query {
		if err := f.set(name, values, options); err != nil {
			return filter{}, badRequest(fmt.Errorf("%s: %w", name, err))
		}
	}
	return f, nil
}

// parametersOf reads the parameters of a request, out of its address and its body: Caddy logs the URI
// of each request, so that a phone number had better be in the body.
func parametersOf(r *http.Request) (url.Values, error) {
	all := make(url.Values)
	if err := addParameters(all, r.URL.RawQuery); err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxParameters+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxParameters { // a part of the ids would be a part of the work
		return nil, fmt.Errorf("body: more than %d bytes of parameters; ask in parts", maxParameters)
	}
	if err := addParameters(all, strings.TrimSpace(string(body))); err != nil {
		return nil, errors.New("body: want parameters as in a query")
	}
	return all, nil
}

// addParameters adds those of a text as in a query. url.ParseQuery takes 10,000 at most.
func addParameters(all url.Values, text string) error {
	for pair := range strings.SplitSeq(text, "&") {
		one, err := url.ParseQuery(pair)
		if err != nil {
			return err
		}
		for name, values := range one {
			all[name] = append(all[name], values...)
		}
	}
	return nil
}

// set takes in one parameter.
func (f *filter) set(name string, values, options []string) (err error) {
	last := values[len(values)-1]
	switch {
	case filterFields[name] != nil:
		return f.want(name, values)
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
	case !slices.Contains(options, name):
		err = errors.New("unknown parameter")
	case name == optionTo:
		if last == "" {
			err = errEmptyValue
		}
	case last != "true" && last != "false":
		err = fmt.Errorf("invalid value %q; want true or false", last)
	}
	return err
}

var errEmptyValue = errors.New("empty; want a value, or leave it out")

// want asks for values of a field.
func (f *filter) want(field string, values []string) error {
	if f.values[field] == nil {
		f.values[field] = make(map[string]bool)
	}
	for _, value := range values {
		switch {
		case value == "": // most likely a variable that is not set
			return errEmptyValue
		case field == "reason" && !slices.Contains(keptReasons, reason.Reason(value)):
			return fmt.Errorf("unknown reason %q; want one of %s", value, reason.Join(keptReasons))
		}
		f.values[field][value] = true
	}
	return nil
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
		if !wanted[filterFields[field](e)] {
			return false
		}
	}
	if e.Received.IsZero() && (!f.since.IsZero() || !f.until.IsZero()) {
		return false // it cannot be read
	}
	return (f.since.IsZero() || !e.Received.Before(f.since)) && (f.until.IsZero() || e.Received.Before(f.until))
}

// mayMean reports whether an entry may be meant of which nothing but the id can be read.
func (f *filter) mayMean(id string) bool {
	if ids := f.values["id"]; ids != nil {
		return ids[id]
	}
	at, known := quarantine.TimeOf(id)
	if !known {
		return true
	}
	return (f.since.IsZero() || !at.Before(f.since.Truncate(time.Millisecond))) && (f.until.IsZero() || at.Before(f.until))
}

// each calls do with each entry that the filter means, without its body, until do returns an error.
// A batch is read at a time, so that nothing waits for whoever reads a long list.
func (f *filter) each(store *quarantine.Store, do func(quarantine.Entry) error) error {
	after, left := f.after, f.limit
	f.met = make(map[string]bool)
	for {
		const batch = 1000
		entries, err := store.List(after, batch)
		if len(entries) == 0 {
			return err
		}
		for _, entry := range entries {
			meant, err := f.look(store, entry)
			if err != nil {
				return err
			}
			if !meant {
				continue
			}
			if err := do(entry); err != nil {
				return err
			}
			if left--; left == 0 {
				return nil
			}
		}
		after = entries[len(entries)-1].ID
	}
}

// look reports whether an entry is meant, and tells of one that cannot be read.
func (f *filter) look(store *quarantine.Store, e quarantine.Entry) (meant bool, err error) {
	if f.values["id"][e.ID] {
		f.met[e.ID] = true
	}
	if f.unreadable == nil || !e.Received.IsZero() {
		return f.matches(e), nil
	}
	if !f.mayMean(e.ID) {
		return false, nil
	}
	_, err = store.Get(e.ID)
	if err == nil || errors.Is(err, quarantine.ErrNotFound) { // deleted meanwhile
		return false, nil
	}
	return false, f.unreadable(e.ID, err)
}

// missing are those of the ids asked for that no entry has, after each.
func (f *filter) missing(store *quarantine.Store) (ids []string) {
	for _, id := range slices.Sorted(maps.Keys(f.values["id"])) {
		if f.met[id] {
			continue
		}
		if _, err := store.Get(id); errors.Is(err, quarantine.ErrNotFound) {
			ids = append(ids, id)
		}
	}
	return ids
}
