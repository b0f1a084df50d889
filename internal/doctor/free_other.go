//go:build !linux && !darwin

package doctor

// free is not known here.
func free(string) (bytes uint64, ok bool) { return 0, false }
