package garbage

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"
)

// TestPercentFor: a small heap may grow by 64 MiB, a large one doubles.
func TestPercentFor(t *testing.T) {
	for _, test := range []struct {
		live uint64
		want int
	}{
		{0, 1000}, {1 << 20, 1000}, {8 << 20, 800}, {32 << 20, 200}, {64 << 20, 100}, {1 << 30, 100},
	} {
		if got := percentFor(test.live); got != test.want {
			t.Errorf("%d MiB: %d %%, want %d", test.live>>20, got, test.want)
		}
	}
}

var inUse atomic.Pointer[[200 << 20]byte]

// percent is what is set now.
func percent() int {
	now := debug.SetGCPercent(100)
	debug.SetGCPercent(now)
	return now
}

// TestCollectLater: the setting follows the heap, up and down.
func TestCollectLater(t *testing.T) {
	if os.Getenv("GOGC") != "" {
		t.Skip("GOGC is set, and rules")
	}
	before := percent()
	defer debug.SetGCPercent(before)
	CollectLater()
	inUse.Store(new([200 << 20]byte))
	wait := func(what string, reached func(int) bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !reached(percent()); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d %%", what, percent())
			}
			runtime.GC()
		}
	}
	wait("with 200 MiB in use", func(p int) bool { return p == 100 })
	inUse.Store(nil)
	wait("with next to nothing", func(p int) bool { return p > 500 })
}
