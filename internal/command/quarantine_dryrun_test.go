package command_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestDryRun: what is meant is only said, and with its until nothing is meant that comes meanwhile.
func TestDryRun(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"validate {\ndrift_guard off\n}\nreverse_proxy "+up.Address))
	e := edgetest.Start(t, config)
	for range 3 {
		e.Post(edgetest.Broken("EARLY"))
	}
	e.Post("no JSON")
	stdout, stderr, code := operate(t, admin, "delete", "--reason", "schema", "--dry-run")
	said := regexp.MustCompile(`^3 entries, received from \S+ to \S+\nNothing was done\. The same command with --until (\S+) instead of --dry-run `).FindStringSubmatch(stdout)
	if code != 0 || said == nil {
		t.Fatalf("exit code %d, %s%s", code, stdout, stderr)
	}
	e.Post(edgetest.Broken("LATE"))
	if stdout, _, code := operate(t, admin, "replay", "--all", "--dry-run"); code != 0 || !strings.HasPrefix(stdout, "4 entries, ") || !strings.Contains(stdout, "\n1 more would be skipped, ") {
		t.Errorf("replay: exit code %d, %s", code, stdout)
	}
	if stdout, stderr, code := operate(t, admin, "delete", "--reason", "schema", "--until", said[1]); code != 0 || stdout != "3 deleted\n" {
		t.Errorf("delete: exit code %d, %s%s", code, stdout, stderr)
	}
	stdout, _, code = operate(t, admin, "delete", "--reason", "schema", "nobody", "--dry-run", "--format", "json")
	var run api.DryRun
	if err := json.Unmarshal([]byte(stdout), &run); code != 0 || err != nil || run.Count != 0 || len(run.Missing) != 1 {
		t.Errorf("of no entry: exit code %d, %s", code, stdout)
	}
	if stdout, _, _ := operate(t, admin, "list"); strings.Count(stdout, "\n") < 2 || len(up.Requests()) != 0 {
		t.Errorf("left: %s; %d delivered", stdout, len(up.Requests()))
	}
}
