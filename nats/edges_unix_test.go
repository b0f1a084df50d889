//go:build unix

package nats

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
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
)

const (
	edgesToken      = "invented-token"
	edgesInstances  = 16
	edgesPartitions = 8
)

// TestQueueEdges: edges and servers are killed, cut off, stopped and reloaded at random, and whatever was answered 200
// is taken by the handler, each instance's for the first time in order. GREEN_API_EDGES=10m has more of it.
func TestQueueEdges(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a cluster and three edges")
	}
	length := 20 * time.Second
	if text := os.Getenv("GREEN_API_EDGES"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	binary := filepath.Join(t.TempDir(), "caddy")
	if said, err := exec.Command("go", "build", "-o", binary, "./cmd/caddy").CombinedOutput(); err != nil { //nolint:gosec // of this test
		t.Fatalf("%v\n%s", err, said)
	}
	c := newChaos(t, startServers(t, 3, always), 3, binary, "nats", "GREEN_API")
	sending, stop := context.WithCancel(context.Background())
	defer stop()
	wait := c.sendAll(sending)
	luck, mended := context.WithTimeout(context.Background(), length)
	defer mended()
	c.haveBadLuck(luck)
	until(t, "notifications", func() bool { return c.ledger.answered() >= 100 }) // the servers may have been away for most of it
	stop()
	wait()
	for late := time.Now().Add(2 * time.Minute); c.ledger.missing(time.Now()) > 0 && time.Now().Before(late); time.Sleep(50 * time.Millisecond) {
	}
	c.verify()
	c.settle()
}

// TestQueueEdgesWithoutReset shows that TestQueueEdges would see what the reset at a takeover is for: the same edges,
// senders, handler and ledger, and one fault that gives the others something to take over. While the handler takes
// nothing, an edge gathers notifications that it has been sent and not delivered; then it stands still. Whoever is
// pinned next without a reset is sent only what comes later.
func TestQueueEdgesWithoutReset(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a cluster and six edges")
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(asEdge, "yes")
	servers := startServers(t, 3, always)
	t.Run("with it", func(t *testing.T) {
		t.Parallel()
		c := newChaos(t, servers, 3, binary, "nats", "WITH_RESET")
		c.stopAnEdge("all of before taken", func(began time.Time) bool { return c.ledger.missing(began) == 0 })
		until(t, "the rest", func() bool { return c.ledger.missing(time.Now()) == 0 })
		c.verify()
	})
	t.Run("without it", func(t *testing.T) {
		t.Parallel()
		c := newChaos(t, servers, 3, binary, "nats_without_reset", "WITHOUT_RESET")
		before := 0 // a partition may have moved from edge to edge as soon as they had started
		c.stopAnEdge("one taken before an earlier one", func(began time.Time) bool {
			if time.Since(began) < time.Second {
				before = len(c.ledger.outOfOrder())
			}
			return len(c.ledger.outOfOrder()) > before
		})
		t.Logf("taken before an earlier one: %v", c.ledger.outOfOrder())
	})
}

// stopAnEdge stops one that has been sent a lot, lets others have its partitions, and waits until something holds.
func (c *chaos) stopAnEdge(what string, holds func(began time.Time) bool) {
	c.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	c.settle()
	c.ledger.refuses.Store(true)
	wait := c.sendAll(ctx)
	const gathered = 10
	until(c.t, "notifications of each instance", func() bool { return c.ledger.least() >= gathered })
	stopped := c.ledger.asker()
	e := c.edges[stopped]
	e.resting.Store(true)
	e.signal(syscall.SIGSTOP)
	began := time.Now()
	defer e.signal(syscall.SIGCONT)
	c.ledger.refuses.Store(false)
	until(c.t, what, func() bool { return holds(began) })
	c.t.Logf("edge %d stopped, %s after %s", stopped, what, time.Since(began).Round(100*time.Millisecond))
	stop()
	wait()
}

