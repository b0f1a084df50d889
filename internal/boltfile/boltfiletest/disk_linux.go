package boltfiletest

import (
	"syscall"
	"testing"
)

// LimitFiles bounds the size to which this process can write files.
func LimitFiles(size uint64) error {
	limit := syscall.Rlimit{}
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	limit.Cur = min(size, limit.Max)
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)
}

// SmallDisk returns a directory on a file system of 1 MiB. Only root can mount one; for others the test is skipped.
// Call unmount when nothing in it is open any more.
func SmallDisk(t *testing.T) (dir string, unmount func()) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("mounting a small file system:", err)
	}
	return dir, func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}
}
