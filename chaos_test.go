package greenapi

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/quarantine"
	"github.com/greenapi-community/caddy-green-api/sender"
)

// The tests in this file let everything fail that can, under a faithful sender whose pause of 60 s
// is 60 ms, and count. What is answered 200 must be with a handler or in the quarantine, always.

// chaosTime is how long each of them goes on. `make chaos` sets it to a minute.
func chaosTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("GREEN_API_CHAOS")
	if text == "" {
		return 2 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const chaosPause = 60 * time.Millisecond

// ledger has what was sent, taken and answered, by the mark that each notification bears.
type ledger struct {
	t *testing.T

	mu           sync.Mutex
	sent         map[string][]byte
	acknowledged map[string]bool
	taken        map[string]int       // answered 2xx by a handler, so many times
	first        map[string]time.Time // and first then
	other        map[string]int       // answers that are not 200
}

func newLedger(t *testing.T) *ledger {
	return &ledger{
		t: t, sent: make(map[string][]byte), acknowledged: make(map[string]bool), taken: make(map[string]int),
		first: make(map[string]time.Time), other: make(map[string]int),
	}
}

// queues are instances that send every type until the end, or count notifications if that is not 0.
// One in fifty is broken.
func (l *ledger) queues(instances, count int, end time.Time) []sender.Queue {
	plan := sendPlan{instances: 1}
	if err := plan.load(); err != nil {
		l.t.Fatal(err)
	}
	queues := make([]sender.Queue, instances)
	for i := range queues {
		id := strconv.Itoa(firstInstance + i)
		queues[i] = sender.Queue{Instance: id, Notifications: l.notifications(plan, id, count, end)}
	}
	return queues
}

func (l *ledger) notifications(plan sendPlan, instance string, count int, end time.Time) iter.Seq[sender.Notification] {
	return func(yield func(sender.Notification) bool) {
		number, err := strconv.Atoi(instance)
		if err != nil {
			l.t.Error(err)
		}
		for i := 0; i != count || count == 0; i++ {
			if count == 0 && time.Now().After(end) {
				return
			}
			mark := fmt.Sprintf("%s-%06d", instance, i)
			body := personalize(plan.bodies[i%len(plan.bodies)].Body, instance, "CHAOS"+mark, time.Now())
			if (i+number-firstInstance)%50 == 49 {
				body = []byte(`{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":` + instance + `}}`)
			}
			body = append(body[:len(body)-1], `,"mark":"`+mark+`"}`...)
			l.mu.Lock()
			l.sent[mark] = body
			l.mu.Unlock()
			if !yield(sender.Notification{Name: mark, Body: body}) {
				return
			}
		}
	}
}

func markOf(body []byte) string {
	_, rest, _ := bytes.Cut(body, []byte(`"mark":"`))
	mark, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(mark)
}

// take writes down that a handler takes a body. It must be whole.
func (l *ledger) take(body []byte, at time.Time) {
	mark := markOf(body)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !bytes.Equal(l.sent[mark], body) {
		l.t.Errorf("a handler got what nobody sent: %q", body)
		return
	}
	if l.taken[mark]++; l.taken[mark] == 1 {
		l.first[mark] = at
	}
}

func (l *ledger) attempt(a sender.Attempt) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.Acknowledged() {
		l.acknowledged[a.Notification.Name] = true
		return
	}
	answer := strconv.Itoa(a.Status)
	if a.Err != nil {
		answer = "none: " + a.Err.Error()
		if i := strings.LastIndex(answer, ": "); i > 0 {
			answer = "none: " + answer[i+2:]
		}
	}
	l.other[answer]++
}

