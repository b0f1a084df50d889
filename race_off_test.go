//go:build !race

package greenapi

const raceDetector = false
