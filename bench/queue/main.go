// Command queue measures the queue of green_api: how many notifications it takes in, how many it delivers meanwhile,
// whether it keeps their order, how long the 200 takes and what all of that costs; and beside it, on the same disk and
// in turns, how many entries the quarantine keeps with as many writers. It is a benchmark, not a test: it fails only
// if a notification is not answered 200, is lost, or comes out of order.
//
// The same is measured once more while the handler is slow, so that the backlog grows all the time: then nearly all the
// work is accepting.
//
// Every connection is an instance that sends one notification after another, as GREEN-API does. The generator and the
// handler run on the same machine, in processes of their own.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/greenapi-community/caddy-green-api/bench/load"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

var (
	rounds   = flag.Int("rounds", 3, "of which the medians are shown")
	seconds  = flag.Float64("seconds", 3, "of each measurement")
	onlyAt   = flag.String("connections", "1,32,256", "numbers of connections, with commas")
	handlers = flag.String("handlers", "quick,slow", "how fast the handlers are, with commas; slow ones let the backlog grow")
	steady   = flag.Bool("steady", true, "look for the highest rate at which the backlog does not grow")
	profile  = flag.String("profile", "", "write a CPU profile of the edge in the first measurement into this file")
	dirFlag  = flag.String("dir", "", "directory on the disk to measure; the usual one for temporary files if empty")
)

func main() {
	log.SetFlags(0)
	load.BeUpstream(new(handler).take)
	flag.Parse()
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

// handler counts what it takes, in its own process, and what comes out of order. A body that is an order asks for the
// numbers, or sets how long it takes for a notification.
type handler struct {
	taken, disordered atomic.Int64
	last              sync.Map                      // by instance, *atomic.Int64
	slow              atomic.Pointer[chan struct{}] // nil for at once; closed when it is no longer slow
}

const (
	askHandler   = "how many"
	slowHandler  = "be slow"
	quickHandler = "be quick"

	slowTime = 3 * time.Second
)

func (h *handler) take(body []byte) string {
	switch string(body) {
	case slowHandler:
		quick := make(chan struct{})
		h.slow.Store(&quick)
		fallthrough
	case askHandler:
		return fmt.Sprintf("%d %d", h.taken.Load(), h.disordered.Load())
	case quickHandler:
		close(*h.slow.Swap(nil))
		return fmt.Sprintf("%d %d", h.taken.Load(), h.disordered.Load())
	}
	if quick := h.slow.Load(); quick != nil {
		select {
		case <-*quick:
		case <-time.After(slowTime):
		}
	}
	id := between(body, []byte(`"idMessage":"`))
	instance, number, _ := strings.Cut(id, "-")
	n, err := strconv.ParseInt(strings.TrimLeft(number, "0"), 10, 64)
	if err != nil {
		log.Fatalf("handler: %q", body)
	}
	last, _ := h.last.LoadOrStore(instance, new(atomic.Int64))
	if before := last.(*atomic.Int64).Swap(n); n <= before {
		h.disordered.Add(1)
	}
	h.taken.Add(1)
	return ""
}

func between(body, before []byte) string {
	_, after, _ := bytes.Cut(body, before)
	value, _, _ := bytes.Cut(after, []byte(`"`))
	return string(value)
}

// edge is a running Caddy with a queue.
type edge struct {
	listen, admin, upstream string
	process                 *exec.Cmd
	output                  bytes.Buffer
}

const config = `{
	admin ADMIN
	persist_config off
	auto_https off
	log {
		level ERROR
		exclude http.handlers.reverse_proxy
	}
	green_api {
		quarantine DIR
		queue bbolt DIR {
			max_size 8GiB
		}
	}
}
http://LISTEN {
	bind 127.0.0.1
	green_api /green-api/webhook* {
		ip_filter {
			allow 127.0.0.1
		}
		auth {
			token bench-token-000000
		}
		queue {
			max_per_instance 10000000
		}
		reverse_proxy UPSTREAM
	}
}
`

func start(binary, dir, upstream string) (*edge, error) {
	e := &edge{upstream: upstream}
	for _, address := range []*string{&e.listen, &e.admin} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		*address = listener.Addr().String()
		listener.Close()
	}
	text := strings.NewReplacer("ADMIN", e.admin, "LISTEN", e.listen, "DIR", filepath.Join(dir, "queue"), "UPSTREAM", upstream).Replace(config)
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	e.process = exec.Command(binary, "run", "--adapter", "caddyfile", "--config", file)
	e.process.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	e.process.Stdout, e.process.Stderr = &e.output, &e.output
	if err := e.process.Start(); err != nil {
		return nil, err
	}
	for range 400 {
		if conn, err := net.Dial("tcp", e.listen); err == nil {
			return e, conn.Close()
		}
		time.Sleep(25 * time.Millisecond)
	}
	e.stop()
	return nil, errors.New("the edge does not listen:\n" + e.output.String())
}

