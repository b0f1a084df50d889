package greenapi

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

var update = flag.Bool("update", false, "rewrite the second half of each file in testdata/caddyfile")

// goldenSeparator is between a Caddyfile and what becomes of it.
const goldenSeparator = "----------\n"

// TestCaddyfile adapts the first half of each file and compares with the second: pretty-printed
// JSON, or in error_* the whole message. What adapts must also load.
func TestCaddyfile(t *testing.T) {
	for _, name := range []string{"GREEN_API_TOKEN", "GREEN_API_OLD_TOKEN", "TOKEN_1101000001", "ALERT_TOKEN"} {
		t.Setenv(name, "demo-"+strings.ToLower(name))
	}
	files, err := filepath.Glob("testdata/caddyfile/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".caddyfiletest")
		t.Run(name, func(t *testing.T) {
			golden, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			config, want, found := strings.Cut(string(golden), goldenSeparator)
			if !found {
				t.Fatalf("no line %q", strings.TrimSpace(goldenSeparator))
			}
			got := adaptGolden(t, config, strings.HasPrefix(name, "error_"))
			if *update {
				if err := os.WriteFile(file, []byte(config+goldenSeparator+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// adaptGolden returns what a Caddyfile becomes: JSON that loads, or if wantErr an error message.
func adaptGolden(t *testing.T, config string, wantErr bool) string {
	t.Helper()
	text, warnings, err := adaptFully(config)
	if wantErr {
		if err == nil {
			t.Fatalf("adapts, want an error:\n%s", text)
		}
		return err.Error() + "\n"
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, warning := range warnings {
		t.Errorf("warning: %s", warning)
	}
	if err := validate(text); err != nil {
		t.Errorf("does not load: %v", err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, text, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return pretty.String() + "\n"
}

func adaptFully(config string) ([]byte, []caddyconfig.Warning, error) {
	return caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
}

// validate provisions a config as `caddy validate` does, without a word on the terminal. A panic is
// an error like others, so that the case is named.
func validate(text []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	var config caddy.Config
	if err := caddy.StrictUnmarshalJSON(text, &config); err != nil {
		return err
	}
	if config.Logging == nil {
		config.Logging = new(caddy.Logging)
	}
	if config.Logging.Logs == nil {
		discard := caddy.BaseLog{WriterRaw: json.RawMessage(`{"output": "discard"}`)}
		config.Logging.Logs = map[string]*caddy.CustomLog{"default": {BaseLog: discard}}
	}
	return caddy.Validate(&config)
}
