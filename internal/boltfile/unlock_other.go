//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package boltfile

import "os"

// unlock does nothing: closing the file releases the lock on it.
func unlock(*os.File) {}