func (e *edge) stop() {
	_ = e.process.Process.Signal(os.Interrupt)
	_ = e.process.Wait() // it was told to stop
}

// spent is CPU time, of the edge, and of all: with the senders and the handler.
type spent struct{ edge, all time.Duration }

func (e *edge) spent() (s spent) {
	for pid, to := range map[int]*time.Duration{e.process.Process.Pid: &s.edge, os.Getpid(): &s.all} {
		used, err := load.UsageOf(pid)
		if err != nil {
			log.Fatal(err)
		}
		*to = used.CPU
	}
	return s
}

// each returns what was spent since before, for each of n.
func (s spent) each(before spent, n int) spent {
	return spent{(s.edge - before.edge) / time.Duration(n), (s.all - before.all) / time.Duration(n)}
}

// entries returns how many notifications are in the queue.
func (e *edge) entries() (int, error) {
	response, err := http.Get("http://" + e.admin + "/green_api/status")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	var status struct {
		Queue struct {
			Entries int `json:"entries"`
		} `json:"queue"`
	}
	return status.Queue.Entries, json.NewDecoder(response.Body).Decode(&status)
}

// handled returns what the handler has taken, and how much of it was out of order.
func (e *edge) handled() (taken, disordered int64, err error) { return e.order(askHandler) }

// order gives the handler an order.
func (e *edge) order(text string) (taken, disordered int64, err error) {
	response, err := http.Post("http://"+e.upstream, "text/plain", strings.NewReader(text))
	if err != nil {
		return 0, 0, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, 0, err
	}
	_, err = fmt.Sscan(string(answer), &taken, &disordered)
	return taken, disordered, err
}

// numbered are the requests of a number of instances, each of which numbers what it sends.
type numbered struct {
	requests [][]byte
	at       []int // of the number in each request
	sent     []int64
}

const digits = 12

func newNumbered(address string, from, n int) *numbered {
	q := &numbered{sent: make([]int64, n)}
	for i := range n {
		id := strconv.Itoa(1101000001 + from + i)
		body := fmt.Sprintf(`{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":%s,"wid":"79001234567@c.us",`+
			`"typeInstance":"whatsapp"},"timestamp":1790000000,"idMessage":"%s-%0*d","senderData":{"chatId":"79001234568@c.us",`+
			`"sender":"79001234568@c.us","chatName":"Test Sender","senderName":"Test Sender","senderContactName":""},`+
			`"messageData":{"typeMessage":"textMessage","textMessageData":{"textMessage":"a message of average length, as people write them"}}}`, id, id, digits, 0)
		request := fmt.Appendf(nil, "POST /green-api/webhook HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\n"+
			"Content-Type: application/json; charset=utf-8\r\nAuthorization: Bearer bench-token-000000\r\nContent-Length: %d\r\n\r\n%s", address, len(body), body)
		q.requests = append(q.requests, request)
		q.at = append(q.at, bytes.Index(request, []byte(id+"-"))+len(id)+1)
	}
	return q
}

// next numbers the next notification of an instance.
func (q *numbered) next(i int, request []byte) {
	q.sent[i]++
	number := q.sent[i]
	for at := q.at[i] + digits - 1; at >= q.at[i]; at-- {
		request[at] = byte('0' + number%10)
		number /= 10
	}
}

// result is the result of one measurement.
type result struct {
	accepted, meanwhile, kept float64 // a second: taken in, delivered meanwhile, kept by the quarantine
	p50, p99                  time.Duration
	cpu                       spent         // a notification: delivery included, unless the handler is slow
	left                      float64       // in the queue when the last one had been accepted
	drained                   time.Duration // until what was left was delivered
}

