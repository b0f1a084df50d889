// Command stall causes the same faults in handlers behind nginx and behind green_api, with the same sender,
// and prints what each costs: how often GREEN-API would send again, how many notifications handlers took
// twice, and how long notifications waited from their first attempt to their 200, with each pause counted
// as the real 60 s. The configs are next to it.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/greenapi-community/caddy-green-api/sender"
)

//go:embed nginx-plain.conf
var nginxPlain string

//go:embed nginx-tuned.conf
var nginxTuned string

//go:embed Caddyfile
var caddyfile string

const (
	// pause replaces the sender's 60 s. The table counts each re-send with the real pause.
	pause   = time.Second
	attempt = "2s" // timeout for a handler, in all configs
)

var (
	length    = flag.Duration("length", 10*time.Second, "of each run")
	instances = flag.Int("instances", 20, "that send")
	rate      = flag.Float64("rate", 10, "notifications a second of each instance")
	only      = flag.String("fault", "", "run this one only")
)

func main() {
	flag.Parse()
	log.SetFlags(0)
	if err := compare(); err != nil {
		log.Fatal(err)
	}
}

// compare puts each edge through each fault, and prints a table.
func compare() error {
	dir, err := os.MkdirTemp("", "stall-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	caddy := filepath.Join(dir, "caddy")
	if out, err := exec.Command("go", "build", "-o", caddy, "github.com/greenapi-community/caddy-green-api/cmd/caddy").CombinedOutput(); err != nil {
		return fmt.Errorf("building: %w\n%s", err, out)
	}
	green := func(name, option string) edge {
		return edge{
			name: name, config: strings.Replace(caddyfile, "OPTION", option, 1), command: []string{caddy, "run", "--adapter", "caddyfile", "--config", "CONFIG"},
			reload: []string{caddy, "reload", "--force", "--adapter", "caddyfile", "--config", "CONFIG", "--address", "ADMIN"},
		}
	}
	edges := []edge{
		{name: "nginx", config: nginxPlain, command: []string{"nginx", "-c", "CONFIG", "-p", "DIR"}, reload: []string{"nginx", "-c", "CONFIG", "-p", "DIR", "-s", "reload"}},
		{name: "nginx, tuned", config: nginxTuned, command: []string{"nginx", "-c", "CONFIG", "-p", "DIR"}, reload: []string{"nginx", "-c", "CONFIG", "-p", "DIR", "-s", "reload"}},
		green("green_api", ""),
		green("through Caddy", "verbose_logs"), // the same, with each notification through reverse_proxy
	}
	if _, err := exec.LookPath("nginx"); err != nil {
		fmt.Println("nginx is not installed (Debian: nginx-light); only green_api runs")
		edges = edges[2:]
	}
	printVersions()
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "fault\tedge\tacknowledged\tre-sent\ttwice\twaited, s\tp50\tp99\t")
	for _, fault := range faults {
		if *only != "" && fault.name != *only {
			continue
		}
		for i := range edges {
			r, err := run(&edges[i], fault, dir)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", fault.name, edges[i].name, err)
			}
			fmt.Fprintf(table, "%s\t%s\t%d of %d\t%d\t%d\t%.0f\t%s\t%s\t\n", fault.name, edges[i].name, r.acknowledged, r.sent, r.resent, r.twice,
				r.waited.Seconds(), round(r.p50), round(r.p99))
			fmt.Fprintf(os.Stderr, "%s, %s: done\n", fault.name, edges[i].name)
		}
	}
	table.Flush()
	return nil
}

func printVersions() {
	fmt.Printf("%s, %s, %d CPUs; %d instances at %g a second for %s each; a pause of %s stands for 60s; a handler has %s\n",
		time.Now().Format("2006-01-02"), runtime.Version(), runtime.NumCPU(), *instances, *rate, *length, pause, attempt)
	if out, err := exec.Command("nginx", "-v").CombinedOutput(); err == nil {
		fmt.Print(string(out))
	}
	if out, err := exec.Command("go", "list", "-m", "github.com/caddyserver/caddy/v2").Output(); err == nil {
		fmt.Print(string(out))
	}
	fmt.Println()
}

