package quarantine

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// TestFree: what is free on the disk of a directory is what the system's own tool says.
func TestFree(t *testing.T) {
	dir := t.TempDir()
	free, err := Free(dir)
	if err != nil {
		t.Fatal(err)
	}
	if free <= 0 {
		t.Errorf("%d bytes are free", free)
	}
	if _, err := Free(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of a directory that is not there: %v", err)
	}
	if runtime.GOOS == "windows" {
		t.Skip("no df to compare with")
	}
	said, err := exec.Command("df", "-Pk", dir).Output()
	if err != nil {
		t.Skip("no df to compare with:", err)
	}
	fields := strings.Fields(string(said[strings.IndexByte(string(said), '\n')+1:]))
	available, err := strconv.ParseInt(fields[3], 10, 64)
	if err != nil {
		t.Fatalf("%v of %s", err, said)
	}
	if off := free - available<<10; off < -1<<30 || off > 1<<30 { // others write, too
		t.Errorf("%d bytes are free, and df says %d", free, available<<10)
	}
}
