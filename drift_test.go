package greenapi

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// TestDriftGuard: when notifications of several instances break the same rule, it gives way, and
// the operator is told; not for one instance of many, and not for others.
func TestDriftGuard(t *testing.T) {
	in := newInbox(t, nil)
	up := newUpstream(t, 200, nil)
	changed := func(instance, i int) string { return ofInstance(broken(fmt.Sprintf("D%d-%d", instance, i)), instance) }
	e := start(t, alerting(in.URL, "", loopback+"reverse_proxy "+up.address))
	for i := range 3 {
		e.post(ofInstance(textMessage, 7+i))
	}
	for i := range 30 {
		e.post(changed(7, i))
	}
	e.wantRecord("outcome", "quarantined", "reason", "schema") // one instance alone
	e.post(changed(8, 0))
	e.post(changed(9, 0))
	e.post(changed(7, 99))
	e.wantRecord("outcome", "delivered", "reason", "schema", "drift", "true", "level", "error", "keyword", "[type]")
	e.post(strings.Replace(textMessage, `"timestamp":1700000000`, `"timestamp":"now"`, 1))
	e.wantRecord("outcome", "quarantined", "reason", "schema")
	if !strings.Contains(e.logs.all(), "format changed: a rule of a schema is no longer held against notifications") {
		t.Error("the log does not say so")
	}
	eventually(t, "alert", func() bool { return strings.Contains(strings.Join(in.all(), ""), `"reason":"format_changed"`) })

	e = start(t, site(loopback+"validate {\ndrift_guard off\n}\nreverse_proxy "+up.address))
	for i := range 60 {
		e.post(changed(i%5, i))
	}
	e.wantRecord("outcome", "quarantined", "reason", "schema")
}

// newType is a notification of a type that no schema knows.
func newType(typ, mark string, instance int) string {
	return ofInstance(`{"typeWebhook":"`+typ+`","instanceData":{"idInstance":1101000001},"idMessage":"`+mark+`"}`, instance)
}

// TestDriftType: a type that no schema knows is passed on when it has come often enough, across
// reloads, and the operator is told without a word of the sender's.
func TestDriftType(t *testing.T) {
	in := newInbox(t, nil)
	up := newUpstream(t, 200, nil)
	config := alerting(in.URL, "", loopback+"reverse_proxy "+up.address)
	e := start(t, config)
	for i := range driftBreaks {
		e.post(newType("callMe7900", fmt.Sprint("T", i), i%3))
		e.wantRecord("outcome", "quarantined", "reason", "unknown_type")
	}
	for i := range 3 {
		e.post(newType("callMe7900", fmt.Sprint("U", i), 0))
		e.wantRecord("outcome", "delivered", "reason", "unknown_type", "drift", "true", "level", "warn")
		e.post(newType("another", "V", i))
		e.wantRecord("outcome", "quarantined", "reason", "unknown_type")
		if err := e.load(config + "\n# changed"); err != nil {
			t.Fatal(err)
		}
	}
	said := e.logged("new type: a type of notification that no schema knows is passed on")
	if strings.Count(said, "\n") != 1 || !strings.Contains(said, `"level":"warn"`) || strings.Contains(said, "callMe") {
		t.Errorf("the log says %q", said)
	}
	eventually(t, "alert", func() bool {
		return strings.Contains(strings.Join(in.all(), ""), `"reason":"new_type","type":"other","level":"warn"`)
	})
	if all := strings.Join(in.all(), ""); strings.Contains(all, "callMe") {
		t.Errorf("the alert has the sender's text: %s", all)
	}
}

// logged are the lines of the log that have a text in them.
func (e *edge) logged(text string) (lines string) {
	for line := range strings.Lines(e.logs.all()) {
		if strings.Contains(line, text) {
			lines += line
		}
	}
	return lines
}

