package edgetest

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Ports that are given away lie below those that Linux, macOS and Windows take for outgoing connections by
// default: between the look at a port and its use, a connection of any other process could take one of those.
const (
	firstPort  = 20_000
	lastPort   = 32_000
	portsBlock = 250
)

// ports are the ports that FreePort gives away. Tests of several packages run at once, so each process has
// blocks of its own: it listens on the first port of a block for as long as it lives.
var ports struct {
	mu        sync.Mutex
	claims    []net.Listener
	next, end int
}

// FreePort returns a port that nobody listens on, and that neither this process nor another test has been given.
func FreePort(t testing.TB) string {
	t.Helper()
	ports.mu.Lock()
	defer ports.mu.Unlock()
	for range 10_000 {
		if ports.next == ports.end {
			start := firstPort + portsBlock*rand.IntN((lastPort-firstPort)/portsBlock)
			claim, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(start)))
			if err != nil {
				continue
			}
			ports.claims = append(ports.claims, claim)
			ports.next, ports.end = start+1, start+portsBlock
		}
		port := strconv.Itoa(ports.next)
		ports.next++
		if listener, err := net.Listen("tcp", ":"+port); err == nil {
			listener.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return ""
}

// Patient returns a duration, or four times that under the race detector, which makes everything slower.
func Patient(d time.Duration) time.Duration {
	if RaceDetector {
		return 4 * d
	}
	return d
}

// Eventually waits until something has happened by itself.
func Eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}
