package greenapi

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// operatorGather is alertGather outside the tests.
var operatorGather = alertGather

// The tests have less time than an operator.
func init() {
	alertGather, firstAlertPause, alertFlush = 700*time.Millisecond, 200*time.Millisecond, 2*time.Second
}

// TestAlert: what went wrong is told within ten seconds, in one alert, with all there is to say.
func TestAlert(t *testing.T) {
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Alerting(in.URL+"/hook", "header X-Key {env.HOME}", edgetest.Loopback+"reverse_proxy "+up.Address))
	began := time.Now()
	for i := range 3 {
		e.Post(strings.Replace(edgetest.Broken(fmt.Sprint("B", i)), "1101000001", fmt.Sprint(1101000001+i), 1))
	}
	e.Post(edgetest.Numbered("GOOD"))
	edgetest.Eventually(t, "alert", func() bool { return len(in.All()) > 0 })
	if took := time.Since(began) + operatorGather - alertGather; took > 10*time.Second {
		t.Errorf("told after %s", took)
	}
	var told map[string]any
	if err := json.Unmarshal([]byte(in.All()[0]), &told); err != nil {
		t.Fatalf("%v: %s", err, in.All()[0])
	}
	for key, want := range map[string]any{
		"reason": "schema", "type": "incomingMessageReceived", "level": "error", "count": 3.0, "instances": "1101000001, 1101000002, 1101000003",
	} {
		if told[key] != want {
			t.Errorf("%s: %v, want %v", key, told[key], want)
		}
	}
	if in.Header[0].Get("Content-Type") != "application/json" || in.Header[0].Get("X-Key") != os.Getenv("HOME") {
		t.Errorf("header %v", in.Header[0])
	}
	e.Post(edgetest.Broken("AGAIN")) // within `every`
	if n := len(in.All()); n != 1 {
		t.Errorf("%d alerts", n)
	}
	found := false
	for _, entry := range e.Kept() { // the end of the last config tells the rest
		found = found || entry.ID == told["example"]
	}
	if !found {
		t.Errorf("example %v is not in the quarantine", told["example"])
	}
	if n := len(in.All()); n != 2 || !strings.Contains(in.All()[1], `"count":1,`) {
		t.Errorf("at the end: %q", in.All())
	}
}

// TestAlertPassedOn: of what is passed on although something is wrong with it, nobody is told that it is kept.
func TestAlertPassedOn(t *testing.T) {
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Alerting(in.URL, "", edgetest.Loopback+"validate {\nreport_only\n}\nreverse_proxy "+up.Address))
	e.Post(edgetest.Broken("PASSED"))
	e.Post("{}")
	edgetest.Eventually(t, "alerts", func() bool { return len(in.All()) == 2 })
	for _, told := range in.All() {
		if strings.Contains(told, "kept") {
			t.Errorf("alert %s", told)
		}
	}
}

// TestAlertUnlisted: an address of the vendor's that is not allowed yet is told at once, with the
// line to paste.
func TestAlertUnlisted(t *testing.T) {
	in := edgetest.NewInbox(t, nil)
	e := edgetest.Start(t, edgetest.Alerting(in.URL, "", "ip_filter {\nallow green_api 203.0.113.7\n}\nauth {\ntoken TOKEN\n}\n"))
	began := time.Now()
	if status := e.Post(edgetest.TextMessage); status != 403 {
		t.Errorf("status %d", status)
	}
	edgetest.Eventually(t, "alert", func() bool { return len(in.All()) > 0 })
	if took := time.Since(began); took > time.Second {
		t.Errorf("told after %s", took)
	}
	if !strings.Contains(in.All()[0], "ip_filter: allow green_api 203.0.113.7 127.0.0.1.") {
		t.Errorf("%s", in.All()[0])
	}
	if strings.Contains(in.All()[0], edgetest.Token) {
		t.Error("the alert has the token")
	}
}

