package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of /proc/PID/stat: USER_HZ, 100 on every Linux that Go runs on.
const tick = time.Second / 100

// usage is what a process and those it has started have used, as the operating system counts it.
type usage struct {
	cpu    time.Duration
	memory int // the most that each has had in memory, in KiB
}

// usageOf returns an error where there is no /proc.
func usageOf(pid int) (sum usage, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		return sum, errors.New("no /proc")
	}
	type process struct {
		parent int
		used   time.Duration
	}
	all := make(map[int]process)
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state parent …; the name may have anything in it.
		_, after, _ := strings.Cut(string(text), "(")
		fields := strings.Fields(after[strings.LastIndexByte(after, ')')+1:])
		var number [3]int // parent, user, system
		for i, at := range []int{1, 11, 12} {
			if number[i], err = strconv.Atoi(fields[at]); err != nil {
				return sum, fmt.Errorf("%s: %w", file, err)
			}
		}
		id, err := strconv.Atoi(strings.Split(file, "/")[2])
		if err != nil {
			return sum, err
		}
		all[id] = process{number[0], time.Duration(number[1]+number[2]) * tick}
	}
	for id, p := range all {
		for at, depth := id, 0; at != 0 && depth < 5; at, depth = all[at].parent, depth+1 {
			if at == pid {
				sum.cpu += p.used
				sum.memory += peak(id)
			}
		}
	}
	return sum, nil
}

func peak(pid int) int {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0 // it has ended
	}
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	var size int
	_, _ = fmt.Sscan(after, &size) // a system that does not say has 0
	return size
}