// TestDriftEveryone: of fewer instances than three, all must send what is new: those seen in the last
// day, and those that the config names.
func TestDriftEveryone(t *testing.T) {
	up := newUpstream(t, 200, nil)
	own := "ip_filter {\nallow 127.0.0.1\n}\nauth {\ninstance 1101000001 TOKEN\ninstance 1101000002 TOKEN\n"
	for _, test := range []struct {
		name, gates string
		seen, from  int // instances
		turns       bool
	}{
		{"the only one", loopback, 1, 1, true},
		{"one of two seen", loopback, 2, 1, false},
		{"both of two seen", loopback, 2, 2, true},
		{"one of two named", own + "}\n", 1, 1, false},
		{"both of two named", own + "}\n", 0, 2, true},
		{"three of many named", own + "instance 1101000003 TOKEN\ninstance 1101000004 TOKEN\n}\n", 0, 3, true},
		{"two of three named", own + "instance 1101000003 TOKEN\n}\n", 0, 2, false},
		{"one, and one that is received", loopback + "receive 1101000009 token {\napi_url http://127.0.0.1:1\n}\n", 0, 1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := start(t, site(test.gates+"reverse_proxy "+up.address))
			for i := range test.seen {
				e.post(ofInstance(textMessage, i))
			}
			for i := range driftBreaks {
				e.post(newType("new", fmt.Sprint("T", i), i%test.from))
				e.post(ofInstance(broken(fmt.Sprint("R", i)), i%test.from))
			}
			if got := e.logged("new type: ") != ""; got != test.turns {
				t.Errorf("type learned: %t, want %t", got, test.turns)
			}
			if got := e.logged("format changed: ") != ""; got != test.turns {
				t.Errorf("rule turned: %t, want %t", got, test.turns)
			}
		})
	}
}

