package greenapi

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/watch"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// TestLargest: with every size and duration as large as it can be, notifications are taken as ever.
func TestLargest(t *testing.T) {
	const longest = "2562047h"
	quickAlerts(t)
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	config := edgetest.Alerting(in.URL, "every "+longest+"\nsilence "+longest, edgetest.Loopback+
		"validate {\nmax_body_size 1GiB\nmax_kept_body 1GiB\n}\ndeliver {\ndeduplicate "+longest+"\n}\nreverse_proxy "+up.Address)
	e := edgetest.Start(t, strings.Replace(config, "quarantine DIR", "quarantine DIR {\nmax_size 7EiB\nmax_age "+longest+"\n}", 1))
	for _, test := range []struct{ body, outcome string }{
		{edgetest.TextMessage, "delivered"}, {edgetest.TextMessage, "dropped"}, {edgetest.Broken("ONE"), "quarantined"}, {"{", "quarantined"},
	} {
		if status := e.Post(test.body); status != 200 {
			t.Errorf("%.20s: status %d", test.body, status)
		}
		e.WantRecord("outcome", test.outcome)
	}
	edgetest.Eventually(t, "alert", func() bool { return len(in.All()) > 0 })
	if kept := e.Kept(); len(kept) != 2 {
		t.Errorf("%d kept, want 2", len(kept))
	}
}

// drip is a body that comes in reads of at most size bytes and then ends with err. It checks that no memory
// comes before the bytes.
type drip struct {
	t          *testing.T
	left, size int
	sent       int
	err        error
}

func (d *drip) Read(p []byte) (int, error) {
	if room := d.sent + len(p); room > max(roomAtOnce, 33*d.sent) {
		d.t.Errorf("room for %d bytes after %d", room, d.sent)
	}
	if d.left == 0 {
		return 0, d.err
	}
	n := min(len(p), d.size, d.left)
	for i := range p[:n] {
		p[i] = byteAt(d.sent + i)
	}
	d.left, d.sent = d.left-n, d.sent+n
	return n, nil
}

func byteAt(i int) byte { return byte(i * 7) }

// TestReadAll: a body is read as it is, whatever length it announced.
func TestReadAll(t *testing.T) {
	const limit = 1 << 20
	for _, length := range []int{0, 1, 470, roomUnknown - 1, roomUnknown, roomAtOnce - 1, roomAtOnce, roomAtOnce + 1, 100_000, limit - 1, limit, limit + 1, 2 * limit} {
		for _, announced := range []int{-1, 0, length - 1, length, length + 1, 16 << 20, 1 << 30} {
			for _, size := range []int{1000, 1 << 30} {
				d := &drip{t: t, left: length, size: size, err: io.EOF}
				body, err := readAll(d, int64(announced), limit)
				if err != nil || body == nil || len(body) != min(length, limit) {
					t.Fatalf("%d bytes, announced %d: read %d, %v", length, announced, len(body), err)
				}
				for i, c := range body {
					if c != byteAt(i) {
						t.Fatalf("%d bytes, announced %d: byte %d is another", length, announced, i)
					}
				}
				if cap(body) > max(limit, roomAtOnce)+1 || announced == length && cap(body) > max(length, roomAtOnce)+1 {
					t.Errorf("%d bytes, announced %d: room for %d", length, announced, cap(body))
				}
			}
		}
	}
	if body, err := readAll(&drip{t: t, left: limit, size: limit, err: io.ErrUnexpectedEOF}, 1<<30, 1<<30); err == nil || body != nil {
		t.Errorf("cut off: %d read, %v", len(body), err)
	}
}

// BenchmarkReadAll reads bodies of an announced and of an unknown length. What it takes beyond a copy is the
// memory.
func BenchmarkReadAll(b *testing.B) {
	for _, length := range []int{470, 5_000, 50_000, 1_000_000} {
		for _, announced := range []int{length, -1} {
			name := fmt.Sprint(length)
			if announced < 0 {
				name += " unannounced"
			}
			b.Run(name, func(b *testing.B) {
				text := make([]byte, length)
				r := bytes.NewReader(text)
				b.SetBytes(int64(length))
				b.ReportAllocs()
				for b.Loop() {
					r.Reset(text)
					if body, err := readAll(r, int64(announced), 16<<20); err != nil || len(body) != length {
						b.Fatal(len(body), err)
					}
				}
			})
		}
	}
}

