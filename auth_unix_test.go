//go:build unix

package greenapi

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestNotRegular: what may never come to an end is not read, neither as a file that is followed nor as a placeholder.
func TestNotRegular(t *testing.T) {
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
}
