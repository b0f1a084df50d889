package watch

import (
	"sync"
	"time"
)

// Disk notices when little is free on the quarantine's disk, across reloads. The zero value is ready.
type Disk struct {
	mu   sync.Mutex
	low  bool
	told time.Time // when the operator was last told that it is low
}

// DiskNews is what the operator is to be told of a disk.
type DiskNews int

// What there is to tell.
const (
	DiskAsBefore DiskNews = iota
	DiskLow
	DiskEnough
)

const tellDiskLowEvery = 24 * time.Hour

// See notes how many bytes are free and how many are to be, and returns what there is to tell. A disk that
// was low has enough only with a tenth more, so that it does not go to and fro.
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

// The bounds of what is to be free. A file grows by 16 MiB at a time; 4 GiB do not fill up overnight.
const (
	leastFree = 32 << 20
	mostFree  = 4 << 30
)

// WantFree returns how many bytes are to be free for a quarantine that may grow to a size: a quarter of it,
// within bounds.
func WantFree(maxSize int64) int64 { return min(max(maxSize/4, leastFree), mostFree) }
