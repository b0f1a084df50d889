//go:build race

package edgetest

// RaceDetector reports whether the race detector runs, which allocates by itself.
const RaceDetector = true
