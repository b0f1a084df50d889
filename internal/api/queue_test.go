package api

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/greenapi-community/caddy-green-api/queue"
	"github.com/greenapi-community/caddy-green-api/queue/queuetest"
)

// queueBench is an edge with a queue in memory, in fake time. Its handlers take nothing, until they are told to.
type queueBench struct {
	*bench
	store *queuetest.Memory
	queue *queue.Dispatcher

	mu   sync.Mutex
	ends map[string]queue.Result // by instance
	kept []string                // IDs
	full bool                    // the quarantine is
}

// onQueue runs a test of an edge whose blocks are default and sales.
func onQueue(t *testing.T, run func(t *testing.T, b *queueBench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		b := &queueBench{bench: &bench{t: t, logs: logs}, store: queuetest.NewMemory(10_000), ends: make(map[string]queue.Result)}
		b.queue = queue.New(b.store, queue.Hooks{
			Deliver: func(d queue.Delivery) queue.Result {
				b.mu.Lock()
				defer b.mu.Unlock()
				if end, ok := b.ends[d.Instance]; ok {
					return end
				}
				return queue.Result{Why: "handler_refused", Answers: []queue.Answer{{Handler: "h:1", Status: 400}, {Handler: "h:2", Status: 404, Text: "no chat\n"}}}
			},
			Keep: func(d queue.Delivery, _ queue.Fate) error {
				b.mu.Lock()
				defer b.mu.Unlock()
				if b.full {
					return errors.New("/secret: quarantine is full")
				}
				b.kept = append(b.kept, d.ID)
				return nil
			},
			Failed: func(error) {},
		})
		options := queue.Options{ByChat: true, InFlight: 4, Retry: []time.Duration{time.Minute}}
		b.queue.Configure(map[string]queue.Options{"default": options, "sales": options})
		b.queue.Start()
		defer b.queue.Close(t.Context())
		b.Edge = &Edge{
			Queue: func() *queue.Dispatcher { return b.queue },
			Hide: func(err error) error {
				if err == nil {
					return nil
				}
				return errors.New(strings.ReplaceAll(err.Error(), "/secret", "{env.DIR}"))
			},
			Blocks:   []string{"default", "sales"},
			Activity: new(Activity),
			Log:      zap.New(core),
		}
		run(t, b)
	})
}

// put stores notifications, each written as block/instance/chat/id.
func (b *queueBench) put(names ...string) {
	b.t.Helper()
	for _, name := range names {
		part := strings.Split(name, "/")
		r := &queue.Record{Block: part[0], Instance: part[1], Chat: part[2], ID: part[3], Type: "incomingCall", Received: time.Now(), Body: []byte(name)}
		if _, err := b.queue.Put(b.t.Context(), r, 0); err != nil {
			b.t.Fatal(err)
		}
		synctest.Wait()
		time.Sleep(time.Second)
	}
}

// lane returns the ID of an instance's oldest lane, "" if it has none.
func (b *queueBench) lane(instance string) string {
	for _, l := range b.queue.Lanes() {
		if l.Instance == instance {
			return l.ID
		}
	}
	return ""
}

// logged returns the records since the last call.
func (b *queueBench) logged() (list []string) {
	for _, entry := range b.logs.TakeAll() {
		list = append(list, fmt.Sprint(entry.Message, " ", entry.ContextMap()))
	}
	return list
}

func (b *queueBench) wantLogged(want ...string) {
	b.t.Helper()
	if got := b.logged(); !slices.Equal(got, want) {
		b.t.Errorf("logged %q, want %q", got, want)
	}
}

