package command_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/queue"
	"github.com/greenapi-community/caddy-green-api/queue/queuetest"
)

// queueBench is an admin API in front of a queue, whose handlers take nothing of instances that end in an odd
// digit, until well says otherwise.
type queueBench struct {
	t     *testing.T
	queue *queue.Dispatcher
	admin string
	well  atomic.Bool
	kept  atomic.Pointer[string] // the ID of what was kept last
	full  atomic.Bool            // the quarantine is
}

func newQueueBench(t *testing.T) *queueBench {
	t.Helper()
	b := &queueBench{t: t}
	b.queue = queue.New(queuetest.NewMemory(1<<20), queue.Hooks{
		Deliver: func(d queue.Delivery) queue.Result {
			if b.well.Load() || !strings.ContainsAny(d.Instance[len(d.Instance)-1:], "13579") {
				return queue.Result{Outcome: queue.Delivered}
			}
			return queue.Result{Why: "handler_refused", Answers: []queue.Answer{{Handler: "h:1", Status: 404, Text: " no such chat\x1b\nsecond line"}}}
		},
		Keep: func(d queue.Delivery, _ queue.Fate) error {
			if b.full.Load() {
				return errors.New("quarantine is full")
			}
			b.kept.Store(&d.ID)
			return nil
		},
		Failed: func(error) {},
	})
	options := queue.Options{ByChat: true, InFlight: 4, Retry: []time.Duration{time.Hour}}
	b.queue.Configure(map[string]queue.Options{"default": options, "sales": options})
	b.queue.Start()
	t.Cleanup(func() { b.queue.Close(t.Context()) })
	b.admin = serveQueue(t, func() *queue.Dispatcher { return b.queue })
	return b
}

// serveQueue serves the admin API of an edge with a queue as Caddy does, and returns its address.
func serveQueue(t *testing.T, of func() *queue.Dispatcher) string {
	t.Helper()
	edge := &api.Edge{Queue: of, Hide: func(err error) error { return err }, Blocks: []string{"default", "sales"}, Log: zap.NewNop()}
	mux := http.NewServeMux()
	for _, route := range api.Routes() {
		mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, r *http.Request) {
			err := route.Serve(w, r, func() *api.Edge { return edge })
			if err == nil {
				return
			}
			status := http.StatusInternalServerError
			if said, ok := errors.AsType[*api.Error](err); ok {
				status = said.Status
			}
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
		})
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// put stores notifications that came two hours ago, each written as block/instance/chat/id, and waits until there
// are that many lanes.
func (b *queueBench) put(lanes int, names ...string) {
	b.t.Helper()
	for i, name := range names {
		part := strings.Split(name, "/")
		r := &queue.Record{
			Block: part[0], Instance: part[1], Chat: part[2], ID: part[3], Body: []byte(name), Type: "outgoingAPIMessageReceived", Message: "textMessage",
			Received: time.Now().Add(-2*time.Hour - 5*time.Minute - 30*time.Second + time.Duration(i)*time.Millisecond),
		}
		if _, err := b.queue.Put(b.t.Context(), r, 0); err != nil {
			b.t.Fatal(err)
		}
	}
	b.await(func() bool { return len(b.queue.Lanes()) == lanes && b.queue.Summary().Waiting == lanes })
}

func (b *queueBench) await(what func() bool) {
	b.t.Helper()
	for end := time.Now().Add(10 * time.Second); !what(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("lanes %+v", b.queue.Lanes())
		}
	}
}

// lane returns the ID of an instance's oldest lane.
func (b *queueBench) lane(instance string) string {
	b.t.Helper()
	for _, l := range b.queue.Lanes() {
		if l.Instance == instance {
			return l.ID
		}
	}
	b.t.Fatalf("instance %s has no lane", instance)
	return ""
}

func (b *queueBench) run(args ...string) (stdout, stderr string, code int) {
	b.t.Helper()
	return runCommand(b.t, "", "", append(append([]string{"green-api", "queue"}, args...), "--address", b.admin)...)
}

