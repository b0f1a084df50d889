package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// volatile are file systems that a restart of the machine empties.
var volatile = []string{"tmpfs", "ramfs", "devtmpfs"}

// cleaned are directories that are emptied now and then.
var cleaned = []string{"/tmp", "/var/tmp", "/run", "/var/run", "/dev/shm"}

// A storeKind is what lost and low say of a store.
type storeKind struct {
	volatile, noVolume Kind
	gone               string // how what is in it goes is added
	option             string // names another directory
}

var (
	ofQuarantine = storeKind{VolatileDisk, NoVolume, "what is kept was answered 200, and is gone with ", "quarantine"}
	ofQueue      = storeKind{QueueVolatile, QueueNoVolume, "what is in the queue was answered 200, and is gone with ", "queue bbolt"}
)

// lost finds a store that disappears with the next restart of the machine or the container.
func lost(q Store, of storeKind, m Machine) []Finding {
	if q.Path == "" {
		return nil
	}
	path, _ := resolved(q.Path)
	path = filepath.ToSlash(path)
	mount := m.mountOf(path)
	switch {
	case slices.Contains(volatile, mount.Type):
		return []Finding{{
			Kind: of.volatile, Level: Error, Where: q.Said, Message: of.gone + "the machine's next start: the directory is in memory (" + mount.Type + ")",
			Fix: "say a directory on a disk, such as '" + of.option + " /var/lib/green-api', inside 'green_api { }' in the block at the top",
		}}
	case slices.ContainsFunc(cleaned, func(dir string) bool { return below(path, dir) || below(q.Path, dir) }):
		return []Finding{{
			Kind: of.volatile, Level: Error, Where: q.Said, Message: of.gone + "the next cleaning of temporary files",
			Fix: "say a directory that stays, such as '" + of.option + " /var/lib/green-api', inside 'green_api { }' in the block at the top",
		}}
	case m.Container != "" && mount.Point == "/":
		return []Finding{{
			Kind: of.noVolume, Level: Error, Where: q.Said, Message: of.gone + "the container: the directory is on no volume",
			Fix: "mount a volume there, as in 'docker run --volume green-api:" + q.Path + "'; in Kubernetes by volumeClaimTemplates",
		}}
	}
	return nil
}

const leastFree = 64 << 20 // in bytes; with less, the disk is nearly full

// low finds a disk that will be full before what is on it is.
func (c Config) low(m Machine) []Finding {
	if m.Free == nil {
		return nil
	}
	kept, queued := c.Quarantine, c.Queue
	const quarantine, lower = "the quarantine", "lower its max_size"
	switch {
	case queued.Path == "":
		return lowAt(m, quarantine, lower, kept)
	case m.onOneDisk(kept.Path, queued.Path):
		return lowAt(m, "the quarantine and the queue together", "lower a max_size", kept, queued)
	}
	return append(lowAt(m, quarantine, lower, kept), lowAt(m, "the queue", lower, queued)...)
}

// onOneDisk reports whether two directories are known to be on one disk.
func (m Machine) onOneDisk(one, other string) bool {
	if one == other {
		return true
	}
	one, _ = resolved(one)
	other, _ = resolved(other)
	mount := m.mountOf(filepath.ToSlash(one))
	return mount.Point != "" && mount == m.mountOf(filepath.ToSlash(other))
}

// lowAt is low for stores on one disk.
func lowAt(m Machine, what, lower string, stores ...Store) []Finding {
	if stores[0].Path == "" {
		return nil
	}
	_, dir := resolved(stores[0].Path)
	free, ok := m.Free(dir)
	if !ok {
		return nil
	}
	var need uint64
	for _, s := range stores {
		need += uint64(max(s.MaxSize, 0))
		if info, err := os.Stat(s.File); err == nil {
			need -= min(uint64(max(s.MaxSize, 0)), uint64(max(info.Size(), 0)))
		}
	}
	f := Finding{
		Kind: DiskLow, Level: Warn, Where: stores[0].Said,
		Message: fmt.Sprintf("the disk has %s free, and %s may take %s more", humanize.IBytes(free), what, humanize.IBytes(need)),
		Fix:     "free some of it, take another disk, or " + lower,
	}
	switch {
	case free < leastFree:
		f.Level, f.Message = Error, fmt.Sprintf("the disk has %s free: when it is full, what must be stored stays with the sender, and its queue stands still", humanize.IBytes(free))
	case free >= need:
		return nil
	}
	return []Finding{f}
}

// resolved returns a path without symbolic links, and the directory that it is in, or would be created in.
func resolved(path string) (real, dir string) {
	rest := ""
	for {
		if dir, err := filepath.EvalSymlinks(path); err == nil {
			return filepath.Join(dir, rest), dir
		}
		parent := filepath.Dir(path)
		if parent == path {
			return filepath.Join(path, rest), path
		}
		path, rest = parent, filepath.Join(filepath.Base(path), rest)
	}
}

// below reports whether a path is a directory or inside it.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// free returns how many bytes may still be written to a directory's disk, if that is known.
func free(dir string) (bytes uint64, ok bool) {
	n, err := quarantine.Free(dir)
	return uint64(max(n, 0)), err == nil
}
