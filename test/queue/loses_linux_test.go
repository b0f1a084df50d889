package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/queue/bolt"
	"github.com/greenapi-community/caddy-green-api/sender"
)

const (
	losesSenders  = 50
	losesChats    = 5 // of each sender
	losesInFlight = 64
	losesDelay    = 20 * time.Millisecond // of each handler
)

// TestQueueLosesNothing: handlers fail, hang and break off at random, the edge is killed and reloaded, the disk is full
// for a while, and everything that was answered 200 is taken by a handler or kept, in order. `make queue-chaos` lets
// it take minutes.
func TestQueueLosesNothing(t *testing.T) {
	edgetest.Proof(t)
	for _, test := range []struct {
		name string
		keys []string // one after another, at each reload
	}{
		{"instance", []string{"instance"}},
		{"chat", []string{"chat"}},
		{"instance and chat in turn", []string{"instance", "chat"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // it is a process of its own
			c := newUnlucky(t, test.keys)
			end := time.Now().Add(edgetest.ChaosLength(t))
			report := c.ledger.Send(sender.Options{URL: c.edge.URL, Rate: 5}, c.ledger.ChatQueues(losesSenders, losesChats, end), c.haveBadLuck)
			c.settle()
			c.verify(report)
		})
	}
}

// unlucky is an edge of which everything fails in turn.
type unlucky struct {
	t        *testing.T
	ledger   *edgetest.Ledger
	handlers []*edgetest.Faulty
	edge     *edgetest.Edge
	process  *edgetest.Process
	keys     []string
	admin    string
	disk     *smallDisk

	kills, killsFull, reloads, fullDisks, sums int
}

func newUnlucky(t *testing.T, keys []string) *unlucky {
	l := edgetest.NewLedger(t)
	c := &unlucky{
		t: t, ledger: l, handlers: l.Fleet(3), keys: keys, disk: newSmallDisk(t),
		edge: &edgetest.Edge{T: t, Port: edgetest.FreePort(t)}, admin: "127.0.0.1:" + edgetest.FreePort(t),
	}
	c.edge.URL, c.edge.Dir = "http://127.0.0.1:"+c.edge.Port+"/green-api/webhook", filepath.Join(c.disk.dir, "quarantine")
	for _, h := range c.handlers {
		h.Delay = losesDelay
		h.Does(func(body []byte) string {
			if isPoison(body) {
				return "422"
			}
			return handlerMode()
		})
	}
	c.start()
	t.Cleanup(func() { _ = c.process.Process.Kill() })
	return c
}

// handlerMode is what a handler does with a request.
func handlerMode() string {
	switch n := rand.IntN(1000); {
	case n < 3:
		return "hang"
	case n < 150:
		return [...]string{"500", "422", "503", "break"}[n%4]
	}
	return "200"
}

// isPoison reports whether no handler ever takes a notification.
func isPoison(body []byte) bool {
	mark := edgetest.MarkOf(body)
	return strings.HasSuffix(mark, "-000005") && strings.HasSuffix(strings.TrimSuffix(mark, "-000005"), "7")
}

// config is another one at each reload.
func (c *unlucky) config() string {
	block := fmt.Sprintf("deliver {\nattempt_timeout 3s\ntimeout %ds\n}\nqueue {\nkey %s\nin_flight %d\nretry 20ms 50ms 100ms 300ms\n}\nreverse_proxy%s {\nfail_duration 200ms\n}",
		10+c.reloads%10, c.keys[c.reloads%len(c.keys)], losesInFlight, edgetest.Addresses(c.handlers))
	return strings.NewReplacer("admin off", "admin "+c.admin, "level DEBUG", "exclude http.handlers.green_api green_api").Replace(
		edgetest.SiteWith("", "green_api /green-api/webhook* {\n"+edgetest.Loopback+block+"\n}\nmetrics /metrics\n"))
}

func (c *unlucky) start() {
	c.process = edgetest.StartProcess(c.t, c.edge, c.config())
}

// haveBadLuck lets one thing after another go wrong until ctx ends, and each at least once.
func (c *unlucky) haveBadLuck(ctx context.Context) {
	pause := min(max(edgetest.ChaosLength(c.t)/20, 200*time.Millisecond), time.Second)
	luck := []func(){c.kill, c.reload, func() { c.fillDisk(2 * pause) }, c.killDuringReload, c.sum}
	for i := 0; edgetest.Pauses(ctx, pause+rand.N(pause)) || i < len(luck); i++ {
		luck[i%len(luck)]()
	}
}