// TestQueueLanes: a lane is one line, the oldest first, and shows what is in it.
func TestQueueLanes(t *testing.T) {
	onQueue(t, func(t *testing.T, b *queueBench) {
		b.want("GET", "queue", "", 200, "")
		if _, text := b.call("GET", "queue", ""); text != "" {
			t.Errorf("empty: %s", text)
		}
		b.put("default/1101000001/79001234568@c.us/ONE", "default/1101000001/79001234568@c.us/TWO", "sales/1101000002//THREE", "old/1101000003/x@c.us/FOUR")
		_, all := b.call("GET", "queue", "")
		lines := strings.Split(all, "\n")
		if len(lines) != 3 {
			t.Fatalf("%d lines: %s", len(lines), all)
		}
		first := lines[0]
		for i, want := range []string{
			`{"lane":"` + b.lane("1101000001") + `","name":"default","instance":"1101000001","chat":"79001234568@c.us","entries":2,"bytes":78,` +
				`"oldest":"2000-01-01T00:00:00Z","state":"waiting","round":1,"next":"2000-01-01T00:0`,
			`{"lane":"` + b.lane("1101000002") + `","name":"sales","instance":"1101000002","chat":"","entries":1,"bytes":23,"oldest":"2000-01-01T00:00:02Z","state":"waiting",`,
			`{"lane":"` + b.lane("1101000003") + `","name":"old","instance":"1101000003","chat":"","entries":1,"bytes":26,"oldest":"2000-01-01T00:00:03Z","state":"no_handler","round":0,"reason":""}`,
		} {
			if !strings.HasPrefix(lines[i], want) {
				t.Errorf("line %d: %s, want %s", i, lines[i], want)
			}
		}
		if !strings.HasSuffix(first, `Z","reason":"handler_refused","answer":{"handler":"h:2","status":404,"text":"no chat\n"}}`) {
			t.Errorf("why it waits: %s", first)
		}
		for query, want := range map[string]string{
			"name=sales": lines[1], "instance=1101000003": lines[2], "name=sales&instance=1101000001": "", "limit=1": lines[0], "limit=2&name=old": lines[2],
		} {
			if status, got := b.call("GET", "queue", query); status != 200 || got != want {
				t.Errorf("%s: status %d, %s", query, status, got)
			}
		}
		id := b.lane("1101000001")
		entry := `{"seq":1,"received":"2000-01-01T00:00:00Z","size":39,"chat":"79001234568@c.us","id":"ONE","type":"incomingCall"}`
		if _, got := b.call("GET", "queue/"+id, ""); got != first+"\n"+entry+"\n"+strings.NewReplacer(`:1,`, `:2,`, `00Z`, `01Z`, "ONE", "TWO").Replace(entry) {
			t.Errorf("a lane: %s", got)
		}
		if _, got := b.call("GET", "queue/"+id, "limit=1"); got != first+"\n"+entry {
			t.Errorf("its first entry: %s", got)
		}
		for range entriesShown {
			b.put("sales/1101000002//x")
		}
		if _, got := b.call("GET", "queue/"+b.lane("1101000002"), ""); strings.Count(got, "\n") != entriesShown {
			t.Errorf("%d entries", strings.Count(got, "\n"))
		}
		if b.logs.Len() != 0 {
			t.Errorf("looking was logged: %q", b.logged())
		}
	})
}

