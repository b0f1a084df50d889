// Package adopt holds the pages for newcomers to what they say: with a real nginx, real handlers, several edges and
// what stands in front of them, and by making the mistakes of docs/troubleshooting.md.
package adopt

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/caddyserver/caddy/v2"

	_ "github.com/greenapi-community/caddy-green-api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestMain gives the tests directories of their own, and can be Caddy itself.
func TestMain(m *testing.M) { edgetest.Main(m) }

// page returns a file of the repository.
func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// needs returns the path of a program. Without it the test is skipped, but .ci/run has to install it.
func needs(t *testing.T, program, debian string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if errors.Is(err, exec.ErrNotFound) {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing: .ci/run installs it (Debian: %s)", program, debian)
		}
		t.Skipf("%s is not installed (Debian: %s)", program, debian)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// stopCaddy ends the edge that runs in this process.
func stopCaddy(t *testing.T) {
	t.Helper()
	if err := caddy.Stop(); err != nil {
		t.Error(err)
	}
}
