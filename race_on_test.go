//go:build race

package greenapi

// raceDetector tells whether the race detector runs, which allocates by itself.
const raceDetector = true
