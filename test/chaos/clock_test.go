//go:build clockstep && linux

package greenapi

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// With this tag the standard library has a clock that can be set (`.ci/clock`, `make soak`): a process
// with this variable follows a file that says by how many seconds.
func init() {
	canSetClock = true
	file := os.Getenv(clockVariable)
	if file == "" {
		return
	}
	go func() {
		for ; ; time.Sleep(50 * time.Millisecond) {
			text, err := os.ReadFile(file)
			if err != nil {
				continue // there is no file descriptor left
			}
			if step, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
				time.ClockStep.Store(step)
			}
		}
	}()
}
