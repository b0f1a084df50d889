package api

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

	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// parameters are what a request asks for: the filter that selects entries, and options.
type parameters struct {
	quarantine.Filter
	options  url.Values
	duration func(string) (time.Duration, error)
}

// says reports whether an option is set.
func (p *parameters) says(option string) bool { return p.options.Get(option) == "true" }

// maxParameters limits the body of a request, in bytes: some 30,000 IDs.
const maxParameters = 1 << 20

// Options that have a value other than true and false.
const (
	OptionTo     = "to"     // the block to replay through
	OptionBefore = "before" // the ID before which a search goes on
)

// ErrEmptyValue refuses a parameter without a value.
var ErrEmptyValue = errors.New("empty; want a value, or leave it out")

// parse parses the parameters of a request. options are those allowed in addition to the filter.
func (e *Edge) parse(r *http.Request, options ...string) (parameters, error) {
	query, err := parametersOf(r)
	if err != nil {
		return parameters{}, badRequest(err)
	}
	p := parameters{options: query, duration: e.ParseDuration}
	if id := r.PathValue("id"); id != "" {
		p.Want("id", id)
	}
	for name, values := range query {
		if err := p.set(name, values, options); err != nil {
			return parameters{}, badRequest(fmt.Errorf("%s: %w", name, err))
		}
	}
	return p, nil
}

// parametersOf parses the parameters in a request's URL and body. A phone number belongs in the body,
// because Caddy logs the URI of each request.
func parametersOf(r *http.Request) (url.Values, error) {
	all := make(url.Values)
	if err := addParameters(all, r.URL.RawQuery); err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxParameters+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxParameters { // with only some of the IDs, only part of the work would be done
		return nil, fmt.Errorf("body: more than %d bytes of parameters; ask in parts", maxParameters)
	}
	if err := addParameters(all, strings.TrimSpace(string(body))); err != nil {
		return nil, errors.New("body: want parameters as in a query")
	}
	return all, nil
}

// addParameters adds the parameters in a text that has the form of a query. url.ParseQuery takes at most
// 10,000.
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

// set sets one parameter.
func (p *parameters) set(name string, values, options []string) (err error) {
	last := values[len(values)-1]
	switch {
	case quarantine.IsFilterField(name):
		return p.want(name, values)
	case name == "since":
		p.Since, err = p.pointInTime(last)
	case name == "until":
		err = p.setUntil(last)
	case name == "after":
		p.After = last
	case name == "limit":
		if p.Limit, err = strconv.Atoi(last); err == nil && p.Limit < 1 {
			err = errors.New("want 1 or more")
		}
	case !slices.Contains(options, name):
		err = errors.New("unknown parameter")
	case name == OptionTo, name == OptionBefore:
		if last == "" {
			err = ErrEmptyValue
		}
	case last != "true" && last != "false":
		err = fmt.Errorf("invalid value %q; want true or false", last)
	}
	return err
}

// want adds wanted values of a field.
func (p *parameters) want(field string, values []string) error {
	for _, value := range values {
		switch {
		case value == "": // most likely an unset variable
			return ErrEmptyValue
		case field == "reason" && !slices.Contains(reason.Kept(), reason.Reason(value)):
			return fmt.Errorf("unknown reason %q; want one of %s", value, reason.Join(reason.Kept()))
		}
	}
	p.Want(field, values...)
	return nil
}

// setUntil parses a time, or the until of a dry run: a time and, behind it, the number of the entry that came next.
func (p *parameters) setUntil(text string) (err error) {
	if at, number, ofDryRun := strings.Cut(text, "Z-"); ofDryRun {
		if p.KeptBefore, err = strconv.ParseUint(number, 16, 64); err == nil && p.KeptBefore > 0 {
			text = at + "Z"
		}
	}
	p.Until, err = p.pointInTime(text)
	return err
}

// pointInTime parses a time, or a duration before now.
func (p *parameters) pointInTime(text string) (time.Time, error) {
	if ago, err := p.duration(text); err == nil && ago >= 0 {
		return time.Now().Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("invalid time %q; want a duration such as 24h, or RFC 3339 such as 2026-11-21T15:04:05Z", text)
	}
	return at, nil
}
