package watch

import (
	"sync"
	"time"
)

// Disk notices when the quarantine's disk is nearly full, across reloads. The zero value is ready to use.
type Disk struct {
	mu   sync.Mutex
	low  bool
	told time.Time // when the operator was last told
}

// DiskNews is what to tell the operator about a disk.
type DiskNews int

// The news about a disk.
const (
	DiskAsBefore DiskNews = iota
	DiskLow
	DiskEnough
)

const tellDiskLowEvery = 24 * time.Hour

// See compares the free bytes with those wanted, and returns what to tell. A disk that was low has enough
// again only with a tenth more, so that it does not flap.
func (d *Disk) See(free, want int64, now time.Time) DiskNews {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case free < want && (!d.low || now.Sub(d.told) >= tellDiskLowEvery):
		d.low, d.told = true, now
		return DiskLow
	case d.low && free >= want+want/10:
		d.low = false
		return DiskEnough
	}
	return DiskAsBefore
}

// Bounds of the space wanted. A file grows by 16 MiB at a time; 4 GiB do not fill up overnight.
const (
	leastFree = 32 << 20
	mostFree  = 4 << 30
)

// WantFree returns how many bytes should be free for a quarantine that may grow to maxSize: a quarter of
// it, within bounds.
func WantFree(maxSize int64) int64 { return min(max(maxSize/4, leastFree), mostFree) }
