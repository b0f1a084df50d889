package greenapi

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// steering are runes that a terminal obeys, beside control characters of ASCII.
const steering = "\u007f\u009b\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

func TestPrintable(t *testing.T) {
	for _, r := range steering + "\x00\x07\n\r\t\x1b" {
		if got := outcome.Printable("a" + string(r) + "z"); got != "a?z" {
			t.Errorf("%U: %q", r, got)
		}
		var back string
		quoted, _ := json.Marshal("a" + string(r) + "z")
		escaped := outcome.PrintableJSON(quoted)
		if err := json.Unmarshal(escaped, &back); err != nil || back != "a"+string(r)+"z" || strings.ContainsAny(string(escaped), steering) {
			t.Errorf("%U: as JSON %s, which is %q, %v", r, escaped, back, err)
		}
	}
	const plain = "Ünïcode, עברית, 日本語, 👨\u200d👩\u200d👧" // with the joiners of a family
	if outcome.Printable(plain) != plain || string(outcome.PrintableJSON([]byte(plain))) != plain {
		t.Errorf("%q is changed", plain)
	}
	if got := outcome.PrintableLines("a\n\u202eb\n"); got != "a\n?b\n" {
		t.Errorf("lines: %q", got)
	}
	if got := outcome.Printable("a\x9bz"); strings.Contains(got, "\x9b") { // no UTF-8
		t.Errorf("a byte: %q", got)
	}
}

// TestTerminal: nothing that an outsider says steers the terminal of who reads the log, an alert, or
// what the commands print.
func TestTerminal(t *testing.T) {
	quickAlerts(t)
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	port := edgetest.FreePort(t)
	config := strings.Replace(edgetest.Alerting(in.URL, "header Content-Type text/plain\nbody {alert.text}", "log_body\n"+edgetest.Loopback+"reverse_proxy "+up.Address), "admin off", "admin 127.0.0.1:"+port, 1)
	e := edgetest.Start(t, config)
	body := strings.Replace(edgetest.TextMessage, "3EB0C767D097B7C7C030", "id"+steering, 1)
	body = strings.Replace(body, `"typeWebhook":"`, `"typeWebhook":"`+steering, 1)
	clean := func(what, text string) {
		t.Helper()
		if text == "" || strings.ContainsAny(text, steering+"\x1b") {
			t.Errorf("%s: %q", what, text)
		}
	}
	e.Post(body)
	e.WantRecord("outcome", "quarantined")
	clean("log", e.Logs.All())
	edgetest.Eventually(t, "alert", func() bool { return len(in.All()) > 0 })
	clean("alert", in.All()[0])

	file := filepath.Join(t.TempDir(), "body.json")
	if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{
		"check " + file, "check --format json " + file, "check /nonexistent/" + steering, "send " + steering,
		"quarantine list", "quarantine list --format json", "quarantine export", "quarantine show", "quarantine show --format json",
	} {
		args := append([]string{"green-api"}, strings.Split(command, " ")...)
		if args[1] == "quarantine" {
			if args[2] == "show" {
				args = append(args[:3], append([]string{e.Record().Text("quarantine_id")}, args[3:]...)...)
			}
			args = append(args, "--address", "127.0.0.1:"+port)
		}
		stdout, stderr, _ := edgetest.RunCommand(t, t.TempDir(), "", args...)
		clean(command, stdout+stderr)
		if strings.Contains(command, "show --format json") {
			var entry struct {
				NotificationID string `json:"notification_id"`
			}
			if err := json.Unmarshal([]byte(stdout), &entry); err != nil || entry.NotificationID != "id"+steering {
				t.Errorf("%s: %q, %v", command, entry.NotificationID, err)
			}
		}
	}
}
