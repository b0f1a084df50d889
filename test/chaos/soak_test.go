//go:build linux

package chaos

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/sender"
)

// TestSoak lets a process work for long, while one thing after the other goes wrong: reloads, handlers
// that are killed, a disk that is full, no file descriptor left, a clock that is set; and all the time
// 1,000 connections whose bodies come a byte a second. GREEN_API_SOAK says how long, GREEN_API_SOAK_OPTION is an option
// of the reverse_proxy; `make soak` sets both.
func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(os.Getenv("GREEN_API_SOAK"))
	if err != nil {
		t.Skip("GREEN_API_SOAK is no duration; make soak sets it")
	}
	const senders, slow = 500, 1000
	l := edgetest.NewLedger(t)
	handlers := l.Fleet(3)
	s := newSoaked(t, handlers)
	before := s.measure()

	ctx, stop := context.WithCancel(t.Context())
	var attackers sync.WaitGroup
	var tried atomic.Int64
	for range slow {
		attackers.Go(func() { s.sendSlowly(ctx, &tried) })
	}
	faults := s.faults(handlers)
	counts := make([]int, len(faults))
	report := l.Send(sender.Options{URL: s.edge.URL, Rate: 0.3}, spread(l.Queues(senders, 0, time.Now().Add(length))), func(ctx context.Context) {
		for i := 0; edgetest.Pauses(ctx, time.Second); i++ {
			fault := faults[i%len(faults)]
			fault.begin()
			edgetest.Pauses(ctx, 2*time.Second)
			fault.end()
			counts[i%len(faults)]++
		}
	})
	stop()
	attackers.Wait()
	for i, fault := range faults {
		t.Logf("%d times: %s", counts[i], fault.name)
	}
	t.Logf("%d connections with slow bodies", tried.Load())

	after := s.settled(before)
	t.Logf("before: %s; after: %s", before, after)
	if after.goroutines > before.goroutines+20 {
		t.Errorf("%d goroutines, %d at the beginning", after.goroutines, before.goroutines)
	}
	if after.heap > before.heap+32<<20 {
		t.Errorf("%d bytes of heap, %d at the beginning", after.heap, before.heap)
	}
	if err := s.process.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.process.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	s.checkSteps()
	l.Verify(s.edge.Dir, report)
	if p99 := report.Quantile(0.99); p99 > 5*time.Second {
		t.Errorf("p99 of good traffic %s", p99)
	}
}

// spread lets queues begin one after the other, in three seconds.
func spread(queues []sender.Queue) []sender.Queue {
	for i := range queues {
		all := queues[i].Notifications
		queues[i].Notifications = func(yield func(sender.Notification) bool) {
			time.Sleep(3 * time.Second * time.Duration(i) / time.Duration(len(queues)))
			all(yield)
		}
	}
	return queues
}

// soaked is an edge in a process of its own, with an admin API.
type soaked struct {
	t       *testing.T
	edge    *edgetest.Edge
	process *edgetest.Process
	admin   *http.Client
	config  func(n int) string

	clock string // the file that says by how many seconds the clock is set
	steps int    // of it, after which something was kept
}

// clockVariable names the file by which the clock of a process is set. canSetClock reports whether it
// can be; `make soak` sees to it.
const clockVariable = "GREEN_API_CLOCK"

var canSetClock bool

func newSoaked(t *testing.T, handlers []*edgetest.Faulty) *soaked {
	s := &soaked{t: t, edge: &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(t.TempDir(), "quarantine")}}
	s.edge.URL = "http://127.0.0.1:" + s.edge.Port + "/green-api/webhook"
	socket := filepath.Join(t.TempDir(), "admin")
	s.config = func(n int) string {
		return strings.NewReplacer("admin off", "admin unix/"+socket, "level DEBUG", "exclude http.handlers.green_api",
			"quarantine DIR", "quarantine DIR {\nmax_age 30d\n}").Replace(edgetest.SiteWith("servers {\ntimeouts {\nread_header 5s\nread_body 5s\nidle 30s\n}\n}",
			"green_api /green-api/webhook* {\n"+edgetest.Loopback+fmt.Sprintf("deliver {\ntimeout %ds\n}\n", 100+n%20)+
				"reverse_proxy"+edgetest.Addresses(handlers)+" {\nlb_policy green_api chat\n"+os.Getenv("GREEN_API_SOAK_OPTION")+"\n}\n}\nrespond 404\n"))
	}
	s.clock = filepath.Join(t.TempDir(), "clock")
	t.Setenv(clockVariable, s.clock)
	s.process = edgetest.StartProcess(t, s.edge, s.config(0))
	t.Cleanup(func() { _ = s.process.Process.Kill() })
	s.admin = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	return s
}

// ask asks the admin API.
func (s *soaked) ask(method, path, contentType, body string) string {
	r, err := http.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	response, err := s.admin.Do(r)
	if err != nil {
		s.t.Errorf("%s %s: %v", method, path, err)
		return ""
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		s.t.Errorf("%s %s: %d %v %s", method, path, response.StatusCode, err, text)
	}
	return string(text)
}

// measured is what the process uses.
type measured struct{ goroutines, heap, resident, files int }

func (m measured) String() string {
	return fmt.Sprintf("%d goroutines, %d MiB of heap, %d MiB resident, %d files", m.goroutines, m.heap>>20, m.resident>>20, m.files)
}

var (
	goroutineCount = regexp.MustCompile(`goroutine profile: total ([0-9]+)`)
	heapAlloc      = regexp.MustCompile(`# HeapAlloc = ([0-9]+)`)
	residentSize   = regexp.MustCompile(`VmRSS:\s*([0-9]+) kB`)
)

