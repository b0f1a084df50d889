//go:build linux

// Package deploy runs what deploy/ has: each config with the commands and under the limits of the files around it, as
// plain processes. What would need systemd itself, a container engine or a cluster is checked as far as it can be
// without.
package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/greenapi-community/caddy-green-api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestMain gives the tests directories of their own, and can be Caddy itself.
func TestMain(m *testing.M) { edgetest.Main(m) }

// top is the repository's directory, from here.
var top = filepath.Join("..", "..")

// read returns a file of the repository.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// find returns what the first group of a pattern finds in a text, which must be there once.
func find(t *testing.T, text, pattern string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)`+pattern).FindAllStringSubmatch(text, -1)
	if len(found) != 1 {
		t.Fatalf("%q is there %d times, want once", pattern, len(found))
	}
	return found[0][1]
}

// seconds returns a number of seconds that a pattern finds.
func seconds(t *testing.T, text, pattern string) time.Duration {
	t.Helper()
	n, err := strconv.Atoi(find(t, text, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(n) * time.Second
}

// change replaces texts, in pairs, of which each must be there.
func change(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("no %q in:\n%s", pairs[i], text)
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

// need skips a test where a program is missing. The gate must have it.
func need(t *testing.T, program, where string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing: %s", program, where)
	}
	t.Skipf("%s is missing: %s", program, where)
}

// needRoot skips a test that has to be another user, or to change its root directory.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("not root")
	}
	t.Skip("not root")
}

// once skips a test of files, in which a race detector finds nothing, when it runs.
func once(t *testing.T) {
	t.Helper()
	if edgetest.RaceDetector {
		t.Skip("no race to be found in here")
	}
}

// run runs a program and returns what it prints.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	return runCmd(t, exec.Command(name, args...))
}

func runCmd(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out.String(), problems.String())
	}
	return out.String()
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

var built struct {
	sync.Once
	file string
	err  error
}

// binary builds the edge as a release has it, once.
func binary(t *testing.T) string {
	t.Helper()
	built.Do(func() {
		built.file = filepath.Join(filepath.Dir(os.Getenv("XDG_DATA_HOME")), "caddy-green-api") // goes with the tests' own
		var out []byte
		if out, built.err = exec.Command(filepath.Join(top, "deploy", "build"), "v0.0.0", built.file).CombinedOutput(); built.err != nil {
			os.Stderr.Write(out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.file
}
