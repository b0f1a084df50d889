package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Machine is what the doctor needs to know about the machine that an edge runs on. What it cannot see is
// left out.
type Machine struct {
	Now       time.Time
	Unsynced  bool   // the kernel says that nothing synchronizes its clock
	Container string // the kind of container that it is; "" for none
	Mounts    []Mount
	Units     []Unit // the ones that run the config
	Sockets   []Socket
	Free      func(path string) (bytes uint64, ok bool)
}

// Kubernetes is the kind of a container in a pod.
const Kubernetes = "kubernetes"

// A Mount is a file system and where it is mounted.
type Mount struct{ Point, Type string }

// Look examines this machine. file is the config that the edge runs with.
func Look(file string) Machine { return lookAt("/", file, os.Getenv) }

// lookAt examines the machine whose root is a directory.
func lookAt(root, file string, getenv func(string) string) Machine {
	m := Machine{
		Now: time.Now(), Unsynced: unsynced(), Container: container(root, getenv), Units: units(root, file),
		Sockets: sockets(root, file), Free: free,
	}
	mounts, err := os.ReadFile(filepath.Join(root, "proc/self/mountinfo")) //nolint:gosec // root is / or a test's
	if err == nil {
		m.Mounts = parseMounts(string(mounts))
	}
	return m
}

func container(root string, getenv func(string) string) string {
	if getenv("KUBERNETES_SERVICE_HOST") != "" {
		return Kubernetes
	}
	for _, sign := range []struct{ file, by string }{{".dockerenv", "docker"}, {"run/.containerenv", "podman"}} {
		if _, err := os.Stat(filepath.Join(root, sign.file)); err == nil {
			return sign.by
		}
	}
	return ""
}

// parseMounts parses /proc/self/mountinfo.
func parseMounts(text string) (mounts []Mount) {
	for line := range strings.Lines(text) {
		before, after, _ := strings.Cut(line, " - ")
		place, kind := strings.Fields(before), strings.Fields(after)
		if len(place) > 4 && len(kind) > 0 {
			mounts = append(mounts, Mount{unescape(place[4]), kind[0]})
		}
	}
	return mounts
}

// unescape decodes a path as the kernel writes it: blanks and backslashes are \ooo.
func unescape(text string) string {
	var plain strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+3 < len(text) {
			if code, err := strconv.ParseUint(text[i+1:i+4], 8, 8); err == nil {
				plain.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		plain.WriteByte(text[i])
	}
	return plain.String()
}

// mountOf returns the file system that a path is on: among the longest matching mount points, the last
// mounted.
func (m Machine) mountOf(path string) (on Mount) {
	for _, mount := range m.Mounts {
		if below(path, mount.Point) && len(mount.Point) >= len(on.Point) {
			on = mount
		}
	}
	return on
}

// clock finds a machine whose clock is or may become wrong.
func (m Machine) clock(known time.Time) []Finding {
	f := Finding{Kind: Clock, Where: "this machine", Fix: "'timedatectl set-ntp true', or let chrony keep it"}
	switch {
	case m.Now.Before(known):
		f.Level, f.Message = Error, fmt.Sprintf("the clock says %s, and it is %s at least: certificates fail, and so does what goes by a notification's age",
			m.Now.Format(time.DateOnly), known.Format(time.DateOnly))
	case m.Unsynced:
		f.Level, f.Message = Warn, "nothing keeps the clock right: certificates, a notification's age and the quarantine's max_age go by it"
	default:
		return nil
	}
	return []Finding{f}
}