func run() error {
	dir, err := os.MkdirTemp(*dirFlag, "queue-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "caddy")
	if text, err := exec.Command("go", "build", "-o", binary, "github.com/greenapi-community/caddy-green-api/cmd/caddy").CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, text)
	}
	upstream, stop, err := load.StartUpstream()
	if err != nil {
		return err
	}
	defer stop()
	e, err := start(binary, dir, upstream)
	if err != nil {
		return err
	}
	defer e.stop()
	store, err := quarantine.Open(filepath.Join(dir, "quarantine"))
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }() // it is thrown away

	fmt.Printf("%s, %s, %d CPUs; medians of %d rounds of %gs; engine bbolt, key instance\n", time.Now().Format("2006-01-02"), runtime.Version(), runtime.NumCPU(), *rounds, *seconds)
	from := 0
	for handler := range strings.SplitSeq(*handlers, ",") {
		if handler != "quick" && handler != "slow" {
			return fmt.Errorf("handlers: %q; want quick, slow or both", handler)
		}
		if from, err = e.table(store, handler == "slow", from); err != nil {
			return fmt.Errorf("%w\n%s", err, e.output.String())
		}
	}
	if *steady {
		if err := e.findSteady(from); err != nil {
			return err
		}
	}
	taken, disordered, err := e.handled()
	fmt.Printf("\n%d notifications delivered, %d out of order\n", taken, disordered)
	if disordered > 0 {
		return errors.New("the order was not kept")
	}
	return err
}

// table prints a table of measurements, with a handler that answers at once or is slow. from counts instances: each
// measurement has its own.
func (e *edge) table(store *quarantine.Store, slow bool, from int) (next int, err error) {
	handler := "that answers at once"
	if slow {
		handler = fmt.Sprintf("that takes %s, one at a time for each instance: the backlog grows, CPU is that of accepting", slowTime)
	}
	fmt.Printf("\nhandler %s\n\n", handler)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "connections\taccepted/s\tp50\tp99\tdelivered/s meanwhile\tleft\tdrained in\tCPU µs\tof all\tquarantine.Put/s\taccepted to Put\t")
	for text := range strings.SplitSeq(*onlyAt, ",") {
		n, err := strconv.Atoi(text)
		if err != nil {
			return from, err
		}
		var all []result
		for range *rounds {
			r, err := e.measure(newNumbered(e.listen, from, n), 0, slow)
			if err != nil {
				return from, err
			}
			from += n
			if r.kept, err = keep(store, n); err != nil {
				return from, err
			}
			all = append(all, r)
		}
		fmt.Fprintf(table, "%d\t%.0f\t%s\t%s\t%.0f\t%.0f\t%s\t%.0f\t%.0f\t%.0f\t%.2f\t\n", n, median(all, func(r result) float64 { return r.accepted }),
			span(all, func(r result) time.Duration { return r.p50 }), span(all, func(r result) time.Duration { return r.p99 }),
			median(all, func(r result) float64 { return r.meanwhile }), median(all, func(r result) float64 { return r.left }),
			span(all, func(r result) time.Duration { return r.drained }), median(all, func(r result) float64 { return float64(r.cpu.edge) / 1e3 }),
			median(all, func(r result) float64 { return float64(r.cpu.all) / 1e3 }),
			median(all, func(r result) float64 { return r.kept }), median(all, func(r result) float64 { return r.accepted / r.kept }))
	}
	return from, table.Flush()
}

