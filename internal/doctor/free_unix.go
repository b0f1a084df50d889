//go:build linux || darwin

package doctor

import "syscall"

// free returns how many bytes a user may still write where a path is.
func free(path string) (bytes uint64, ok bool) {
	var stats syscall.Statfs_t
	if err := syscall.Statfs(path, &stats); err != nil {
		return 0, false
	}
	return stats.Bavail * uint64(stats.Bsize), true //nolint:gosec // no file system has blocks of a negative size
}
