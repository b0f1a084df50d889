package greenapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/lease"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/receiver"
	"github.com/greenapi-community/caddy-green-api/internal/standin"
)

// The tests have less time than a receiver.
var (
	testTimes = receiver.Times{
		Poll: 30 * time.Second, Soon: 10 * time.Millisecond,
		FirstPause: 10 * time.Millisecond, LongestPause: 200 * time.Millisecond,
		Patience: 300 * time.Millisecond, LastCall: 5 * time.Second,
	}
	testEdge = lease.NewEdge(lease.Times{
		Beat: 200 * time.Millisecond, Dead: time.Second, Settle: 75 * time.Millisecond, Look: 50 * time.Millisecond, Answer: 10 * time.Second,
	})
)

func init() {
	receivers = receiver.New(testTimes, testEdge)
	caddy.RegisterModule(noConfig{})
}

func TestReceive(t *testing.T) {
	const instance = "1101000001"
	v := edgetest.NewVendor(t, standin.Options{}, instance)
	handler := edgetest.NewUpstream(t, 200, nil)
	want := edgetest.NoteAll(v, instance, 20)
	e := edgetest.Start(t, edgetest.Site("auth {\ntoken TOKEN\n}\nvalidate {\ndrop deviceInfo\n}\n"+v.Receives(instance)+"reverse_proxy "+handler.Address))
	edgetest.Eventually(t, "all to be deleted", func() bool { return v.Queued(instance) == 0 })
	handler.WantTaken(t, want)
	got := handler.Requests()[0]
	if got.Path != "/green-api/webhook" || got.Header.Get("Authorization") != "Bearer "+edgetest.Token || got.Header.Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("the handler got path %s, header %v", got.Path, got.Header)
	}
	e.WantRecord("msg", "notification delivered", "outcome", "delivered", "via", "http_api", "instance", instance, "type", "incomingMessageReceived")

	// A posted one does not say how it came.
	if status := e.Post(edgetest.StateChanged); status != 403 { // from an address that is not the vendor's
		t.Errorf("posted: %d, want 403", status)
	}
	e.WantRecord("outcome", "refused", "via", "")

	// What no handler gets is deleted where it would be answered 200.
	before := len(handler.Requests())
	v.Notify(instance, []byte(`{"typeWebhook":"deviceInfo","instanceData":{"idInstance":1101000001,"wid":"79001234567@c.us","typeInstance":"whatsapp"},"timestamp":1700000000,"deviceData":{}}`))
	v.Notify(instance, []byte(`{"typeWebhook":"incomingMessageReceived", "broken": "a "quote" in it"}`)) // no JSON
	v.Notify(instance, []byte(`{"typeWebhook":"brandNew","instanceData":{"idInstance":1101000001,"wid":"79001234567@c.us","typeInstance":"whatsapp"},"timestamp":1700000000}`))
	edgetest.Eventually(t, "the rest to be deleted", func() bool { return v.Queued(instance) == 0 })
	if n := len(handler.Requests()) - before; n != 0 {
		t.Errorf("the handler got %d of them, want none", n)
	}
	if logs := e.Logs.All(); strings.Contains(logs, edgetest.APIToken) {
		t.Error("the token is in the log")
	}
	entries := e.Kept()
	if len(entries) != 2 || entries[0].Reason != reason.Malformed || entries[0].Instance != instance || entries[1].Reason != reason.UnknownType ||
		entries[0].URI != "/green-api/webhook?via=api" {
		t.Errorf("quarantine: %+v", entries)
	}
}

// TestReceiveOnly: a block without auth takes nothing that is posted.
func TestReceiveOnly(t *testing.T) {
	const instance = "1101000001"
	v := edgetest.NewVendor(t, standin.Options{}, instance)
	handler := edgetest.NewUpstream(t, 200, nil)
	want := edgetest.NoteAll(v, instance, 1)
	e := edgetest.Start(t, edgetest.Site("ip_filter {\nallow 127.0.0.1\n}\n"+v.Receives(instance)+"reverse_proxy "+handler.Address))
	edgetest.Eventually(t, "it to be deleted", func() bool { return v.Queued(instance) == 0 })
	for _, token := range []string{"", "Bearer " + edgetest.Token, "Bearer ", "Bearer " + edgetest.APIToken} {
		if status := e.Post(edgetest.StateChanged, "Authorization", token); status != 401 {
			t.Errorf("posted with token %q: %d, want 401", token, status)
		}
	}
	handler.WantTaken(t, want)
}

