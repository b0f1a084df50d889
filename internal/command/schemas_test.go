package command_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/notification"
)

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
