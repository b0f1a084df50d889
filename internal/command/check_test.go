package command_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/judge"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

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

// TestCheckExport: check judges an exported entry by what it came with, and says what an export lacks.
func TestCheckExport(t *testing.T) {
	dir := t.TempDir()
	check := func(lines ...string) (stdout, stderr string, code int) {
		t.Helper()
		file := filepath.Join(dir, "kept.jsonl")
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return runCommand(t, "", "", "green-api", "check", file)
	}
	entry := func(body, name, value string) string {
		e := quarantine.Entry{ID: "20261121T034150123-0000002a", Received: time.Unix(1, 0), Body: []byte(body)}
		if name != "" {
			e.Header = map[string][]string{name: {value}}
		}
		line, err := json.Marshal(api.Show(e))
		if err != nil {
			t.Fatal(err)
		}
		return string(line)
	}
	for _, test := range []struct {
		line, want string
		code       int
	}{
		{entry(edgetest.TextMessage, "", ""), "pass", 0},
		{entry(edgetest.TextMessage, "Content-Type", notification.ContentType), "pass", 0},
		{entry(edgetest.TextMessage, "content-type", "application/x-www-form-urlencoded"), "(encoding)", 1},
		{entry(edgetest.TextMessage, "Content-Type", "application/json; charset=utf-16"), "(encoding)", 1},
		{entry(edgetest.TextMessage, "Content-Encoding", "gzip"), "(encoding)", 1},
		{entry(edgetest.TextMessage+strings.Repeat(" ", 1<<20), "", ""), "(too_large)", 1},
	} {
		if stdout, stderr, code := check(test.line); code != test.code || !strings.Contains(stdout, test.want) || stderr != "" {
			t.Errorf("%.300s: exit code %d, want %d and %q; stdout %q, stderr %q", test.line, code, test.code, test.want, stdout, stderr)
		}
	}
	stdout, stderr, code := check(entry(edgetest.TextMessage, "", ""), `{"error":"entry \"x\": quarantine is damaged","entry":"x"}`, entry(edgetest.TextMessage, "", ""))
	if code != 2 || strings.Count(stdout, "pass") != 2 || !strings.Contains(stderr, "quarantine is damaged") {
		t.Errorf("with an entry that could not be read: exit code %d, %q, %q", code, stdout, stderr)
	}
	if stdout, _, code := check(`{"error":"x"}`); code != 1 || !strings.Contains(stdout, "(malformed)") {
		t.Errorf("a body that looks like an error: exit code %d, %q", code, stdout)
	}
}
