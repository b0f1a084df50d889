package edgetest

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Faulty is a handler that does at each request what its mode says: a status, "hang" or "break".
type Faulty struct {
	Ledger  *Ledger
	address string
	mode    atomic.Value // of func(body []byte) string
	now     atomic.Int64
	Most    atomic.Int64
	Delay   time.Duration

	mu       sync.Mutex
	server   *http.Server
	listener net.Listener
}

func (l *Ledger) NewFaulty() *Faulty {
	f := &Faulty{Ledger: l, address: "127.0.0.1:" + FreePort(l.t)}
	f.Healthy()
	f.Start()
	l.t.Cleanup(f.Stop)
	return f
}

func (f *Faulty) Healthy() { f.mode.Store(func([]byte) string { return "200" }) }

func (f *Faulty) Does(mode func([]byte) string) { f.mode.Store(mode) }

func (f *Faulty) Start() {
	listener, err := net.Listen("tcp", f.address)
	if err != nil {
		f.Ledger.t.Error(err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server, f.listener = &http.Server{Handler: f}, listener
	go f.server.Serve(listener)
}

// Stop closes all connections at once. It also closes the listener, of which the server may not know yet: Start wants the
// port again.
func (f *Faulty) Stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listener.Close()
	f.server.Close()
}

// Busy returns how many requests it is working on.
func (f *Faulty) Busy() int64 { return f.now.Load() }

func (f *Faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := f.now.Add(1)
	defer f.now.Add(-1)
	for most := f.Most.Load(); n > most && !f.Most.CompareAndSwap(most, n); most = f.Most.Load() {
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	time.Sleep(f.Delay)
	switch mode := f.mode.Load().(func([]byte) string)(body); mode {
	case "hang":
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case "break":
		panic(http.ErrAbortHandler)
	default:
		status, err := strconv.Atoi(mode)
		if err != nil {
			panic(err)
		}
		if status/100 == 2 {
			f.Ledger.take(body, time.Now())
		}
		w.WriteHeader(status)
	}
}

func Addresses(handlers []*Faulty) string {
	var text strings.Builder
	for _, f := range handlers {
		text.WriteString(" " + f.address)
	}
	return text.String()
}

func (l *Ledger) Fleet(n int) []*Faulty {
	var handlers []*Faulty
	for range n {
		handlers = append(handlers, l.NewFaulty())
	}
	return handlers
}

// HandlerProcess is a handler that can be killed: `caddy green-api listen`.
type HandlerProcess struct {
	Ledger  *Ledger
	Address string
	cmd     *exec.Cmd
	read    chan struct{}
}

func (l *Ledger) NewHandlerProcess() *HandlerProcess {
	h := &HandlerProcess{Ledger: l, Address: "127.0.0.1:" + FreePort(l.t)}
	h.Start()
	l.t.Cleanup(h.Kill)
	return h
}

func (h *HandlerProcess) Start() {
	h.cmd = Command(h.Ledger.t, "green-api", "listen", "--address", h.Address)
	stdout, err := h.cmd.StdoutPipe()
	if err != nil {
		h.Ledger.t.Error(err)
		return
	}
	if err := h.cmd.Start(); err != nil {
		h.Ledger.t.Error(err)
		return
	}
	read := make(chan struct{})
	h.read = read
	go func() {
		defer close(read)
		lines := bufio.NewReader(stdout)
		var at time.Time
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return // also for a line that was not completed
			}
			if body, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "    "); ok {
				h.Ledger.take([]byte(body), at)
				continue
			}
			clock, _, _ := strings.Cut(line, " ")
			if at, err = time.Parse("15:04:05.000", clock); err != nil {
				h.Ledger.t.Error(err)
			}
		}
	}()
}

// Kill kills the process, and returns when all its output has been read.
func (h *HandlerProcess) Kill() {
	h.cmd.Process.Kill()
	<-h.read
	h.cmd.Wait()
}

// WaitForPort waits until a started handler listens, as a deployment would.
func WaitForPort(ctx context.Context, address string) {
	for Pauses(ctx, 10*time.Millisecond) {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return
		}
	}
}
