package greenapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/judge"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
	"github.com/greenapi-community/caddy-green-api/internal/token"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// TestEntryClipped: however long the sender makes what is kept beside a body, lists of it are short.
func TestEntryClipped(t *testing.T) {
	long := strings.Repeat("\xff", 1<<20)
	r := &http.Request{Host: strings.Repeat("h", 1<<20), RequestURI: "/hook/" + strings.Repeat("%20", 1<<18) + "?" + long, Header: make(http.Header)}
	for range 1000 {
		r.Header.Add("Content-Type", "application/json; charset=utf-8; x="+strings.Repeat("y", 1<<15)+"; charset=utf-16")
	}
	v := &visit{Case: outcome.Case{Host: r.Host, URI: r.RequestURI, Header: r.Header, Client: long, N: &notification.Notification{Type: long, Message: long, Instance: "1101000001", Chat: long, ID: long}, Body: []byte("{}")}}
	end := outcome.ToQuarantine(reason.Schema)
	for range 100 { // as many as there are at most
		end.Faults = append(end.Faults, notification.Fault{Pointer: "/" + strings.Repeat("p", 1<<15), Keyword: "type"})
	}
	entry := newEntry("default", &v.Case, end)
	head, err := json.Marshal(entry)
	if err != nil {
		t.Fatal(err)
	}
	if most := 128 << 10; len(head) > most {
		t.Errorf("head of %d bytes, want %d at most", len(head), most)
	}
	uri, err := url.ParseRequestURI(entry.URI)
	if err != nil || !strings.HasPrefix(uri.Path, "/hook/ ") || uri.RawQuery != "" {
		t.Errorf("URI %q: %v", entry.URI, err)
	}
	for _, kind := range entry.Header["Content-Type"] {
		if judge.IsJSON(kind) {
			t.Errorf("clipped, it has become JSON: %q", kind)
		}
	}
	short := &visit{Case: outcome.Case{Host: "hooks.example.com", URI: "/hook?a=b", Header: http.Header{"Content-Type": {notification.ContentType}}, N: v.N}}
	if e := newEntry("default", &short.Case, end); e.URI != "/hook?a=b" || e.Host != "hooks.example.com" || e.Header["Content-Type"][0] != notification.ContentType {
		t.Errorf("short ones are changed: %+v", e)
	}
}