// TestReloadOfSettings: with other settings of the same stream, nothing is left behind in it.
func TestReloadOfSettings(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(asEdge, "yes")
	c := newChaos(t, startServers(t, 1, ""), 1, binary, "nats", "SETTINGS")
	c.ledger.refuses.Store(true)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	wait := c.sendAll(ctx)
	until(t, "notifications", func() bool { return c.ledger.least() > 0 })
	stop()
	wait()
	e := c.edges[0]
	log := func() string {
		text, err := os.ReadFile(filepath.Join(e.dir, "log"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	const another = "another queue still holds notifications"
	load := func(old, new string) {
		t.Helper()
		e.config = strings.Replace(e.config, old, new, 1)
		if err := e.reload(); err != nil {
			t.Fatal(err)
		}
	}
	load("max_size 1GiB", "max_size 1GiB\n\t\t\tgrace_period 1m")
	if strings.Contains(log(), another) {
		t.Error("the stream is taken for another one")
	}
	c.ledger.refuses.Store(false)
	until(t, "all that is posted", func() bool { return c.ledger.missing(time.Now()) == 0 })
	c.ledger.refuses.Store(true)
	ctx, stop = context.WithTimeout(context.Background(), time.Second)
	defer stop()
	c.sendAll(ctx)()
	load("stream SETTINGS", "stream OTHER")
	if !strings.Contains(log(), another) {
		t.Error("the other stream is not named")
	}
}

// newChaos starts edges with an engine.
func newChaos(t *testing.T, servers []*server, edges int, binary, engine, stream string) *chaos {
	t.Helper()
	c := &chaos{t: t, servers: servers, ledger: ledger{posted: make(map[mark]time.Time), taken: make(map[mark]time.Time), askers: make(map[string]int)}}
	for i := range edges {
		c.edges = append(c.edges, c.newEdge(i, binary, engine, stream))
	}
	for _, e := range c.edges {
		until(t, "an edge", e.answers)
	}
	return c
}

// settle waits until each partition is served by one edge, and none has moved for a moment.
func (c *chaos) settle() {
	c.t.Helper()
	var before []string
	same := 0
	until(c.t, "a balance", func() bool {
		var now []string
		sum := 0
		for _, e := range c.edges {
			n := e.metric("partitions")
			sum += n
			now = append(now, fmt.Sprint(n, e.metric("takeovers_total")))
		}
		if same++; sum != edgesPartitions || !slices.Equal(now, before) {
			same, before = 0, now
		}
		return same > 20 // times 20 ms
	})
}

// metric returns a metric of the queue, -1 if there is none.
func (e *edge) metric(name string) int {
	resp, err := http.Get("http://" + e.admin + "/metrics")
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "caddy_green_api_queue_"+name+" "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err == nil {
				return n
			}
		}
	}
	return -1
}

// sendAll lets all instances send until ctx ends, and returns what waits for that.
func (c *chaos) sendAll(ctx context.Context) (wait func()) {
	var senders sync.WaitGroup
	for i := range edgesInstances {
		senders.Go(func() { c.send(ctx, fmt.Sprint(1101000001+i)) })
	}
	return senders.Wait
}

// A mark identifies a notification.
type mark struct {
	instance string
	n        int
}

// A ledger knows what was answered 200, and what the handler has taken.
type ledger struct {
	mu      sync.Mutex
	posted  map[mark]time.Time
	taken   map[mark]time.Time
	early   []string // what was taken before something earlier
	repeats int
	slowest time.Duration
	askers  map[string]int // by instance, the edge that asked last
	refuses atomic.Bool    // it takes nothing
}

// missing returns how many were answered 200 before a time and have not been taken.
func (l *ledger) missing(before time.Time) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for m, at := range l.posted {
		if at.Before(before) && l.taken[m].IsZero() {
			n++
		}
	}
	return n
}

// answered returns how many were answered 200.
func (l *ledger) answered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.posted)
}

// least returns how many were answered 200 of the instance that has the fewest.
func (l *ledger) least() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := make(map[string]int)
	for m := range l.posted {
		counts[m.instance]++
	}
	least := math.MaxInt
	for i := range edgesInstances {
		least = min(least, counts[fmt.Sprint(1101000001+i)])
	}
	return least
}

// asker returns the edge that has asked for more instances than any other.
func (l *ledger) asker() (most int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := make(map[int]int)
	for _, i := range l.askers {
		if counts[i]++; counts[i] > counts[most] {
			most = i
		}
	}
	return most
}

func (l *ledger) outOfOrder() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.early)
}

