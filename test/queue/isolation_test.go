package queue

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/queue"
	"github.com/greenapi-community/caddy-green-api/queue/bolt"
	"github.com/greenapi-community/caddy-green-api/sender"
)

// quiet is a config that logs no single notification.
func quiet(config string) string { return strings.Replace(config, "level DEBUG", "level WARN", 1) }

// TestIsolation: others do not notice that an instance hangs, with ten thousand notifications behind the first one.
func TestIsolation(t *testing.T) {
	edgetest.Proof(t)
	const backlog, others, each = 10_000, 20, 30
	var taken sync.Map // time, by body
	handler := edgetest.NewUpstream(t, 0, nil)
	hung, over := make(chan struct{}, backlog+1), make(chan struct{})
	handler.Config.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		at := time.Now()
		body := edgetest.ReaderText(t, r.Body)
		if strings.Contains(body, `"idInstance":`+instance) {
			hung <- struct{}{}
			select {
			case <-over:
			case <-r.Context().Done():
			}
			return
		}
		taken.Store(body, at)
	})
	e := edgetest.Start(t, quiet(queued(fmt.Sprintf("max_per_instance %d", backlog+1), handler.Address)))
	defer close(over)
	round := 0
	// p99 is how long after they began to be sent most notifications of the other instances were with a handler.
	p99 := func() time.Duration {
		round++
		var mu sync.Mutex
		sent := make(map[string]time.Time)
		queues := make([]sender.Queue, others)
		for i := range queues {
			id := strconv.Itoa(1101000100 + i)
			queues[i] = sender.Queue{Instance: id, Notifications: func(yield func(sender.Notification) bool) {
				time.Sleep(time.Duration(i) * 2 * time.Millisecond)
				for n := range each {
					body := message(id, chatA, round*each+n)
					mu.Lock()
					sent[body] = time.Now()
					mu.Unlock()
					if !yield(sender.Notification{Body: []byte(body)}) {
						return
					}
				}
			}}
		}
		report, err := sender.Run(t.Context(), sender.Options{URL: e.URL, Token: edgetest.Token, Rate: 15}, queues...)
		if err != nil || report.Acknowledged != others*each || report.Resent != 0 {
			t.Fatalf("%+v, %v", report, err)
		}
		var took []time.Duration
		edgetest.Eventually(t, "the others are delivered", func() bool {
			took = nil
			for body, at := range sent {
				then, ok := taken.Load(body)
				if !ok {
					return false
				}
				took = append(took, then.(time.Time).Sub(at))
			}
			return true
		})
		slices.Sort(took)
		return took[len(took)*99/100]
	}
	p99() // opens connections
	alone := max(p99(), p99())
	post(t, e, backlog+1, func(i int) string { return message(instance, chatA, i) })
	<-hung
	// Whatever else this machine does makes it only longer.
	var beside time.Duration
	for range 5 {
		if got := p99(); beside == 0 || got < beside {
			beside = got
		}
		if beside < 2*alone {
			break
		}
	}
	t.Logf("p99 from the first byte to the handler: %s alone, %s beside an instance that hangs with %d behind: %.2f times", alone, beside, backlog, float64(beside)/float64(alone))
	if beside >= 2*alone {
		t.Error("want less than twice")
	}
	if len(hung) != 0 {
		t.Errorf("%d more of the instance that hangs were delivered", len(hung))
	}
}

// post posts that many notifications, many at once.
func post(t *testing.T, e *edgetest.Edge, count int, body func(i int) string) {
	t.Helper()
	var next, failed atomic.Int64
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	var workers sync.WaitGroup
	for range 64 {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				r, err := http.NewRequest(http.MethodPost, e.URL, strings.NewReader(body(i)))
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("Authorization", "Bearer "+edgetest.Token)
				response, err := client.Do(r)
				if err != nil || response.StatusCode != http.StatusOK {
					failed.Add(1)
				}
				if err == nil {
					response.Body.Close()
				}
			}
		})
	}
	workers.Wait()
	if n := failed.Load(); n > 0 {
		t.Fatalf("%d of %d were not answered 200", n, count)
	}
}

