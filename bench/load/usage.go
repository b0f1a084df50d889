package load

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the time unit in /proc/PID/stat: USER_HZ, 100 on every Linux that Go supports.
const tick = time.Second / 100

// Usage is what a process and its descendants have used, as counted by the operating system.
type Usage struct {
	CPU    time.Duration
	Memory int // sum of each one's peak memory, in KiB
}

// UsageOf returns the usage of a process. It returns an error on systems without /proc.
func UsageOf(pid int) (sum Usage, err error) {
	all, err := processes()
	if err != nil {
		return sum, err
	}
	for id, p := range all {
		for at, depth := id, 0; at != 0 && depth < 5; at, depth = all[at].parent, depth+1 {
			if at == pid {
				sum.CPU += p.used
				sum.Memory += peak(id)
			}
		}
	}
	return sum, nil
}

type process struct {
	parent int
	used   time.Duration
}

// processes returns all running processes, by ID.
func processes() (map[int]process, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		return nil, errors.New("no /proc")
	}
	all := make(map[int]process)
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		id, err := strconv.Atoi(strings.Split(file, "/")[2])
		if err != nil {
			return nil, err
		}
		if all[id], err = readStat(string(text)); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return all, nil
}

// readStat parses a line such as: pid (name) state parent …; the name may contain anything.
func readStat(text string) (p process, err error) {
	_, after, _ := strings.Cut(text, "(")
	fields := strings.Fields(after[strings.LastIndexByte(after, ')')+1:])
	var number [3]int // parent, user, system
	for i, at := range []int{1, 11, 12} {
		if number[i], err = strconv.Atoi(fields[at]); err != nil {
			return p, err
		}
	}
	return process{number[0], time.Duration(number[1]+number[2]) * tick}, nil
}

func peak(pid int) int {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0 // it has ended
	}
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	var size int
	_, _ = fmt.Sscan(after, &size) // stays 0 on a system that does not say
	return size
}
