package watch

import (
	"testing"
	"time"
)

// TestDisk: that little is free is told once, and again each day as long as it lasts; that enough is free
// again once, and not while it is about at the limit.
func TestDisk(t *testing.T) {
	var d Disk
	began := time.Now()
	for i, test := range []struct {
		after time.Duration
		free  int64
		want  DiskNews
	}{
		{0, 1000, DiskAsBefore},
		{time.Minute, 999, DiskLow},
		{2 * time.Minute, 500, DiskAsBefore},
		{3 * time.Minute, 1000, DiskAsBefore},
		{4 * time.Minute, 1099, DiskAsBefore},
		{5 * time.Minute, 999, DiskAsBefore},
		{24 * time.Hour, 0, DiskAsBefore},
		{24*time.Hour + time.Minute, 0, DiskLow},
		{24*time.Hour + 2*time.Minute, 0, DiskAsBefore},
		{24*time.Hour + 3*time.Minute, 1100, DiskEnough},
		{24*time.Hour + 4*time.Minute, 1100, DiskAsBefore},
		{24*time.Hour + 5*time.Minute, 999, DiskLow}, // another time, however soon
		{24*time.Hour + 6*time.Minute, 5000, DiskEnough},
		{96 * time.Hour, 5000, DiskAsBefore},
	} {
		if got := d.See(test.free, 1000, began.Add(test.after)); got != test.want {
			t.Errorf("%d: %d free after %s: %v, want %v", i, test.free, test.after, got, test.want)
		}
	}
}

// TestWantFree: what is to be free is in proportion to what the quarantine may grow to.
func TestWantFree(t *testing.T) {
	for maxSize, want := range map[int64]int64{
		1 << 20: 32 << 20, 128 << 20: 32 << 20, 1 << 30: 256 << 20, 16 << 30: 4 << 30, 1 << 40: 4 << 30,
	} {
		if got := WantFree(maxSize); got != want {
			t.Errorf("for max_size %d: %d, want %d", maxSize, got, want)
		}
	}
}