// TestAtRest: a hundred thousand chats whose notifications wait for a handler cost no goroutine each, and are delivered
// when there is one.
func TestAtRest(t *testing.T) {
	edgetest.Proof(t)
	const inFlight, few = 64, 1000
	chats := 100_000
	if edgetest.RaceDetector {
		chats = 10_000
	}
	dir := filepath.Join(t.TempDir(), "queue")
	fill(t, dir, chats)
	handler := edgetest.Script(t, "down")
	before := measureMemory()
	config := quiet(strings.Replace(queued(fmt.Sprintf("key chat\nin_flight %d\nretry 100ms", inFlight), handler.Address), "quarantine DIR", "quarantine DIR\nqueue bbolt "+dir, 1))
	config, admin := edgetest.WithAdmin(t, config)
	began := time.Now()
	e := edgetest.Start(t, config)
	edgetest.Eventually(t, "all lanes are there", func() bool { return metric(e, "lanes") == chats })
	took := time.Since(began)
	edgetest.Eventually(t, "they wait", func() bool { return metric(e, "lanes_waiting") >= chats-1 }) // one looks for a handler
	most := 0
	for range 20 {
		most = max(most, runtime.NumGoroutine())
		time.Sleep(50 * time.Millisecond)
	}
	after := measureMemory()
	t.Logf("%d lanes in %s; up to %d goroutines, %d before; %d bytes a lane", chats, took.Round(time.Millisecond), most, before.goroutines, (after.heap-before.heap)/chats)
	if more := most - before.goroutines; more > 200 {
		t.Errorf("%d more goroutines at rest", more)
	}
	if each := (after.heap - before.heap) / chats; each > 1500 {
		t.Errorf("%d bytes a lane", each)
	}
	var got, now, top atomic.Int64
	up := edgetest.NewUpstream(t, 0, func(http.ResponseWriter, *http.Request) {
		n := now.Add(1)
		for t := top.Load(); n > t && !top.CompareAndSwap(t, n); t = top.Load() {
		}
		time.Sleep(time.Millisecond)
		now.Add(-1)
		got.Add(1)
	})
	if err := e.Load(strings.Replace(config, handler.Address, up.Address, 1)); err != nil {
		t.Fatal(err)
	}
	edgetest.Eventually(t, "they are delivered", func() bool { return got.Load() >= few })
	if n := top.Load(); n > inFlight {
		t.Errorf("%d were delivered at once", n)
	}
	command(t, admin, "pause") // the rest would take long
}

type memory struct{ goroutines, heap int }

func measureMemory() memory {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memory{runtime.NumGoroutine(), int(m.HeapAlloc)}
}

// metric returns a gauge of the queue, without a label.
func metric(e *edgetest.Edge, name string) int {
	_, rest, found := strings.Cut(e.Scrape(), "\ncaddy_green_api_queue_"+name+" ")
	text, _, _ := strings.Cut(rest, "\n")
	value, err := strconv.ParseFloat(text, 64)
	if !found || err != nil {
		e.T.Fatalf("no %s in the metrics: %v", name, err)
	}
	return int(value)
}

// fill makes a queue with a notification of each of that many chats.
func fill(t *testing.T, dir string, chats int) {
	t.Helper()
	store, err := bolt.Open(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 1000 {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < chats; i = int(next.Add(1)) - 1 {
				id, chat := strconv.Itoa(1101000000+i%100), strconv.Itoa(79990000000+i)
				_, err := store.Put(context.Background(), &queue.Record{
					Block: "default", Received: time.Now(), Instance: id, Chat: chat + "@c.us", Type: "incomingMessageReceived", Message: "textMessage",
					Kind: "incomingMessageReceived", Via: "webhook", URI: "/green-api/webhook", Host: "hooks.example.com", Body: []byte(message(id, chat, i)),
				}, 0)
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
}

// TestSlowHandler: a slow handler makes nobody wait but the chat that it is slow with. Without a queue, the sender would
// have one notification of the instance with it at a time.
func TestSlowHandler(t *testing.T) {
	edgetest.Proof(t)
	const chats, slow = 200, 500 * time.Millisecond
	var taken atomic.Int64
	handler := edgetest.NewUpstream(t, 0, func(http.ResponseWriter, *http.Request) {
		time.Sleep(slow)
		taken.Add(1)
	})
	round := 0
	send := func(e *edgetest.Edge, count int) (took time.Duration) {
		began := time.Now()
		round++
		taken.Store(0)
		report, err := sender.Run(t.Context(), sender.Options{URL: e.URL, Token: edgetest.Token}, sender.Queue{Instance: instance, Notifications: func(yield func(sender.Notification) bool) {
			for i := range count {
				if !yield(sender.Notification{Body: []byte(message(instance, strconv.Itoa(79990001000+i), round*chats+i))}) {
					return
				}
			}
		}})
		if err != nil || report.Acknowledged != count || report.Resent != 0 {
			t.Fatalf("%+v, %v", report, err)
		}
		edgetest.Eventually(t, "all are handled", func() bool { return taken.Load() == int64(count) })
		return time.Since(began)
	}
	config := queued("key chat", handler.Address)
	e := edgetest.Start(t, without(config))
	const few = 4
	direct := send(e, few) / few * chats
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	most := 3 * time.Second
	if edgetest.RaceDetector {
		most *= 5
	}
	later := send(e, chats)
	for tries := 0; later > most && tries < 3; tries++ { // something else on this machine was busy
		later = send(e, chats)
	}
	t.Logf("one message of each of %d chats, %s each: %s with a queue, %s without (%d of them measured)", chats, slow, later.Round(time.Millisecond), direct.Round(time.Millisecond), few)
	if later > most || direct < time.Minute {
		t.Errorf("want less than %s with a queue, and more than %s without", most, time.Minute)
	}
}
