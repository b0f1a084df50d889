package greenapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

const (
	defaultAlertEvery = 5 * time.Minute
	alertTimeout      = 10 * time.Second
)

// Times of alerts. They are shorter in tests.
var (
	// alertGather is how long the first alert of its kind waits for others of it.
	alertGather = 2 * time.Second

	// The pause before a failed alert is sent again doubles from the first to the longest.
	firstAlertPause   = time.Second
	longestAlertPause = time.Minute

	// alertFlush is how long the end of the process waits for alerts.
	alertFlush = 5 * time.Second
)

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

	url    string
	header http.Header
	body   string // with {alert.*} only
	json   bool
}

// defaultAlertBody has all there is to tell.
const defaultAlertBody = `{"text":"{alert.text}","reason":"{alert.reason}","type":"{alert.type}","level":"{alert.level}","count":{alert.count},` +
	`"first":"{alert.first}","last":"{alert.last}","instances":"{alert.instances}","example":"{alert.example}","host":"{alert.host}"}`

// alertPlaceholder is what may stand in an alert's body. A brace of JSON is none.
var alertPlaceholder = regexp.MustCompile(`\{(alert|env|file)\.[^{}]*\}`)

func (a *Alert) provision() error {
	var err error
	if a.url, err = resolve(a.URL); err != nil {
		return fmt.Errorf("url: %w", err)
	}
	target, err := url.Parse(a.url)
	if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
		return errors.New("url: invalid; want an http or https URL, such as https://alerts.example.com/hook") // it may have a secret in it
	}
	if a.Every == 0 {
		a.Every = caddy.Duration(defaultAlertEvery)
	}
	if a.Every < 0 || a.Silence < 0 {
		return errors.New("every, silence: want a duration above 0s")
	}
	if err := a.provisionHeader(); err != nil {
		return err
	}
	return a.provisionBody()
}

func (a *Alert) provisionHeader() error {
	a.header = http.Header{"Content-Type": {"application/json"}, "User-Agent": {"caddy-green-api"}}
	for name, values := range a.Header {
		a.header.Del(name)
		for _, value := range values {
			resolved, err := resolve(value)
			if err != nil {
				return fmt.Errorf("header %s: %w", name, err)
			}
			if strings.ContainsFunc(resolved, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return fmt.Errorf("header %s: a control character, such as a line end, in the value; want it on one line", name)
			}
			a.header.Add(name, resolved)
		}
	}
	a.json = strings.Contains(a.header.Get("Content-Type"), "json")
	return nil
}

func (a *Alert) provisionBody() error {
	if a.Body == "" {
		a.Body = defaultAlertBody
	}
	var fault error
	a.body = alertPlaceholder.ReplaceAllStringFunc(a.Body, func(placeholder string) string {
		filled, err := a.fillIn(placeholder)
		if err != nil {
			fault = fmt.Errorf("body: %w", err)
		}
		return filled
	})
	if fault != nil {
		return fault
	}
	if a.json && !json.Valid(a.render(new(alertGroup))) {
		return errors.New(`body: no JSON; want it such as {"text": "{alert.text}"}, or a header Content-Type of another kind`)
	}
	return nil
}

// fillIn resolves a placeholder of the body at load. Those of the alert itself stay as they are.
func (a *Alert) fillIn(placeholder string) (string, error) {
	if !strings.HasPrefix(placeholder, "{alert.") {
		resolved, err := resolve(placeholder)
		return a.escape(resolved), err
	}
	values := new(alertGroup).values()
	if _, known := values[placeholder]; !known {
		return "", fmt.Errorf("unknown placeholder %s; want one of %s", placeholder, strings.Join(slices.Sorted(maps.Keys(values)), ", "))
	}
	return placeholder, nil
}

// escape makes a value a part of a JSON string; of another body it takes the control characters.
func (a *Alert) escape(value string) string {
	if !a.json {
		return outcome.Printable(value)
	}
	quoted, err := json.Marshal(value)
	if err != nil {
		return ""
	}
	return string(quoted[1 : len(quoted)-1])
}

func (a *Alert) render(g *alertGroup) []byte {
	values := g.values()
	return []byte(alertPlaceholder.ReplaceAllStringFunc(a.body, func(placeholder string) string {
		value, known := values[placeholder]
		if !known {
			return placeholder // it came out of a variable
		}
		return a.escape(outcome.PrintableLines(value))
	}))
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
