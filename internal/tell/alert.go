package tell

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// An Endpoint is a URL that alerts are posted to, with all its settings resolved.
type Endpoint struct {
	URL    string
	Host   string // for the log, as in the config; the rest may be a secret
	Header http.Header
	Body   Body

	Every   time.Duration // minimum time between two alerts with the same reason and type
	Silence time.Duration // it gets silences of this length only; 0 for none

	// Hide removes from an error what the log must not show.
	Hide func(error) error
}

// A Body is the text to post, with placeholders for what an alert says.
type Body struct {
	text string // with {alert.*} only
	json bool
}

// DefaultBody contains every placeholder.
const DefaultBody = `{"text":"{alert.text}","reason":"{alert.reason}","type":"{alert.type}","level":"{alert.level}","count":{alert.count},` +
	`"first":"{alert.first}","last":"{alert.last}","instances":"{alert.instances}","example":"{alert.example}","host":"{alert.host}"}`

// placeholder matches the placeholders in the text of a body. It does not match a brace of JSON.
var placeholder = regexp.MustCompile(`\{(alert|env|file)\.[^{}]*\}`)

// NewBody returns a body with a text. resolve replaces the placeholders that are not the alert's own.
func NewBody(text string, isJSON bool, resolve func(placeholder string) (string, error)) (Body, error) {
	b := Body{json: isJSON}
	var fault error
	b.text = placeholder.ReplaceAllStringFunc(text, func(placeholder string) string {
		filled, err := b.fillIn(placeholder, resolve)
		if err != nil {
			fault = err
		}
		return filled
	})
	if fault != nil {
		return Body{}, fault
	}
	if b.json && !json.Valid(b.render(new(group))) {
		return Body{}, errors.New(`no JSON; want it such as {"text": "{alert.text}"}, or a header Content-Type of another kind`)
	}
	return b, nil
}

// fillIn resolves a placeholder when the config is loaded. Those of the alert itself stay.
func (b *Body) fillIn(placeholder string, resolve func(string) (string, error)) (string, error) {
	if !strings.HasPrefix(placeholder, "{alert.") {
		resolved, err := resolve(placeholder)
		return b.escape(resolved), err
	}
	values := new(group).values()
	if _, known := values[placeholder]; !known {
		return "", fmt.Errorf("unknown placeholder %s; want one of %s", placeholder, strings.Join(slices.Sorted(maps.Keys(values)), ", "))
	}
	return placeholder, nil
}

// escape makes a value part of a JSON string. For other bodies it replaces control characters.
func (b *Body) escape(value string) string {
	if !b.json {
		return outcome.Printable(value)
	}
	quoted, err := json.Marshal(value)
	if err != nil {
		return ""
	}
	return string(quoted[1 : len(quoted)-1])
}

func (b *Body) render(g *group) []byte {
	values := g.values()
	return []byte(placeholder.ReplaceAllStringFunc(b.text, func(placeholder string) string {
		value, known := values[placeholder]
		if !known {
			return placeholder // it came from a resolved placeholder
		}
		return b.escape(outcome.PrintableLines(value))
	}))
}
