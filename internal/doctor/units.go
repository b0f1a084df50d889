package doctor

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Unit is a systemd service that runs an edge.
type Unit struct {
	Name, File string
	Stop       time.Duration // from the start of a stop until it is killed; 0 for never
}

// unitDirs are the directories in which systemd looks for units, in order of precedence.
var unitDirs = []string{"etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}

// systemdStop is how long systemd waits by default.
const systemdStop = 90 * time.Second

// units returns the services that run Caddy with a config.
func units(root, file string) (found []Unit) {
	files := make(map[string]string) // by name
	for _, dir := range unitDirs {
		services, _ := filepath.Glob(filepath.Join(root, dir, "*.service")) // the pattern is good
		for _, path := range services {
			if name := filepath.Base(path); files[name] == "" {
				files[name] = path
			}
		}
	}
	usual := systemdStop
	for _, path := range append([]string{filepath.Join(root, "etc/systemd/system.conf")}, dropIns(root, "system.conf.d", "etc/systemd", "run/systemd", "usr/lib/systemd")...) {
		if said := readUnit(path).last("Manager", "DefaultTimeoutStopSec"); said != "" {
			usual = timeSpan(said, usual)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		unit := readUnit(files[name])
		for _, path := range dropIns(root, name+".d", unitDirs...) {
			unit = append(unit, readUnit(path)...)
		}
		if !unit.runs(root, file) {
			continue
		}
		stop := usual
		for _, line := range unit {
			if line.section == "Service" && (line.name == "TimeoutStopSec" || line.name == "TimeoutSec") {
				stop = timeSpan(line.value, usual)
			}
		}
		found = append(found, Unit{name, "/" + strings.TrimPrefix(filepath.ToSlash(strings.TrimPrefix(files[name], root)), "/"), stop})
	}
	return found
}

// dropIns returns the *.conf files of a directory that may be in several places, in the order of their
// names. Of two with the same name it returns the one with precedence.
func dropIns(root, dir string, places ...string) (paths []string) {
	byName := make(map[string]string)
	for _, place := range places {
		files, _ := filepath.Glob(filepath.Join(root, place, dir, "*.conf")) // the pattern is good
		for _, path := range files {
			if name := filepath.Base(path); byName[name] == "" {
				byName[name] = path
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		paths = append(paths, byName[name])
	}
	return paths
}

// A unitFile is the lines of a unit, with those of its drop-ins.
type unitFile []unitLine

type unitLine struct{ section, name, value string }

// readUnit reads a systemd file. An unreadable one has no lines.
func readUnit(path string) (lines unitFile) {
	text, err := os.ReadFile(path) //nolint:gosec // systemd's own
	if err != nil {
		return nil
	}
	section := ""
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
			continue
		}
		name, value, _ := strings.Cut(line, "=")
		lines = append(lines, unitLine{section, strings.TrimSpace(name), strings.TrimSpace(value)})
	}
	return lines
}

func (u unitFile) last(section, name string) (value string) {
	for _, line := range u {
		if line.section == section && line.name == name {
			value = line.value
		}
	}
	return value
}

// runs reports whether the unit runs Caddy with a config.
func (u unitFile) runs(root, file string) (yes bool) {
	dir := u.last("Service", "WorkingDirectory")
	for _, line := range u {
		if line.section == "Service" && line.name == "ExecStart" {
			yes = line.value != "" && (yes || runsWith(strings.Fields(line.value), filepath.Join(root, dir), file)) // an empty one resets the list
		}
	}
	return yes
}

// runsWith reports whether a command line is that of an edge with a config. If none is named, Caddy uses
// the Caddyfile in its directory.
func runsWith(args []string, dir, file string) bool {
	at := slices.Index(args, "run")
	if at < 1 {
		return false
	}
	named := ""
	for i, arg := range args[at+1:] {
		name, value, inOne := strings.Cut(arg, "=")
		if name != "--config" && name != "-c" {
			continue
		}
		if named = value; !inOne && at+i+2 < len(args) {
			named = args[at+i+2]
		}
	}
	named = strings.Trim(named, `"'`)
	if named == "" {
		named = "Caddyfile"
	}
	if !filepath.IsAbs(named) {
		named = filepath.Join(dir, named)
	}
	return sameFile(named, file)
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a) //nolint:gosec // what a unit of this machine names
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}

// spans are systemd's units of time.
var spans = map[string]time.Duration{
	"us": time.Microsecond, "usec": time.Microsecond, "ms": time.Millisecond, "msec": time.Millisecond,
	"": time.Second, "s": time.Second, "sec": time.Second, "second": time.Second, "seconds": time.Second,
	"m": time.Minute, "min": time.Minute, "minute": time.Minute, "minutes": time.Minute,
	"h": time.Hour, "hr": time.Hour, "hour": time.Hour, "hours": time.Hour,
	"d": 24 * time.Hour, "day": 24 * time.Hour, "days": 24 * time.Hour,
}

// timeSpan parses a time as systemd writes it, such as 90, 3min or 1min 30s; 0 means forever.
func timeSpan(text string, otherwise time.Duration) (all time.Duration) {
	if text == "infinity" {
		return 0
	}
	text = strings.ReplaceAll(text, " ", "")
	if text == "" {
		return otherwise
	}
	for text != "" {
		digits := len(text) - len(strings.TrimLeft(text, "0123456789."))
		letters := len(text) - digits - len(strings.TrimLeft(text[digits:], "abcdefghijklmnopqrstuvwxyz"))
		n, err := strconv.ParseFloat(text[:digits], 64)
		unit, known := spans[text[digits:digits+letters]]
		if err != nil || !known {
			return otherwise
		}
		all += time.Duration(n * float64(unit))
		text = text[digits+letters:]
	}
	return all
}
