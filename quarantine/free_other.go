//go:build !(darwin || dragonfly || freebsd || linux || windows)

package quarantine

import "errors"

// Free returns errors.ErrUnsupported: how much is free on a disk is not known here.
func Free(string) (int64, error) { return 0, errors.ErrUnsupported }
