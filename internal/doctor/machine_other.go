//go:build !linux

package doctor

// unsynced is not known here.
func unsynced() bool { return false }
