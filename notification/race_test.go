//go:build race

package notification

// raceDetector is on: a pool then drops some of what is put back, so allocations are not counted.
const raceDetector = true