// TestSchemaWarnings: load and check warn of a schema file that probably does not mean what it says.
func TestSchemaWarnings(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"messageData.textmessage.json": "false", "incomingCall.json": `{"requiered":["from"]}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"validate {\nschemas "+dir+"\n}\n"))
	logs := e.Logs.All()
	for _, part := range []string{"the name differs from messageData.textMessage.json", `"pointer":"/requiered"`, "do you mean required?"} {
		if !strings.Contains(logs, part) {
			t.Errorf("the log lacks %s", part)
		}
	}
	stdout, stderr, code := edgetest.RunCommand(t, "", edgetest.StateChanged, "green-api", "check", "--schemas", dir, "-")
	if code != 0 || stdout != "pass        -  stateInstanceChanged\n" ||
		!strings.Contains(stderr, "incomingCall.json: /requiered: no keyword of JSON Schema") || !strings.Contains(stderr, "messageData.textmessage.json: /: the name differs") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

// TestNamesOfTheBody: a schema of one's own looks at members whatever their names are, and no such name
// reaches the log or an alert, not even by the drift guard.
func TestNamesOfTheBody(t *testing.T) {
	dir := t.TempDir()
	const schema = `{"properties":{"members":{"additionalProperties":{"type":"string"}}}}`
	if err := os.WriteFile(filepath.Join(dir, "messageData.textMessage.json"), []byte(schema), 0o600); err != nil {
		t.Fatal(err)
	}
	quickAlerts(t)
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Alerting(in.URL, "", edgetest.Loopback+"validate {\nschemas "+dir+"\n}\nreverse_proxy "+up.Address))
	for i := range enoughBreaks {
		body := strings.Replace(edgetest.Numbered(fmt.Sprint("N", i)), `"messageData":{`, fmt.Sprintf(`"messageData":{"members":{"CANARY Ivan +7900%d":5},`, i), 1)
		e.Post(strings.Replace(body, "1101000001", fmt.Sprint(1101000001+i%watch.DriftInstances), 1))
	}
	e.WantRecord("reason", "schema", "pointer", "[/messageData/members/*]", "keyword", "[type]")
	edgetest.Eventually(t, "alert", func() bool { return strings.Contains(strings.Join(in.All(), ""), "/messageData/members/* type") })
	if strings.Contains(e.Logs.All()+strings.Join(in.All(), ""), "CANARY") {
		t.Error("a name of the body is in the log or in an alert")
	}
}

// enoughBreaks is how often a rule must be broken within an hour to turn.
const enoughBreaks = 20

// TestDriftGuard: when notifications of several instances break the same rule, it gives way, and
// the operator is told; not for one instance of many, and not for others.
func TestDriftGuard(t *testing.T) {
	quickAlerts(t)
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	changed := func(instance, i int) string {
		return ofInstance(edgetest.Broken(fmt.Sprintf("D%d-%d", instance, i)), instance)
	}
	e := edgetest.Start(t, edgetest.Alerting(in.URL, "", edgetest.Loopback+"reverse_proxy "+up.Address))
	for i := range 3 {
		e.Post(ofInstance(edgetest.TextMessage, 7+i))
	}
	for i := range 30 {
		e.Post(changed(7, i))
	}
	e.WantRecord("outcome", "quarantined", "reason", "schema") // one instance alone
	e.Post(changed(8, 0))
	e.Post(changed(9, 0))
	e.Post(changed(7, 99))
	e.WantRecord("outcome", "delivered", "reason", "schema", "drift", "true", "level", "error", "keyword", "[type]")
	e.Post(strings.Replace(edgetest.TextMessage, `"timestamp":1700000000`, `"timestamp":"now"`, 1))
	e.WantRecord("outcome", "quarantined", "reason", "schema")
	if !strings.Contains(e.Logs.All(), "format changed: a rule of a schema is no longer held against notifications") {
		t.Error("the log does not say so")
	}
	edgetest.Eventually(t, "alert", func() bool { return strings.Contains(strings.Join(in.All(), ""), `"reason":"format_changed"`) })

	e = edgetest.Start(t, edgetest.Site(edgetest.Loopback+"validate {\ndrift_guard off\n}\nreverse_proxy "+up.Address))
	for i := range 60 {
		e.Post(changed(i%5, i))
	}
	e.WantRecord("outcome", "quarantined", "reason", "schema")
}

// newType is a notification of a type that no schema knows.
func newType(typ, mark string, instance int) string {
	return ofInstance(`{"typeWebhook":"`+typ+`","instanceData":{"idInstance":1101000001},"idMessage":"`+mark+`"}`, instance)
}

// TestDriftType: a type that no schema knows is passed on when it has come often enough, across
// reloads, and the operator is told without a word of the sender's.
func TestDriftType(t *testing.T) {
	quickAlerts(t)
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	config := edgetest.Alerting(in.URL, "", edgetest.Loopback+"reverse_proxy "+up.Address)
	e := edgetest.Start(t, config)
	for i := range enoughBreaks {
		e.Post(newType("callMe7900", fmt.Sprint("T", i), i%3))
		e.WantRecord("outcome", "quarantined", "reason", "unknown_type")
	}
	for i := range 3 {
		e.Post(newType("callMe7900", fmt.Sprint("U", i), 0))
		e.WantRecord("outcome", "delivered", "reason", "unknown_type", "drift", "true", "level", "warn")
		e.Post(newType("another", "V", i))
		e.WantRecord("outcome", "quarantined", "reason", "unknown_type")
		if err := e.Load(config + "\n# changed"); err != nil {
			t.Fatal(err)
		}
	}
	said := e.Logged("new type: a type of notification that no schema knows is passed on")
	if strings.Count(said, "\n") != 1 || !strings.Contains(said, `"level":"warn"`) || strings.Contains(said, "callMe") {
		t.Errorf("the log says %q", said)
	}
	edgetest.Eventually(t, "alert", func() bool {
		return strings.Contains(strings.Join(in.All(), ""), `"reason":"new_type","type":"other","level":"warn"`)
	})
	if all := strings.Join(in.All(), ""); strings.Contains(all, "callMe") {
		t.Errorf("the alert has the sender's text: %s", all)
	}
}

// TestDriftEveryone: of fewer instances than three, all must send what is new: those seen in the last
// day, and those that the config names.
func TestDriftEveryone(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	own := "ip_filter {\nallow 127.0.0.1\n}\nauth {\ninstance 1101000001 TOKEN\ninstance 1101000002 TOKEN\n"
	for _, test := range []struct {
		name, gates string
		seen, from  int // instances
		turns       bool
	}{
		{"the only one", edgetest.Loopback, 1, 1, true},
		{"one of two seen", edgetest.Loopback, 2, 1, false},
		{"both of two seen", edgetest.Loopback, 2, 2, true},
		{"one of two named", own + "}\n", 1, 1, false},
		{"both of two named", own + "}\n", 0, 2, true},
		{"three of many named", own + "instance 1101000003 TOKEN\ninstance 1101000004 TOKEN\n}\n", 0, 3, true},
		{"two of three named", own + "instance 1101000003 TOKEN\n}\n", 0, 2, false},
		{"one, and one that is received", edgetest.Loopback + "receive 1101000009 token {\napi_url http://127.0.0.1:1\n}\n", 0, 1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := edgetest.Start(t, edgetest.Site(test.gates+"reverse_proxy "+up.Address))
			for i := range test.seen {
				e.Post(ofInstance(edgetest.TextMessage, i))
			}
			for i := range enoughBreaks {
				e.Post(newType("new", fmt.Sprint("T", i), i%test.from))
				e.Post(ofInstance(edgetest.Broken(fmt.Sprint("R", i)), i%test.from))
			}
			if got := e.Logged("new type: ") != ""; got != test.turns {
				t.Errorf("type learned: %t, want %t", got, test.turns)
			}
			if got := e.Logged("format changed: ") != ""; got != test.turns {
				t.Errorf("rule turned: %t, want %t", got, test.turns)
			}
		})
	}
}

// TestDriftRecalls: a type that comes seldom is counted from the quarantine, within seven days, of
// this block and of admitted senders only; and what the operator wants dropped is not learned.
func TestDriftRecalls(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	day := 24 * time.Hour
	for _, test := range []struct {
		name, options string
		kept          int
		entry         quarantine.Entry
		age           time.Duration
		turns         bool
	}{
		{"nine and one", "", 9, quarantine.Entry{}, 6 * day, true},
		{"eight and one", "", 8, quarantine.Entry{}, 6 * day, false},
		{"too old", "", 9, quarantine.Entry{}, 8 * day, false},
		{"of another type", "", 9, quarantine.Entry{Type: "other"}, 6 * day, false},
		{"of another block", "", 9, quarantine.Entry{Name: "staging"}, 6 * day, false},
		{"for another reason", "", 9, quarantine.Entry{Reason: reason.Schema}, 6 * day, false},
		{"of senders that report_only let through", "", 9, quarantine.Entry{Unadmitted: true}, 6 * day, false},
		{"the guard is off", "drift_guard off", 9, quarantine.Entry{}, 6 * day, false},
		{"unknown types are dropped", "unknown_type drop", 9, quarantine.Entry{}, 6 * day, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "q")
			fill(t, dir, test.kept, test.entry, time.Now().Add(-test.age))
			config := edgetest.Site(edgetest.Loopback + "validate {\n" + test.options + "\n}\nreverse_proxy " + up.Address)
			e := edgetest.Start(t, strings.Replace(config, "DIR", dir, 1))
			e.Post(newType("new", "N", 0))
			if e.Record().Text("outcome") == "delivered" {
				t.Error("the one that is counted is delivered")
			}
			if got := e.Logged("new type: ") != ""; got != test.turns {
				t.Errorf("learned: %t, want %t", got, test.turns)
			}
			e.Post(newType("new", "O", 0))
			if got := e.Record().Text("outcome") == "delivered"; got != test.turns {
				t.Errorf("the next one is delivered: %t, want %t", got, test.turns)
			}
		})
	}
}

// fill puts entries into a quarantine that is not open: of the type new, unless like says otherwise.
func fill(t *testing.T, dir string, n int, like quarantine.Entry, received time.Time) {
	t.Helper()
	store, err := quarantine.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for i := range n {
		entry := like
		entry.Name, entry.Type, entry.Reason = cmp.Or(like.Name, defaultName), cmp.Or(like.Type, "new"), cmp.Or(like.Reason, reason.UnknownType)
		entry.Instance, entry.Received, entry.Body = "1101000001", received.Add(time.Duration(i)*time.Minute), []byte("{}")
		if _, err := store.Put(entry, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDriftBlocks: what turns in one block turns in no other, is kept over a reload of the same
// schemas, and does not hold for others.
func TestDriftBlocks(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	port := edgetest.FreePort(t)
	schemas := t.TempDir()
	config := strings.Replace(edgetest.SiteWith("", `green_api /green-api/webhook/staging* {
		name staging
		ip_filter off
		auth {
			token staging-token
		}
		validate {
			schemas `+schemas+`
		}
		reverse_proxy `+up.Address+`
	}
	green_api /green-api/webhook* {
		name production
		`+edgetest.Loopback+`
		reverse_proxy `+up.Address+`
	}
	respond 404
	`), "admin off", "admin 127.0.0.1:"+port, 1)
	e := edgetest.Start(t, config)
	staging := func(body string) {
		e.Send(http.MethodPost, e.URL+"/staging", strings.NewReader(body), "Authorization", "Bearer staging-token")
	}
	for i := range enoughBreaks {
		staging(ofInstance(edgetest.Broken(fmt.Sprint("R", i)), i%3))
		staging(newType("new", fmt.Sprint("T", i), i%3))
	}
	check := func(when, outcome string) {
		t.Helper()
		for _, body := range []string{edgetest.Broken("X"), newType("new", "Y", 0)} {
			staging(body)
			if got := e.Record().Text("outcome"); got != outcome {
				t.Errorf("%s: staging: %s, want %s", when, got, outcome)
			}
			e.Post(body)
			if got := e.Record().Text("outcome"); got != "quarantined" {
				t.Errorf("%s: production: %s, want quarantined", when, got)
			}
		}
	}
	check("at first", "delivered")
	response, err := http.Get("http://127.0.0.1:" + port + "/green_api/status")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	status := edgetest.ReaderText(t, response.Body)
	for _, want := range []string{
		`"drift":[{"name":"staging","kind":"incomingMessageReceived.textMessage","pointer":"/messageData/textMessageData/textMessage","keyword":"type","since":`,
		`"new_types":[{"name":"staging","type":"new","since":`,
	} {
		if !strings.Contains(status, want) {
			t.Errorf("status %s, want %s", status, want)
		}
	}
	if err := e.Load(config + "\n# changed"); err != nil {
		t.Fatal(err)
	}
	check("after a reload", "delivered")
	if err := os.WriteFile(filepath.Join(schemas, "ofMyOwn.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.Load(config + "\n# other schemas"); err != nil {
		t.Fatal(err)
	}
	check("with other schemas", "quarantined")
}

// TestDriftAdmitted: all genuine notifications count, whatever way they come; those of others whom
// report_only lets through do not.
func TestDriftAdmitted(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	t.Cleanup(api.Close)
	receive := ""
	for i := range 3 {
		receive += fmt.Sprintf("receive %d token {\napi_url %s\n}\n", 1101000001+i, api.URL)
	}
	posted := func(e *edgetest.Edge, body string) { e.Post(body) }
	for _, test := range []struct {
		name, gates string
		send        func(*edgetest.Edge, string)
		turns       bool
	}{
		{"posted", edgetest.Loopback, posted, true},
		{"no token asked for", "ip_filter {\nallow 127.0.0.1\n}\nauth off", posted, true},
		{"unlisted pass", "ip_filter {\nallow 203.0.113.1\nunlisted pass\n}\nauth {\ntoken TOKEN\n}", posted, true},
		{"received", receive, func(_ *edgetest.Edge, body string) {
			f := holdFleet(defaultName)
			defer releaseFleet(defaultName)
			h := f.newest.Load()
			h.receive(h.Receive[0], []byte(body))
		}, true},
		{"report_only, nothing to report", "ip_filter {\nallow 127.0.0.1\nreport_only\n}\nauth {\ntoken TOKEN\nreport_only\n}", posted, true},
		{"auth report_only, wrong token", "ip_filter {\nallow 127.0.0.1\n}\nauth {\ntoken other\nreport_only\n}", posted, false},
		{"auth report_only, token of another instance", "ip_filter {\nallow 127.0.0.1\n}\nauth {\ninstance 1 TOKEN\nreport_only\n}", posted, false},
		{"ip_filter report_only, other address", "ip_filter {\nallow 203.0.113.1\nreport_only\n}\nauth {\ntoken TOKEN\n}", posted, false},
		{"ip_filter report_only, other address, no token", "ip_filter {\nallow 203.0.113.1\nreport_only\n}\nauth off", posted, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := edgetest.Start(t, edgetest.Site(test.gates+"\nreverse_proxy "+up.Address))
			for i := range enoughBreaks {
				test.send(e, ofInstance(edgetest.Broken(fmt.Sprint("A", i)), i%3))
			}
			if got := strings.Contains(e.Logs.All(), "format changed"); got != test.turns {
				t.Errorf("turned: %t, want %t", got, test.turns)
			}
			for _, entry := range e.Kept() { // those count after a restart, too
				if entry.Unadmitted == test.turns {
					t.Fatalf("kept as unadmitted: %t", entry.Unadmitted)
				}
			}
		})
	}
}

// TestDriftResent: a notification that is sent again and again, because no handler takes it, counts once.
func TestDriftResent(t *testing.T) {
	up := edgetest.NewUpstream(t, 400, nil)
	e := edgetest.Start(t, strings.Replace(edgetest.Site(edgetest.Loopback+"deliver {\ndead_letter off\n}\nreverse_proxy "+up.Address), "quarantine DIR", "quarantine DIR {\nmax_size 1KiB\n}", 1))
	for range 2 * enoughBreaks {
		for _, body := range []string{edgetest.Broken("A"), newType("new", "B", 0)} {
			if status := e.Post(body); status != http.StatusBadGateway { // the quarantine is full
				t.Fatalf("status %d", status)
			}
		}
	}
	if said := e.Logged("format changed: ") + e.Logged("new type: "); said != "" {
		t.Errorf("the log says %s", said)
	}
	for i := range enoughBreaks {
		e.Post(edgetest.Broken(fmt.Sprint("C", i)))
	}
	if e.Logged("format changed: ") == "" {
		t.Error("twenty others do not count")
	}
}

// ofInstance is a body as another instance of the same fleet sends it.
func ofInstance(body string, n int) string {
	return strings.Replace(body, "1101000001", fmt.Sprint(1101000001+n), 1)
}

// TestDriftClosedLists: what the sender makes up, a message type or a name, is in no log and in no
// alert, and does not make rules of its own.
func TestDriftClosedLists(t *testing.T) {
	quickAlerts(t)
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	schemas := t.TempDir()
	own := `{"properties":{"names":{"additionalProperties":{"type":"string"}}}}`
	if err := os.WriteFile(filepath.Join(schemas, "ofMyOwn.json"), []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	e := edgetest.Start(t, edgetest.Alerting(in.URL, "", edgetest.Loopback+"validate {\nschemas "+schemas+"\n}\nreverse_proxy "+up.Address))
	for i := range enoughBreaks {
		evil := fmt.Sprintf("<https://evil.example/%d|the console>", i)
		body := strings.Replace(ofInstance(edgetest.TextMessage, i%3), `"typeMessage":"textMessage"`, `"typeMessage":"`+evil+`"`, 1)
		e.Post(strings.Replace(body, `"timestamp":1700000000`, `"timestamp":"x"`, 1))
		e.Post(strings.Replace(newType("ofMyOwn", "N", i%3), `"idMessage"`, `"names":{"`+evil+`":5},"idMessage"`, 1))
	}
	said := e.Logged("format changed: ")
	if strings.Contains(said, "evil") || strings.Count(said, "\n") != 2 ||
		!strings.Contains(said, `"type":"incomingMessageReceived.other"`) || !strings.Contains(said, `"pointer":"/names/*"`) {
		t.Errorf("the log says %q", said)
	}
	edgetest.Eventually(t, "alerts", func() bool { return strings.Count(strings.Join(in.All(), ""), `"reason":"format_changed"`) == 2 })
	for _, told := range in.All() {
		if strings.Contains(told, `"reason":"format_changed"`) && strings.Contains(told, "evil") {
			t.Errorf("alert %s", told)
		}
	}
}

// TestDriftHidden: a body with so many faults that not all are told is not delivered because those
// that are have turned; and one body counts once, however often it breaks a rule.
func TestDriftHidden(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	contacts := func(n, i int, sender string) string {
		return ofInstance(fmt.Sprintf(`{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1101000001},"timestamp":1,"idMessage":"A%d",`+
			`"senderData":%s,"messageData":{"typeMessage":"contactsArrayMessage","contacts":[%s]}}`, i, sender, strings.TrimSuffix(strings.Repeat(`{"displayName":5},`, n), ",")), i%3)
	}
	good := `{"chatId":"79001234568@c.us"}`
	for i := range enoughBreaks - 1 {
		e.Post(contacts(30, i, good))
	}
	if e.Logged("format changed: ") != "" {
		t.Error("turned by nineteen")
	}
	e.Post(contacts(1, 20, good))
	e.Post(contacts(2, 21, good))
	e.WantRecord("outcome", "delivered", "drift", "true")
	for _, test := range []struct {
		n       int
		sender  string
		outcome string
	}{{1, "5", "quarantined"}, {150, "5", "quarantined"}, {150, good, "quarantined"}} {
		e.Post(contacts(test.n, 30, test.sender))
		if got := e.Record().Text("outcome"); got != test.outcome {
			t.Errorf("%d contacts, senderData %s: %s, want %s", test.n, test.sender, got, test.outcome)
		}
	}
}
