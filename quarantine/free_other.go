//go:build !(darwin || dragonfly || freebsd || linux || windows)

package quarantine

import "errors"

// Free returns errors.ErrUnsupported: free disk space cannot be determined on this system.
func Free(string) (int64, error) { return 0, errors.ErrUnsupported }
