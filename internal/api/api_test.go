package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// bench is an edge whose handlers are a function, with a quarantine.
type bench struct {
	*Edge
	t     *testing.T
	store *quarantine.Store
	logs  *observer.ObservedLogs
}

func newBench(t *testing.T) *bench {
	t.Helper()
	store, err := quarantine.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	core, logs := observer.New(zapcore.InfoLevel)
	b := &bench{t: t, store: store, logs: logs}
	b.Edge = &Edge{
		Status:        func() (s Status) { s.Caddy = "v2.0.0"; return s },
		Quarantine:    func() (*quarantine.Store, func(), error) { return store, func() {}, nil },
		Hide:          func(err error) error { return err },
		ParseDuration: time.ParseDuration,
		Blocks:        []string{"default", "sales"},
		IsFor:         func(_, instance string) bool { return instance != "1101000009" },
		Replay: func(string, quarantine.Entry, bool) (*outcome.Verdict, []string) {
			return &outcome.Verdict{Outcome: outcome.Delivered}, nil
		},
		Replays:  new(Replays),
		Activity: new(Activity),
		Log:      zap.New(core),
	}
	return b
}

func (b *bench) put(entries ...quarantine.Entry) (ids []string) {
	b.t.Helper()
	for _, entry := range entries {
		if entry.Body == nil {
			entry.Body = []byte("{}")
		}
		id, err := b.store.Put(entry, 0)
		if err != nil {
			b.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// putMany puts entries of several instances, each numbered from a.
func (b *bench) putMany(instances, each int) {
	b.t.Helper()
	for i := range instances * each {
		b.put(quarantine.Entry{Name: "default", Instance: fmt.Sprint(i / each), NotificationID: string(rune('a' + i%each))})
	}
}

// call makes a request, and answers as Caddy does.
func (b *bench) call(method, target, body string) (status int, text string) {
	b.t.Helper()
	return b.callWith(b.t.Context(), method, target, body)
}

func (b *bench) callWith(ctx context.Context, method, target, body string) (status int, text string) {
	w := httptest.NewRecorder()
	Handler(func() *Edge { return b.Edge }).ServeHTTP(w, httptest.NewRequestWithContext(ctx, method, "/green_api/"+target, strings.NewReader(body)))
	var refused struct{ Error string }
	if w.Code >= 400 && json.Unmarshal(w.Body.Bytes(), &refused) == nil {
		return w.Code, refused.Error
	}
	return w.Code, strings.TrimSuffix(w.Body.String(), "\n")
}

func (b *bench) want(method, target, body string, status int, text string) {
	b.t.Helper()
	if gotStatus, got := b.call(method, target, body); gotStatus != status || !strings.Contains(got, text) {
		b.t.Errorf("%s %s %.50q: status %d, want %d; lacks %q: %s", method, target, body, gotStatus, status, text, got)
	}
}

func (b *bench) left() (names []string) {
	b.t.Helper()
	list, err := b.store.List("", 0)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, entry := range list {
		names = append(names, entry.NotificationID)
	}
	return names
}

// TestServe: what cannot be done says why, with a status of its own.
func TestServe(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	id := b.put(quarantine.Entry{Reason: reason.Schema})[0]
	b.want("GET", "status", "", 200, `"caddy":"v2.0.0"`)
	b.want("GET", "status", "", 200, `"version":"`)
	b.want("DELETE", "status", "", 405, "method DELETE not allowed")
	b.want("GET", "quarantine/replay", "", 405, "method GET not allowed")
	b.want("GET", "quarantine/none", "", 404, `entry "none": no such entry`)
	b.want("DELETE", "quarantine/none", "", 404, `entry "none": no such entry`)
	b.want("GET", "quarantine/"+id, "", 200, id)
	b.want("DELETE", "quarantine", "", 400, "nothing said of what to delete")
	b.want("DELETE", "quarantine", "all=false", 400, "nothing said of what to delete")
	b.want("POST", "quarantine/replay", "recheck=true&limit=5", 400, "nothing said of what to replay")
	b.want("POST", "quarantine/replay", "all=true&to=support", 400, `no green_api block named "support"; want one of default, sales`)

	edge := b.Edge
	b.Edge = nil
	b.want("GET", "status", "", 404, ErrNoEdge.Error())
	b.want("DELETE", "status", "", 405, "not allowed") // also without an edge
	b.Edge = edge

	b.Quarantine = func() (*quarantine.Store, func(), error) { return nil, nil, errors.New("open /secret: is gone") }
	b.Hide = func(err error) error {
		if err == nil {
			return nil
		}
		return errors.New(strings.ReplaceAll(err.Error(), "/secret", "{env.DIR}"))
	}
	b.want("GET", "quarantine", "", 500, "open {env.DIR}: is gone")
	b.want("GET", "quarantine/"+id, "", 500, "open {env.DIR}: is gone")
	b.want("GET", "quarantine", "since=/secret", 400, `"/secret"`) // what the client said is not hidden
}

// TestParameters: a request says what it means in its address or its body, and a slip means nothing.
func TestParameters(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	now := time.Now()
	b.put(
		quarantine.Entry{NotificationID: "OLD", Received: now.Add(-2 * time.Hour), Reason: reason.Schema, Chat: "79001234568@c.us"},
		quarantine.Entry{NotificationID: "NEW", Received: now.Add(-time.Minute), Reason: reason.Malformed, Instance: "1101000001"},
	)
	for _, test := range []struct {
		query, body string
		status      int
		want        string // OLD, NEW, both or neither, or of the error
	}{
		{"", "", 200, "OLD NEW"},
		{"since=1h", "", 200, "NEW"},
		{"until=1h", "", 200, "OLD"},
		{"since=" + now.Add(-time.Hour).UTC().Format(time.RFC3339), "", 200, "NEW"},
		{"", "chat=79001234568%40c.us\n", 200, "OLD"},
		{"reason=schema", "reason=malformed", 200, "OLD NEW"},
		{"reason=schema&instance=1101000001", "", 200, ""},
		{"limit=1", "", 200, "OLD"},
		{"limit=1&limit=2", "", 200, "OLD NEW"},
		{"limit=0", "", 400, "limit: want 1 or more"},
		{"limit=x", "", 400, "limit: "},
		{"since=-1h", "", 400, "since: invalid time"},
		{"until=yesterday", "", 400, "until: invalid time \"yesterday\"; want a duration such as 24h, or RFC 3339"},
		{"instance=", "", 400, "instance: empty; want a value, or leave it out"},
		{"", "type=", 400, "type: empty"},
		{"reason=schema&reason=shcema", "", 400, `reason: unknown reason "shcema"; want one of too_large, encoding, malformed, unknown_type, unknown_message, schema, undeliverable, retention, expired, skipped`},
		{"limt=1", "", 400, "limt: unknown parameter"},
		{"all=true", "", 400, "all: unknown parameter"}, // of other calls
		{"body=1", "", 400, `body: invalid value "1"; want true or false`},
		{"%", "", 400, "query: "},
		{"", "%", 400, "body: want parameters as in a query"},
		{"", "instance=" + strings.Repeat("1", maxParameters), 400, "more than 1048576 bytes of parameters"},
		{"", "instance=" + strings.Repeat("1", maxParameters-len("instance=")), 200, ""},
	} {
		status, text := b.call("GET", "quarantine?"+test.query, test.body)
		if status != test.status {
			t.Errorf("%s %.50s: status %d, want %d: %s", test.query, test.body, status, test.status, text)
		}
		if status != 200 {
			if !strings.Contains(text, test.want) {
				t.Errorf("%s %.50s: lacks %q: %s", test.query, test.body, test.want, text)
			}
			continue
		}
		var names []string
		for line := range strings.Lines(text) {
			var entry Entry
			if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Body != "" {
				t.Errorf("%s: %v: %s", test.query, err, line)
			}
			names = append(names, entry.NotificationID)
		}
		if got := strings.Join(names, " "); got != test.want {
			t.Errorf("%s %.50s: %q, want %q", test.query, test.body, got, test.want)
		}
	}
}

// TestShow: an entry comes back byte for byte.
func TestShow(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "{}", "Ünïcode", "\x00\xff{no JSON"} {
		text, err := json.Marshal(Show(quarantine.Entry{ID: "x", Body: []byte(body)}))
		if err != nil {
			t.Fatal(err)
		}
		var back Entry
		if err := json.Unmarshal(text, &back); err != nil || string(back.Bytes()) != body || back.ID != "x" {
			t.Errorf("%q: %v: %s", body, err, text)
		}
	}
}

// TestDelete: what is deleted is logged, but for the chat; ids that no entry has are named.
func TestDelete(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ids := b.put(
		quarantine.Entry{NotificationID: "ONE", Chat: "79001234568@c.us"}, quarantine.Entry{NotificationID: "TWO"}, quarantine.Entry{NotificationID: "LAST"},
	)
	b.want("DELETE", "quarantine", "chat=79001234568%40c.us", 200, `{"deleted":1}`)
	b.want("DELETE", "quarantine", "id="+ids[1]+"&id=none", 200, `{"deleted":1,"missing":["none"]}`)
	if got := b.left(); !slices.Equal(got, []string{"LAST"}) || b.store.Stats().WipeDue {
		t.Errorf("left %q; something is left to wipe: %v", got, b.store.Stats().WipeDue)
	}
	many := "id=none"
	for i := range mostLogged {
		many += fmt.Sprint("&id=", i)
	}
	b.want("DELETE", "quarantine", many, 200, `{"deleted":0,"missing":[`)
	b.want("DELETE", "quarantine?all=true", "", 200, `{"deleted":1}`)
	var logged []string
	for _, entry := range b.logs.All() {
		logged = append(logged, fmt.Sprint(entry.Message, entry.ContextMap()))
	}
	want := []string{
		"quarantine entries deletedmap[count:1]",
		"quarantine entries deletedmap[count:1 id:[" + ids[1] + " none]]",
		"quarantine entries deletedmap[count:0 ids:101]",
		"quarantine entries deletedmap[count:1]",
	}
	if !slices.Equal(logged, want) {
		t.Errorf("logged %q, want %q", logged, want)
	}
}

// TestReplayResults has what becomes of an entry, by what its handlers do.
func TestReplayResults(t *testing.T) {
	t.Parallel()
	refused := errors.New("handler_refused")
	for _, test := range []struct {
		name        string
		entry       quarantine.Entry
		query       string
		end         outcome.Verdict
		tried       []string
		want        string // of the line, without id and instance
		left, asked bool
	}{
		{"delivered", quarantine.Entry{}, "all=true", outcome.Verdict{Outcome: outcome.Delivered}, nil, `"outcome":"delivered","reason":""}`, false, true},
		{
			"failed",
			quarantine.Entry{},
			"all=true",
			outcome.Verdict{Outcome: outcome.Failed, Reason: reason.NotNow, Err: refused},
			[]string{"b: 503", "a: 422", "b: 503"},
			`"outcome":"failed","reason":"not_now","error":"handler_refused; a: 422, b: 503"}`, true, true,
		},
		{
			"said by the handler",
			quarantine.Entry{},
			"all=true",
			outcome.Verdict{Outcome: outcome.Failed, Reason: reason.NotNow, Err: refused},
			[]string{"a: handler_refused"},
			`"error":"a: handler_refused"}`, true, true,
		},
		{"nobody asked", quarantine.Entry{}, "all=true", outcome.Verdict{Outcome: outcome.Failed, Err: refused}, nil, `"error":"handler_refused"}`, true, true},
		{"still at fault", quarantine.Entry{}, "all=true&recheck=true", outcome.Verdict{Outcome: outcome.Quarantined, Reason: reason.Schema}, nil, `"outcome":"kept","reason":"schema"}`, true, true},
		{"would be dropped", quarantine.Entry{}, "all=true&recheck=true", outcome.Verdict{Outcome: outcome.Dropped, Reason: reason.Schema}, nil, `"outcome":"kept","reason":"schema"}`, true, true},
		{
			"block is gone",
			quarantine.Entry{Name: "old"},
			"all=true",
			outcome.Verdict{},
			nil,
			`"outcome":"failed","reason":"no_handler","error":"the config that runs has no green_api block named \"old\"; add --to NAME, one of: default, sales"}`, true, false,
		},
		{"through another", quarantine.Entry{Name: "old"}, "all=true&to=sales", outcome.Verdict{Outcome: outcome.Delivered}, nil, `"outcome":"delivered"`, false, true},
		{
			"block is another now",
			quarantine.Entry{Instance: "1101000009"},
			"all=true",
			outcome.Verdict{},
			nil,
			`"reason":"no_handler","error":"the green_api block named \"default\" has no token for this instance and does not receive it; to replay it all the same, add --to NAME, one of: default, sales"}`, true, false,
		},
		{"block is another, by name", quarantine.Entry{Instance: "1101000009"}, "all=true&to=default", outcome.Verdict{Outcome: outcome.Delivered}, nil, `"outcome":"delivered"`, false, true},
		{"unreadable for handlers", quarantine.Entry{Reason: reason.Malformed}, "all=true", outcome.Verdict{}, nil, `"outcome":"skipped","reason":"malformed"}`, true, false},
		{"the same, by reason", quarantine.Entry{Reason: reason.Malformed}, "reason=malformed", outcome.Verdict{Outcome: outcome.Delivered}, nil, `"outcome":"delivered"`, false, true},
		{"the same, by id", quarantine.Entry{Reason: reason.Encoding}, "id=ID", outcome.Verdict{Outcome: outcome.Delivered}, nil, `"outcome":"delivered"`, false, true},
		{"the same, by another reason", quarantine.Entry{Reason: reason.TooLarge}, "reason=encoding&reason=too_large", outcome.Verdict{Outcome: outcome.Delivered}, nil, `"outcome":"delivered"`, false, true},
		{"not there", quarantine.Entry{}, "id=none", outcome.Verdict{}, nil, `"outcome":"failed","reason":"not_found","error":"no such entry in quarantine"}`, true, false},
	} {
		b := newBench(t)
		if test.entry.Name == "" {
			test.entry.Name = "default"
		}
		id := b.put(test.entry)[0]
		asked := false
		b.Replay = func(block string, entry quarantine.Entry, recheck bool) (*outcome.Verdict, []string) {
			asked = true
			want := "default"
			if strings.Contains(test.query, "to=sales") {
				want = "sales"
			}
			if block != want || entry.ID != id || string(entry.Body) != "{}" || recheck != strings.Contains(test.query, "recheck=true") {
				t.Errorf("%s: block %q, entry %+v, recheck %v", test.name, block, entry, recheck)
			}
			end := test.end
			return &end, test.tried
		}
		status, text := b.call("POST", "quarantine/replay?"+strings.Replace(test.query, "ID", id, 1), "")
		if status != 200 || !strings.Contains(text, test.want) || strings.Contains(text, "\n") || asked != test.asked {
			t.Errorf("%s: status %d, asked %v, lacks %s: %s", test.name, status, asked, test.want, text)
		}
		if left := len(b.left()) == 1; left != test.left {
			t.Errorf("%s: left in the quarantine: %v", test.name, left)
		}
	}
}

// TestReplayOrder: several instances are replayed at once, each in order.
func TestReplayOrder(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const instances, each = 12, 5
	b.putMany(instances, each)
	var mu sync.Mutex
	busy, most := 0, 0
	came := make(map[string][]string)
	b.Replay = func(_ string, entry quarantine.Entry, _ bool) (*outcome.Verdict, []string) {
		mu.Lock()
		busy++
		most = max(most, busy)
		mu.Unlock()
		time.Sleep(time.Duration('f'-entry.NotificationID[0]) * 2 * time.Millisecond) // the later, the faster
		mu.Lock()
		came[entry.Instance] = append(came[entry.Instance], entry.NotificationID)
		busy--
		mu.Unlock()
		return &outcome.Verdict{Outcome: outcome.Delivered}, nil
	}
	if _, text := b.call("POST", "quarantine/replay?all=true", ""); strings.Count(text, "delivered") != instances*each || len(b.left()) != 0 {
		t.Errorf("%d left, %s", len(b.left()), text)
	}
	for instance, ids := range came {
		if len(ids) != each || !slices.IsSorted(ids) {
			t.Errorf("instance %s: %q", instance, ids)
		}
	}
	if most < 2 || most > replayers {
		t.Errorf("%d at once", most)
	}
}

// TestReplayTwice: of two replays at the same time only one delivers an entry, and says so.
func TestReplayTwice(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const instances, each = 6, 5
	b.putMany(instances, each)
	var delivered atomic.Int64
	b.Replay = func(string, quarantine.Entry, bool) (*outcome.Verdict, []string) {
		delivered.Add(1)
		time.Sleep(time.Millisecond)
		return &outcome.Verdict{Outcome: outcome.Delivered}, nil
	}
	var both sync.WaitGroup
	var lines atomic.Int64
	for range 2 {
		both.Go(func() {
			_, text := b.call("POST", "quarantine/replay?all=true", "")
			lines.Add(int64(strings.Count(text, "delivered")))
		})
	}
	both.Wait()
	if delivered.Load() != instances*each || lines.Load() != instances*each || len(b.left()) != 0 {
		t.Errorf("%d delivered of %d, %d lines, %d left", delivered.Load(), instances*each, lines.Load(), len(b.left()))
	}
}

// TestReplayBreaks: when the quarantine fails on the way, the lines say what is known, and the last
// one why there are no more.
func TestReplayBreaks(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.putMany(1, 1)
	b.Replay = func(string, quarantine.Entry, bool) (*outcome.Verdict, []string) {
		b.store.Close()
		return &outcome.Verdict{Outcome: outcome.Delivered}, nil
	}
	status, text := b.call("POST", "quarantine/replay?all=true", "")
	first, last, _ := strings.Cut(text, "\n")
	if status != 200 || !strings.Contains(first, `"outcome":"delivered","reason":"","error":"delivered, but still in the quarantine: `) || !strings.HasPrefix(last, `{"error":"`) {
		t.Errorf("status %d, %s", status, text)
	}
	if status, text := b.call("GET", "quarantine", ""); status != 500 || strings.Contains(text, "{") {
		t.Errorf("when nothing is on its way: status %d, %s", status, text)
	}
}

// TestReplayEnds: when the client has gone, what was begun ends and nothing more begins.
func TestReplayEnds(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const entries = 50
	b.putMany(1, entries)
	ctx, leave := context.WithCancel(t.Context())
	n := 0
	b.Replay = func(string, quarantine.Entry, bool) (*outcome.Verdict, []string) {
		n++
		leave()
		return &outcome.Verdict{Outcome: outcome.Delivered}, nil
	}
	if status, text := b.callWith(ctx, "POST", "quarantine/replay?all=true", ""); status != 200 || strings.Contains(text, "error") {
		t.Errorf("status %d, %s", status, text)
	}
	// Each further one is begun with a chance of one half, as long as both can go on.
	if left := len(b.left()); n == entries || n+left != entries {
		t.Errorf("%d delivered, %d left", n, left)
	}
}
