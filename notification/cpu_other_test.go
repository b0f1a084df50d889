//go:build !unix

package notification

import "time"

func cpuTime() time.Duration { return 0 }
