package greenapi

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/receiver"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
	"github.com/greenapi-community/caddy-green-api/internal/watch"
)

// alertsTo is a transport that hands over what is posted and answers 200.
type alertsTo func(body string)

func (to alertsTo) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	to(string(body))
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
}

// quickAlerts makes the alerts of a test wait for others for a moment only. Call it before Caddy runs.
// What is left is told at the end of the test, and not with the last config, unless release is called once it runs.
func quickAlerts(t *testing.T) (release func()) {
	t.Helper()
	_, loaded, err := operators.LoadOrNew(theOperator, func() (caddy.Destructor, error) {
		return newOperator(tell.Times{Gather: 300 * time.Millisecond, FirstPause: 200 * time.Millisecond, LongestPause: time.Minute, Flush: 2 * time.Second}), nil
	})
	if err != nil || loaded {
		t.Fatalf("another config runs already: %v", err)
	}
	release = sync.OnceFunc(func() {
		if err := releaseOperator(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(release)
	return release
}

// TestAlert: what went wrong is told in one alert, with all there is to say.
func TestAlert(t *testing.T) {
	release := quickAlerts(t)
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Alerting(in.URL+"/hook", "header X-Key {env.HOME}", edgetest.Loopback+"reverse_proxy "+up.Address))
	release()
	for i := range 3 {
		e.Post(strings.Replace(edgetest.Broken(fmt.Sprint("B", i)), "1101000001", fmt.Sprint(1101000001+i), 1))
	}
	e.Post(edgetest.Numbered("GOOD"))
	edgetest.Eventually(t, "alert", func() bool { return len(in.All()) > 0 })
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
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("told after %s", took)
	}
	if !strings.Contains(in.All()[0], "ip_filter: allow green_api 203.0.113.7 127.0.0.1.") {
		t.Errorf("%s", in.All()[0])
	}
	if strings.Contains(in.All()[0], edgetest.Token) {
		t.Error("the alert has the token")
	}
}

// TestAlertPassedOn: of what is passed on although something is wrong with it, no alert says that it is
// kept.
func TestAlertPassedOn(t *testing.T) {
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Alerting(in.URL, "", edgetest.Loopback+"validate {\nreport_only\n}\nreverse_proxy "+up.Address))
	e.Post(edgetest.Broken("PASSED"))
	e.Post("{}")
	e.Kept() // the end of the last config tells what is left
	if len(in.All()) != 2 {
		t.Errorf("%d alerts, want 2", len(in.All()))
	}
	for _, told := range in.All() {
		if strings.Contains(told, "kept") {
			t.Errorf("alert %s", told)
		}
	}
}

// TestAlertReload: unsent alerts go over to the next config; a config that does not start takes nothing
// over.
func TestAlertReload(t *testing.T) {
	in := edgetest.NewInbox(t, nil)
	config := edgetest.Alerting(in.URL, "", edgetest.Loopback)
	e := edgetest.Start(t, config)
	e.Post(edgetest.Broken("ONE"))
	if err := e.Load(config + "\n# changed"); err != nil {
		t.Fatal(err)
	}
	if err := e.Load(edgetest.Site(edgetest.Loopback) + "http://:" + edgetest.FreePort(t) + " {\nbind 192.0.2.1\n}\n"); err == nil {
		t.Fatal("loads")
	}
	e.Post(edgetest.Broken("TWO"))
	e.Kept()
	if got := in.All(); len(got) != 1 || !strings.Contains(got[0], `"count":2,`) {
		t.Errorf("told %q", got)
	}
}

// TestSilence: the operator is told of a configured instance that has gone silent.
func TestSilence(t *testing.T) {
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Alerting(in.URL, "silence 300ms", "ip_filter {\nallow 127.0.0.1\n}\nauth {\ninstance 1101000001 TOKEN\ninstance 1101000002 TOKEN\n}\nreverse_proxy "+up.Address))
	edgetest.Eventually(t, "silence", func() bool {
		e.Post(edgetest.TextMessage)
		return strings.Contains(e.Logs.All(), "nothing has come from an instance for long")
	})
	e.Kept()
	if got := in.All(); len(got) != 1 || !strings.Contains(got[0], `"reason":"silence"`) || !strings.Contains(got[0], `"instances":"1101000002"`) {
		t.Errorf("told %q", got)
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

// TestSilences: alerts ask for silences, the shortest first and each length once.
func TestSilences(t *testing.T) {
	a := new(App)
	for _, length := range []time.Duration{0, time.Hour, 15 * time.Minute, time.Hour} {
		a.Alerts = append(a.Alerts, &Alert{URL: "http://127.0.0.1", Silence: caddy.Duration(length)})
	}
	if got := a.silences(); !slices.Equal(got, []time.Duration{15 * time.Minute, time.Hour}) {
		t.Errorf("silences %v", got)
	}
}

// TestWatchSilence: a configured instance that falls silent is told of once, soon after, and again when
// it has sent something in between; that it does is told, too.
func TestWatchSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var told []string
		op := &operator{desk: tell.NewDesk(tell.Gauges{}, tell.DefaultTimes(), alertsTo(func(body string) {
			told = append(told, fmt.Sprintf("%s %s", time.Since(began).Round(time.Minute), body))
		}))}
		alert := &Alert{URL: "http://127.0.0.1", Silence: caddy.Duration(time.Hour), Body: `"{alert.reason} {alert.instances} {alert.count}"`}
		if err := alert.provision(); err != nil {
			t.Fatal(err)
		}
		a := &App{Alerts: []*Alert{alert}, operator: op, logger: zap.NewNop(), blocks: map[string]block{"default": {handler: &Handler{Auth: withTokensOf(t, "1", "2")}}}}
		op.desk.Configure(a.endpoints(), a.logger)
		ctx, cancel := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		watching.Go(func() { a.watchSilence(ctx) })
		for minute := range 240 {
			time.Sleep(time.Minute)
			op.heard("1", time.Now())
			if minute == 100 {
				op.heard("2", time.Now())
			}
			if minute == 238 {
				if got, want := op.silent.Silent(), []watch.Silent{{Instance: "2", Since: began.Add(101 * time.Minute).UTC()}}; !slices.Equal(got, want) {
					t.Errorf("silent %v, want %v", got, want)
				}
			}
		}
		cancel()
		watching.Wait()
		op.desk.Close()
		want := `1h1m0s "silence 2 1"` + "\n" + `1h41m0s "recovered 2 1"` + "\n" + `2h41m0s "silence 2 1"`
		if got := strings.Join(told, "\n"); got != want {
			t.Errorf("told %s\nwant %s", got, want)
		}
	})
}

// TestSilenceOnStandby: nothing is expected from an instance that another edge receives for.
func TestSilenceOnStandby(t *testing.T) {
	states := []receiver.State{{Instance: "1", State: receiver.Standby}, {Instance: "2", State: receiver.Receiving}, {Instance: "3", State: receiver.Failing}}
	if got := withoutStandby([]string{"1", "2", "3", "4"}, states); !slices.Equal(got, []string{"2", "3", "4"}) {
		t.Error(got)
	}
}