// want runs a command, and compares what it prints with regular expressions for all of it.
func (b *queueBench) want(args string, code int, stdout, stderr string) {
	b.t.Helper()
	gotOut, gotErr, gotCode := b.run(strings.Fields(args)...)
	for got, want := range map[string]string{gotOut: stdout, gotErr: stderr} {
		if !regexp.MustCompile(`\A(?s:` + want + `)\z`).MatchString(got) {
			b.t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
	if gotCode != code {
		b.t.Errorf("%s: exit code %d, want %d", args, gotCode, code)
	}
}

const (
	// What comes before an error.
	queuePrefix  = `caddy green-api queue \w+: `
	queueSeeHelp = `\nsee 'caddy green-api queue \w+ --help'\n`
)

// TestQueueList: lanes are rows of a table that lines up, and lines of JSON as the API has them; of an empty queue
// there is nothing.
func TestQueueList(t *testing.T) {
	b := newQueueBench(t)
	b.want("list", 0, "", "the queue is empty\n")
	b.want("list --format json", 0, "", "")
	b.put(1, "default/1101000001//ONE", "default/1101000001//TWO")
	b.want("list", 0, `LANE          INSTANCE    ENTRIES  OLDEST  STATE    TRIES  NEXT +REASON\n`+
		b.lane("1101000001")+`  1101000001  2        2h5m    waiting  1      in \S+ +handler_refused\n`+
		`1 lane, 2 notifications, 46 B: 1 waiting; the queue may use 1\.0 MiB\n`, "")
	b.put(3, "sales/1101000003/79001234568@c.us/THREE", "old/1101000005//FOUR")
	stdout, _, _ := b.run("list")
	lines := strings.Split(stdout, "\n")
	if want := "3 lanes, 4 notifications, 105 B: 1 no_handler, 2 waiting; the queue may use 1.0 MiB"; len(lines) != 6 || lines[4] != want {
		t.Fatalf("%s, want %s", stdout, want)
	}
	for _, column := range []string{"BLOCK", "INSTANCE", "CHAT", "ENTRIES", "OLDEST", "STATE", "TRIES", "NEXT", "REASON"} {
		at := strings.Index(lines[0], " "+column) + 1
		for _, line := range lines[1:4] {
			if at < 1 || line[at] == ' ' || line[at-1] != ' ' {
				t.Errorf("%s does not line up: %s", column, line)
			}
		}
	}
	if !regexp.MustCompile(`^\w{12}  old +1101000005  - +1 +2h5m +no_handler +0 +- +-$`).MatchString(lines[3]) {
		t.Errorf("without a handler: %s", lines[3])
	}
	b.want("list --name sales", 0, `.*\n.*79001234568@c\.us.*\n1 lane, 1 notification, 39 B: 1 waiting; in all 3 lanes, 4 notifications, 105 B; the queue may use 1\.0 MiB\n`, "")
	b.want("list --limit 1", 0, `.*\n.*1101000001.*\n1 lane, 2 .*`, "")
	b.want("list --instance 1101000009", 0, "", "nothing in the queue fits\n")
	b.want("list --instance 1101000009 --format json", 0, "", "")

	// One JSON object a line, as the API has it.
	stdout, _, code := b.run("list", "--format", "json")
	response, err := http.Get("http://" + b.admin + "/green_api/queue")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var said strings.Builder
	if err := response.Write(&said); err != nil {
		t.Fatal(err)
	}
	if code != 0 || strings.Count(stdout, "\n") != 3 || !strings.HasPrefix(stdout, `{"lane":"`) {
		t.Errorf("exit code %d, %s", code, stdout)
	}
	for line := range strings.Lines(stdout) {
		if !strings.Contains(said.String(), line) {
			t.Errorf("not as the API has it: %s", line)
		}
	}

	// What was ordered is said beside the lanes.
	b.want("pause --instance 1101000003", 0, "paused: instance 1101000003\n", "")
	b.want("list", 0, `.* paused .*`, "paused: instance 1101000003\n")
	b.want("drain --no-wait", 0, "paused: instance 1101000003\ndraining: what comes is answered 503, until 'caddy green-api queue drain --off'\n", "")
	b.want("list", 0, `.* paused .*`, "paused: instance 1101000003\ndraining: .*")
}

// TestQueueCrowded: list says when handlers have all places.
func TestQueueCrowded(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/state") {
			fmt.Fprintf(w, `{"entries":3,"crowded":[{"name":"sales","in_flight":2,"since":%q,"ready":1}]}`+"\n", time.Now().Add(-125*time.Second).Format(time.RFC3339Nano))
			return
		}
		fmt.Fprintln(w, `{"lane":"0123456789ab","name":"sales","instance":"1101000001","entries":3,"state":"delivering"}`)
	}))
	defer server.Close()
	b := &queueBench{t: t, admin: strings.TrimPrefix(server.URL, "http://")}
	b.want("list", 0, ".*delivering.*", `all places of the block sales \(2\) have been taken for 2m\ds, by the lanes that are delivering; 1 lane waits for one\n`)
}