// TestQueueRefuses: what cannot be done says why, with a status of its own.
func TestQueueRefuses(t *testing.T) {
	onQueue(t, func(t *testing.T, b *queueBench) {
		b.put("default/1101000001//ONE", "old/1101000002//TWO")
		for _, test := range []struct {
			method, path, query string
			status              int
			want                string
		}{
			{"GET", "queue", "limit=0", 400, "limit: want 1 or more"},
			{"GET", "queue", "limit=x", 400, "limit: "},
			{"GET", "queue/any", "limit=1001", 400, "limit: want at most 1000"},
			{"GET", "queue", "name=", 400, "name: empty; want a value, or leave it out"},
			{"GET", "queue", "name=a&name=b", 400, "name: more than one"},
			{"GET", "queue", "chat=1", 400, "chat: unknown parameter"},
			{"GET", "queue/0123456789ab", "", 404, "no such lane in the queue: 0123456789ab"},
			{"GET", "queue/0123456789ab", "name=a", 400, "name: unknown parameter"},
			{"GET", "queue/pause", "", 405, "method GET not allowed"},
			{"POST", "queue", "", 405, "method POST not allowed"},
			{"POST", "queue/pause", "name=slaes", 400, `neither the config that runs nor the queue has a green_api block named "slaes"; want one of default, sales`},
			{"POST", "queue/pause", "instance=", 400, "instance: empty"},
			{"POST", "queue/pause", "all=true", 400, "all: unknown parameter"},
			{"POST", "queue/resume", "instance=", 400, "instance: empty"},
			{"POST", "queue/drain", "off=yes", 400, `off: invalid value "yes"; want true or false`},
			{"POST", "queue/drain", "name=sales", 400, "name: unknown parameter"},
			{"POST", "queue/retry", "", 400, "nothing said of what to retry; want lane, name, instance, or all=true"},
			{"POST", "queue/retry", "all=false", 400, "nothing said of what to retry"},
			{"POST", "queue/retry", "all=1", 400, "all: invalid value"},
			{"POST", "queue/retry", "lane=0123456789ab", 404, "no such lane"},
			{"POST", "queue/retry", "lane=0123456789ab&all=true", 400, "want either lane, or name and instance, or all=true"},
			{"POST", "queue/retry", "name=sales&all=true", 400, "want either lane, or name and instance, or all=true"},
			{"POST", "queue/retry", "lane=" + b.lane("1101000002"), 409, `belongs to the block "old", which the config that runs does not have`},
			{"POST", "queue/skip", "", 400, "nothing said of what to skip; want lane"},
			{"POST", "queue/skip", "lane=0123456789ab", 404, "no such lane"},
			{"POST", "queue/skip", "instance=1101000001", 400, "instance: unknown parameter"},
			{"POST", "queue/move", "from=old", 400, "nothing said of what to move; want from and to"},
			{"POST", "queue/move", "from=old&to=slaes", 400, `no green_api block named "slaes"; want one of default, sales`},
			{"POST", "queue/move", "from=default&to=sales", 400, `from: the config has a block of this name: "default"`},
		} {
			b.want(test.method, test.path, test.query, test.status, test.want)
		}
		b.wantLogged()
		if c := b.queue.Control(); len(c.Paused)+len(c.Moves) > 0 || c.Draining || len(b.kept) > 0 {
			t.Errorf("ordered %+v, kept %q", c, b.kept)
		}

		b.store.Close()
		b.want("POST", "queue/pause", "", 500, "queue is closed")
		b.want("POST", "queue/drain", "", 500, "queue is closed")
		d := b.queue
		for name, none := range map[string]func() *queue.Dispatcher{"nil": nil, "none": func() *queue.Dispatcher { return nil }} {
			b.Queue = none
			for _, path := range []string{"GET queue", "GET queue/0123456789ab", "GET queue/state", "POST queue/pause", "POST queue/skip"} {
				method, path, _ := strings.Cut(path, " ")
				if status, text := b.call(method, path, ""); status != 404 || text != ErrNoQueue.Error() {
					t.Errorf("%s: %s: status %d, %s", name, path, status, text)
				}
			}
		}
		b.Queue = func() *queue.Dispatcher { return d }
	})
}

