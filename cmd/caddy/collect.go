package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Go collects garbage when the heap has doubled. An edge at rest has some 10 MiB, so under load that
// is many times a second, for a tenth of its CPU and the slowest of its answers. Here up to 64 MiB of
// garbage may gather first; a heap that is larger than that is collected as Go does it, so that no
// edge needs more than these 64 MiB on top. GOGC, GOMEMLIMIT and Caddy's own memory limit rule all the
// same.
const (
	spare       = 64 << 20
	mostPercent = 1000
)

// collectLater sets the garbage collector to that, and again after each collection. It does nothing
// if the environment has a GOGC.
func collectLater() {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	last := 100
	var adjust func(struct{})
	adjust = func(struct{}) {
		metrics.Read(live)
		if percent := percentFor(live[0].Value.Uint64()); percent < last*9/10 || percent > last*11/10 {
			debug.SetGCPercent(percent)
			last = percent
		}
		// Collected with the next collection, which is when to look again. Not tiny: such are
		// allocated together, and live as long as their neighbours.
		runtime.AddCleanup(new([4]uintptr), adjust, struct{}{})
	}
	adjust(struct{}{})
}

// percentFor is GOGC for a heap of which so many bytes are in use.
func percentFor(live uint64) int {
	return int(min(max(spare*100/max(live, 1), 100), mostPercent))
}