// A fault affects handlers or the edge while the sender sends.
type fault struct {
	name string
	do   func(ctx context.Context, handlers []*handler, reload func() error)
}

var faults = []fault{
	{"none", func(context.Context, []*handler, func() error) {}},
	{"one is gone", func(_ context.Context, h []*handler, _ func() error) { h[0].stop() }},
	{"restarted in turn", func(ctx context.Context, h []*handler, _ func() error) {
		for i := 0; sleep(ctx, 300*time.Millisecond); i++ {
			h[i%3].stop()
			sleep(ctx, 300*time.Millisecond)
			h[i%3].start()
		}
	}},
	{"one breaks off", func(_ context.Context, h []*handler, _ func() error) { h[0].mode.Store("break") }},
	{"one hangs", func(_ context.Context, h []*handler, _ func() error) { h[0].mode.Store("hang") }},
	{"one says 500", func(_ context.Context, h []*handler, _ func() error) { h[0].mode.Store("500") }},
	{"one says 404", func(_ context.Context, h []*handler, _ func() error) { h[0].mode.Store("404") }},
	{"all busy for 3 s", func(ctx context.Context, h []*handler, _ func() error) {
		sleep(ctx, time.Second)
		for _, h := range h {
			h.mode.Store("503")
		}
		sleep(ctx, 3*time.Second)
		for _, h := range h {
			h.mode.Store("200")
		}
	}},
	{"all gone for 3 s", func(ctx context.Context, h []*handler, _ func() error) {
		sleep(ctx, time.Second)
		for _, h := range h {
			h.stop()
		}
		sleep(ctx, 3*time.Second)
		for _, h := range h {
			h.start()
		}
	}},
	{"reloads", func(ctx context.Context, _ []*handler, reload func() error) {
		for sleep(ctx, time.Second) {
			if err := reload(); err != nil {
				log.Printf("reload: %v", err)
			}
		}
	}},
}

// result is a row of the table.
type result struct {
	sent, acknowledged, resent, twice int
	waited, p50, p99                  time.Duration
}

func run(e *edge, f fault, dir string) (result, error) {
	taken := new(sync.Map) // of counts by body
	var handlers []*handler
	for range 3 {
		h := &handler{address: freeAddress(), taken: taken}
		h.mode.Store("200")
		h.start()
		defer h.stop()
		handlers = append(handlers, h)
	}
	if err := e.start(dir, handlers); err != nil {
		return result{}, err
	}
	defer e.stop()

	ctx, stop := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		f.do(ctx, handlers, e.doReload)
	}()
	var queues []sender.Queue
	end := time.Now().Add(*length)
	for i := range *instances {
		queues = append(queues, queue(strconv.Itoa(1101000001+i), end))
	}
	// The time that a notification waits for its 200: in flight, and in pauses of the real length.
	var waited atomic.Int64
	report, err := sender.Run(ctx, sender.Options{
		URL: "http://" + e.listen + "/green-api/webhook", Token: "bench-token", Pause: pause, Rate: *rate, Attempts: 60,
		OnAttempt: func(a sender.Attempt) {
			waited.Add(int64(a.Took))
			if a.Again {
				waited.Add(int64(sender.DefaultPause))
			}
		},
	}, queues...)
	stop()
	<-over
	if err != nil {
		return result{}, err
	}
	r := result{
		sent: report.Sent, acknowledged: report.Acknowledged, resent: report.Resent,
		waited: time.Duration(waited.Load()), p50: report.Quantile(0.5), p99: report.Quantile(0.99),
	}
	taken.Range(func(_, count any) bool {
		r.twice += int(count.(*atomic.Int64).Load()) - 1
		return true
	})
	return r, nil
}