// TestMaxAge: what is older than max_age is deleted, and leaves nothing behind. The operator is told of what will be
// within two days.
func TestMaxAge(t *testing.T) {
	quickAlerts(t)
	in := edgetest.NewInbox(t, nil)
	dir := filepath.Join(t.TempDir(), "quarantine")
	store, err := quarantine.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range []string{"OLD", "SOON", "NEW"} {
		age := []time.Duration{8, 6, 1}[i] * 24 * time.Hour
		if _, err := store.Put(quarantine.Entry{Received: time.Now().Add(-age), NotificationID: id, Instance: "1101000001", Body: []byte("body of " + id)}, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	config := edgetest.Alerting(in.URL, "", edgetest.Loopback)
	e := edgetest.Start(t, strings.Replace(config, "quarantine DIR", "quarantine "+dir+" {\nmax_age 7d\n}", 1))
	edgetest.Eventually(t, "deletion", func() bool { return strings.Contains(e.Logs.All(), "quarantine entries deleted") })
	wantWarning(t, e, `"msg":"quarantine entries deleted, they were older than max_age","count":1,"max_age":604800}`)
	edgetest.Eventually(t, "alert", func() bool {
		all := strings.Join(in.All(), "")
		return strings.Contains(all, `"reason":"expiring"`) && strings.Contains(all, "1 will be deleted within 48 hours. Replay or export them: caddy green-api quarantine list.")
	})
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	kept := edgetest.ReadQuarantine(t, dir)
	if len(kept) != 2 || kept[0].NotificationID != "SOON" || kept[1].NotificationID != "NEW" {
		t.Errorf("kept %+v", kept)
	}
	raw, err := os.ReadFile(filepath.Join(dir, quarantine.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("body of OLD")) {
		t.Error("the file still has what was deleted")
	}
}

// TestExpiringOnce: of what will be deleted soon the operator is told once a day, and of a fault of the quarantine
// in the log, without what a placeholder stands for.
func TestExpiringOnce(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	a := &App{Quarantine: &Quarantine{Path: "/secret/place", MaxAge: caddy.Duration(time.Hour), said: "{env.PLACE}"}, operator: newOperator(tell.DefaultTimes()), logger: zap.New(core)}
	now := time.Now()
	a.expiry().Soon(1, quarantine.Entry{}, now)
	if a.operator.daily.First(reason.Expiring, now) {
		t.Error("told once more on the same day")
	}
	if a.expiry().Clock != &a.operator.clock {
		t.Error("a config forgets that the clock was set")
	}
	a.expiry().ClockSet(time.Hour)
	a.expiry().Failed(errors.New("open /secret/place: no disk"))
	a.Quarantine.MaxAge = 0
	a.expiry().Failed(errors.New("open /secret/place: no disk"))
	var said []string
	for _, entry := range logs.All() {
		said = append(said, fmt.Sprint(entry.Level, " ", entry.Message, " ", entry.ContextMap()))
	}
	want := []string{
		"warn the clock was set: no quarantine entry is deleted for its age in the next 48 hours, unless Caddy is restarted map[by:1h0m0s]",
		"error quarantine entries older than max_age could not be deleted map[error:open {env.PLACE}: no disk]",
		"error what is left of deleted quarantine entries could not be wiped map[error:open {env.PLACE}: no disk]",
	}
	if !slices.Equal(said, want) {
		t.Errorf("got %q, want %q", said, want)
	}
}

// TestReplayKind: the operator hears of which type a replayed notification is that waits for a handler.
func TestReplayKind(t *testing.T) {
	edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+edgetest.NewUpstream(t, 200, nil).Address))
	app, err := caddy.ActiveContext().AppIfConfigured("green_api")
	if err != nil {
		t.Fatal(err)
	}
	h := *app.(*App).blocks[defaultName].handler
	for body, want := range map[string]string{
		edgetest.TextMessage: "incomingMessageReceived",
		`{"typeWebhook": 1}`: notification.KindNone,
		"no notification":    notification.KindNone,
		strings.Replace(edgetest.TextMessage, "incomingMessageReceived", "brandNew", 1): notification.KindOther,
	} {
		var got string
		h.hooks.Attempted = func(c *outcome.Case, _ delivery.Answer) { got = c.Kind }
		h.replay(quarantine.Entry{ID: "1", Body: []byte(body)}, false)
		if got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}

// TestWipeAtStart: a Caddy that starts wipes what the one before was killed over.
func TestWipeAtStart(t *testing.T) {
	config := edgetest.Site(edgetest.Loopback)
	e := edgetest.Start(t, config)
	e.Post(edgetest.Broken("OLD"))
	kept := e.Kept()
	store, err := quarantine.Open(e.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Delete(kept[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	edgetest.Eventually(t, "wiping", func() bool {
		raw, err := os.ReadFile(filepath.Join(e.Dir, quarantine.FileName))
		return err == nil && !bytes.Contains(raw, []byte(`"OLD"`))
	})
}

// TestReplayByName: an entry is not replayed through a block that has only its name.
func TestReplayByName(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site("ip_filter off\nauth {\ninstance 1101000001 TOKEN\n}\nreverse_proxy "+up.Address))
	e := edgetest.Start(t, config)
	e.Post(edgetest.Broken("ONE"))
	id := e.Record().Text("quarantine_id")
	replay := func() (result api.Result) {
		t.Helper()
		response, err := edgetest.Client.Post("http://"+admin+"/green_api/quarantine/replay?id="+id, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(&result); err != nil {
			t.Fatal(err)
		}
		return result
	}
	if err := e.Load(strings.Replace(config, "1101000001", "1101000002", 1)); err != nil {
		t.Fatal(err)
	}
	if got := replay(); got.Outcome != "failed" || got.Reason != reason.NoHandler || len(up.Requests()) > 0 || !strings.HasSuffix(got.Error, "add --to NAME, one of: default") {
		t.Errorf("%+v, asked %d times", got, len(up.Requests()))
	}
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	if got := replay(); got.Outcome != "delivered" {
		t.Errorf("%+v", got)
	}
}

// TestQuarantineSummary: what is kept is counted by the labels of the metrics, before and after a reload and a restart.
func TestQuarantineSummary(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	e := edgetest.Start(t, config)
	for _, body := range []string{edgetest.Broken("ONE"), edgetest.Broken("TWO"), strings.Replace(edgetest.TextMessage, "incomingMessageReceived", "madeUp", 1), "{"} {
		if status := e.Post(body); status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	const want = `{"entries":4,"reasons":{"malformed":1,"schema":2,"unknown_type":1},"types":{"incomingMessageReceived":2,"none":1,"other":1},` +
		`"instances":[{"instance":"1101000001","entries":3},{"instance":"","entries":1}],"other_instances":0,"days":[{"day":"`
	for _, when := range []string{"at once", "after a reload", "after a restart"} {
		switch when {
		case "after a reload":
			if err := e.Load(strings.Replace(config, "reverse_proxy", "log_body\nreverse_proxy", 1)); err != nil {
				t.Fatal(err)
			}
		case "after a restart":
			e.Kept() // stops it
			if err := e.Load(config); err != nil {
				t.Fatal(err)
			}
		}
		if got := edgetest.ReadAllOf(t, "http://"+admin+"/green_api/quarantine/summary"); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
}

func TestQuarantineKeeps(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Site("name sales\n"+edgetest.Loopback+"reverse_proxy "+up.Address))
	raw := "\x00\xff{" + edgetest.TextMessage
	if status := e.Post(edgetest.Broken("ONE")); status != 200 {
		t.Errorf("status %d", status)
	}
	e.WantRecord("outcome", "quarantined", "reason", "schema", "pointer", "[/messageData/textMessageData/textMessage]", "keyword", "[type]",
		"instance", "1101000001", "type", "incomingMessageReceived", "message", "textMessage", "id", "ONE")
	id := e.Record().Text("quarantine_id")
	if status := e.Post(raw, "Content-Encoding", "br"); status != 200 {
		t.Errorf("status %d", status)
	}
	store := edgetest.OpenWhenFree(t, e)
	defer store.Close()
	first, err := store.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	if string(first.Body) != edgetest.Broken("ONE") || first.Name != "sales" || first.Reason != "schema" || first.NotificationID != "ONE" ||
		first.Chat != "79001234568@c.us" || first.Client != "127.0.0.1" || len(first.Faults) != 1 || time.Since(first.Received) > time.Minute {
		t.Errorf("kept %+v", first)
	}
	if got := first.Header["Authorization"]; got != nil {
		t.Error("the token is kept")
	}
	entries, err := store.List("", 10)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	second, err := store.Get(entries[1].ID)
	if err != nil || string(second.Body) != raw || second.Reason != "encoding" || second.Header["Content-Encoding"][0] != "br" {
		t.Errorf("kept %+v, %v", second, err)
	}
	if len(up.Requests()) != 0 {
		t.Error("a handler was asked")
	}
}

// TestQuarantineReload: the quarantine is one over reloads, also while requests are in flight, and
// for several blocks.
func TestQuarantineReload(t *testing.T) {
	const guardOff = "validate {\ndrift_guard off\n}\n" // of one instance, twenty would be enough
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+guardOff))
	configs := []string{
		edgetest.SiteWith("", "green_api /green-api/webhook* {\nname a\n"+edgetest.Loopback+guardOff+"}\ngreen_api /other* {\nname b\n"+edgetest.Loopback+"}\nrespond 404\n"),
		edgetest.Site(edgetest.Loopback + "validate {\nmax_body_size 2MiB\ndrift_guard off\n}"),
	}
	stop, done := make(chan struct{}), make(chan int)
	for worker := range 4 {
		go func() {
			n := 0
			defer func() { done <- n }()
			for ; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				r, err := http.NewRequest(http.MethodPost, e.URL, strings.NewReader(edgetest.Broken(fmt.Sprintf("W%d-%d", worker, n))))
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("Authorization", "Bearer "+edgetest.Token)
				response, err := edgetest.Client.Do(r)
				if err != nil { // a connection in the backlog of the old config's socket
					n--
					continue
				}
				response.Body.Close()
				if response.StatusCode != 200 {
					t.Errorf("status %d", response.StatusCode)
				}
			}
		}()
	}
	for i := range 10 {
		if err := e.Load(configs[i%2]); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	sent := 0
	for range 4 {
		sent += <-done
	}
	store := edgetest.OpenWhenFree(t, e)
	defer store.Close()
	if kept := store.Stats().Entries; kept < sent || sent == 0 {
		t.Errorf("%d kept of %d acknowledged", kept, sent)
	}
}

// TestQuarantineUnavailable: what a handler might take goes on, the rest stays with the sender.
func TestQuarantineUnavailable(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	unknown := strings.Replace(edgetest.TextMessage, "incomingMessageReceived", "brandNew", 1)
	full := func(t *testing.T) *edgetest.Edge {
		config := strings.Replace(edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address), "quarantine DIR", "quarantine DIR {\nmax_size 1KiB\n}", 1)
		return edgetest.Start(t, config)
	}
	gone := func(t *testing.T) *edgetest.Edge {
		e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
		// The new config cannot open its quarantine when it is first needed: it was taken away.
		releaseQuarantine(e.Dir)
		path := filepath.Join(e.Dir, quarantine.FileName)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { holdQuarantine(e.Dir) }) // what Cleanup gives up
		return e
	}
	for name, begin := range map[string]func(*testing.T) *edgetest.Edge{"full": full, "failing": gone} {
		t.Run(name, func(t *testing.T) {
			e := begin(t)
			for _, test := range []struct {
				body    string
				status  int
				outcome string
				found   string
			}{
				{edgetest.Broken("ONE"), 200, "delivered", "schema"},
				{unknown, 200, "delivered", "unknown_type"},
				{"{", 503, "failed", "malformed"},
				{edgetest.TextMessage, 200, "delivered", ""},
			} {
				before := len(up.Requests())
				if status := e.Post(test.body); status != test.status {
					t.Errorf("%.20s: status %d, want %d", test.body, status, test.status)
				}
				why, level := "quarantine_unavailable", "error"
				if test.found == "" {
					why, level = "", "info"
				}
				e.WantRecord("outcome", test.outcome, "reason", why, "found", test.found, "level", level)
				if asked := len(up.Requests()) > before; asked != (test.outcome == "delivered") {
					t.Errorf("%.20s: a handler was asked: %t", test.body, asked)
				}
			}
		})
	}
}

// TestQuarantineLocked: two processes must not share a quarantine, and the second one says so.
func TestQuarantineLocked(t *testing.T) {
	dir := t.TempDir()
	store, err := quarantine.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	a := &App{Quarantine: &Quarantine{Path: dir, said: dir}}
	a.shared = holdQuarantine(dir)
	defer releaseQuarantine(dir)
	synctest.Test(t, func(*testing.T) { err = a.Start() }) // it waits for the other to end
	if err == nil {
		t.Fatal("starts")
	}
	if !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("message: %v", err)
	}
}

// TestWatchDisk: the operator is told within a minute that little is free on the quarantine's disk, across
// reloads once, and that enough is again. The metric shows what is free, and nothing while that is not known.
func TestWatchDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var told []string
		op := newOperator(tell.DefaultTimes())
		op.desk = tell.NewDesk(tell.Gauges{}, tell.DefaultTimes(), alertsTo(func(body string) {
			told = append(told, fmt.Sprintf("%s %s", time.Since(began).Round(time.Minute), body))
		}))
		alert := &Alert{URL: "http://127.0.0.1", Body: `"{alert.reason} {alert.level} {alert.text}"`}
		if err := alert.provision(); err != nil {
			t.Fatal(err)
		}
		core, logs := observer.New(zap.InfoLevel)
		var mu sync.Mutex
		var free int64 = 1 << 30
		var fault error
		disk := func(now int64, err error) {
			mu.Lock()
			defer mu.Unlock()
			free, fault = now, err
		}
		a := &App{
			Alerts: []*Alert{alert}, operator: op, logger: zap.New(core), Quarantine: &Quarantine{Path: "/secret/place", MaxSize: 1 << 30, said: "{env.PLACE}"},
			diskFree: func(dir string) (int64, error) {
				mu.Lock()
				defer mu.Unlock()
				if dir != "/secret/place" {
					t.Errorf("looks at %s", dir)
				}
				return free, fault
			},
		}
		op.desk.Configure(a.endpoints(), a.logger)
		wantMetric := func(want float64) {
			t.Helper()
			synctest.Wait()
			if got := math.Float64frombits(op.diskFree.Load()); got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
				t.Errorf("after %s the metric shows %g, want %g", time.Since(began), got, want)
			}
		}
		wantMetric(math.NaN())
		var watching sync.WaitGroup
		start := func() (reload func()) {
			ctx, cancel := context.WithCancel(t.Context())
			watching.Go(func() { a.watchDisk(ctx) })
			return func() {
				cancel()
				watching.Wait()
			}
		}
		reload := start()
		wantMetric(1 << 30)
		time.Sleep(10*time.Minute + time.Second)
		disk(100<<20, nil)
		time.Sleep(time.Minute)
		wantMetric(100 << 20)
		reload()
		reload = start()
		time.Sleep(time.Hour)
		disk(0, errors.New("statfs /secret/place: gone"))
		time.Sleep(time.Hour)
		wantMetric(math.NaN())
		disk(300<<20, nil)
		time.Sleep(time.Hour)
		wantMetric(300 << 20)
		reload()
		disk(0, errors.ErrUnsupported)
		ended := time.Now()
		time.AfterFunc(time.Hour, start())
		watching.Wait() // of its own accord
		if took := time.Since(ended); took > 0 {
			t.Errorf("it went on for %s where it cannot know", took)
		}
		wantMetric(math.NaN())
		op.desk.Close()

		for i := range told {
			told[i], _, _ = strings.Cut(told[i], " UTC")
		}
		got := strings.Join(told, "\n")
		for _, want := range []string{`11m0s "disk_low warn GREEN-API edge`, `little space is left on the quarantine's disk (disk_low), once at`, `2h12m0s "recovered info `} {
			if !strings.Contains(got, want) {
				t.Errorf("told %s\nwant %s", got, want)
			}
		}
		if len(told) != 2 {
			t.Errorf("told %d times: %s", len(told), got)
		}
		var said []string
		for _, entry := range logs.All() {
			said = append(said, fmt.Sprint(entry.Level, " ", entry.Message, " ", entry.ContextMap()))
		}
		want := strings.Join([]string{
			"warn little space is left on the quarantine's disk map[fix:free some, or give the quarantine a disk of its own: when it is full, what has to be kept is answered 503 and its queue stands still free:104857600 want:268435456]",
			"warn how much is free on the quarantine's disk cannot be found out map[error:statfs {env.PLACE}: gone]",
			"info enough space is free on the quarantine's disk again map[free:314572800 want:268435456]",
		}, "\n")
		if got := strings.Join(said, "\n"); got != want {
			t.Errorf("logged\n%s\nwant\n%s", got, want)
		}
	})
}