// verify is what must hold whatever happened.
func (l *ledger) verify(dir string, report *sender.Report) {
	l.t.Helper()
	kept := make(map[string][]byte)
	for _, entry := range readQuarantineWhole(l.t, dir) {
		kept[markOf(entry.Body)] = entry.Body
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	lost, undelivered := 0, 0
	for mark := range l.acknowledged {
		if l.taken[mark] == 0 && !bytes.Equal(kept[mark], l.sent[mark]) {
			lost++
		}
	}
	for mark := range l.sent {
		if l.taken[mark] == 0 && kept[mark] == nil {
			undelivered++
		}
	}
	again := 0
	for _, n := range l.taken {
		again += n - 1
	}
	if lost > 0 || undelivered > 0 || report.Lost > 0 || len(l.acknowledged) != len(l.sent) || len(l.sent) == 0 {
		l.t.Errorf("%d acknowledged and nowhere, %d nowhere, %d given up, %d of %d acknowledged", lost, undelivered, report.Lost, len(l.acknowledged), len(l.sent))
	}
	before := ""
	for _, mark := range slices.Sorted(maps.Keys(l.first)) { // of an instance, in order
		instance, _, _ := strings.Cut(mark, "-")
		if strings.HasPrefix(before, instance) && l.first[mark].Before(l.first[before]) {
			l.t.Errorf("%s was taken before %s", mark, before)
		}
		before = mark
	}
	l.t.Logf("%d sent, %d taken by handlers, %d of them again, %d in the quarantine; re-sent %d, other answers %v; from first attempt to 200: p50 %s, p99 %s, at most %s",
		len(l.sent), len(l.taken), again, len(kept), report.Resent, l.other, round(report.Quantile(0.5)), round(report.Quantile(0.99)), round(report.Quantile(1)))
}

// unnoticed is what must hold as long as a handler is healthy.
func (l *ledger) unnoticed(report *sender.Report, p99 time.Duration) {
	l.t.Helper()
	if report.Resent > 0 || len(l.other) > 0 {
		l.t.Errorf("%d re-sent, other answers than 200: %v", report.Resent, l.other)
	}
	if got := report.Quantile(0.99); got > p99 {
		l.t.Errorf("p99 from the first attempt to 200: %s, want at most %s", got, p99)
	}
}

func readQuarantineWhole(t *testing.T, dir string) []quarantine.Entry {
	t.Helper()
	store, err := quarantine.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var whole []quarantine.Entry
	for after := ""; ; {
		entries, err := store.List(after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if entry, err = store.Get(entry.ID); err != nil {
				t.Fatal(err)
			}
			whole = append(whole, entry)
			after = entry.ID
		}
		if len(entries) == 0 {
			return whole
		}
	}
}

// send runs the sender until the queues are empty, and keeps something else going meanwhile.
func (l *ledger) send(options sender.Options, queues []sender.Queue, meanwhile func(context.Context)) *sender.Report {
	l.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		if meanwhile != nil {
			meanwhile(ctx)
		}
	}()
	options.Pause = max(options.Pause, chaosPause)
	options.OnAttempt = l.attempt
	options.Token = testToken
	ctx2, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	report, err := sender.Run(ctx2, options, queues...)
	stop()
	<-over
	if err != nil {
		l.t.Fatal(err)
	}
	return report
}

// pauses waits, and tells whether to go on.
func pauses(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// A faulty is a handler that does what its mode says at each request: a status, "hang" or "break".
type faulty struct {
	ledger  *ledger
	address string
	mode    atomic.Value // of func(body []byte) string
	now     atomic.Int64
	most    atomic.Int64
	delay   time.Duration

	mu     sync.Mutex
	server *http.Server
}

func (l *ledger) newFaulty() *faulty {
	f := &faulty{ledger: l, address: "127.0.0.1:" + freePort(l.t)}
	f.healthy()
	f.start()
	l.t.Cleanup(f.stop)
	return f
}

func (f *faulty) healthy()                      { f.mode.Store(func([]byte) string { return "200" }) }
func (f *faulty) does(mode func([]byte) string) { f.mode.Store(mode) }

func (f *faulty) start() {
	listener, err := net.Listen("tcp", f.address)
	if err != nil {
		f.ledger.t.Error(err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server = &http.Server{Handler: f}
	go f.server.Serve(listener)
}

// stop cuts everything off.
func (f *faulty) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server.Close()
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := f.now.Add(1)
	defer f.now.Add(-1)
	for most := f.most.Load(); n > most && !f.most.CompareAndSwap(most, n); most = f.most.Load() {
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	time.Sleep(f.delay)
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
			f.ledger.take(body, time.Now())
		}
		w.WriteHeader(status)
	}
}

func addresses(handlers []*faulty) string {
	var text string
	for _, f := range handlers {
		text += " " + f.address
	}
	return text
}

func (l *ledger) fleet(n int) []*faulty {
	var handlers []*faulty
	for range n {
		handlers = append(handlers, l.newFaulty())
	}
	return handlers
}

// a process is a handler that can be killed: `caddy green-api listen`.
type handlerProcess struct {
	ledger  *ledger
	address string
	cmd     *exec.Cmd
	read    chan struct{}
}

func (l *ledger) newHandlerProcess() *handlerProcess {
	h := &handlerProcess{ledger: l, address: "127.0.0.1:" + freePort(l.t)}
	h.start()
	l.t.Cleanup(h.kill)
	return h
}

func (h *handlerProcess) start() {
	h.cmd = caddyProcess(h.ledger.t, "green-api", "listen", "--address", h.address)
	stdout, err := h.cmd.StdoutPipe()
	if err != nil {
		h.ledger.t.Error(err)
		return
	}
	if err := h.cmd.Start(); err != nil {
		h.ledger.t.Error(err)
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
				return // also at a line that was not written to its end
			}
			if body, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "    "); ok {
				h.ledger.take([]byte(body), at)
				continue
			}
			clock, _, _ := strings.Cut(line, " ")
			if at, err = time.Parse("15:04:05.000", clock); err != nil {
				h.ledger.t.Error(err)
			}
		}
	}()
}

