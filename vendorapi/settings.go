package vendorapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Settings are an instance's settings by the vendor's names. A value is a string ("yes" and "no"
// for a switch), a json.Number, or whatever the vendor adds.
type Settings map[string]any

// Names of settings that say where notifications go.
const (
	WebhookURL      = "webhookUrl"
	WebhookURLToken = "webhookUrlToken" //nolint:gosec // a name
)

// WebhookSwitches are the settings, "yes" or "no", that say which notifications an instance sends.
// A new instance has all of them at "no" (GREEN-API docs: "SetSettings", read 2026-07, and release
// notes 5.44.37.12 of 2026-07-30 for the calls).
var WebhookSwitches = []string{
	"incomingWebhook",
	"outgoingWebhook",
	"outgoingMessageWebhook",
	"outgoingAPIMessageWebhook",
	"stateWebhook",
	"pollMessageWebhook",
	"incomingBlockWebhook",
	"incomingCallWebhook",
	"outgoingCallWebhook",
	"editedMessageWebhook",
	"deletedMessageWebhook",
	"statusInstanceWebhook",
	"deviceWebhook",
}

// Text returns a setting as text, "" if it is not there.
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

// Differing returns those of the wanted settings that differ from s, sorted by name.
func (s Settings) Differing(wanted Settings) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		if _, there := s[name]; !there || s.Text(name) != wanted.Text(name) {
			names = append(names, name)
		}
	}
	return names
}
