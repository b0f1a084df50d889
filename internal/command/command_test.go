package command_test

import (
	"strings"
	"sync"
	"testing"

	_ "github.com/greenapi-community/caddy-green-api" // the plugin, with the commands
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestMain gives the tests directories of their own, and can be Caddy itself.
func TestMain(m *testing.M) { edgetest.Main(m) }

// runCommand runs one of the commands in this process, in a directory if one is named.
// TestCommandProcesses has that a process does the same.
func runCommand(t *testing.T, dir, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return edgetest.RunCommand(t, dir, stdin, args...)
}

// TestCommandProcesses: a process prints what a command prints, and ends with its exit code.
func TestCommandProcesses(t *testing.T) {
	dir := bodies(t)
	b := newSettingsBench(t)
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback))
	e := edgetest.Start(t, config)
	e.Post(edgetest.Broken("ONE"))
	tests := []struct {
		args  string
		stdin string
		code  int
	}{
		{"check - good schema.json", edgetest.StateChanged, 1},
		{"check --format json state.json", "", 0},
		{"check --format yaml state.json", "", 2},
		{"schemas", "", 0},
		{"schemas a b", "", 2},
		{"addresses --format nft", "", 0},
		{"send " + up.URL + " --type incomingCall --count 2 --rate", "", 2},
		{"settings get 1101000001 --api-url " + b.url, "", 0},
		{"settings get 1101000001 --api-token demo-wrong-token --api-url " + b.url, "", 1},
		{"settings set 1101000001 --all yes --dry-run --api-url " + b.url, "", 0},
		{"settings set 1101000001 --all on --api-url " + b.url, "", 2},
		{"quarantine list --format json --address " + admin, "", 0},
		{"quarantine delete --address " + admin, "", 2},
		{"doctor --config missing --format json", "", 1},
		{"doctor", "", 2},
		{"health --address " + admin, "", 0},
		{"health --format yaml", "", 2},
		{"demo once", "", 2},
		{"alert test --address " + admin, "", 1},
		{"chekc", "", 2},
		{"settings set --help", "", 0},
	}
	type ended struct {
		stdout, stderr string
		code           int
	}
	processes := make([]ended, len(tests))
	var running sync.WaitGroup
	for i, test := range tests {
		running.Go(func() {
			p := &processes[i]
			p.stdout, p.stderr, p.code = edgetest.RunCaddy(t, dir, test.stdin, append([]string{"green-api"}, strings.Fields(test.args)...)...)
		})
	}
	running.Wait()
	for i, test := range tests {
		stdout, stderr, code := processes[i].stdout, processes[i].stderr, processes[i].code
		if test.code != code {
			t.Errorf("%s: exit code %d, want %d; stdout %q, stderr %q", test.args, code, test.code, stdout, stderr)
		}
		gotOut, gotErr, gotCode := runCommand(t, dir, test.stdin, append([]string{"green-api"}, strings.Fields(test.args)...)...)
		stdout, _, _ = strings.Cut(stdout, "\nFull documentation is available at:") // Caddy's, after its help
		if gotOut != stdout || gotErr != stderr || gotCode != code {
			t.Errorf("%s: in this process stdout %q, stderr %q, exit code %d; in one of its own %q, %q, %d",
				test.args, gotOut, gotErr, gotCode, stdout, stderr, code)
		}
	}
}