// kill ends it at once, and returns when all that it said is read.
func (h *handlerProcess) kill() {
	h.cmd.Process.Kill()
	<-h.read
	h.cmd.Wait()
}

func chaosURL(e *edge) sender.Options { return sender.Options{URL: e.url, Rate: 50} }

// TestChaosKill: handlers are killed and started again in turn, as in a deployment.
func TestChaosKill(t *testing.T) {
	l := newLedger(t)
	handlers := []*handlerProcess{l.newHandlerProcess(), l.newHandlerProcess(), l.newHandlerProcess()}
	e := start(t, site(loopback+"deliver {\nsecond_opinion 2\n}\nreverse_proxy "+handlers[0].address+" "+handlers[1].address+" "+handlers[2].address+" {\nlb_policy green_api chat\n}"))
	report := l.send(chaosURL(e), l.queues(20, 0, time.Now().Add(chaosTime(t))), func(ctx context.Context) {
		for i := 0; pauses(ctx, 100*time.Millisecond); i++ {
			h := handlers[i%3]
			h.kill()
			if !pauses(ctx, 100*time.Millisecond) {
				return
			}
			h.start()
			waitForPort(ctx, h.address)
		}
	})
	e.kept()
	for _, h := range handlers {
		h.kill()
	}
	l.verify(e.dir, report)
	l.unnoticed(report, time.Second)
}

// waitForPort waits until a handler that was started listens: a deployment waits for it, too.
func waitForPort(ctx context.Context, address string) {
	for pauses(ctx, 10*time.Millisecond) {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return
		}
	}
}

// TestChaosFaults: one handler after the other does anything that a handler can do wrong.
func TestChaosFaults(t *testing.T) {
	l := newLedger(t)
	handlers := l.fleet(3)
	modes := []string{"hang", "break", "500", "502", "503", "429", "204", "301", "404", "200"}
	e := start(t, site(loopback+"deliver {\nattempt_timeout 200ms\nsecond_opinion 2\n}\nreverse_proxy"+addresses(handlers)))
	report := l.send(chaosURL(e), l.queues(20, 0, time.Now().Add(chaosTime(t))), func(ctx context.Context) {
		for i := 0; ; i++ {
			f := handlers[i%3]
			f.does(func([]byte) string { return modes[rand.IntN(len(modes))] })
			// Longer than an attempt: no notification may meet a third faulty handler.
			if !pauses(ctx, 300*time.Millisecond) {
				return
			}
			f.healthy()
			pauses(ctx, 100*time.Millisecond)
		}
	})
	e.kept()
	l.verify(e.dir, report)
	l.unnoticed(report, 2*200*time.Millisecond+time.Second)
}

// TestChaosHung: one of three handlers takes everything and answers nothing.
func TestChaosHung(t *testing.T) {
	const attempt = 500 * time.Millisecond
	for _, policy := range []string{"green_api", "green_api instance"} {
		t.Run(policy, func(t *testing.T) {
			l := newLedger(t)
			handlers := l.fleet(3)
			handlers[0].does(func([]byte) string { return "hang" })
			e := start(t, site(loopback+"deliver {\nattempt_timeout 500ms\n}\nreverse_proxy"+addresses(handlers)+" {\nlb_policy "+policy+"\n}"))
			length := chaosTime(t)
			slow := make(map[string]int)
			report := l.send(chaosURL(e), l.queues(20, 0, time.Now().Add(length)), nil)
			for _, record := range e.logs.records(t) {
				if duration, ok := record["duration"].(float64); ok && duration > attempt.Seconds() {
					slow[record.text("instance")]++
				}
			}
			e.kept()
			l.verify(e.dir, report)
			l.unnoticed(report, attempt+500*time.Millisecond)
			most := 1 + int(length/(defaultFailDuration+attempt))
			for instance, n := range slow {
				if n > most {
					t.Errorf("instance %s waited for the hung handler %d times in %s, want at most %d", instance, n, length, most)
				}
			}
		})
	}
}