// TestLineToPaste: the line opens the address that was refused, and no other.
func TestLineToPaste(t *testing.T) {
	source := []json.RawMessage{[]byte(`{"source":"static","ranges":["10.0.0.0/8"]}`)}
	const said = "To let it in, say in ip_filter: allow "
	for _, test := range []struct {
		filter       *IPFilter
		client, want string
	}{
		{&IPFilter{}, "198.51.100.9", said + "green_api 198.51.100.9."},
		{&IPFilter{Allow: []string{"203.0.113.7"}}, "198.51.100.9", said + "203.0.113.7 198.51.100.9."},
		{&IPFilter{Allow: []string{"green_api", "{env.OFFICE}"}}, "198.51.100.9", said + "green_api {env.OFFICE} 198.51.100.9."},
		{&IPFilter{SourceRaw: source}, "198.51.100.9", said + "198.51.100.9."},
		{&IPFilter{SourceRaw: source, Allow: []string{"203.0.113.7"}}, "198.51.100.9", said + "203.0.113.7 198.51.100.9."},
		{&IPFilter{}, "::ffff:198.51.100.9", said + "green_api 198.51.100.9."},
		{&IPFilter{}, "fe80::1%eth0", said + "green_api fe80::1."},
		{&IPFilter{}, "", ""},
		{&IPFilter{}, "0.0.0.0/0", ""},
		{&IPFilter{}, "203.0.113.0/24 ::/0", ""},
	} {
		if got := test.filter.lineToPaste(test.client); got != test.want {
			t.Errorf("%+v, %q: %q, want %q", test.filter.Allow, test.client, got, test.want)
		}
	}
}

