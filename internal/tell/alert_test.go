package tell

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// TestBodies tries the bodies that people use, as the docs show them, with a text that tries to get out
// of its string.
func TestBodies(t *testing.T) {
	chat := func(placeholder string) (string, error) {
		if placeholder != "{env.CHAT}" {
			return "", fmt.Errorf("asked for %s", placeholder)
		}
		return `79001234567"@c.us`, nil
	}
	g := &group{key: key{reason.Schema, "x\",\"y\":\"\n\x1b"}, count: 3, instances: []string{"1101000001"}}
	for name, text := range map[string]string{
		"Slack":        `{"text": "{alert.text}"}`,
		"Telegram":     `{"chat_id": "-1001", "text": "{alert.text}"}`,
		"Alertmanager": `[{"labels": {"alertname": "green_api", "reason": "{alert.reason}", "severity": "{alert.level}"}, "annotations": {"summary": "{alert.text}"}}]`,
		"WhatsApp":     `{"chatId": "{env.CHAT}", "message": "{alert.text}"}`,
		"default":      DefaultBody,
	} {
		body, err := NewBody(text, true, chat)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var parsed any
		if err := json.Unmarshal(body.render(g), &parsed); err != nil {
			t.Errorf("%s: %v: %s", name, err, body.render(g))
		}
		if text := fmt.Sprint(parsed); !strings.Contains(text, `x","y":"`) || strings.Contains(text, "map[y") || strings.Contains(text, "{env.") {
			t.Errorf("%s: %s", name, text)
		}
	}
	plain, err := NewBody("{alert.type}", false, chat)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(plain.render(g)); got != "x\",\"y\":\"??" {
		t.Errorf("plain: %q", got)
	}
	inserted, err := NewBody("{env.CHAT} {alert.count}", false, func(string) (string, error) { return "{alert.nonsense}", nil })
	if err != nil {
		t.Fatal(err)
	}
	if got := string(inserted.render(g)); got != "{alert.nonsense} 3" {
		t.Errorf("a placeholder out of a variable: %q", got)
	}
}