// handle takes a notification from an edge, now and then not at once.
func (l *ledger) handle(from int, w http.ResponseWriter, r *http.Request) {
	var n struct {
		InstanceData struct {
			IDInstance int `json:"idInstance"`
		} `json:"instanceData"`
		IDMessage string `json:"idMessage"`
	}
	if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
		http.Error(w, "no notification", http.StatusBadRequest)
		return
	}
	time.Sleep(rand.N(20 * time.Millisecond))
	m := mark{instance: fmt.Sprint(n.InstanceData.IDInstance)}
	_, _ = fmt.Sscanf(n.IDMessage, "M%d", &m.n)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.askers[m.instance] = from
	if l.refuses.Load() || rand.N(20) == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if !l.taken[m].IsZero() {
		l.repeats++
		return
	}
	if m.n > 0 && l.taken[mark{m.instance, m.n - 1}].IsZero() {
		l.early = append(l.early, fmt.Sprint(m))
	}
	l.taken[m] = time.Now()
	if at := l.posted[m]; !at.IsZero() {
		l.slowest = max(l.slowest, time.Since(at))
	}
}

// An edge is a process of Caddy, with a proxy before each server.
type edge struct {
	t          *testing.T
	binary     string
	dir        string
	config     string
	url, admin string
	proxies    []*proxy
	cmd        *exec.Cmd
	ended      chan struct{}
	resting    atomic.Bool // nothing is posted to it
}

type chaos struct {
	t       *testing.T
	servers []*server
	edges   []*edge
	ledger  ledger
	refused atomic.Int64
}

func (c *chaos) newEdge(i int, binary, engine, stream string) *edge {
	handler := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.ledger.handle(i, w, r) }))
	c.t.Cleanup(handler.Close)
	ports := freePorts(c.t, 2)
	e := &edge{t: c.t, binary: binary, dir: c.t.TempDir(), url: fmt.Sprintf("http://127.0.0.1:%d/green-api/webhook", ports[0]), admin: fmt.Sprintf("127.0.0.1:%d", ports[1])}
	var servers []string
	for _, s := range c.servers {
		p := startProxy(c.t, s)
		e.proxies = append(e.proxies, p)
		servers = append(servers, p.Addr().String())
	}
	e.config = fmt.Sprintf(`{
	admin %s
	persist_config off
	auto_https off
	grace_period 5s
	green_api {
		quarantine %s
		queue %s {
			servers %s
			stream %s
			replicas %d
			partitions %d
			max_per_instance 500
			max_size 1GiB
			edge edge-%d
		}
	}
}
http://:%d {
	bind 127.0.0.1
	green_api /green-api/webhook* {
		ip_filter {
			allow 127.0.0.1
		}
		auth {
			token %s
		}
		queue {
			in_flight 64
			retry 100ms 500ms
		}
		deliver {
			attempt_timeout 5s
		}
		reverse_proxy %s
	}
	respond 404
}
`, e.admin, filepath.Join(e.dir, "quarantine"), engine, strings.Join(servers, " "), stream, len(c.servers), edgesPartitions, i, ports[0], edgesToken, strings.TrimPrefix(handler.URL, "http://"))
	e.start()
	c.t.Cleanup(func() {
		e.kill()
		if c.t.Failed() {
			text, _ := os.ReadFile(filepath.Join(e.dir, "log"))
			lines := strings.Split(string(text), "\n")
			c.t.Logf("edge %d\n%s", i, strings.Join(lines[max(0, len(lines)-10):], "\n"))
		}
	})
	return e
}

func (e *edge) start() {
	file := filepath.Join(e.dir, "Caddyfile")
	log, err := os.OpenFile(filepath.Join(e.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		err = os.WriteFile(file, []byte(e.config), 0o600)
	}
	if err != nil {
		e.t.Fatal(err)
	}
	defer log.Close()
	e.cmd = exec.Command(e.binary, "run", "--config", file) //nolint:gosec // of this test
	e.cmd.Stderr = log
	e.cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+e.dir, "XDG_CONFIG_HOME="+e.dir)
	if err := e.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait()
		close(ended)
	}(e.cmd, e.ended)
}

func (e *edge) signal(s syscall.Signal) { _ = e.cmd.Process.Signal(s) }

func (e *edge) kill() {
	e.signal(syscall.SIGKILL)
	<-e.ended
}

func (e *edge) setCut(cut bool) {
	for _, p := range e.proxies {
		p.setCut(cut)
	}
}

func (e *edge) answers() bool {
	resp, err := http.Get("http://" + e.admin + "/config/")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return true
}

