// Package garbage lets garbage accumulate before it is collected.
package garbage

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// Go collects garbage whenever the heap has doubled. An idle edge has some 10 MiB, so under load that
// happens many times a second, and costs a tenth of its CPU and its slowest answers. Here up to 64 MiB of
// garbage may accumulate first. A heap larger than that is collected as usual, so no edge needs more than
// these 64 MiB extra. GOGC, GOMEMLIMIT and Caddy's own memory limit still apply.
const (
	spare       = 64 << 20
	mostPercent = 1000
)

// CollectLater sets the garbage collector accordingly, and again after each collection. It does nothing if
// the environment sets GOGC.
func CollectLater() {
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
		// Freed by the next collection, which is when to adjust again. It is not tiny: tiny objects are
		// allocated together and live as long as their neighbours.
		runtime.AddCleanup(new([4]uintptr), adjust, struct{}{})
	}
	adjust(struct{}{})
}

// percentFor returns the GOGC for a heap with this many bytes in use.
func percentFor(live uint64) int {
	return int(min(max(spare*100/max(live, 1), 100), mostPercent))
}
