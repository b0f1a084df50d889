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

// cleaned are directories that are emptied at times.
var cleaned = []string{"/tmp", "/var/tmp", "/run", "/var/run", "/dev/shm"}

// lost finds a quarantine that goes away with the machine's or the container's next restart.
func lost(q Quarantine, m Machine) []Finding {
	if q.Path == "" {
		return nil
	}
	path, _ := resolved(q.Path)
	path = filepath.ToSlash(path)
	mount := m.mountOf(path)
	const gone = "what is kept was answered 200, and is gone with "
	switch {
	case slices.Contains(volatile, mount.Type):
		return []Finding{{
			Kind: VolatileDisk, Level: Error, Where: q.Said, Message: gone + "the machine's next start: the directory is in memory (" + mount.Type + ")",
			Fix: "say a directory on a disk, such as 'quarantine /var/lib/green-api'",
		}}
	case slices.ContainsFunc(cleaned, func(dir string) bool { return below(path, dir) || below(q.Path, dir) }):
		return []Finding{{
			Kind: VolatileDisk, Level: Error, Where: q.Said, Message: gone + "the next cleaning of temporary files",
			Fix: "say a directory that stays, such as 'quarantine /var/lib/green-api'",
		}}
	case m.Container != "" && mount.Point == "/":
		return []Finding{{
			Kind: NoVolume, Level: Error, Where: q.Said, Message: gone + "the container: the directory is on no volume",
			Fix: "mount a volume there, as in 'docker run --volume green-api:" + q.Path + "'; in Kubernetes by volumeClaimTemplates",
		}}
	}
	return nil
}

const leastFree = 64 << 20 // bytes; below, a full disk is near

// low finds a disk that is full before the quarantine is.
func low(q Quarantine, m Machine) []Finding {
	if q.Path == "" || m.Free == nil {
		return nil
	}
	_, dir := resolved(q.Path)
	free, ok := m.Free(dir)
	if !ok {
		return nil
	}
	need := uint64(max(q.MaxSize, 0))
	if info, err := os.Stat(q.File); err == nil {
		need -= min(need, uint64(max(info.Size(), 0)))
	}
	f := Finding{
		Kind: DiskLow, Level: Warn, Where: q.Said,
		Message: fmt.Sprintf("the disk has %s free, and the quarantine may take %s more", humanize.IBytes(free), humanize.IBytes(need)),
		Fix:     "free some of it, move the quarantine to another disk, or lower its max_size",
	}
	switch {
	case free < leastFree:
		f.Level, f.Message = Error, fmt.Sprintf("the disk has %s free: when it is full, what no handler can be given stays with the sender, and its queue stands still", humanize.IBytes(free))
	case free >= need:
		return nil
	}
	return []Finding{f}
}

// resolved returns a path without symbolic links, and the directory that it is in, or would be made in.
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

// below reports whether a path is a directory or in it.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// free returns how many bytes may still be written to the disk of a directory, if that is known.
func free(dir string) (bytes uint64, ok bool) {
	n, err := quarantine.Free(dir)
	return uint64(max(n, 0)), err == nil
}
