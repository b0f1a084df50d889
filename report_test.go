package greenapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/greenapi-community/caddy-green-api/notification"
)

// TestReportOnly: a gate that reports lets everything through that can go on, and says what it would
// have done.
func TestReportOnly(t *testing.T) {
	up := newUpstream(t, 200, nil)
	e := start(t, site("ip_filter {\nallow 203.0.113.7\nreport_only\n}\nauth {\ntoken TOKEN\ninstance 1101000002 other\nreport_only\n}\n"+
		"validate {\ndrop stateInstanceChanged\nmax_body_size 1KiB\nreport_only\n}\nreverse_proxy "+up.address))
	metrics.reportOnly.Reset()
	for _, test := range []struct {
		name, body, token string
		would, reason     string
		level             string
		status            int
	}{
		{"no fault but the address", textMessage, "Bearer " + testToken, "refused", "unlisted_sender", "warn", 200},
		{"no token", numbered("NOTOKEN"), "", "refused", "no_token", "warn", 200},
		{"schema", broken("SCHEMA"), "Bearer " + testToken, "quarantined", "schema", "error", 200},
		{"malformed", "{no JSON", "Bearer " + testToken, "quarantined", "malformed", "error", 200},
		{"another instance", strings.Replace(textMessage, "1101000001", "1101000002", 1), "Bearer " + testToken, "refused", "unlisted_sender", "warn", 200},
	} {
		before := len(up.requests())
		if got := e.post(test.body, "Authorization", test.token); got != test.status {
			t.Errorf("%s: status %d, want %d", test.name, got, test.status)
		}
		if requests := up.requests(); len(requests) != before+1 || requests[before].body != test.body {
			t.Errorf("%s: not delivered as it came", test.name)
		}
		e.wantRecord("outcome", "delivered", "reason", test.reason, "would_be", test.would, "report_only", "true", "level", test.level)
	}
	for labels, want := range map[[3]string]float64{
		{"none", "refused", "unlisted_sender"}: 4, {"none", "refused", "ip_not_allowed"}: 1, {"none", "refused", "no_token"}: 1,
		{"incomingMessageReceived", "quarantined", "schema"}: 1, {"none", "quarantined", "malformed"}: 1, {"incomingMessageReceived", "refused", "instance_not_allowed"}: 1,
	} {
		if got := testutil.ToFloat64(metrics.reportOnly.WithLabelValues(labels[0], labels[1], labels[2])); got != want {
			t.Errorf("%v: %g counted, want %g", labels, got, want)
		}
	}
	if got := e.post(stateChanged); got != 200 || !strings.Contains(up.requests()[len(up.requests())-1].body, "stateInstanceChanged") {
		t.Errorf("what would be dropped: status %d", got)
	}
	// What cannot go on does not.
	before := len(up.requests())
	e.post(textMessage + strings.Repeat(" ", 1<<10))
	e.wantRecord("outcome", "quarantined", "reason", "too_large")
	if response := e.send(http.MethodGet, e.url, nil); response.StatusCode != 405 || response.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("GET: status %d, %v", response.StatusCode, response.Header)
	}
	if len(up.requests()) != before {
		t.Error("it was delivered")
	}
	if kept := e.kept(); len(kept) != 1 {
		t.Errorf("%d kept", len(kept))
	}
}

// TestDriftGuard: when notifications of several instances break the same rule, it gives way, and
// the operator is told; not for one instance, and not for others.
func TestDriftGuard(t *testing.T) {
	in := newInbox(t, nil)
	up := newUpstream(t, 200, nil)
	changed := func(instance, i int) string {
		return strings.Replace(broken(fmt.Sprintf("D%d-%d", instance, i)), "1101000001", fmt.Sprint(firstInstance+instance), 1)
	}
	e := start(t, alerting(in.URL, "", loopback+"reverse_proxy "+up.address))
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

	// Strangers whom report_only lets through do not count.
	stranger := func(instance, i int) string {
		return strings.Replace(changed(instance, i), `"senderName":"Test Sender"`, `"senderName":5`, 1)
	}
	e = start(t, site("ip_filter {\nallow 127.0.0.1\n}\nauth {\ntoken TOKEN\nreport_only\n}\nreverse_proxy "+up.address))
	for i := range 60 {
		e.post(stranger(i%5, i), "Authorization", "Bearer wrong")
	}
	if strings.Contains(e.logs.all(), "format changed") {
		t.Error("strangers turned a rule")
	}

	e = start(t, site(loopback+"validate {\ndrift_guard off\n}\nreverse_proxy "+up.address))
	for i := range 60 {
		e.post(changed(i%5, i))
	}
	e.wantRecord("outcome", "quarantined", "reason", "schema")
}

func TestDriftDesk(t *testing.T) {
	parse := func(instance int) *notification.Notification {
		n, err := notification.Parse([]byte(fmt.Sprintf(`{"typeWebhook":"x","instanceData":{"idInstance":%d}}`, instance)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	faults := func(i int) []notification.Fault {
		return []notification.Fault{{Pointer: fmt.Sprintf("/a/%d/%d/b", i, i+1), Keyword: "type"}}
	}
	var slow, fast driftDesk
	now := time.Now()
	for i := range 100 {
		if len(slow.add(parse(i), faults(i), now.Add(time.Duration(i)*driftWindow/driftBreaks*2))) > 0 {
			t.Fatal("turned by breaks that are far between")
		}
	}
	for i := range driftBreaks {
		turned := fast.add(parse(i), faults(i), now)
		if (len(turned) == 1) != (i == driftBreaks-1) {
			t.Fatalf("%d: turned %v", i, turned)
		}
	}
	if got := fast.turned(); len(got) != 1 || got[0] != (driftRule{"x", "/a/*/*/b", "type"}) {
		t.Errorf("turned %v", got)
	}
	if left := fast.holds(parse(1), append(faults(5), notification.Fault{Pointer: "/c", Keyword: "type"})); len(left) != 1 || left[0].Pointer != "/c" {
		t.Errorf("holds %v", left)
	}
	for i := range 2 * maxDriftRules {
		fast.add(parse(1), []notification.Fault{{Pointer: fmt.Sprintf("/x%d", i), Keyword: "type"}}, now)
	}
	if len(fast.rules) > maxDriftRules {
		t.Errorf("%d rules", len(fast.rules))
	}
}

// TestLogBody: bodies are in the log only if that is said.
func TestLogBody(t *testing.T) {
	up := newUpstream(t, 200, nil)
	for option, want := range map[string]string{"": "", "log_body\n": textMessage} {
		e := start(t, site(option+loopback+"reverse_proxy "+up.address))
		e.post(textMessage)
		if got := e.record().text("body"); got != want {
			t.Errorf("%q: body %q", option, got)
		}
	}
}