// TestReceiveFails: what no handler takes stays in the queue and comes again; a notification that
// could not be deleted is not delivered again.
func TestReceiveFails(t *testing.T) {
	const instance = "1101000001"
	v := edgetest.NewVendor(t, standin.Options{}, instance)
	var failing atomic.Int32
	failing.Store(3)
	handler := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) {
		if failing.Add(-1) >= 0 {
			w.WriteHeader(500)
		}
	})
	var faults atomic.Int32
	v.Fault(func(method, _ string) *standin.Fault {
		if method == "deleteNotification" && faults.Add(1) <= 4 {
			return []*standin.Fault{{Status: 502}, {Drop: true}, {Status: 401}, {Status: 429, RetryAfter: "0"}}[faults.Load()-1]
		}
		return nil
	})
	want := edgetest.NoteAll(v, instance, 2)
	want = append([]string{want[0], want[0], want[0]}, want...)
	e := edgetest.Start(t, edgetest.Site("deliver {\ndead_letter off\n}\n"+v.Receives(instance)+"reverse_proxy "+handler.Address))
	edgetest.Eventually(t, "both to be deleted", func() bool { return v.Queued(instance) == 0 })
	handler.WantTaken(t, want)
	if n := strings.Count(e.Logs.All(), `"reason":"handler_error"`); n < 3 {
		t.Errorf("%d records of handler_error, want 3", n)
	}
}

// TestReceiveTrouble: the operator is told once in the log, and by alerts, what keeps an instance
// from being received; and nobody of the token.
func TestReceiveTrouble(t *testing.T) {
	quickAlerts(t)
	tests := []struct {
		instance string
		fault    standin.Fault
		reason   string
	}{
		{"1101000001", standin.Fault{Status: 401}, reason.APIRefused},
		{"1101000004", standin.Fault{Status: 400, Body: `{"message":"Message cannot be received because custom webhook url is set"}`}, reason.WebhookURLSet},
		{"1101000007", standin.Fault{Status: 429, RetryAfter: "0", Body: edgetest.APIToken}, reason.APIUnavailable},
	}
	v := edgetest.NewVendor(t, standin.Options{})
	handler := edgetest.NewUpstream(t, 200, nil)
	told := edgetest.NewUpstream(t, 200, nil)
	config := ""
	faults := make(map[string]*standin.Fault)
	for _, test := range tests {
		v.Add(test.instance, edgetest.APIToken)
		edgetest.NoteAll(v, test.instance, 1)
		faults[test.instance] = &test.fault
		config += v.Receives(test.instance)
	}
	var mended atomic.Bool
	v.Fault(func(_, instance string) *standin.Fault {
		if mended.Load() {
			return nil
		}
		return faults[instance]
	})
	e := edgetest.Start(t, strings.Replace(edgetest.Site(config+"reverse_proxy "+handler.Address), "quarantine DIR", "quarantine DIR\nalert http://"+told.Address, 1))
	alerts := func(why string) string {
		text := ""
		for _, alert := range told.Requests() {
			if strings.Contains(alert.Body, why) {
				text += alert.Body
			}
		}
		return text
	}
	for _, test := range tests {
		edgetest.Eventually(t, "an alert of "+test.reason, func() bool { return alerts(test.reason) != "" })
		if text := alerts(test.reason); !strings.Contains(text, test.instance) {
			t.Errorf("instance %s is not in the alert: %s", test.instance, text)
		}
	}
	if strings.Contains(alerts(""), edgetest.APIToken) {
		t.Error("the token is in an alert")
	}
	states := receivers.States()
	for i, test := range tests {
		if len(states) != len(tests) || states[i].Instance != test.instance || states[i].State != receiver.Failing || string(states[i].Reason) != test.reason {
			t.Fatalf("status: %+v", states)
		}
	}
	mended.Store(true)
	for _, test := range tests {
		edgetest.Eventually(t, "instance "+test.instance+" to be received", func() bool { return v.Queued(test.instance) == 0 })
	}
	if n := len(handler.Requests()); n != len(tests) {
		t.Errorf("the handler got %d, want %d", n, len(tests))
	}
	failed, again := make(map[string]int), make(map[string]int)
	for _, record := range e.Logs.Records(t) {
		switch record.Text("msg") {
		case "notifications of the instance cannot be received":
			failed[record.Text("instance")]++
		case "notifications of the instance are received again":
			again[record.Text("instance")]++
		}
	}
	for _, test := range tests {
		if failed[test.instance] != 1 || again[test.instance] != 1 {
			t.Errorf("instance %s: told %d times in the log, mended %d times; want once", test.instance, failed[test.instance], again[test.instance])
		}
	}
	if strings.Contains(e.Logs.All(), edgetest.APIToken) {
		t.Error("the token is in the log")
	}
}