// TestAlertEndpointFails: an endpoint that is gone, hangs or answers 500 delays nothing, and is told
// when it is back.
func TestAlertEndpointFails(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	hung := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer hung.Close()
	sick := edgetest.NewInbox(t, func(n int) int {
		if n < 3 {
			return 500
		}
		return 200
	})
	config := edgetest.Alerting("http://127.0.0.1:"+edgetest.FreePort(t), "", edgetest.Loopback+"validate {\ndrift_guard off\n}\nreverse_proxy "+up.Address)
	config = strings.Replace(config, "\t\talert ", "\t\talert "+hung.URL+"\n\t\talert "+sick.URL+"\n\t\talert ", 1)
	e := edgetest.Start(t, config)
	began := time.Now()
	for i := range 50 {
		if status := e.Post(edgetest.Broken(fmt.Sprint("B", i))); status != 200 {
			t.Errorf("status %d", status)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("50 notifications took %s", took)
	}
	edgetest.Eventually(t, "third try", func() bool { return len(sick.All()) == 3 })
	if got := sick.All()[2]; !strings.Contains(got, `"count":50,`) {
		t.Errorf("told %s", got)
	}
	logs := e.Logs.All()
	if !strings.Contains(logs, "alert could not be sent") || !strings.Contains(logs, "answer 500") || !strings.Contains(logs, "connection refused") {
		t.Error("the log does not say that alerts fail")
	}
	began = time.Now()
	if n := len(e.Kept()); n != 50 {
		t.Errorf("%d kept", n)
	}
	if took := time.Since(began); took > alertFlush+3*time.Second {
		t.Errorf("the end took %s", took)
	}
}

// TestAlertReload: what is not told yet is told by the next config.
func TestAlertReload(t *testing.T) {
	in := edgetest.NewInbox(t, nil)
	config := edgetest.Alerting(in.URL, "", edgetest.Loopback)
	e := edgetest.Start(t, config)
	e.Post(edgetest.Broken("ONE"))
	if err := e.Load(config + "\n# changed"); err != nil {
		t.Fatal(err)
	}
	e.Post(edgetest.Broken("TWO"))
	edgetest.Eventually(t, "alert", func() bool { return len(in.All()) > 0 })
	if got := in.All()[0]; !strings.Contains(got, `"count":2,`) {
		t.Errorf("told %s", got)
	}
}

// TestAlertTwins: two alerts of one URL stay two over reloads, and a config that does not start
// takes nothing over.
func TestAlertTwins(t *testing.T) {
	in := edgetest.NewInbox(t, nil)
	config := edgetest.Alerting(in.URL, "body `{\"to\": \"a\", \"count\": {alert.count}}`", edgetest.Loopback)
	config = strings.Replace(config, "\t\talert ", "\t\talert "+in.URL+" {\nbody `{\"to\": \"b\", \"count\": {alert.count}}`\n}\n\t\talert ", 1)
	e := edgetest.Start(t, config)
	for i := range 3 {
		e.Post(edgetest.Broken(fmt.Sprint("T", i)))
		if err := e.Load(config + fmt.Sprintf("\n# %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Load(edgetest.Site(edgetest.Loopback) + "http://:" + edgetest.FreePort(t) + " {\nbind 192.0.2.1\n}\n"); err == nil {
		t.Fatal("loads")
	}
	edgetest.Eventually(t, "both", func() bool { return len(in.All()) == 2 })
	got := strings.Join(in.All(), "")
	if !strings.Contains(got, `{"to": "a", "count": 3}`) || !strings.Contains(got, `{"to": "b", "count": 3}`) {
		t.Errorf("told %s", got)
	}
}

// TestAlertExit: a clean end tells what is left.
func TestAlertExit(t *testing.T) {
	in := edgetest.NewInbox(t, nil)
	e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(t.TempDir(), "quarantine")}
	e.URL = "http://127.0.0.1:" + e.Port + "/green-api/webhook"
	p := edgetest.StartProcess(t, e, edgetest.Alerting(in.URL, "", edgetest.Loopback))
	e.Post(edgetest.Broken("LAST"))
	p.Process.Signal(syscall.SIGTERM)
	if err := p.Wait(); err != nil {
		t.Errorf("%v\n%s", err, p.Output)
	}
	if n := len(in.All()); n != 1 {
		t.Errorf("%d alerts", n)
	}
}

// TestAlertBodies has ready-made bodies for those that people use, as the docs show them, with a
// text that tries to get out of its string.
func TestAlertBodies(t *testing.T) {
	t.Setenv("GREEN_API_TEST_CHAT", `79001234567@c.us`)
	g := &alertGroup{alertKey: alertKey{reason.Schema, "x\",\"y\":\"\n\x1b"}, count: 3, instances: []string{"1101000001"}}
	for name, body := range map[string]string{
		"Slack":        `{"text": "{alert.text}"}`,
		"Telegram":     `{"chat_id": "-1001", "text": "{alert.text}"}`,
		"Alertmanager": `[{"labels": {"alertname": "green_api", "reason": "{alert.reason}", "severity": "{alert.level}"}, "annotations": {"summary": "{alert.text}"}}]`,
		"WhatsApp":     `{"chatId": "{env.GREEN_API_TEST_CHAT}", "message": "{alert.text}"}`,
		"default":      "",
	} {
		a := &Alert{URL: "http://127.0.0.1", Body: body}
		if err := a.provision(); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var parsed any
		if err := json.Unmarshal(a.render(g), &parsed); err != nil {
			t.Errorf("%s: %v: %s", name, err, a.render(g))
		}
		if text := fmt.Sprint(parsed); !strings.Contains(text, `x","y":"`) || strings.Contains(text, "map[y") || strings.Contains(text, "{env.") {
			t.Errorf("%s: %s", name, text)
		}
	}
	plain := &Alert{URL: "http://127.0.0.1", Body: "{alert.type}", Header: map[string][]string{"Content-Type": {"text/plain"}}}
	if err := plain.provision(); err != nil {
		t.Fatal(err)
	}
	if got := string(plain.render(g)); got != "x\",\"y\":\"??" {
		t.Errorf("plain: %q", got)
	}
}

func TestAlertRefuses(t *testing.T) {
	for _, test := range []struct {
		alert Alert
		want  string
	}{
		{Alert{}, "url: empty value"},
		{Alert{URL: "alerts.example.com"}, "url: invalid; want an http or https URL"},
		{Alert{URL: "http://{env.GREEN_API_TEST_UNSET}"}, "url: placeholder {env.GREEN_API_TEST_UNSET} is not set or empty"},
		{Alert{URL: "http://x", Every: -1}, "every, silence: want a duration above 0s"},
		{Alert{URL: "http://x", Header: map[string][]string{"X": {"{env.GREEN_API_TEST_UNSET}"}}}, "header X: placeholder"},
		{Alert{URL: "http://x", Body: `{"text": "{alert.txt}"}`}, "body: unknown placeholder {alert.txt}; want one of {alert.count}, "},
		{Alert{URL: "http://x", Body: `{"text": "{env.GREEN_API_TEST_UNSET}"}`}, "body: placeholder {env.GREEN_API_TEST_UNSET} is not set"},
		{Alert{URL: "http://x", Body: `{"text": {alert.text}}`}, "body: no JSON"},
	} {
		if err := test.alert.provision(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.alert, err, test.want)
		}
	}
}

// TestAlertEvery: at most one alert each `every`, for each reason and type.
func TestAlertEvery(t *testing.T) {
	alert := &Alert{URL: "http://127.0.0.1"}
	if err := alert.provision(); err != nil {
		t.Fatal(err)
	}
	e := newAlertEndpoint(alert, nil)
	now := time.Now()
	tell := func(why reason.Reason, typ string, at time.Time) {
		e.add(outcome.Note{Reason: why, Kind: typ, Level: zapcore.ErrorLevel, At: at})
	}
	due := func(at time.Time) (keys []alertKey) {
		for {
			g, _ := e.next(at)
			if g == nil {
				return keys
			}
			keys = append(keys, g.alertKey)
		}
	}
	tell(reason.Schema, "a", now)
	tell(reason.Schema, "b", now)
	if got := due(now); len(got) != 0 {
		t.Errorf("at once: %v", got)
	}
	if got := due(now.Add(alertGather)); len(got) != 2 {
		t.Errorf("gathered: %v", got)
	}
	for i := range 100 {
		tell(reason.Schema, "a", now.Add(alertGather+time.Duration(i)*time.Second))
	}
	tell(reason.Malformed, "a", now.Add(3*time.Second))
	if got := due(now.Add(200 * time.Second)); len(got) != 1 || got[0].reason != reason.Malformed {
		t.Errorf("within `every`: %v", got)
	}
	if got := due(now.Add(alertGather + defaultAlertEvery)); len(got) != 1 || got[0].typ != "a" {
		t.Errorf("after it: %v", got)
	}
	for i := range 1000 {
		tell(reason.Schema, "a", now)
		e.add(outcome.Note{Reason: reason.Schema, Kind: "a", Instance: fmt.Sprint(i), At: now})
	}
	if g := e.groups[alertKey{reason.Schema, "a"}]; g.count != 2000 || len(g.instances) != maxAlertInstances || !g.others {
		t.Errorf("%d, %d instances", g.count, len(g.instances))
	}
}

// TestSilence: the operator is told once of a configured instance that has gone silent.
func TestSilence(t *testing.T) {
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Alerting(in.URL, "silence 1s\nevery 1s", "ip_filter {\nallow 127.0.0.1\n}\nauth {\ninstance 1101000001 TOKEN\ninstance 1101000002 TOKEN\n}\nreverse_proxy "+up.Address))
	stop := time.Now().Add(4 * time.Second) // long enough for a second alert
	for i := 0; time.Now().Before(stop); i++ {
		e.Post(edgetest.Numbered(fmt.Sprint("N", i)))
		time.Sleep(100 * time.Millisecond)
	}
	got := in.All()
	if len(got) != 1 || !strings.Contains(got[0], `"reason":"silence"`) || !strings.Contains(got[0], `"instances":"1101000002"`) {
		t.Errorf("told %q", got)
	}
}
