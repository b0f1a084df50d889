package greenapi

import (
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
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
