package greenapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/judge"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// runCommand runs one of green_api's commands in this process, in a directory if one is named. It is as
// runCaddy, but for what only a process has; TestCommandProcesses has that they are the same.
func runCommand(t *testing.T, dir, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	if dir != "" {
		before, err := os.Getwd()
		if err == nil {
			err = os.Chdir(dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer os.Chdir(before)
	}
	registered := caddycmd.Commands()["green-api"]
	command := &cobra.Command{Use: registered.Name + " " + registered.Usage, Short: registered.Short, Long: registered.Long}
	registered.CobraFunc(command)
	root := &cobra.Command{Use: "caddy", SilenceUsage: true}
	root.AddCommand(command)
	var out, problems bytes.Buffer
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&problems)
	if err := root.Execute(); err != nil {
		code = 1
		fmt.Sscanf(err.Error(), "exiting with status %d", &code)
	}
	return out.String(), problems.String(), code
}

// TestCommandProcesses: a process prints what a command prints, and ends with its exit code.
func TestCommandProcesses(t *testing.T) {
	dir := bodies(t)
	b := newSettingsBench(t)
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback))
	e := edgetest.Start(t, config)
	e.Post(edgetest.Broken("ONE"))
	for _, test := range []struct {
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
		{"chekc", "", 2},
		{"settings set --help", "", 0},
	} {
		args := append([]string{"green-api"}, strings.Fields(test.args)...)
		stdout, stderr, code := edgetest.RunCaddy(t, dir, test.stdin, args...)
		if test.code != code {
			t.Errorf("%s: exit code %d, want %d; stdout %q, stderr %q", test.args, code, test.code, stdout, stderr)
		}
		gotOut, gotErr, gotCode := runCommand(t, dir, test.stdin, args...)
		stdout, _, _ = strings.Cut(stdout, "\nFull documentation is available at:") // Caddy's, after its help
		if gotOut != stdout || gotErr != stderr || gotCode != code {
			t.Errorf("%s: in this process stdout %q, stderr %q, exit code %d; in one of its own %q, %q, %d",
				test.args, gotOut, gotErr, gotCode, stdout, stderr, code)
		}
	}
}

// printedForm is the vendor's documentation, which prints an id with leading zeros.
const printedForm = `{"typeWebhook":"stateInstanceChanged","instanceData":{"idInstance":000001,` +
	`"wid":"79001234567@c.us","typeInstance":"whatsapp"},"timestamp":1700000000,"stateInstance":"authorized"}`