// measure sends at a rate, 0 for as fast as the answers come, and waits until everything has been delivered. A slow
// handler is slow for as long as there is something to accept.
func (e *edge) measure(q *numbered, rate float64, slow bool) (r result, err error) {
	first, last := askHandler, askHandler
	if slow {
		first, last = slowHandler, quickHandler
	}
	before, _, err := e.order(first)
	if err != nil {
		return r, err
	}
	profiled, err := e.startProfile()
	if err != nil {
		return r, err
	}
	began := e.spent()
	sent, err := load.Send(e.listen, q.requests, q.next, http.StatusOK, rate, time.Duration(*seconds*float64(time.Second)))
	if err != nil {
		return r, err
	}
	accepted := e.spent()
	meanwhile, _, err := e.order(last)
	if err != nil {
		return r, err
	}
	r.left = float64(int64(sent.Requests) - meanwhile + before)
	ended := time.Now()
	for {
		left, err := e.entries()
		if err != nil {
			return r, err
		}
		if left == 0 {
			break
		}
		if time.Since(ended) > 5*time.Minute {
			return r, fmt.Errorf("%d notifications are still in the queue after 5 minutes", left)
		}
		time.Sleep(5 * time.Millisecond)
	}
	r.drained = time.Since(ended)
	if err := <-profiled; err != nil {
		return r, err
	}
	over := accepted
	if !slow {
		over = e.spent()
	}
	r.cpu = over.each(began, sent.Requests)
	after, _, err := e.handled()
	if err != nil {
		return r, err
	}
	if after-before != int64(sent.Requests) {
		return r, fmt.Errorf("%d notifications were answered 200, %d delivered", sent.Requests, after-before)
	}
	r.accepted, r.meanwhile = float64(sent.Requests)/sent.Took.Seconds(), float64(meanwhile-before)/sent.Took.Seconds()
	r.p50, r.p99 = sent.Quantile(0.5), sent.Quantile(0.99)
	return r, nil
}

// startProfile begins a CPU profile of the first measurement, if there is to be one. over gets its error.
func (e *edge) startProfile() (over chan error, err error) {
	over = make(chan error, 1)
	file := *profile
	*profile = ""
	if file == "" {
		over <- nil
		return over, nil
	}
	out, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	go func() {
		response, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", e.admin, max(1, int(*seconds))))
		if err == nil {
			_, err = io.Copy(out, response.Body)
			response.Body.Close()
		}
		over <- errors.Join(err, out.Close())
	}()
	return over, nil
}

// findSteady prints the highest rate, in steps of 1,000 a second, at which deliveries keep up: when the last
// notification has been accepted, less than a fifth of a second's worth is left.
func (e *edge) findSteady(from int) error {
	fmt.Println()
	best, p99 := 0.0, time.Duration(0)
	for rate := 2000.0; ; rate += 1000 {
		r, err := e.measure(newNumbered(e.listen, from, 256), rate, false)
		if err != nil {
			return err
		}
		from += 256
		fmt.Printf("at %.0f/s: accepted %.0f/s, p50 %s, p99 %s, delivered meanwhile %.0f/s, the rest in %s\n", rate, r.accepted,
			r.p50.Round(10*time.Microsecond), r.p99.Round(10*time.Microsecond), r.meanwhile, r.drained.Round(time.Millisecond))
		if r.accepted < 0.95*rate || r.meanwhile < 0.95*r.accepted || r.drained > 200*time.Millisecond {
			break
		}
		best, p99 = rate, r.p99
	}
	fmt.Printf("\ndeliveries keep up with %.0f/s; p99 of the 200 at that rate: %s\n", best, p99.Round(10*time.Microsecond))
	return nil
}

// keep returns how many entries a second the quarantine keeps with a number of writers.
func keep(store *quarantine.Store, writers int) (perSecond float64, err error) {
	var kept atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, writers)
	began := time.Now()
	end := began.Add(time.Duration(*seconds * float64(time.Second)))
	for i := range writers {
		wg.Go(func() {
			entry := quarantine.Entry{Name: "default", Reason: "schema", Type: "incomingMessageReceived", Instance: strconv.Itoa(i), Body: make([]byte, 470)}
			for time.Now().Before(end) {
				if _, errs[i] = store.Put(entry, 0); errs[i] != nil {
					return
				}
				kept.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(kept.Load()) / time.Since(began).Seconds(), errors.Join(errs...)
}

func median(all []result, of func(result) float64) float64 {
	values := make([]float64, len(all))
	for i, r := range all {
		values[i] = of(r)
	}
	slices.Sort(values)
	return (values[len(values)/2] + values[(len(values)-1)/2]) / 2
}

func span(all []result, of func(result) time.Duration) string {
	value := time.Duration(median(all, func(r result) float64 { return float64(of(r)) }))
	if value > 10*time.Millisecond {
		return value.Round(time.Millisecond).String()
	}
	return value.Round(10 * time.Microsecond).String()
}
