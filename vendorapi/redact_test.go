package vendorapi

import (
	"slices"
	"strings"
	"testing"
)

func TestSwitches(t *testing.T) {
	s := Settings{
		"zWebhook": "yes", "brandNewWebhook": "no", "oddWebhook": "maybe", "numberWebhook": 1, "nullWebhook": nil,
		"webhookUrl": "yes", "keepOnlineStatus": "yes", "webhook": "no",
	}
	if got := s.Switches(); !slices.Equal(got, []string{"brandNewWebhook", "zWebhook"}) {
		t.Errorf("got %q", got)
	}
}

func TestRedactURL(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "",
		"https://hooks.example.com/hook":        "https://hooks.example.com/hook",
		"http://[2001:db8::1]:8080/a%2Fb":       "http://[2001:db8::1]:8080/a%2Fb",
		"https://u:SECRET@hooks.example.com/a":  "https://REDACTED@hooks.example.com/a",
		"https://SECRET@hooks.example.com":      "https://REDACTED@hooks.example.com",
		"https://h.example/a?t=SECRET":          "https://h.example/a?t=REDACTED",
		"https://h.example/a?t=SECRET=1&b=&c":   "https://h.example/a?t=REDACTED&b=&REDACTED",
		"https://h.example/a?SECRET":            "https://h.example/a?REDACTED",
		"https://h.example/a?=SECRET;x=SECRET;": "https://h.example/a?=REDACTED;x=REDACTED;",
		"https://h.example/#SECRET":             "https://h.example/#REDACTED",
		"//u:SECRET@h.example/":                 "//REDACTED@h.example/",
		"SECRET@h.example/a":                    "REDACTED",
		"user:SECRET@h.example":                 "REDACTED",
		"https://h.example/%zzSECRET":           "REDACTED",
		"SECRET":                                "REDACTED",
	} {
		if got := RedactURL(text); got != want || strings.Contains(got, "SECRET") {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestRedactURLIn(t *testing.T) {
	const address = "https://user:SECRET1@h.example/a?t=SECRET%202&v=1&SECRET3#SECRET4"
	for text, want := range map[string]string{
		"invalid " + address + "!": "invalid " + RedactURL(address) + "!",
		"invalid user:SECRET1":     "invalid REDACTED",
		"bad t: SECRET 2, v: 1":    "bad t: REDACTED, v: 1",
		"bad SECRET%202":           "bad REDACTED",
		"SECRET3 SECRET4 SECRET1":  "REDACTED REDACTED REDACTED",
	} {
		if got := RedactURLIn(text, address); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	if got := RedactURLIn("as it is", ""); got != "as it is" {
		t.Error(got)
	}
}