func (c *unlucky) kill() {
	_ = c.process.Process.Kill()
	_ = c.process.Wait()
	c.kills++
	c.rest()
	c.ledger.NextLife()
	c.start()
}

// rest waits until the handlers have ended what the edge gave them, also what they had not yet read.
func (c *unlucky) rest() {
	deadline := time.Now().Add(10 * time.Second)
	for idle := 0; idle < 10 && time.Now().Before(deadline); idle++ {
		time.Sleep(losesDelay)
		for _, h := range c.handlers {
			if h.Busy() > 0 {
				idle = 0
			}
		}
	}
}

func (c *unlucky) reload() {
	for range 3 {
		c.reloads++
		c.ask(http.MethodPost, "/load", c.loaded())
	}
}

// killDuringReload leaves it open which config delivers.
func (c *unlucky) killDuringReload() {
	c.reloads++
	loading := make(chan struct{})
	go func() {
		defer close(loading)
		if response, err := edgetest.Client.Post("http://"+c.admin+"/load", "text/caddyfile", strings.NewReader(c.loaded())); err == nil {
			response.Body.Close()
		}
	}()
	time.Sleep(rand.N(100 * time.Millisecond))
	if err := c.process.Process.Kill(); err != nil {
		c.t.Error(err)
	}
	<-loading
	c.kill()
}

// loaded is the config as the admin API takes it.
func (c *unlucky) loaded() string {
	return strings.NewReplacer("PORT", c.edge.Port, "DIR", c.edge.Dir, "TOKEN", edgetest.Token, "output test_buffer", "output stderr").Replace(c.config())
}

// fillDisk fills the disk for a while, and every second time kills the edge meanwhile.
func (c *unlucky) fillDisk(d time.Duration) {
	c.fullDisks++
	end := c.disk.fill(c.process.Process.Pid, c.fullDisks)
	defer end()
	time.Sleep(d)
	if c.fullDisks%2 == 0 {
		c.kill()
		c.killsFull++
	}
}

// sum checks that what was put is done or still there, at a moment at which nothing is delivered.
func (c *unlucky) sum() {
	c.ask(http.MethodPost, "/green_api/queue/pause", "")
	for deadline := time.Now().Add(10 * time.Second); c.state().InFlight > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Error("deliveries go on 10 s after a pause")
			break
		}
	}
	c.checkSum()
	c.ask(http.MethodPost, "/green_api/queue/resume", "")
	c.sums++
}

func (c *unlucky) checkSum() {
	c.t.Helper()
	response, err := edgetest.Client.Get("http://127.0.0.1:" + c.edge.Port + "/metrics")
	if err != nil {
		c.t.Error(err)
		return
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Error(err)
		return
	}
	value := func(name string) (sum int) {
		found := regexp.MustCompile(`(?m)^caddy_green_api_queue_`+name+`(?:\{.*\})? (\S+)$`).FindAllSubmatch(text, -1)
		if found == nil {
			c.t.Errorf("no metric %s", name)
		}
		for _, f := range found {
			n, err := strconv.ParseFloat(string(f[1]), 64)
			if err != nil {
				c.t.Error(err)
			}
			sum += int(n)
		}
		return sum
	}
	if put, done, entries := value("put_total"), value("done_total"), value("entries"); put != done+entries {
		c.t.Errorf("%d were put, %d are done and %d in the queue", put, done, entries)
	}
}

// state is what the admin API says of the queue.
func (c *unlucky) state() (state struct {
	Entries  int `json:"entries"`
	InFlight int `json:"in_flight"`
},
) {
	if err := json.Unmarshal(c.ask(http.MethodGet, "/green_api/queue/state", ""), &state); err != nil {
		c.t.Error(err)
	}
	return state
}

// ask asks the admin API.
func (c *unlucky) ask(method, path, body string) []byte {
	r, err := http.NewRequest(method, "http://"+c.admin+path, strings.NewReader(body))
	if err != nil {
		c.t.Error(err)
		return nil
	}
	r.Header.Set("Content-Type", "text/caddyfile")
	response, err := edgetest.Client.Do(r)
	if err != nil {
		c.t.Errorf("%s %s: %v", method, path, err)
		return nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		c.t.Errorf("%s %s: %d %v %s", method, path, response.StatusCode, err, text)
	}
	return text
}

