//go:build unix

package follow

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestNotRegular: what may never come to an end is not read, neither at load nor later.
func TestNotRegular(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, "/dev/zero", t.TempDir()} {
		f := newLoaded(t, "1 a\n")
		f.remove()
		if err := os.Symlink(path, f.Path); err != nil {
			t.Fatal(err)
		}
		f.look()
		f.look()
		if len(f.told) != 1 || !errors.Is(f.told[0], ErrNotRegular) || len(f.names) != 1 {
			t.Errorf("%s: %v", path, f.told)
		}
		if err := f.Load(); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: at load: %v", path, err)
		}
	}
}