// bulky is a notification of an instance that breaks its schema, with 40 KiB to keep.
func bulky(instance string) string {
	return strings.Replace(strings.Replace(edgetest.Broken("BULKY"), "1101000001", instance, 1), "Test Sender", strings.Repeat("x", 40<<10), 1)
}

// TestShares: where several instances send, what the bodies of one cause fills a quarter of the
// quarantine, and behaves then as if it were full; nobody else notices.
func TestShares(t *testing.T) {
	const a, b = "1101000001", "1101000002"
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, strings.Replace(edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address), "quarantine DIR", "quarantine DIR {\nmax_size 2MiB\n}", 1))
	keep := func(body string, most int) (kept int) {
		t.Helper()
		for range most {
			if status := e.Post(body); status != 200 && status != 503 {
				t.Fatalf("status %d", status)
			}
			if e.Record().Text("outcome") != "quarantined" {
				break
			}
			kept++
		}
		return kept
	}
	e.Post(strings.Replace(edgetest.TextMessage, a, b, 1)) // b sends, too
	if n := keep(bulky(a), 40); n < 8 || n > 12 {
		t.Errorf("%d of 40 KiB kept, a quarter of 2 MiB is 12 at most", n)
	}
	e.WantRecord("outcome", "delivered", "reason", "quarantine_unavailable", "found", "schema", "instance", a)
	if text := e.Record().Text("error"); !strings.Contains(text, "share of the quarantine is full") || !strings.Contains(text, "raise max_size") {
		t.Errorf("error: %s", text)
	}
	e.Post(strings.Replace(bulky(a), "incomingMessageReceived", "brandNew", 1))
	e.WantRecord("outcome", "delivered", "reason", "quarantine_unavailable", "found", "unknown_type")

	// Bodies of which nobody knows the instance have one share together.
	if n := keep(strings.Repeat("x", 40<<10), 40); n < 8 || n > 12 {
		t.Errorf("%d malformed of 40 KiB kept", n)
	}
	e.WantRecord("outcome", "failed", "reason", "quarantine_unavailable", "status", "503", "found", "malformed")

	if n := keep(bulky(b), 3); n != 3 {
		t.Errorf("of another instance %d were kept", n)
	}
}