// TestReceiveReload: over reloads there is one receiver an instance, and nothing is lost, comes
// twice, or out of order; what is no longer in the config is no longer received.
func TestReceiveReload(t *testing.T) {
	instances := []string{"1101000001", "1101000002", "1101000003"}
	v := edgetest.NewVendor(t, standin.Options{}, instances...)
	handler := edgetest.NewUpstream(t, 0, func(http.ResponseWriter, *http.Request) { time.Sleep(time.Millisecond) })
	config := func(n int, instances ...string) string {
		text := fmt.Sprintf("deliver {\ntimeout %ds\n}\n", 100+n)
		for _, id := range instances {
			text += v.Receives(id)
		}
		return edgetest.Site(text + "reverse_proxy " + handler.Address)
	}
	e := edgetest.Start(t, config(0, instances...))
	const each = 100
	for _, id := range instances {
		go edgetest.NoteAll(v, id, each)
	}
	reloads := 0
	edgetest.Eventually(t, "all to be received", func() bool {
		reloads++
		if err := e.Load(config(reloads%20, instances...)); err != nil {
			t.Fatal(err)
		}
		return len(v.Deleted(instances[0]))+len(v.Deleted(instances[1]))+len(v.Deleted(instances[2])) == len(instances)*each
	})
	if reloads < 5 {
		t.Errorf("%d reloads, want more", reloads)
	}
	byInstance := make(map[string][]string)
	for _, got := range handler.Requests() {
		for _, id := range instances {
			if strings.Contains(got.Body, id) {
				byInstance[id] = append(byInstance[id], got.Body)
			}
		}
	}
	for _, id := range instances {
		if len(byInstance[id]) != each {
			t.Errorf("instance %s: the handlers got %d, want %d", id, len(byInstance[id]), each)
		}
		for i, body := range byInstance[id] {
			if body != string(edgetest.NotificationOf(id, i)) {
				t.Fatalf("instance %s: %d is %s", id, i, body)
			}
		}
		if _, most := v.Polling(id); most != 1 {
			t.Errorf("instance %s: %d requests at once, want 1", id, most)
		}
	}

	// Two instances go, and come back.
	if err := e.Load(config(0, instances[0])); err != nil {
		t.Fatal(err)
	}
	edgetest.Eventually(t, "the others to end", func() bool {
		second, _ := v.Polling(instances[1])
		third, _ := v.Polling(instances[2])
		return second+third == 0
	})
	if states := receivers.States(); len(states) != 1 {
		t.Errorf("receivers: %+v", states)
	}
	if err := e.Load(config(1, instances...)); err != nil {
		t.Fatal(err)
	}
	edgetest.NoteAll(v, instances[2], 1)
	edgetest.Eventually(t, "it to come back", func() bool { return v.Queued(instances[2]) == 0 })
}