// TestChaosAllGone: all handlers are gone for a while, and nobody notices but by the time it takes.
func TestChaosAllGone(t *testing.T) {
	l := newLedger(t)
	handlers := l.fleet(3)
	e := start(t, site(loopback+"reverse_proxy"+addresses(handlers)))
	gone := chaosTime(t) / 3 // twenty seconds of a minute
	report := l.send(chaosURL(e), l.queues(20, 0, time.Now().Add(chaosTime(t))), func(ctx context.Context) {
		pauses(ctx, gone/2)
		for _, f := range handlers {
			f.stop()
		}
		pauses(context.Background(), gone)
		for _, f := range handlers {
			f.start()
		}
	})
	e.kept()
	l.verify(e.dir, report)
	// Handlers that are all killed at once leave no second opinion to a notification in hand.
	if report.Resent > 20 || len(l.other) > 1 || l.other["502"] != report.Resent {
		t.Errorf("%d re-sent, other answers than 200: %v; want at most one an instance, 502", report.Resent, l.other)
	}
	if got := report.Quantile(0.99); got > gone+time.Second {
		t.Errorf("p99 from the first attempt to 200: %s, want at most %s", got, gone+time.Second)
	}
	if report.Quantile(1) < gone/2 {
		t.Error("nobody was made to wait; were they gone?")
	}
}

// hurry makes the pause of 60 ms two minutes to the edge, which does not count what fails twice in less.
func (e *edge) hurry(ctx context.Context) {
	began, told := time.Now(), time.Duration(0)
	for ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
		passed := 2000 * time.Since(began)
		e.later(passed - told)
		told = passed
	}
}

// TestChaosPoison: one body kills each handler that it meets, or is refused by all. It goes into
// the quarantine, and the other instances do not notice.
func TestChaosPoison(t *testing.T) {
	for _, mode := range []string{"break", "422"} {
		t.Run(mode, func(t *testing.T) {
			l := newLedger(t)
			handlers := l.fleet(3)
			poison := fmt.Sprintf("%d-%06d", firstInstance, 10)
			for _, f := range handlers {
				f.does(func(body []byte) string {
					if markOf(body) == poison {
						return mode
					}
					return "200"
				})
			}
			e := start(t, site(loopback+"reverse_proxy"+addresses(handlers)))
			var worst float64
			report := l.send(chaosURL(e), l.queues(20, 0, time.Now().Add(chaosTime(t))), e.hurry)
			for _, record := range e.logs.records(t) {
				if duration, ok := record["duration"].(float64); ok && record.text("instance") != strconv.Itoa(firstInstance) {
					worst = max(worst, duration)
				}
			}
			e.kept()
			l.verify(e.dir, report)
			if report.Resent != 2 || l.taken[poison] != 0 {
				t.Errorf("the poison was re-sent %d times, want 2, and taken %d times", report.Resent, l.taken[poison])
			}
			if worst > 1 {
				t.Errorf("another instance waited %.3f s", worst)
			}
		})
	}
}

// TestChaosBacklog: after an outage of the network, 300 instances bring what they have kept. No
// handler gets more than it may.
func TestChaosBacklog(t *testing.T) {
	const instances, places = 300, 20
	each, delay := 1000, 10*time.Millisecond
	if os.Getenv("GREEN_API_CHAOS") == "" {
		each, delay = 15, 60*time.Millisecond // slow enough to be full, however slow the edge
	}
	l := newLedger(t)
	handlers := l.fleet(3)
	for _, f := range handlers {
		f.delay = delay
	}
	e := start(t, site(loopback+"reverse_proxy"+addresses(handlers)+" {\nlb_policy green_api chat\nunhealthy_request_count "+fmt.Sprint(places)+"\n}"))
	report := l.send(sender.Options{URL: e.url}, l.queues(instances, each, time.Time{}), nil)
	e.kept()
	l.verify(e.dir, report)
	l.unnoticed(report, 10*time.Second)
	t.Logf("drained %d instances of %d each in %s", instances, each, round(report.Took))
	for i, f := range handlers {
		if most := f.most.Load(); most > places || most < places/2 {
			t.Errorf("handler %d had %d at once, want up to %d", i, most, places)
		}
	}
}