// TestShareOf: what a notification's own body causes counts against its instance, and that no handler
// took it does not.
func TestShareOf(t *testing.T) {
	for _, why := range reason.Kept() {
		want := !slices.Contains([]reason.Reason{reason.Undeliverable, reason.Retention, reason.Expired, reason.Skipped}, why)
		share, counted := shareOf(quarantine.Entry{Reason: string(why), Instance: "1101000001"})
		if counted != want || counted && share != "1101000001" {
			t.Errorf("%s: share %q, counted %v", why, share, counted)
		}
	}
}

// TestSeveralSend: shares are for where several instances send, by what is known of them.
func TestSeveralSend(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		name       string
		configured []string
		seen       map[string]time.Duration // how long ago
		instance   string
		want       bool
	}{
		{"nobody yet", nil, nil, "1", false},
		{"no instance, of nobody", nil, nil, "", false},
		{"alone", nil, map[string]time.Duration{"1": 0}, "1", false},
		{"alone, in the config", []string{"1"}, map[string]time.Duration{"1": time.Minute}, "1", false},
		{"no instance, of one", nil, map[string]time.Duration{"1": 0}, "", false},
		{"another", nil, map[string]time.Duration{"1": 0, "2": 23 * time.Hour}, "1", true},
		{"another, at first", nil, map[string]time.Duration{"2": time.Hour}, "1", true},
		{"another, long ago", nil, map[string]time.Duration{"1": 0, "2": 25 * time.Hour}, "1", false},
		{"another, in the config", []string{"2"}, nil, "1", true},
		{"two in the config", []string{"1", "2"}, nil, "", true},
		{"no instance, of two", nil, map[string]time.Duration{"1": 0, "2": time.Minute}, "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			op := new(operator)
			for _, instance := range slices.Sorted(maps.Keys(test.seen)) { // the last to send is the last to be added
				op.seen.Add(instance, outcome.Delivered, now.Add(-test.seen[instance]))
			}
			a := &App{operator: op, blocks: map[string]block{"default": {handler: &Handler{Auth: withTokensOf(t, test.configured...)}}}}
			if got := a.severalSend(test.instance, now); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// withTokensOf is a gate auth with a token for each instance.
func withTokensOf(t *testing.T, instances ...string) *Auth {
	t.Helper()
	auth := &Auth{set: new(atomic.Pointer[token.Set])}
	set, err := token.NewSet(nil, tokensOf(instances), resolve)
	if err != nil {
		t.Fatal(err)
	}
	auth.set.Store(set)
	return auth
}

func tokensOf(instances []string) map[string][]string {
	tokens := make(map[string][]string)
	for _, instance := range instances {
		tokens[instance] = []string{"token-of-" + instance}
	}
	return tokens
}

// TestOneInstanceHasAll: where a single one sends, there is nobody to share with.
func TestOneInstanceHasAll(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, strings.Replace(edgetest.Site(edgetest.Loopback+"validate {\ndrift_guard off\n}\nreverse_proxy "+up.Address), "quarantine DIR", "quarantine DIR {\nmax_size 2MiB\n}", 1))
	for i := range 30 {
		e.Post(bulky("1101000001"))
		e.WantRecord("outcome", "quarantined", "reason", "schema")
		if t.Failed() {
			t.Fatalf("after %d", i)
		}
	}
}

// TestSmallShares: who keeps longer bodies than a share has room for is told so at load.
func TestSmallShares(t *testing.T) {
	for size, warns := range map[string]bool{"1GiB": false, "65MiB": false, "64MiB": true, "1MiB": true} {
		config := edgetest.Site(edgetest.Loopback + "reverse_proxy 127.0.0.1:9")
		e := edgetest.Start(t, strings.Replace(config, "quarantine DIR", "quarantine DIR {\nmax_size "+size+"\n}", 1))
		if got := e.Logged("does not fit into a quarter") != ""; got != warns {
			t.Errorf("%s: warns: %t", size, got)
		}
	}
}