// TestReceiveNotByValidate: a config that is only looked at receives nothing, nor one that fails.
func TestReceiveNotByValidate(t *testing.T) {
	const instance = "1101000001"
	v := edgetest.NewVendor(t, standin.Options{}, instance)
	edgetest.NoteAll(v, instance, 1)
	config := strings.NewReplacer("PORT", edgetest.FreePort(t), "DIR", t.TempDir()).Replace(edgetest.Site(v.Receives(instance) + "reverse_proxy 127.0.0.1:9"))
	text, err := edgetest.Adapt(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(text); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load([]byte(strings.Replace(string(text), "127.0.0.1:", "192.0.2.1:", 1)), true); err == nil {
		t.Error("a config that cannot listen has loaded")
		_ = caddy.Stop()
	}
	time.Sleep(10 * testTimes.FirstPause) // long enough for one that begins at once
	if n := v.Calls("receiveNotification"); n != 0 {
		t.Errorf("%d calls, want none", n)
	}
}

// TestReceivePanic: a panic in a gate is a failed attempt.
func TestReceivePanic(t *testing.T) {
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy 127.0.0.1:9"))
	app, err := caddy.ActiveContext().AppIfConfigured("green_api")
	if err != nil {
		t.Fatal(err)
	}
	h := *app.(*App).blocks[defaultName].handler
	h.received = []step{{check: func(*visit) *outcome.Verdict { panic("a canary sings") }}}
	end := h.receive(&Receive{Instance: "1101000001", URI: "/"}, []byte(edgetest.TextMessage))
	if end.Status != http.StatusInternalServerError {
		t.Errorf("status %d, want 500", end.Status)
	}
	e.WantRecord("outcome", "failed", "reason", "panic", "instance", "1101000001", "via", "http_api")
}

// TestReceiveUnread: the record of a body that is too long to be read does not say what is in it, nor how long it
// is, as when it is posted.
func TestReceiveUnread(t *testing.T) {
	e := edgetest.Start(t, edgetest.Site("log_body\n"+edgetest.Loopback+"validate {\nmax_body_size 100B\nmax_kept_body 100B\n}\nreverse_proxy 127.0.0.1:9"))
	app, err := caddy.ActiveContext().AppIfConfigured("green_api")
	if err != nil {
		t.Fatal(err)
	}
	h := app.(*App).blocks[defaultName].handler
	if end := h.receive(&Receive{Instance: "1101000001", URI: "/"}, []byte(edgetest.TextMessage)); end.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d, want 413", end.Status)
	}
	e.WantRecord("outcome", "refused", "reason", "too_large", "via", "http_api", "size", "", "body", "")
}

// TestReceiveMany: a hundred instances are received by one process.
func TestReceiveMany(t *testing.T) {
	const many = 100
	v := edgetest.NewVendor(t, standin.Options{})
	handler := edgetest.NewUpstream(t, 200, nil)
	var config strings.Builder
	for i := range many {
		id := fmt.Sprint(1101000001 + i)
		v.Add(id, edgetest.APIToken)
		config.WriteString(v.Receives(id))
		edgetest.NoteAll(v, id, 2)
	}
	edgetest.Start(t, edgetest.Site(config.String()+"reverse_proxy "+handler.Address))
	edgetest.Eventually(t, "all to be received", func() bool {
		for i := range many {
			if v.Queued(fmt.Sprint(1101000001+i)) > 0 {
				return false
			}
		}
		return true
	})
	if got := len(handler.Requests()); got != 2*many {
		t.Errorf("the handler got %d, want %d", got, 2*many)
	}
}

