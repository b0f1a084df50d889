//go:build darwin || dragonfly || freebsd || linux

package quarantine

import (
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// Free returns how many bytes this process may still write to the disk of a directory. It does not know of
// quotas.
func Free(dir string) (int64, error) {
	var stat unix.Statfs_t
	for {
		err := unix.Statfs(dir, &stat)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
	}
	// The types differ between systems. Bavail may be below 0 when only root has space left.
	blocks, size := int64(stat.Bavail), int64(stat.Bsize) //nolint:gosec,unconvert // see above
	if blocks > 0 && size > math.MaxInt64/blocks {
		return math.MaxInt64, nil
	}
	return max(blocks, 0) * size, nil
}
