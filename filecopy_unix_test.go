//go:build unix

package greenapi

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestFollowNotRegular: what may never come to an end is not read: neither at load, nor later, nor as
// a placeholder.
func TestFollowNotRegular(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, "/dev/zero", t.TempDir()} {
		for _, block := range []string{
			"auth {\ninstances " + path + "\n}", "auth {\ntoken {file." + path + "}\n}",
			"ip_filter {\nsource green_api_file " + path + "\n}\nauth off",
		} {
			if err := loadConfig(t, strings.ReplaceAll(edgetest.Site(block), "PORT", "8080")); err == nil || !strings.Contains(err.Error(), "not a regular file") {
				t.Errorf("%s: %v", block, err)
			}
		}
	}
	f := newFollower(t, "1 a\n")
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(pipe, f.path); err != nil {
		t.Fatal(err)
	}
	f.look()
	f.look()
	if len(f.notes) != 1 || !strings.Contains(f.notes[0].More, "not a regular file") || f.inForce() != 1 {
		t.Errorf("%v", f.notes)
	}
}
