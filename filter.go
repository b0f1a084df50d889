package greenapi

import (
	"errors"
	"fmt"
	"io"
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

// A filter is what a request says of entries, with its other options.
type filter struct {
	quarantine.Filter
	options url.Values
}

// says reports whether an option is set.
func (f *filter) says(option string) bool { return f.options.Get(option) == "true" }

// maxParameters bounds the body of a request, in bytes: some 30,000 ids.
const maxParameters = 1 << 20

// parseFilter reads the filter of a request. options are the other parameters it may have.
func parseFilter(r *http.Request, options ...string) (filter, error) {
	query, err := parametersOf(r)
	if err != nil {
		return filter{}, badRequest(err)
	}
	f := filter{options: query}
	if id := r.PathValue("id"); id != "" {
		f.Want("id", id)
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
	case quarantine.IsFilterField(name):
		return f.want(name, values)
	case name == "since":
		f.Since, err = pointInTime(last)
	case name == "until":
		f.Until, err = pointInTime(last)
	case name == "after":
		f.After = last
	case name == "limit":
		if f.Limit, err = strconv.Atoi(last); err == nil && f.Limit < 1 {
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
	for _, value := range values {
		switch {
		case value == "": // most likely a variable that is not set
			return errEmptyValue
		case field == "reason" && !slices.Contains(reason.Kept(), reason.Reason(value)):
			return fmt.Errorf("unknown reason %q; want one of %s", value, reason.Join(reason.Kept()))
		}
	}
	f.Want(field, values...)
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