// TestQueueShow: a lane is shown with its notifications in their order.
func TestQueueShow(t *testing.T) {
	b := newQueueBench(t)
	b.put(2, "default/1101000001/79001234568@c.us/ONE", "default/1101000001/79001234568@c.us/TWO", "old/1101000003//THREE")
	id := b.lane("1101000001")
	b.want("show "+id, 0, id+`  block default  instance 1101000001  chat 79001234568@c\.us\n    2 notifications, 78 B, the first one for 2h5m\n`+
		`    waiting, tried in vain 1 time, for handler_refused, next in \S+\n    h:1: 404 no such chat\?\n`+
		`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  seq 1  39 bytes  79001234568@c\.us  outgoingAPIMessageReceived\.textMessage  id ONE\n\S+ \S+  seq 2  39 bytes  79001234568@c\.us  .*  id TWO\n`, "")
	b.want("show "+id+" --limit 1", 0, `(.*\n){4}.*seq 1.*`, "1 more, see --limit\n")
	b.want("show "+id+" --format json", 0, `\{"lane":"`+id+`".*\n\{"seq":1,.*\n\{"seq":2,.*\n`, "")
	b.want("show "+b.lane("1101000003"), 0, `.*  block old  instance 1101000003\n.*\n    no_handler\n.*seq 3  21 bytes  \S+  id THREE\n`, "")
}

// TestQueueOrders: what is ordered happens, and the command says what it amounts to.
func TestQueueOrders(t *testing.T) {
	b := newQueueBench(t)
	b.put(3, "default/1101000001//ONE", "default/1101000001//TWO", "default/1101000003//THREE", "old/1101000002//FOUR")
	id := b.lane("1101000001")
	b.want("pause --name default --instance 1101000001", 0, "paused: instance 1101000001 of block default\n", "")
	b.want("pause", 0, "paused: instance 1101000001 of block default\npaused: all of the queue\n", "")
	b.want("retry "+id, 1, "", queuePrefix+"the lane "+id+" is paused; resume it\n")
	b.want("retry --all", 0, "0 lanes retried; left as they are: 2 paused, 1 without a handler\n", "")
	b.want("resume --instance 1101000001", 1, "paused: all of the queue\n", "caddy green-api queue resume: instance 1101000001 is still paused, because all of the queue is\n")
	b.want("resume --format json", 0, `\{"entries":4,.*,"paused":\[\],"draining":false\}\n`, "")
	b.want("pause --name sales", 0, "paused: block sales\n", "")
	b.want("resume --name default", 0, "paused: block sales\n", "")
	b.want("resume --instance 1101000001", 1, "paused: block sales\n", ".*instance 1101000001 is still paused, because block sales is\n")
	b.want("resume", 0, "nothing is paused\n", "")

	waits := func() bool { return b.queue.Summary().InFlight == 0 && b.queue.Lanes()[0].State == queue.StateWaiting }
	b.await(waits)
	rounds := b.queue.Lanes()[0].Round
	b.want("retry "+id, 0, "1 lane retried\n", "")
	b.await(func() bool { return waits() && b.queue.Lanes()[0].Round == rounds+1 })
	b.want("retry --instance 1101000003 --format json", 0, `\{"lanes":1\}\n`, "")
	b.want("retry "+b.lane("1101000002"), 1, "", queuePrefix+`the lane \w+ belongs to the block "old".*`)

	b.full.Store(true)
	b.want("skip "+id, 2, "", queuePrefix+"quarantine is full\n")
	b.full.Store(false)
	b.want("skip "+id+" --seq 4711", 1, "", queuePrefix+"the lane has another first notification by now\n")
	b.want("skip "+id, 0, "1 notification skipped; 'caddy green-api quarantine list --reason skipped' shows it\n", "")
	if kept := b.kept.Load(); kept == nil || *kept != "ONE" {
		t.Errorf("kept %v", kept)
	}
	b.want("move --from old --to sales", 0, "1 notification moved\n", "")
	b.await(func() bool { return b.queue.Summary().Entries == 2 })
	b.want("move --from old --to sales", 2, "", "(?s).*the queue has nothing of a block of this name.*")
}