// reload loads a config that differs in nothing that matters.
func (e *edge) reload() error {
	config := strings.Replace(e.config, "retry 100ms 500ms", fmt.Sprintf("retry 100ms %dms", 400+rand.N(200)), 1)
	r, err := http.NewRequest(http.MethodPost, "http://"+e.admin+"/load", strings.NewReader(config))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "text/caddyfile")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	return nil
}

const edgesBody = `{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":%s,` +
	`"wid":"79001234567@c.us","typeInstance":"whatsapp"},"timestamp":1700000000,"idMessage":"M%d",` +
	`"senderData":{"chatId":"79001234568@c.us","sender":"79001234568@c.us","senderName":"Test Sender"},` +
	`"messageData":{"typeMessage":"textMessage","textMessageData":{"textMessage":"a canary sings"}}}`

// send posts the notifications of an instance one after another, each to any edge until one answers 200.
func (c *chaos) send(ctx context.Context, instance string) {
	client := &http.Client{Timeout: 8 * time.Second}
	for n := 0; ; n++ {
		body := fmt.Appendf(nil, edgesBody, instance, n)
		for {
			if ctx.Err() != nil {
				return
			}
			e := c.edges[rand.N(len(c.edges))]
			if e.resting.Load() {
				continue
			}
			r, _ := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
			r.Header.Set("Authorization", "Bearer "+edgesToken)
			r.Header.Set("Content-Type", "application/json")
			resp, err := client.Do(r)
			if err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					break
				}
			}
			c.refused.Add(1)
			time.Sleep(20 * time.Millisecond)
		}
		c.ledger.mu.Lock()
		c.ledger.posted[mark{instance, n}] = time.Now()
		c.ledger.mu.Unlock()
		time.Sleep(rand.N(20 * time.Millisecond))
	}
}

// haveBadLuck lets one thing after another go wrong, and mends it.
func (c *chaos) haveBadLuck(ctx context.Context) {
	seconds := func(least, most int) {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(least)*time.Second + rand.N(time.Duration(most-least)*time.Second)):
		}
	}
	counts := make(map[string]int)
	misfortunes := []struct {
		name string
		does func(*edge, *server)
	}{
		{"edge killed", func(e *edge, _ *server) { e.kill(); seconds(1, 4); e.start() }},
		{"server killed", func(_ *edge, s *server) { s.kill(); seconds(1, 5); s.start() }},
		{"all servers killed", func(*edge, *server) {
			for _, s := range c.servers {
				s.kill()
			}
			for _, s := range c.servers {
				s.start()
			}
		}},
		{"edge cut off", func(e *edge, _ *server) { e.setCut(true); seconds(3, 12); e.setCut(false) }},
		{"edge stopped", func(e *edge, _ *server) { e.signal(syscall.SIGSTOP); seconds(3, 15); e.signal(syscall.SIGCONT) }},
		{"edge restarted", func(e *edge, _ *server) { e.signal(syscall.SIGTERM); <-e.ended; e.start() }},
		{"reload", func(e *edge, _ *server) {
			if err := e.reload(); err != nil {
				c.t.Errorf("reload: %v", err)
			}
		}},
	}
	for i := rand.N(len(misfortunes)); ctx.Err() == nil; i++ {
		m := misfortunes[i%len(misfortunes)]
		e := c.edges[rand.N(len(c.edges))]
		if m.name == "reload" && !e.answers() {
			continue
		}
		m.does(e, c.servers[rand.N(len(c.servers))])
		counts[m.name]++
		seconds(1, 3)
	}
	c.t.Logf("%v", counts)
}

func (c *chaos) verify() {
	t, l := c.t, &c.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	missing := 0
	for m := range l.posted {
		if l.taken[m].IsZero() {
			missing++
		}
	}
	t.Logf("%d answered 200, %d not, %d taken, %d of them again; the slowest after %s", len(l.posted), c.refused.Load(), len(l.taken), l.repeats, l.slowest.Round(10*time.Millisecond))
	if missing > 0 {
		t.Errorf("%d were answered 200 and not taken", missing)
	}
	if len(l.early) > 0 {
		t.Errorf("%d were taken before an earlier one: %v", len(l.early), l.early[:min(10, len(l.early))])
	}
	if l.slowest > 90*time.Second { // some 25, where two servers of three have just started again
		t.Errorf("one was taken only after %s", l.slowest)
	}
}
