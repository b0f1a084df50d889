//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package quarantine

import (
	"os"
	"syscall"
)

// unlock releases the lock on file. Closing alone does not while the file is still mapped to memory.
func unlock(file *os.File) {
	_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
}
