package greenapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/greenapi-community/caddy-green-api/internal/tell"
)

const defaultAlertEvery = 5 * time.Minute

// Alert says where the operator is told of what went wrong, with an HTTP POST.
//
// What has the same reason and type of notification is told in one alert: the first two seconds
// after it happened, and then once each `every` as long as it goes on.
type Alert struct {
	// Where to, http or https. Placeholders `{env.*}` and `{file.*}` are resolved at load.
	URL string `json:"url"`

	// Least time between two alerts of one reason and type. Default: 5m.
	Every caddy.Duration `json:"every,omitempty"`

	// Header fields to send. Default: `Content-Type: application/json`.
	Header map[string][]string `json:"header,omitempty"`

	// Body to send. Placeholders: `{alert.text}`, a sentence that says it all, `{alert.reason}`,
	// `{alert.type}`, `{alert.level}`, `{alert.count}`, `{alert.first}` and `{alert.last}` (RFC 3339),
	// `{alert.instances}`, `{alert.example}` (an id in the quarantine), `{alert.host}`, `{env.*}` and
	// `{file.*}`. With a content type of JSON they are escaped for use in a JSON string. Default: an
	// object with all of them.
	Body string `json:"body,omitempty"`

	// Tells this alert when nothing came from a configured instance for that long. Default: never.
	Silence caddy.Duration `json:"silence,omitempty"`

	endpoint tell.Endpoint
}

func (a *Alert) provision() error {
	resolved, err := resolve(a.URL)
	if err != nil {
		return fmt.Errorf("url: %w", err)
	}
	target, err := url.Parse(resolved)
	if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
		return errors.New("url: invalid; want an http or https URL, such as https://alerts.example.com/hook") // it may have a secret in it
	}
	if a.Every == 0 {
		a.Every = caddy.Duration(defaultAlertEvery)
	}
	if a.Every < 0 || a.Silence < 0 {
		return errors.New("every, silence: want a duration above 0s")
	}
	header, err := a.resolvedHeader()
	if err != nil {
		return err
	}
	if a.Body == "" {
		a.Body = tell.DefaultBody
	}
	body, err := tell.NewBody(a.Body, strings.Contains(header.Get("Content-Type"), "json"), resolve)
	if err != nil {
		return fmt.Errorf("body: %w", err)
	}
	a.endpoint = tell.Endpoint{
		URL: resolved, Host: hostOf(a.URL), Header: header, Body: body, Every: time.Duration(a.Every), Silence: time.Duration(a.Silence),
		Hide: func(err error) error { return hideURL(err, a.URL, resolved) },
	}
	return nil
}

func (a *Alert) resolvedHeader() (http.Header, error) {
	header := http.Header{"Content-Type": {"application/json"}, "User-Agent": {"caddy-green-api"}}
	for name, values := range a.Header {
		header.Del(name)
		for _, value := range values {
			resolved, err := resolve(value)
			if err != nil {
				return nil, fmt.Errorf("header %s: %w", name, err)
			}
			if strings.ContainsFunc(resolved, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return nil, fmt.Errorf("header %s: a control character, such as a line end, in the value; want it on one line", name)
			}
			header.Add(name, resolved)
		}
	}
	return header, nil
}

// endpoints returns where the operator is told.
func (a *App) endpoints() (all []tell.Endpoint) {
	for _, alert := range a.Alerts {
		all = append(all, alert.endpoint)
	}
	return all
}

// unmarshalCaddyfile sets up an alert from Caddyfile tokens. Syntax:
//
//	alert <url> {
//	    every   <duration>
//	    header  <name> <value>
//	    body    <text>
//	    silence <duration>
//	}
func (a *Alert) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := textArg(d, &a.URL); err != nil {
		return err
	}
	return eachOption(d, "alert", []option{
		{name: "every", parse: func() error { return durationArg(d, &a.Every) }},
		{name: "header", repeats: true, parse: func() error {
			args := d.RemainingArgs()
			if len(args) != 2 {
				return d.Err("header: want a name and a value")
			}
			if a.Header == nil {
				a.Header = make(map[string][]string)
			}
			a.Header[args[0]] = append(a.Header[args[0]], args[1])
			return nil
		}},
		{name: "body", parse: func() error { return textArg(d, &a.Body) }},
		{name: "silence", parse: func() error { return durationArg(d, &a.Silence) }},
	})
}