// TestQueueDrain: draining lasts until it is ended, and the command waits until the queue is empty.
func TestQueueDrain(t *testing.T) {
	b := newQueueBench(t)
	b.want("drain", 0, "the queue is empty\n", "")
	if !b.queue.Control().Draining {
		t.Error("not draining after the command has ended")
	}
	b.want("drain --off", 0, "nothing is paused\n", "")
	if b.queue.Control().Draining {
		t.Error("still draining")
	}
	b.put(1, "default/1101000001//ONE")
	b.want("pause --name sales", 0, ".*", "")
	b.want("drain --wait-timeout 1ms", 1, "", `block sales is paused, and is not delivered\n1 notification left after \S+; the queue is still being drained\n`)
	b.want("drain --wait-timeout 1ms --format json", 1, `\{"entries":1,.*"draining":true\}\n`, ".*1 notification left.*")
	b.want("resume", 0, "nothing is paused\n", "")
	if b.queue.Control().Draining {
		t.Error("draining after all was resumed")
	}

	go func() {
		b.await(func() bool { return b.queue.Control().Draining })
		_ = b.queue.Drain(false)
	}()
	b.want("drain", 1, "", "somebody has ended draining\n")
	go func() {
		b.await(func() bool { return b.queue.Control().Draining })
		b.well.Store(true)
		b.queue.RetryAll(queue.Target{})
	}()
	b.want("drain", 0, "the queue is empty\n", "")
}

