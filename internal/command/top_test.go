package command_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestTop: of a running edge, the command says who stands still and why.
func TestTop(t *testing.T) {
	up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no database", http.StatusInternalServerError)
	})
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	e := edgetest.Start(t, config)
	once := func() string {
		t.Helper()
		stdout, stderr, code := runCommand(t, "", "", "green-api", "top", "--once", "--address", admin)
		if code != 0 || stderr != "" || strings.Contains(stdout, "\x1b") {
			t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
		}
		for line := range strings.Lines(stdout) {
			if len([]rune(line)) > 81 {
				t.Errorf("too long: %q", line)
			}
		}
		return stdout
	}
	if text := once(); !strings.HasPrefix(text, "All is well.\n\nnow         0/s\n") || !strings.Contains(text, up.Address) {
		t.Errorf("at first:\n%s", text)
	}
	e.Post(edgetest.TextMessage)
	e.Post(edgetest.TextMessage)
	text := once()
	for _, part := range []string{"1101000001 stands still for ", ": " + up.Address + " answers 500, 2\ntimes.", "failed", "500 no database", "STANDS ", "HANDLER "} {
		if !strings.Contains(strings.ReplaceAll(text, "500, 2 times", "500, 2\ntimes"), part) {
			t.Errorf("lacks %q:\n%s", part, text)
		}
	}
	stdout, stderr, code := runCommand(t, "", "", "green-api", "top", "--format", "json", "--address", admin)
	var got struct {
		Sentence string
		Well     bool
		Rates    map[string]float64
		Status   api.Status
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != 0 || stderr != "" {
		t.Fatalf("%v: exit code %d, stdout %q, stderr %q", err, code, stdout, stderr)
	}
	if got.Well || !strings.HasPrefix(got.Sentence, "1101000001 stands still for ") || len(got.Status.Standing) != 1 || got.Rates["failed"] <= 0 {
		t.Errorf("%+v", got)
	}
	nobody := "127.0.0.1:" + edgetest.FreePort(t)
	for _, args := range [][]string{{"--address", nobody}, {"--once", "--format", "json", "--address", nobody}, {"--format", "yaml"}, {"more"}} {
		stdout, stderr, code := runCommand(t, "", "", append([]string{"green-api", "top"}, args...)...)
		if code != 2 || stdout != "" || !strings.HasPrefix(stderr, "caddy green-api top: ") {
			t.Errorf("%v: exit code %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
		if strings.Contains(stderr, nobody) && !strings.Contains(stderr, "say so with --config FILE") {
			t.Errorf("%v: stderr %q", args, stderr)
		}
	}
}