func (s *soaked) measure() (m measured) {
	number := func(pattern *regexp.Regexp, text string) int {
		found := pattern.FindStringSubmatch(text)
		if found == nil {
			s.t.Fatalf("no %s in %.200q", pattern, text)
		}
		n, err := strconv.Atoi(found[1])
		if err != nil {
			s.t.Fatal(err)
		}
		return n
	}
	m.heap = number(heapAlloc, s.ask(http.MethodGet, "/debug/pprof/heap?gc=1&debug=1", "text/plain", ""))
	m.goroutines = number(goroutineCount, s.ask(http.MethodGet, "/debug/pprof/goroutine?debug=1", "text/plain", ""))
	status, err := os.ReadFile(s.proc("status"))
	if err != nil {
		s.t.Fatal(err)
	}
	m.resident, m.files = number(residentSize, string(status))<<10, s.files()
	return m
}

// settled measures when what has ended is gone, or after a minute.
func (s *soaked) settled(before measured) (m measured) {
	for range 60 {
		if m = s.measure(); m.goroutines <= before.goroutines+20 {
			return m
		}
		time.Sleep(time.Second)
	}
	return m
}

func (s *soaked) proc(name string) string {
	return fmt.Sprintf("/proc/%d/%s", s.process.Process.Pid, name)
}

func (s *soaked) files() int {
	open, err := os.ReadDir(s.proc("fd"))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(open)
}

// limit sets a soft limit of the process.
func (s *soaked) limit(resource int, soft uint64) {
	var now unix.Rlimit
	err := unix.Prlimit(s.process.Process.Pid, resource, nil, &now)
	if err == nil {
		now.Cur = min(soft, now.Max)
		err = unix.Prlimit(s.process.Process.Pid, resource, &now, nil)
	}
	if err != nil {
		s.t.Error(err)
	}
}

// soakFault is what goes wrong for a while.
type soakFault struct {
	name       string
	begin, end func()
}

func (s *soaked) faults(handlers []*edgetest.Faulty) []soakFault {
	n := 0
	reload := func() {
		n++
		config := strings.NewReplacer("PORT", s.edge.Port, "DIR", s.edge.Dir, "TOKEN", edgetest.Token, "output test_buffer", "output stderr").Replace(s.config(n))
		s.ask(http.MethodPost, "/load", "text/caddyfile", config)
	}
	faults := []soakFault{
		{"the config was reloaded, twice", reload, reload},
		{"a handler was killed and started", func() { handlers[n%3].Stop() }, func() { handlers[n%3].Start() }},
		{"the disk was full", func() {
			// The quarantine's file has no place to grow into, nor has any other.
			s.limit(unix.RLIMIT_FSIZE, 0)
		}, func() { s.limit(unix.RLIMIT_FSIZE, unix.RLIM_INFINITY) }},
		{"there was no file descriptor left", func() { s.limit(unix.RLIMIT_NOFILE, uint64(s.files())) }, func() { s.limit(unix.RLIMIT_NOFILE, unix.RLIM_INFINITY) }},
	}
	if canSetClock {
		step := -clockStep
		faults = append(faults, soakFault{"the clock was set, by 40 days and back", func() {
			s.setClock(step)
			step = -step
			s.keepOne()
			reload() // which looks for what is older than max_age
		}, func() {
			reload()
			s.setClock(0)
			reload()
		}})
	} else {
		s.t.Log("the clock cannot be set; make soak sees to it")
	}
	return faults
}

const clockStep = 40 * 24 * time.Hour

func (s *soaked) setClock(by time.Duration) {
	if err := os.WriteFile(s.clock+".new", fmt.Appendf(nil, "%d\n", int(by.Seconds())), 0o600); err != nil {
		s.t.Error(err)
	} else if err := os.Rename(s.clock+".new", s.clock); err != nil {
		s.t.Error(err)
	}
}

// keepOne posts something broken when the process has noticed its clock.
func (s *soaked) keepOne() {
	time.Sleep(200 * time.Millisecond)
	r, err := http.NewRequest(http.MethodPost, s.edge.URL, strings.NewReader(`{"broken":`))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+edgetest.Token)
	response, err := edgetest.Client.Do(r)
	if err != nil {
		s.t.Errorf("while the clock was set: %v", err)
		return
	}
	response.Body.Close()
	if response.StatusCode == http.StatusOK {
		s.steps++
	}
}

// checkSteps makes sure that the clock was really set: what was received then has a date that is far
// from now. That none of it was deleted for its age, the ledger sees.
func (s *soaked) checkSteps() {
	if !canSetClock {
		return
	}
	far := 0
	for _, entry := range edgetest.ReadQuarantineWhole(s.t, s.edge.Dir) {
		if time.Since(entry.Received).Abs() > clockStep/2 {
			far++
		}
	}
	if far < s.steps || s.steps == 0 {
		s.t.Errorf("of %d entries that were acknowledged while the clock was set, %d are there", s.steps, far)
	}
	s.t.Logf("%d entries were received while the clock was set by 40 days", far)
}

// sendSlowly posts a body a byte a second, with a right token, again and again.
func (s *soaked) sendSlowly(ctx context.Context, tried *atomic.Int64) {
	head := "POST /green-api/webhook HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + edgetest.Token + "\r\nContent-Length: 1000\r\n\r\n"
	for edgetest.Pauses(ctx, 100*time.Millisecond) {
		conn, err := net.Dial("tcp", "127.0.0.1:"+s.edge.Port)
		if err != nil {
			continue
		}
		tried.Add(1)
		_, err = io.Copy(conn, bytes.NewReader([]byte(head)))
		for err == nil && edgetest.Pauses(ctx, time.Second) {
			_, err = conn.Write([]byte("{"))
		}
		_ = conn.Close()
	}
}