func queue(instance string, end time.Time) sender.Queue {
	return sender.Queue{Instance: instance, Notifications: iter.Seq[sender.Notification](func(yield func(sender.Notification) bool) {
		for i := 0; time.Now().Before(end); i++ {
			body := fmt.Sprintf(`{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":%s,"wid":"79001234567@c.us","typeInstance":"whatsapp"},`+
				`"timestamp":%d,"idMessage":"STALL%s%06d","senderData":{"chatId":"7900%07d@c.us","sender":"79001234568@c.us","senderName":"Test Sender"},`+
				`"messageData":{"typeMessage":"textMessage","textMessageData":{"textMessage":"a message of average length, as people write them"}}}`,
				instance, time.Now().Unix(), instance, i, i%50)
			if !yield(sender.Notification{Name: strconv.Itoa(i), Body: []byte(body)}) {
				return
			}
		}
	})}
}

// edge is one of the compared programs.
type edge struct {
	name            string
	config          string
	command, reload []string

	listen, dir, admin, file string
	process                  *exec.Cmd
}

func (e *edge) fill(args []string) []string {
	filled := make([]string, len(args))
	for i, arg := range args {
		filled[i] = strings.NewReplacer("CONFIG", e.file, "DIR", e.dir, "ADMIN", e.admin).Replace(arg)
	}
	return filled
}

func (e *edge) start(dir string, handlers []*handler) (err error) {
	if e.dir, err = os.MkdirTemp(dir, "edge-"); err != nil {
		return err
	}
	e.listen, e.admin, e.file = freeAddress(), freeAddress(), filepath.Join(e.dir, "config")
	config := strings.NewReplacer("LISTEN", e.listen, "ADMIN", e.admin, "DIR", e.dir, "ATTEMPT", attempt,
		"HANDLER1", handlers[0].address, "HANDLER2", handlers[1].address, "HANDLER3", handlers[2].address).Replace(e.config)
	if err := os.WriteFile(e.file, []byte(config), 0o600); err != nil {
		return err
	}
	args := e.fill(e.command)
	e.process = exec.Command(args[0], args[1:]...)
	e.process.Env = append(os.Environ(), "XDG_DATA_HOME="+e.dir, "XDG_CONFIG_HOME="+e.dir)
	var output bytes.Buffer
	e.process.Stdout, e.process.Stderr = &output, &output
	if err := e.process.Start(); err != nil {
		return err
	}
	for range 200 {
		if conn, err := net.Dial("tcp", e.listen); err == nil {
			return conn.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	e.stop()
	return fmt.Errorf("does not listen:\n%s", output.String())
}

func (e *edge) doReload() error {
	args := e.fill(e.reload)
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

func (e *edge) stop() {
	_ = e.process.Process.Signal(os.Interrupt) // it may have ended already
	_ = e.process.Wait()
}

// handler answers notifications as its mode says.
type handler struct {
	address string
	mode    atomic.Value // a status, "hang" or "break"
	taken   *sync.Map

	mu     sync.Mutex
	server *http.Server
}

func (h *handler) start() {
	listener, err := net.Listen("tcp", h.address)
	if err != nil {
		log.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.server = &http.Server{Handler: h}
	go func(server *http.Server) {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}(h.server)
}

func (h *handler) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.server.Close()
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	time.Sleep(2 * time.Millisecond) // the work
	switch mode := h.mode.Load().(string); mode {
	case "hang":
		<-r.Context().Done()
	case "break":
		panic(http.ErrAbortHandler)
	default:
		status, err := strconv.Atoi(mode)
		if err != nil {
			log.Fatal(err)
		}
		if status == http.StatusOK {
			count, _ := h.taken.LoadOrStore(sha256.Sum256(body), new(atomic.Int64))
			count.(*atomic.Int64).Add(1)
		}
		w.WriteHeader(status)
	}
}

func freeAddress() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func round(d time.Duration) time.Duration {
	if d > 10*time.Millisecond {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}
