//go:build !race

package notification

const raceDetector = false