// TestQueueOrders: what the operator orders is done, answered and logged.
func TestQueueOrders(t *testing.T) {
	onQueue(t, func(t *testing.T, b *queueBench) {
		b.put("default/1101000001/a@c.us/ONE", "default/1101000001/a@c.us/TWO", "sales/1101000002//THREE")
		const holds = `{"entries":3,"bytes":81,"max_bytes":10000,"lanes":2,"lanes_waiting":2,"in_flight":0,`
		step := func(path, query string, status int, want string, logged ...string) {
			t.Helper()
			synctest.Wait()
			if got, text := b.call("POST", "queue/"+path, query); got != status || text != want {
				t.Errorf("%s %s: status %d, %s; want %d, %s", path, query, got, text, status, want)
			}
			synctest.Wait()
			b.wantLogged(logged...)
		}
		b.want("GET", "queue/state", "", 200, holds+`"paused":[],"draining":false}`)
		step("pause", "", 200, holds+`"paused":[{}],"draining":false}`, "queue paused map[]")
		step("pause", "name=sales&instance=1101000002", 200, holds+`"paused":[{},{"name":"sales","instance":"1101000002"}],"draining":false}`,
			"queue paused map[instance:1101000002 name:sales]")
		step("resume", "instance=1101000002", 200, holds+`"paused":[{}],"draining":false}`, "queue resumed map[instance:1101000002]")
		b.want("GET", "queue", "name=sales", 200, `"state":"paused"`)
		step("retry", "lane="+b.lane("1101000001"), 409, "the lane "+b.lane("1101000001")+" is paused; resume it")
		step("retry", "name=sales", 200, `{"lanes":0,"paused":1}`, "queue lanes retried map[count:0 name:sales]")
		step("retry", "all=true", 200, `{"lanes":0,"paused":2}`, "queue lanes retried map[count:0]")
		step("drain", "", 200, holds+`"paused":[{}],"draining":true}`, "queue is being drained map[]")
		step("drain", "off=true", 200, holds+`"paused":[{}],"draining":false}`, "queue takes in again map[]")
		step("drain", "off=false", 200, holds+`"paused":[{}],"draining":true}`, "queue is being drained map[]")
		step("resume", "instance=1101000001", 200, holds+`"paused":[{}],"draining":true}`, "queue resumed map[instance:1101000001]")
		if _, text := b.call("POST", "queue/resume", ""); !strings.HasSuffix(text, `"paused":[],"draining":false}`) {
			t.Errorf("resume: %s", text)
		}
		synctest.Wait()
		b.wantLogged("queue resumed map[]")

		step("retry", "lane="+b.lane("1101000001"), 200, `{"lanes":1}`, "queue lanes retried map[count:1 lane:"+b.lane("1101000001")+"]")
		step("retry", "name=sales", 200, `{"lanes":1}`, "queue lanes retried map[count:1 name:sales]")
		step("retry", "all=true", 200, `{"lanes":2}`, "queue lanes retried map[count:2]")

		b.full = true
		step("skip", "lane="+b.lane("1101000001"), 500, "{env.DIR}: quarantine is full")
		b.full = false
		step("skip", "lane="+b.lane("1101000001"), 200, `{"entries":1}`, "queue entry skipped map[instance:1101000001 lane:"+b.lane("1101000001")+" name:default]")
		if !slices.Equal(b.kept, []string{"ONE"}) {
			t.Errorf("kept %q", b.kept)
		}
	})
}

// TestQueueBusy: what is being delivered is not skipped.
func TestQueueBusy(t *testing.T) {
	onQueue(t, func(t *testing.T, b *queueBench) {
		b.put("default/1101000001//ONE")
		b.mu.Lock() // the handler takes long
		if _, text := b.call("POST", "queue/retry", "all=true"); text != `{"lanes":1}` {
			t.Error(text)
		}
		// Not synctest.Wait: a mutex does not block durably.
		b.want("GET", "queue", "", 200, `"state":"delivering"`)
		b.want("POST", "queue/skip", "seq=4711&lane="+b.lane("1101000001"), 409, "the lane has another first notification by now")
		b.want("POST", "queue/skip", "seq=x&lane="+b.lane("1101000001"), 400, "seq: invalid value")
		b.want("POST", "queue/skip", "lane="+b.lane("1101000001"), 409, "the lane's first notification is being delivered")
		b.want("POST", "queue/retry", "lane="+b.lane("1101000001"), 200, `{"lanes":0}`)
		b.mu.Unlock()
		synctest.Wait()
		b.wantLogged("queue lanes retried map[count:1]", "queue lanes retried map[count:0 lane:"+b.lane("1101000001")+"]")
	})
}

// TestQueueMove: what no block delivers any more is delivered by another.
func TestQueueMove(t *testing.T) {
	onQueue(t, func(t *testing.T, b *queueBench) {
		b.ends["1101000003"] = queue.Result{Outcome: queue.Delivered}
		b.put("old/1101000003/a@c.us/ONE", "old/1101000003/b@c.us/TWO", "old/1101000004//THREE")
		b.want("POST", "queue/pause", "name=old&instance=1101000004", 200, `"paused":[{"name":"old","instance":"1101000004"}]`)
		b.want("POST", "queue/move", "from=old&to=sales", 200, `{"entries":3}`)
		synctest.Wait()
		if _, text := b.call("GET", "queue", ""); strings.Contains(text, "1101000003") || !strings.Contains(text, `"name":"sales","instance":"1101000004"`) {
			t.Errorf("left: %s", text)
		}
		b.want("POST", "queue/move", "from=old&to=sales", 400, "the queue has nothing of a block of this name")
		b.wantLogged("queue paused map[instance:1101000004 name:old]", "queue entries moved map[count:3 from:old to:sales]")
	})
}