// TestDriftRecalls: a type that comes seldom is counted from the quarantine, within seven days, of
// this block and of admitted senders only; and what the operator wants dropped is not learned.
func TestDriftRecalls(t *testing.T) {
	up := newUpstream(t, 200, nil)
	day := 24 * time.Hour
	for _, test := range []struct {
		name, options string
		kept          int
		entry         quarantine.Entry
		age           time.Duration
		turns         bool
	}{
		{"nine and one", "", rareBreaks - 1, quarantine.Entry{}, 6 * day, true},
		{"eight and one", "", rareBreaks - 2, quarantine.Entry{}, 6 * day, false},
		{"too old", "", rareBreaks - 1, quarantine.Entry{}, 8 * day, false},
		{"of another type", "", rareBreaks - 1, quarantine.Entry{Type: "other"}, 6 * day, false},
		{"of another block", "", rareBreaks - 1, quarantine.Entry{Name: "staging"}, 6 * day, false},
		{"for another reason", "", rareBreaks - 1, quarantine.Entry{Reason: reasonSchema}, 6 * day, false},
		{"of senders that report_only let through", "", rareBreaks - 1, quarantine.Entry{Unadmitted: true}, 6 * day, false},
		{"the guard is off", "drift_guard off", rareBreaks - 1, quarantine.Entry{}, 6 * day, false},
		{"unknown types are dropped", "unknown_type drop", rareBreaks - 1, quarantine.Entry{}, 6 * day, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "q")
			fill(t, dir, test.kept, test.entry, time.Now().Add(-test.age))
			config := site(loopback + "validate {\n" + test.options + "\n}\nreverse_proxy " + up.address)
			e := start(t, strings.Replace(config, "DIR", dir, 1))
			e.post(newType("new", "N", 0))
			if e.record().text("outcome") == "delivered" {
				t.Error("the one that is counted is delivered")
			}
			if got := e.logged("new type: ") != ""; got != test.turns {
				t.Errorf("learned: %t, want %t", got, test.turns)
			}
			e.post(newType("new", "O", 0))
			if got := e.record().text("outcome") == "delivered"; got != test.turns {
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
		entry.Name, entry.Type, entry.Reason = cmp.Or(like.Name, defaultName), cmp.Or(like.Type, "new"), cmp.Or(like.Reason, reasonUnknownType)
		entry.Instance, entry.Received, entry.Body = "1101000001", received.Add(time.Duration(i)*time.Minute), []byte("{}")
		if _, err := store.Put(entry, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDriftBlocks: what turns in one block turns in no other, is kept over a reload of the same
// schemas, and does not hold for others.
func TestDriftBlocks(t *testing.T) {
	up := newUpstream(t, 200, nil)
	port := freePort(t)
	schemas := t.TempDir()
	config := strings.Replace(siteWith("", `green_api /green-api/webhook/staging* {
		name staging
		ip_filter off
		auth {
			token staging-token
		}
		validate {
			schemas `+schemas+`
		}
		reverse_proxy `+up.address+`
	}
	green_api /green-api/webhook* {
		name production
		`+loopback+`
		reverse_proxy `+up.address+`
	}
	respond 404
	`), "admin off", "admin 127.0.0.1:"+port, 1)
	e := start(t, config)
	staging := func(body string) {
		e.send(http.MethodPost, e.url+"/staging", strings.NewReader(body), "Authorization", "Bearer staging-token")
	}
	for i := range driftBreaks {
		staging(ofInstance(broken(fmt.Sprint("R", i)), i%3))
		staging(newType("new", fmt.Sprint("T", i), i%3))
	}
	check := func(when, outcome string) {
		t.Helper()
		for _, body := range []string{broken("X"), newType("new", "Y", 0)} {
			staging(body)
			if got := e.record().text("outcome"); got != outcome {
				t.Errorf("%s: staging: %s, want %s", when, got, outcome)
			}
			e.post(body)
			if got := e.record().text("outcome"); got != "quarantined" {
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
	status := readerText(t, response.Body)
	for _, want := range []string{
		`"drift":[{"name":"staging","kind":"incomingMessageReceived.textMessage","pointer":"/messageData/textMessageData/textMessage","keyword":"type","since":`,
		`"new_types":[{"name":"staging","type":"new","since":`,
	} {
		if !strings.Contains(status, want) {
			t.Errorf("status %s, want %s", status, want)
		}
	}
	if err := e.load(config + "\n# changed"); err != nil {
		t.Fatal(err)
	}
	check("after a reload", "delivered")
	if err := os.WriteFile(filepath.Join(schemas, "ofMyOwn.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.load(config + "\n# other schemas"); err != nil {
		t.Fatal(err)
	}
	check("with other schemas", "quarantined")
}

// TestDriftAdmitted: all genuine notifications count, whatever way they come; those of others whom
// report_only lets through do not.
func TestDriftAdmitted(t *testing.T) {
	up := newUpstream(t, 200, nil)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	t.Cleanup(api.Close)
	receive := ""
	for i := range 3 {
		receive += fmt.Sprintf("receive %d token {\napi_url %s\n}\n", firstInstance+i, api.URL)
	}
	posted := func(e *edge, body string) { e.post(body) }
	for _, test := range []struct {
		name, gates string
		send        func(*edge, string)
		turns       bool
	}{
		{"posted", loopback, posted, true},
		{"no token asked for", "ip_filter {\nallow 127.0.0.1\n}\nauth off", posted, true},
		{"unlisted pass", "ip_filter {\nallow 203.0.113.1\nunlisted pass\n}\nauth {\ntoken TOKEN\n}", posted, true},
		{"received", receive, func(_ *edge, body string) {
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
			e := start(t, site(test.gates+"\nreverse_proxy "+up.address))
			for i := range driftBreaks {
				test.send(e, ofInstance(broken(fmt.Sprint("A", i)), i%3))
			}
			if got := strings.Contains(e.logs.all(), "format changed"); got != test.turns {
				t.Errorf("turned: %t, want %t", got, test.turns)
			}
			for _, entry := range e.kept() { // those count after a restart, too
				if entry.Unadmitted == test.turns {
					t.Fatalf("kept as unadmitted: %t", entry.Unadmitted)
				}
			}
		})
	}
}

// ofInstance is a body as another instance of the same fleet sends it.
func ofInstance(body string, n int) string {
	return strings.Replace(body, "1101000001", fmt.Sprint(firstInstance+n), 1)
}