// TestQueueRefuses: what was not understood, or cannot be done, does nothing and says why, in the exit code too.
func TestQueueRefuses(t *testing.T) {
	b := newQueueBench(t)
	b.put(1, "default/1101000001//ONE")
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"show", "0123456789ab"}, 1, "no such lane in the queue: 0123456789ab"},
		{[]string{"skip", "0123456789ab"}, 1, "no such lane in the queue: 0123456789ab"},
		{[]string{"retry", "0123456789ab"}, 1, "no such lane in the queue: 0123456789ab"},
		{[]string{"show"}, 2, "want one lane, as list prints it"},
		{[]string{"show", "a", "b"}, 2, "want one lane"},
		{[]string{"show", ""}, 2, "the lane is empty"},
		{[]string{"show", "0123456789ab", "--limit", "0"}, 2, "invalid --limit 0; want 1 or more"},
		{[]string{"skip"}, 2, "want one lane"},
		{[]string{"skip", ""}, 2, "the lane is empty"},
		{[]string{"retry"}, 2, "nothing said of what to retry; want a lane, --name, --instance, or --all"},
		{[]string{"retry", ""}, 2, "the lane is empty"},
		{[]string{"retry", "0123456789ab", "--all"}, 2, "want either lane"},
		{[]string{"retry", "--instance", "", "--all"}, 2, "--instance: empty; want a value"},
		{[]string{"list", "--limit", "-1"}, 2, "invalid --limit -1"},
		{[]string{"list", "--name="}, 2, "--name: empty"},
		{[]string{"list", "0123456789ab"}, 2, "and no lane; 'caddy green-api queue show LANE' shows one"},
		{[]string{"list", "--format", "xml"}, 2, "invalid --format"},
		{[]string{"pause", "--instance", ""}, 2, "--instance: empty"},
		{[]string{"pause", "--all", "--name", "sales"}, 2, "say different things"},
		{[]string{"pause", "--name", "slaes"}, 2, `named "slaes"; want one of default, sales`},
		{[]string{"pause", "1101000001"}, 2, "and no lane"},
		{[]string{"resume", "--instance", ""}, 2, "--instance: empty"},
		{[]string{"resume", "--all", "--instance", "1"}, 2, "say different things"},
		{[]string{"drain", "now"}, 2, "and no lane"},
		{[]string{"drain", "--off", "--no-wait"}, 2, "nothing to wait for"},
		{[]string{"drain", "--wait-timeout", "-1s"}, 2, "invalid --wait-timeout -1s"},
		{[]string{"move", "--from", "old"}, 2, "want --from and --to"},
		{[]string{"move", "--from", "", "--to", "sales"}, 2, "--from: empty"},
		{[]string{"move", "--from", "old", "--to", "slaes"}, 2, `named "slaes"; want one of default, sales`},
		{[]string{"move", "--from", "default", "--to", "sales"}, 2, "the config has a block of this name"},
	} {
		stdout, stderr, code := b.run(test.args...)
		if code != test.code || stdout != "" || !strings.Contains(stderr, test.want) || !strings.HasPrefix(stderr, "caddy green-api queue "+test.args[0]+": ") {
			t.Errorf("%q: exit code %d, want %d; stdout %q, stderr %q, want %q", test.args, code, test.code, stdout, stderr, test.want)
		} else if strings.Contains(stderr, "elsewhere") {
			t.Errorf("%q: the server has answered, and it reads as if it had not: %q", test.args, stderr)
		}
	}
	if c := b.queue.Control(); len(c.Paused)+len(c.Moves) > 0 || c.Draining || b.kept.Load() != nil {
		t.Errorf("ordered %+v, kept %v", c, b.kept.Load())
	}

	none := &queueBench{t: t, admin: serveQueue(t, nil)}
	gone := &queueBench{t: t, admin: "127.0.0.1:1"}
	for _, args := range []string{"list", "list --format json", "show 0123456789ab", "pause", "resume", "retry --all", "skip 0123456789ab", "drain", "drain --off", "move --from old --to sales"} {
		none.want(args, 2, "", queuePrefix+regexp.QuoteMeta(api.ErrNoQueue.Error())+queueSeeHelp)
		gone.want(args, 2, "", queuePrefix+`admin API on 127\.0\.0\.1:1: .*if it is elsewhere, say so with --config FILE.*`)
	}
}

// TestQueueSteering: what a chat or a name says does not steer the terminal, nor break the table.
func TestQueueSteering(t *testing.T) {
	b := newQueueBench(t)
	const evil = "\x1b[2J\u202e\tx\n"
	b.put(1, "default/1101000001/"+evil+"/ONE")
	for _, args := range []string{"list", "show " + b.lane("1101000001"), "list --format json", "show " + b.lane("1101000001") + " --format json"} {
		stdout, _, code := b.run(strings.Fields(args)...)
		if code != 0 || strings.ContainsAny(stdout, "\x1b\u202e\t") {
			t.Errorf("%s: exit code %d, %q", args, code, stdout)
		}
		if want := map[bool]int{true: 1, false: 3}[strings.HasSuffix(args, "json")]; strings.HasPrefix(args, "list") && strings.Count(stdout, "\n") != want {
			t.Errorf("%s: %q", args, stdout)
		}
	}
	if got := fmt.Sprint(b.queue.Lanes()[0].Chat); got != evil {
		t.Errorf("the chat is %q", got)
	}
}