func TestCommandHelp(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct {
		name string
		args []string
		want []string
	}{
		{"alone", nil, []string{"check  ", "schemas  ", "send  ", "listen  "}},
		{"green-api", []string{"--help"}, []string{"check  ", "schemas  ", "send  ", "listen  "}},
		{"check", []string{"check", "--help"}, []string{
			"Examples:\n  caddy green-api check notification.json\n", "--format ", "--schemas ", "Exit status: 0 ",
			"file, type, message, instance, outcome,\nreason, and errors",
		}},
		{"send", []string{"send", "--help"}, []string{
			"Examples:\n  caddy green-api send http", "--token ", "--type ", "--body ", "--instances ", "--rate ", "--count ", "--pause ", "--timeout ",
			"--in-flight ", "--attempts ", "--format ", "Exit status: 0 ", "--chats ", "--wait ", "handled_seconds",
		}},
		{"doctor", []string{"doctor", "--help"}, []string{
			"Examples:\n  caddy green-api doctor --config /etc/caddy/Caddyfile\n", "--adapter ", "--config ", "--format ", "Exit status: 0 ",
			"does_not_load, no_green_api, empty_200, one_path,", "clock, port_shared, port_taken.",
		}},
		{"listen", []string{"listen", "--help"}, []string{"Examples:\n  caddy green-api listen ", "--address ", "--status ", "--delay ", "--forward "}},
		{"settings", []string{"settings", "--help"}, []string{"get  ", "set  ", "verify  ", "GREEN_API_API_TOKEN"}},
		{"settings verify", []string{"settings", "verify", "--help"}, []string{
			"caddy green-api settings verify 1101000001\n", "--api-token ", "--instances ", "--address ", "--config ", "--format ", "Exit status: 0 ",
			"no_url, bad_url, http_url, no_block, received, no_token,\nbad_token and instance_not_allowed",
		}},
		{"settings get", []string{"settings", "get", "--help"}, []string{
			"caddy green-api settings get 1101000001\n", "--api-token ", "--api-url ", "--instances ", "--format ", "Exit status: 0 ",
		}},
		{"settings set", []string{"settings", "set", "--help"}, []string{
			"Examples:\n  caddy green-api settings set 1101000001 --url https", "--url ", "--token ", "--switch ", "--all ", "--dry-run ", "--wait ",
			"--wait-timeout ", "incomingWebhook, ", "unchanged, dry_run, saved,\nin_force and failed", "Exit status: 0 ",
		}},
		{"quarantine list", []string{"quarantine", "list", "--help"}, []string{"--limit ", "--newest ", "Exit status: 0 "}},
		{"quarantine show", []string{"quarantine", "show", "--help"}, []string{"Exit status: 0 ", "1 if no entry has the id"}},
		{"quarantine export", []string{"quarantine", "export", "--help"}, []string{"Exit status: 0 "}},
		{"quarantine replay", []string{"quarantine", "replay", "--help"}, []string{"Exit status: 0 ", "Of ids beside a filter"}},
		{"quarantine delete", []string{"quarantine", "delete", "--help"}, []string{"Exit status: 0 ", "Of ids beside a filter"}},
		{"queue", []string{"queue", "--help"}, []string{"list  ", "show  ", "pause  ", "resume  ", "retry  ", "skip  ", "drain  ", "move  "}},
		{"queue list", []string{"queue", "list", "--help"}, []string{
			"Examples:\n  caddy green-api queue list\n", "--name ", "--instance ", "--limit ", "--format ", "--address ", "--config ", "Exit status: 0 ",
			"ready, delivering, waiting (for the next round), paused, and no_handler",
		}},
		{"queue show", []string{"queue", "show", "--help"}, []string{"caddy green-api queue show 3f2a9c01b7de\n", "--limit ", "Exit status: 0 ", "1 if no lane has the id"}},
		{"queue pause", []string{"queue", "pause", "--help"}, []string{"caddy green-api queue pause\n", "--all ", "--name ", "--instance ", "Exit status: 0 "}},
		{"queue resume", []string{"queue", "resume", "--help"}, []string{"caddy green-api queue resume\n", "--all ", "--name ", "--instance ", "Exit status: 0 ", "1 if a broader pause remains"}},
		{"queue retry", []string{"queue", "retry", "--help"}, []string{"caddy green-api queue retry 3f2a9c01b7de\n", "--all ", "--name ", "--instance ", "Exit status: 0 "}},
		{"queue skip", []string{"queue", "skip", "--help"}, []string{"caddy green-api queue skip 3f2a9c01b7de --seq 4711\n", "Exit status: 0 "}},
		{"queue drain", []string{"queue", "drain", "--help"}, []string{"caddy green-api queue drain\n", "--off ", "--no-wait ", "--wait-timeout ", "Exit status: 0 "}},
		{"queue move", []string{"queue", "move", "--help"}, []string{"caddy green-api queue move --from old-site --to sales\n", "--from ", "--to ", "Exit status: 0 "}},
		{"top", []string{"top", "--help"}, []string{
			"Examples:\n  caddy green-api top\n", "--once ", "--address ", "--config ", "--format ", "NO_COLOR", "Exit status: 0, ",
			"sentence, well", "/green_api/live",
		}},
		{"console", []string{"console", "--help"}, []string{
			"Examples:\n  caddy green-api console\n", "--address ", "--admin ", "--config ", "--format ", "--no-open", "ssh -L ", "Exit status: 0 ",
		}},
		{"health", []string{"health", "--help"}, []string{
			"Examples:\n  caddy green-api health\n", "--address ", "--config ", "--format ", "/green_api/health", "Exit status: 0 ",
			"not_configured,\nstarting, quarantine_closed, queue_draining, ending and unreachable",
		}},
		{"alert", []string{"alert", "--help"}, []string{"test  "}},
		{"alert test", []string{"alert", "test", "--help"}, []string{
			"Examples:\n  caddy green-api alert test\n", "--address ", "--config ", "--format ", "Exit status: 0 ",
		}},
		{"demo", []string{"demo", "--help"}, []string{"Examples:\n  caddy green-api demo\n", "--once ", "--admin ", "Exit status: 0 "}},
		{"schemas", []string{"schemas", "--help"}, []string{"Examples:\n  caddy green-api schemas\n"}},
	} {
		stdout, stderr, code := runCommand(t, dir, "", append([]string{"green-api"}, test.args...)...)
		if code != 0 || stderr != "" {
			t.Errorf("%s: exit code %d, stderr %q", test.name, code, stderr)
		}
		for _, part := range test.want {
			if !strings.Contains(stdout, part) {
				t.Errorf("%s: lacks %q:\n%s", test.name, part, stdout)
			}
		}
	}
	for _, arg := range []string{"chekc", "--verbose"} {
		stdout, stderr, code := runCommand(t, dir, "", "green-api", arg)
		if code != 2 || stdout != "" || !strings.HasPrefix(stderr, "caddy green-api: unknown ") || !strings.Contains(stderr, arg) {
			t.Errorf("%s: exit code %d, want 2; stdout %q, stderr %q", arg, code, stdout, stderr)
		}
	}
}