// TestReceiveStorage: without a lease nothing is received; with another storage the lease is taken
// there.
func TestReceiveStorage(t *testing.T) {
	const instance = "1101000001"
	v := edgetest.NewVendor(t, standin.Options{}, instance)
	handler := edgetest.NewUpstream(t, 200, nil)
	want := edgetest.NoteAll(v, instance, 1)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(storage string) string {
		return edgetest.SiteWith("storage file_system "+storage, "green_api {\n"+v.Receives(instance)+"reverse_proxy "+handler.Address+"\n}\nrespond 404\n")
	}
	e := edgetest.Start(t, with(filepath.Join(file, "storage")))
	edgetest.Eventually(t, "it to be told", func() bool {
		return strings.Contains(e.Logs.All(), `"notifications of the instance cannot be received","instance":"1101000001","reason":"storage_unavailable"`)
	})
	if n := v.Calls("receiveNotification"); n != 0 {
		t.Errorf("%d calls without a lease", n)
	}
	leases := func(storage string) int {
		found, err := filepath.Glob(filepath.Join(dir, storage, "green_api", "receivers", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	for i, storage := range []string{"one", "two"} {
		if err := e.Load(with(filepath.Join(dir, storage))); err != nil {
			t.Fatal(err)
		}
		edgetest.Eventually(t, "the lease in storage "+storage, func() bool { return leases(storage) == 1 && leases("one")+leases("two") == 1 })
		edgetest.Eventually(t, "all to be received", func() bool { return v.Queued(instance) == 0 })
		if i == 0 {
			want = append(want, edgetest.NoteAll(v, instance, 1)...)
		}
	}
	handler.WantTaken(t, want)
	if err := e.Load(edgetest.Site(edgetest.Loopback)); err != nil {
		t.Fatal(err)
	}
	edgetest.Eventually(t, "the lease to be given up", func() bool { return leases("two") == 0 })
}

// TestReceiveOtherStorage: after a reload that changes Caddy's storage, the edge has its lease and its
// sign of life in the new one, and none in the old one.
func TestReceiveOtherStorage(t *testing.T) {
	const instance = "1101000001"
	v := edgetest.NewVendor(t, standin.Options{}, instance)
	handler := edgetest.NewUpstream(t, 200, nil)
	dir := t.TempDir()
	config := func(name string) string {
		return edgetest.SiteWith("storage file_system "+filepath.Join(dir, name), "green_api {\n"+v.Receives(instance)+"reverse_proxy "+handler.Address+"\n}\nrespond 404\n")
	}
	names := func(name string) []string {
		files := &certmagic.FileStorage{Path: filepath.Join(dir, name)}
		var found []string
		for _, prefix := range []string{lease.Prefix, lease.EdgePrefix} {
			keys, err := files.List(t.Context(), strings.TrimSuffix(prefix, "/"), false)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			found = append(found, keys...)
		}
		return found
	}
	want := []string{lease.EdgePrefix + testEdge.ID, lease.Prefix + instance}
	e := edgetest.Start(t, config("one"))
	all := edgetest.NoteAll(v, instance, 1)
	edgetest.Eventually(t, "the first to be received", func() bool { return v.Queued(instance) == 0 })
	if err := e.Load(config("two")); err != nil {
		t.Fatal(err)
	}
	all = append(all, edgetest.NoteAll(v, instance, 1)...)
	edgetest.Eventually(t, "the second to be received", func() bool { return v.Queued(instance) == 0 })
	got := names("two")
	for _, name := range want {
		if !slices.Contains(got, name) {
			t.Errorf("in the new storage: %q, want %s", got, name)
		}
	}
	if got := names("one"); slices.Contains(got, lease.Prefix+instance) {
		t.Errorf("in the old storage: %q", got)
	}
	handler.WantTaken(t, all)
}

// noConfig loads no config.
type noConfig struct{}

func (noConfig) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.config_loaders.test_fails", New: func() caddy.Module { return new(noConfig) }}
}

func (noConfig) LoadConfig(caddy.Context) ([]byte, error) { return nil, errors.New("no config") }

// TestReceiveLateFailure: a config that fails after its apps have started leaves no receiver behind,
// and that of the config before goes on with its own handlers.
func TestReceiveLateFailure(t *testing.T) {
	const instance = "1101000001"
	v := edgetest.NewVendor(t, standin.Options{}, instance)
	good, bad := edgetest.NewUpstream(t, 200, nil), edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Site(v.Receives(instance)+"reverse_proxy "+good.Address))
	text, err := edgetest.Adapt(strings.NewReplacer("PORT", e.Port, "DIR", e.Dir).Replace(edgetest.Site(v.Receives(instance) + "reverse_proxy " + bad.Address)))
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	// Caddy loads a config from elsewhere when all else has started.
	config["admin"] = map[string]any{"disabled": true, "config": map[string]any{"persist": false, "load": map[string]any{"module": "test_fails"}}}
	if text, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(text, true); err == nil {
		t.Fatal("loads")
	}
	want := edgetest.NoteAll(v, instance, 2)
	edgetest.Eventually(t, "both to be received", func() bool { return v.Queued(instance) == 0 })
	good.WantTaken(t, want)
	bad.WantTaken(t, nil)
	if err := e.Load(edgetest.Site(edgetest.Loopback)); err != nil {
		t.Fatal(err)
	}
	edgetest.Eventually(t, "the receiver to end", func() bool { now, _ := v.Polling(instance); return now == 0 && len(receivers.States()) == 0 })
}