// TestChaosSingle: a single handler is restarted again and again.
func TestChaosSingle(t *testing.T) {
	l := newLedger(t)
	handler := l.newHandlerProcess()
	e := start(t, site(loopback+"reverse_proxy "+handler.address))
	var gone time.Duration // at most
	report := l.send(chaosURL(e), l.queues(20, 0, time.Now().Add(chaosTime(t))), func(ctx context.Context) {
		for pauses(ctx, 300*time.Millisecond) {
			began := time.Now()
			handler.kill()
			pauses(ctx, 200*time.Millisecond)
			handler.start()
			waitForPort(context.Background(), handler.address)
			gone = max(gone, time.Since(began))
		}
	})
	e.kept()
	handler.kill()
	l.verify(e.dir, report)
	// A pause of up to a second and a quarter may end in the next restart, and so may the one after it.
	l.unnoticed(report, 2*(gone+longestPause*5/4))
}

// TestChaosReload: the config is changed all the time, also to other handlers and other checks.
func TestChaosReload(t *testing.T) {
	for _, newConnections := range []bool{false, true} {
		t.Run(fmt.Sprintf("new connections %t", newConnections), func(t *testing.T) {
			l := newLedger(t)
			handlers := l.fleet(4)
			configs := []string{
				site(loopback + "reverse_proxy" + addresses(handlers[:2])),
				site(loopback + "reverse_proxy" + addresses(handlers[2:]) + " {\nlb_policy green_api chat\n}"),
				site(loopback + "validate {\nmax_body_size 2MiB\n}\nreverse_proxy" + addresses(handlers[:3]) + " {\nhealth_uri /\nhealth_status 2xx\nhealth_interval 50ms\nlb_policy least_conn\n}"),
			}
			for _, f := range handlers { // the health check's requests are none of ours
				f.does(func(body []byte) string {
					if len(body) == 0 {
						return "404"
					}
					return "200"
				})
			}
			configs[2] = strings.Replace(configs[2], "health_status 2xx", "health_status 4xx", 1)
			e := start(t, configs[0])
			options := chaosURL(e)
			options.NewConnections = newConnections
			reloads := 0
			report := l.send(options, l.queues(20, 0, time.Now().Add(chaosTime(t))), func(ctx context.Context) {
				for i := 1; pauses(ctx, 100*time.Millisecond); i++ {
					if err := e.load(configs[i%3]); err != nil {
						t.Error(err)
					}
					reloads++
				}
			})
			e.kept()
			l.verify(e.dir, report)
			t.Logf("%d reloads", reloads)
			for answer, n := range l.other {
				if !strings.HasPrefix(answer, "none") {
					t.Errorf("%d times answered %s", n, answer)
				}
			}
			// The kernel resets new connections that wait in the queue of a socket when it is closed,
			// unless net.ipv4.tcp_migrate_req is 1. How many are is a matter of the machine's load.
			most := 3 * reloads
			if newConnections {
				most = 10 * reloads
			}
			if report.Resent > most {
				t.Errorf("%d attempts without an answer, want at most %d", report.Resent, most)
			}
		})
	}
}

// TestChaosEdge: the edge itself is killed, or told to end, and started again.
func TestChaosEdge(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			l := newLedger(t)
			handlers := l.fleet(3)
			e := &edge{t: t, port: freePort(t), dir: filepath.Join(t.TempDir(), "quarantine")}
			e.url = "http://127.0.0.1:" + e.port + "/green-api/webhook"
			config := site(loopback + "reverse_proxy" + addresses(handlers))
			p := startProcess(t, e, config)
			ends := 0
			report := l.send(chaosURL(e), l.queues(20, 0, time.Now().Add(chaosTime(t))), func(ctx context.Context) {
				for pauses(ctx, 500*time.Millisecond) {
					p.Process.Signal(signal)
					if err := p.Wait(); signal == syscall.SIGTERM && err != nil {
						t.Errorf("%v\n%s", err, p.output)
					}
					ends++
					p = startProcess(t, e, config)
				}
			})
			p.Process.Signal(syscall.SIGTERM)
			p.Wait()
			l.verify(e.dir, report)
			t.Logf("%d ends", ends)
			if ends == 0 {
				t.Error("it was never ended")
			}
		})
	}
}
