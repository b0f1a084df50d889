package vendorapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Settings are an instance's settings by the vendor's names. A value is a string ("yes" or "no" for a
// switch), a json.Number, or whatever the vendor adds.
type Settings map[string]any

// Names of the settings for where notifications are sent.
const (
	WebhookURL      = "webhookUrl"
	WebhookURLToken = "webhookUrlToken" //nolint:gosec // a name
)

// switchSuffix ends the names of the settings for which notifications an instance sends.
const switchSuffix = "Webhook"

// Switches returns the names of the instance's webhook switches, sorted: every setting whose name ends in
// Webhook and whose value is "yes" or "no". The set depends on messenger, tariff and version, and the
// vendor adds to it (GREEN-API docs: "GetSettings", read 2026-07). A new instance has all of them at "no".
func (s Settings) Switches() (names []string) {
	for name, value := range s {
		if strings.HasSuffix(name, switchSuffix) && (value == "yes" || value == "no") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Text returns a setting as text, "" if it is not set.
func (s Settings) Text(name string) string {
	switch value := s[name].(type) {
	case nil:
		return ""
	case string:
		return value
	case json.Number:
		return value.String()
	default:
		text, err := json.Marshal(value)
		if err != nil {
			return fmt.Sprint(value)
		}
		return string(text)
	}
}

// Differing returns the names of the wanted settings that differ from s, sorted.
func (s Settings) Differing(wanted Settings) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if _, there := s[name]; !there || s.Text(name) != wanted.Text(name) {
			names = append(names, name)
		}
	}
	return names
}