// bodies makes a directory of bodies to check.
func bodies(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range map[string]string{
		"message.json":       edgetest.TextMessage,
		"state.json":         edgetest.StateChanged,
		"new-message.json":   strings.Replace(edgetest.TextMessage, `"textMessage"`, `"brandNewMessage"`, 1),
		"new-type.json":      `{"typeWebhook":"brandNew","instanceData":{"idInstance":"1101000001"}}`,
		"schema.json":        strings.Replace(edgetest.TextMessage, `"a canary sings"`, "5", 1),
		"printed.json":       printedForm,
		"empty.json":         "",
		"terminal.json":      `{"typeWebhook":"red\u001b[31m","instanceData":{"idInstance":1}}`,
		"too-large.json":     edgetest.StateChanged + strings.Repeat(" ", int(judge.Defaults().MaxBody)+1-len(edgetest.StateChanged)),
		"large.json":         edgetest.StateChanged + strings.Repeat(" ", int(judge.Defaults().MaxBody)-len(edgetest.StateChanged)),
		"good/a.json":        edgetest.StateChanged,
		"good/deeper/b.json": edgetest.TextMessage,
		"good/README.md":     "no body",
		"no-json/README.md":  "no body",
		"schemas/brandNew.json": `{"$schema": "https://json-schema.org/draft/2020-12/schema", "required": ["canary"],` +
			` "properties": {"canary": {"type": "string"}}}`,
		"schemas/stateInstanceChanged.json": `{"properties": {"stateInstance": {"enum": ["blocked"]}}}`,
		"broken-schemas/brandNew.json":      `{"type": "text"}`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "partly"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"a.json": "/nonexistent", "b.json": "../state.json"} {
		if err := os.Symlink(target, filepath.Join(dir, "partly", name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestCheckText has what is printed for a reader.
func TestCheckText(t *testing.T) {
	dir := bodies(t)
	for _, test := range []struct {
		name  string
		args  []string
		stdin string
		want  string
		code  int
	}{
		{name: "file", args: []string{"state.json"}, want: "pass        state.json  stateInstanceChanged\n"},
		{name: "message type", args: []string{"message.json"}, want: "pass        message.json  incomingMessageReceived textMessage\n"},
		{name: "format named", args: []string{"--format", "text", "state.json"}, want: "pass        state.json  stateInstanceChanged\n"},
		{name: "stdin", args: []string{"-"}, stdin: edgetest.StateChanged, want: "pass        -  stateInstanceChanged\n"},
		{
			name: "new message type", args: []string{"new-message.json"},
			want: "pass        new-message.json  incomingMessageReceived brandNewMessage  (unknown_message)\n",
		},
		{name: "new type", args: []string{"new-type.json"}, want: "quarantine  new-type.json  brandNew  (unknown_type)\n", code: 1},
		{
			name: "schema", args: []string{"schema.json"}, code: 1,
			want: "quarantine  schema.json  incomingMessageReceived textMessage  (schema)\n" +
				"            /messageData/textMessageData/textMessage: type: want string, got number\n",
		},
		{
			name: "the vendor's printed form", args: []string{"printed.json"}, code: 1,
			want: "quarantine  printed.json  (malformed)\n" +
				"            /instanceData/idInstance: syntax: byte 67: number with a leading zero\n",
		},
		{
			name: "empty", args: []string{"-"}, code: 1,
			want: "quarantine  -  (malformed)\n            /: syntax: byte 0: empty body\n",
		},
		{name: "what would steer a terminal", args: []string{"terminal.json"}, want: "quarantine  terminal.json  red?[31m  (unknown_type)\n", code: 1},
		{
			name: "too large", args: []string{"too-large.json"}, code: 1,
			want: "quarantine  too-large.json  (too_large)\n            /: maxLength: 1048577 bytes; want at most 1048576\n",
		},
		{name: "as large as may be", args: []string{"large.json"}, want: "pass        large.json  stateInstanceChanged\n"},
		{
			name: "directory", args: []string{"good"},
			want: "pass        good/a.json  stateInstanceChanged\npass        good/deeper/b.json  incomingMessageReceived textMessage\n",
		},
		{
			name: "several", args: []string{"state.json", "-", "good", "state.json"}, stdin: "{}", code: 1,
			want: "pass        state.json  stateInstanceChanged\n" +
				"quarantine  -  (malformed)\n            /typeWebhook: syntax: byte 0: no typeWebhook\n" +
				"pass        good/a.json  stateInstanceChanged\npass        good/deeper/b.json  incomingMessageReceived textMessage\n" +
				"pass        state.json  stateInstanceChanged\n",
		},
		{
			name: "schema of one's own", args: []string{"--schemas", "schemas", "new-type.json"}, code: 1,
			want: "quarantine  new-type.json  brandNew  (schema)\n            /canary: required: missing; want a string\n",
		},
		{
			name: "schema in place of a built-in one", args: []string{"--schemas", "schemas", "state.json", "message.json"}, code: 1,
			want: "quarantine  state.json  stateInstanceChanged  (schema)\n            /stateInstance: enum: not one of the values allowed\n" +
				"pass        message.json  incomingMessageReceived textMessage\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			stdout, stderr, code := runCommand(t, dir, test.stdin, append([]string{"green-api", "check"}, test.args...)...)
			if stdout != test.want {
				t.Errorf("got:\n%s\nwant:\n%s", stdout, test.want)
			}
			if code != test.code || stderr != "" {
				t.Errorf("exit code %d, want %d; stderr %q", code, test.code, stderr)
			}
		})
	}
}

// TestCheckJSON has what is printed for a program. Names of fields and outcomes are a contract.
func TestCheckJSON(t *testing.T) {
	dir := bodies(t)
	for _, test := range []struct {
		name string
		args []string
		want []string // without spaces, one a line
		code int
	}{
		{"pass", []string{"message.json"}, []string{
			`{"file":"message.json","type":"incomingMessageReceived","message":"textMessage","instance":"1101000001","outcome":"pass","reason":"","errors":[]}`,
		}, 0},
		{"pass with a remark", []string{"new-message.json"}, []string{
			`{"file":"new-message.json","type":"incomingMessageReceived","message":"brandNewMessage","instance":"1101000001","outcome":"pass","reason":"unknown_message","errors":[]}`,
		}, 0},
		{"quarantine", []string{"new-type.json", "schema.json", "printed.json", "too-large.json"}, []string{
			`{"file":"new-type.json","type":"brandNew","message":"","instance":"1101000001","outcome":"quarantine","reason":"unknown_type","errors":[]}`,
			`{"file":"schema.json","type":"incomingMessageReceived","message":"textMessage","instance":"1101000001","outcome":"quarantine","reason":"schema",` +
				`"errors":[{"pointer":"/messageData/textMessageData/textMessage","keyword":"type","message":"want string, got number"}]}`,
			`{"file":"printed.json","type":"","message":"","instance":"","outcome":"quarantine","reason":"malformed",` +
				`"errors":[{"pointer":"/instanceData/idInstance","keyword":"syntax","message":"byte 67: number with a leading zero"}]}`,
			`{"file":"too-large.json","type":"","message":"","instance":"","outcome":"quarantine","reason":"too_large",` +
				`"errors":[{"pointer":"","keyword":"maxLength","message":"1048577 bytes; want at most 1048576"}]}`,
		}, 1},
		{"directory", []string{"good"}, []string{
			`{"file":"good/a.json","type":"stateInstanceChanged","message":"","instance":"1101000001","outcome":"pass","reason":"","errors":[]}`,
			`{"file":"good/deeper/b.json","type":"incomingMessageReceived","message":"textMessage","instance":"1101000001","outcome":"pass","reason":"","errors":[]}`,
		}, 0},
		{"unreadable among others", []string{"nonexistent.json", "partly", "state.json"}, []string{
			`{"file":"partly/b.json","type":"stateInstanceChanged","message":"","instance":"1101000001","outcome":"pass","reason":"","errors":[]}`,
			`{"file":"state.json","type":"stateInstanceChanged","message":"","instance":"1101000001","outcome":"pass","reason":"","errors":[]}`,
		}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			stdout, _, code := runCommand(t, dir, "", append([]string{"green-api", "check", "--format", "json"}, test.args...)...)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if want := strings.Join(test.want, "\n") + "\n"; stdout != want {
				t.Errorf("got:\n%s\nwant:\n%s", stdout, want)
			}
			for line := range strings.Lines(stdout) {
				wantContract(t, line)
			}
		})
	}
}

// wantContract fails the test unless a line is an object with the members that programs rely on,
// and no others.
func wantContract(t *testing.T, line string) {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(line), &members); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	keys := slices.Sorted(maps.Keys(members))
	if want := []string{"errors", "file", "instance", "message", "outcome", "reason", "type"}; !slices.Equal(keys, want) {
		t.Errorf("members %q, want %q", keys, want)
	}
	var faults []map[string]string
	if err := json.Unmarshal(members["errors"], &faults); err != nil || faults == nil {
		t.Errorf("errors: want a list, got %s", members["errors"])
	}
	for _, fault := range faults {
		keys := slices.Sorted(maps.Keys(fault))
		if want := []string{"keyword", "message", "pointer"}; !slices.Equal(keys, want) {
			t.Errorf("members of an error %q, want %q", keys, want)
		}
	}
}

// TestCheckRefuses has what ends with exit code 2 and says why.
func TestCheckRefuses(t *testing.T) {
	dir := bodies(t)
	const usage = "see 'caddy green-api check --help'\n"
	for _, test := range []struct {
		name string
		args []string
		want []string // parts of stderr
	}{
		{"no arguments", nil, []string{"caddy green-api check: want a file, a directory or -", usage}},
		{"unknown flag", []string{"--schema", "schemas", "state.json"}, []string{"caddy green-api check: unknown flag: --schema", usage}},
		{"flag without value", []string{"state.json", "--format"}, []string{"caddy green-api check: flag needs an argument: --format", usage}},
		{"unknown format", []string{"--format", "yaml", "state.json"}, []string{`caddy green-api check: invalid --format "yaml"; want text or json`, usage}},
		{"schemas missing", []string{"--schemas", "nonexistent", "state.json"}, []string{"caddy green-api check: --schemas: ", "nonexistent: no such file or directory", usage}},
		{"schema broken", []string{"--schemas", "broken-schemas", "state.json"}, []string{"caddy green-api check: --schemas: ", "brandNew.json", usage}},
		{"file missing", []string{"nonexistent.json"}, []string{"caddy green-api check: ", "nonexistent.json: no such file or directory"}},
		{"file unreadable", []string{"partly/a.json"}, []string{"caddy green-api check: ", "partly/a.json: no such file or directory"}},
		{"directory without bodies", []string{"no-json"}, []string{"caddy green-api check: no-json: no *.json file in it"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			stdout, stderr, code := runCommand(t, dir, "", append([]string{"green-api", "check"}, test.args...)...)
			if code != 2 || stdout != "" {
				t.Errorf("exit code %d, want 2; stdout %q", code, stdout)
			}
			for _, part := range test.want {
				if !strings.Contains(stderr, part) {
					t.Errorf("stderr lacks %q:\n%s", part, stderr)
				}
			}
		})
	}
	t.Run("others are checked all the same", func(t *testing.T) {
		stdout, stderr, code := runCommand(t, dir, "", "green-api", "check", "partly", "nonexistent.json", "schema.json")
		if code != 2 {
			t.Errorf("exit code %d, want 2", code)
		}
		for _, part := range []string{"pass        partly/b.json", "quarantine  schema.json"} {
			if !strings.Contains(stdout, part) {
				t.Errorf("stdout lacks %q:\n%s", part, stdout)
			}
		}
		for _, part := range []string{"partly/a.json: no such file", "nonexistent.json: no such file"} {
			if !strings.Contains(stderr, part) {
				t.Errorf("stderr lacks %q:\n%s", part, stderr)
			}
		}
	})
}

func TestSchemasCommand(t *testing.T) {
	dir := bodies(t)
	names, err := fs.Glob(notification.SchemaFiles(), "*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("no schemas: %v", err)
	}

	stdout, stderr, code := runCommand(t, dir, "", "green-api", "schemas")
	if want := strings.Join(names, "\n") + "\n"; stdout != want || stderr != "" || code != 0 {
		t.Errorf("names: exit code %d, stderr %q, stdout:\n%s", code, stderr, stdout)
	}

	stdout, stderr, code = runCommand(t, dir, "", "green-api", "schemas", "written/schemas")
	if !strings.HasSuffix(stdout, " schemas to written/schemas\n") || stderr != "" || code != 0 {
		t.Errorf("write: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	written, err := os.ReadDir(filepath.Join(dir, "written", "schemas"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, entry := range written {
		got = append(got, entry.Name())
	}
	if !slices.Equal(got, names) {
		t.Errorf("wrote %q, want %q", got, names)
	}
	for _, name := range names {
		want, err := fs.ReadFile(notification.SchemaFiles(), name)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(filepath.Join(dir, "written", "schemas", name)); err != nil || !bytes.Equal(text, want) {
			t.Errorf("%s is not the built-in one (%v)", name, err)
		}
	}

	stdout, stderr, code = runCommand(t, dir, "", "green-api", "check", "--schemas", "written/schemas", "message.json", "state.json")
	if strings.Count(stdout, "pass ") != 2 || code != 0 {
		t.Errorf("what was written does not load: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}

	changed := filepath.Join(dir, "written", "schemas", names[0])
	if err := os.WriteFile(changed, []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code = runCommand(t, dir, "", "green-api", "schemas", "written/schemas")
	if code != 2 || stdout != "" || !strings.Contains(stderr, names[0]+" is there already") {
		t.Errorf("again: exit code %d, want 2; stdout %q, stderr %q", code, stdout, stderr)
	}
	if text, err := os.ReadFile(changed); err != nil || string(text) != `{}` {
		t.Errorf("written over: %q (%v)", text, err)
	}

	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"two directories", []string{"a", "b"}, "caddy green-api schemas: accepts at most 1 arg(s), received 2\n"},
		{"no directory", []string{"state.json/schemas"}, "caddy green-api schemas: mkdir state.json: not a directory\n"},
		{"unknown flag", []string{"--dir", "a"}, "caddy green-api schemas: unknown flag: --dir\n"},
	} {
		stdout, stderr, code := runCommand(t, dir, "", append([]string{"green-api", "schemas"}, test.args...)...)
		if want := test.want + "see 'caddy green-api schemas --help'\n"; code != 2 || stdout != "" || stderr != want {
			t.Errorf("%s: exit code %d, want 2; stdout %q, stderr %q", test.name, code, stdout, stderr)
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
			"--in-flight ", "--attempts ", "--format ", "Exit status: 0 ",
		}},
		{"listen", []string{"listen", "--help"}, []string{"Examples:\n  caddy green-api listen ", "--address ", "--status ", "--delay ", "--forward "}},
		{"settings", []string{"settings", "--help"}, []string{"get  ", "set  ", "GREEN_API_API_TOKEN"}},
		{"settings get", []string{"settings", "get", "--help"}, []string{
			"caddy green-api settings get 1101000001\n", "--api-token ", "--api-url ", "--instances ", "--format ", "Exit status: 0 ",
		}},
		{"settings set", []string{"settings", "set", "--help"}, []string{
			"Examples:\n  caddy green-api settings set 1101000001 --url https", "--url ", "--token ", "--switch ", "--all ", "--dry-run ", "--wait ",
			"--wait-timeout ", "incomingWebhook, ", "unchanged, dry_run, saved,\nin_force and failed", "Exit status: 0 ",
		}},
		{"quarantine list", []string{"quarantine", "list", "--help"}, []string{"--limit ", "Exit status: 0 "}},
		{"quarantine show", []string{"quarantine", "show", "--help"}, []string{"Exit status: 0 ", "1 if no entry has the id"}},
		{"quarantine export", []string{"quarantine", "export", "--help"}, []string{"Exit status: 0 "}},
		{"quarantine replay", []string{"quarantine", "replay", "--help"}, []string{"Exit status: 0 ", "Of ids beside a filter"}},
		{"quarantine delete", []string{"quarantine", "delete", "--help"}, []string{"Exit status: 0 ", "Of ids beside a filter"}},
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