// settle lets the handlers take all that is left. What they refuse is skipped.
func (c *unlucky) settle() {
	for _, h := range c.handlers {
		h.Does(func(body []byte) string {
			if isPoison(body) {
				return "422"
			}
			return "200"
		})
	}
	deadline := time.Now().Add(time.Minute)
	for time.Sleep(500 * time.Millisecond); c.state().Entries > 0; time.Sleep(300 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Errorf("a minute after the last fault, this is left:\n%.10000s", c.ask(http.MethodGet, "/green_api/queue", ""))
			break
		}
		for _, l := range lanes(c.t, c.admin) {
			if l["reason"] == "handler_refused" && l["state"] == "waiting" {
				c.skip(l["lane"].(string))
			}
		}
		c.ask(http.MethodPost, "/green_api/queue/retry?all=true", "") // what the quarantine could not take waits for a minute
	}
	c.checkSum()
	if err := c.process.Process.Signal(unix.SIGTERM); err != nil {
		c.t.Fatal(err)
	}
	if err := c.process.Wait(); err != nil {
		c.t.Errorf("%v\n%s", err, c.process.Output)
	}
}

// skip skips what stands first in a lane, unless the lane has gone on by itself.
func (c *unlucky) skip(lane string) {
	r, err := http.NewRequest(http.MethodPost, "http://"+c.admin+"/green_api/queue/skip?lane="+lane, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	response, err := edgetest.Client.Do(r)
	if err != nil {
		c.t.Error(err)
		return
	}
	response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK, http.StatusNotFound, http.StatusConflict:
	default:
		c.t.Errorf("skip: %d", response.StatusCode)
	}
}

func (c *unlucky) verify(report *sender.Report) {
	key := c.ledger.ByChat
	if len(c.keys) == 1 && c.keys[0] == "instance" {
		key = c.ledger.ByInstance
	}
	counts := c.ledger.VerifyBy(c.edge.Dir, report, key)
	c.t.Logf("%d senders, %d kills, %d of them while the disk was full, %d reloads, %d times a full disk (%s), %d sums, %d delivered, %d kept, %d repeats, %d of them of what the sender sent once",
		losesSenders, c.kills, c.killsFull, c.reloads, c.fullDisks, c.disk.how, c.sums, counts.Taken, counts.Kept, counts.Again, counts.Once)
	// What a handler has taken is removed before a lane goes on. On a full disk that fails, and other lanes go on.
	if counts.Alive > 0 {
		c.t.Errorf("%d repeats without a kill in between", counts.Alive)
	}
	most := c.kills*losesInFlight + c.killsFull*losesSenders*losesChats
	if counts.Once > most {
		c.t.Errorf("%d repeats of what was sent once, want at most %d", counts.Once, most)
	}
	// And what was stored may have been delivered when the sender sends it again, because its 200 was lost.
	if most += (c.kills + c.fullDisks) * losesSenders; counts.Again > most {
		c.t.Errorf("%d repeats, want at most %d", counts.Again, most)
	}
	store, err := bolt.Open(c.edge.Dir, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer store.Close()
	if n := store.Stats().Entries; n != 0 {
		c.t.Errorf("%d are left in the queue", n)
	}
}

// smallDisk is a directory whose disk can be filled: a file system of its own, or for anybody but root a limit of the
// process.
type smallDisk struct {
	t        *testing.T
	dir, how string
}

func newSmallDisk(t *testing.T) *smallDisk {
	d := &smallDisk{t: t, dir: t.TempDir(), how: "also a file system of its own"}
	if err := unix.Mount("none", d.dir, "tmpfs", 0, "size=64m"); err != nil {
		d.how = "only by a limit of the process: " + err.Error()
		return d
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return d
}

// fill fills the disk, the nth time for a process, and returns what ends that.
func (d *smallDisk) fill(process, n int) (end func()) {
	if n%4 < 2 || strings.HasPrefix(d.how, "only") {
		d.limit(process, 0)
		return func() { d.limit(process, unix.RLIM_INFINITY) }
	}
	filler := filepath.Join(d.dir, "filler")
	file, err := os.Create(filler)
	if err != nil {
		d.t.Error(err)
		return func() {}
	}
	for size := 1 << 20; size > 0; size /= 2 { // to the last byte
		for err == nil {
			_, err = file.Write(make([]byte, size))
		}
		if size > 1 {
			err = nil
		}
	}
	file.Close()
	return func() {
		if err := os.Remove(filler); err != nil {
			d.t.Error(err)
		}
	}
}

// limit bounds the size to which a process can write files.
func (d *smallDisk) limit(process int, soft uint64) {
	var now unix.Rlimit
	err := unix.Prlimit(process, unix.RLIMIT_FSIZE, nil, &now)
	if err == nil {
		now.Cur = min(soft, now.Max)
		err = unix.Prlimit(process, unix.RLIMIT_FSIZE, &now, nil)
	}
	if err != nil && err != unix.ESRCH { // it was killed
		d.t.Error(err)
	}
}
