package greenapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestReportOnly: a gate that reports lets everything through that can go on, and says what it would
// have done.
func TestReportOnly(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, metricsSite("", "ip_filter {\nallow 203.0.113.7\nreport_only\n}\nauth {\ntoken TOKEN\ninstance 1101000002 other\nreport_only\n}\n"+
		"validate {\ndrop stateInstanceChanged\nmax_body_size 1KiB\nreport_only\n}\nreverse_proxy "+up.Address))
	for _, test := range []struct {
		name, body, token string
		would, reason     string
		level             string
		status            int
	}{
		{"no fault but the address", edgetest.TextMessage, "Bearer " + edgetest.Token, "refused", "unlisted_sender", "warn", 200},
		{"no token", edgetest.Numbered("NOTOKEN"), "", "refused", "no_token", "warn", 200},
		{"schema", edgetest.Broken("SCHEMA"), "Bearer " + edgetest.Token, "quarantined", "schema", "error", 200},
		{"malformed", "{no JSON", "Bearer " + edgetest.Token, "quarantined", "malformed", "error", 200},
		{"another instance", strings.Replace(edgetest.TextMessage, "1101000001", "1101000002", 1), "Bearer " + edgetest.Token, "refused", "unlisted_sender", "warn", 200},
	} {
		before := len(up.Requests())
		if got := e.Post(test.body, "Authorization", test.token); got != test.status {
			t.Errorf("%s: status %d, want %d", test.name, got, test.status)
		}
		if requests := up.Requests(); len(requests) != before+1 || requests[before].Body != test.body {
			t.Errorf("%s: not delivered as it came", test.name)
		}
		e.WantRecord("outcome", "delivered", "reason", test.reason, "would_be", test.would, "report_only", "true", "level", test.level)
	}
	page := e.Scrape()
	for labels, want := range map[[3]string]float64{
		{"none", "refused", "unlisted_sender"}: 4, {"none", "refused", "ip_not_allowed"}: 1, {"none", "refused", "no_token"}: 1,
		{"incomingMessageReceived", "quarantined", "schema"}: 1, {"none", "quarantined", "malformed"}: 1, {"incomingMessageReceived", "refused", "instance_not_allowed"}: 1,
	} {
		line := fmt.Sprintf(`caddy_green_api_report_only_total{outcome=%q,reason=%q,type=%q} %g`, labels[1], labels[2], labels[0], want)
		if !strings.Contains(page, "\n"+line+"\n") {
			t.Errorf("lacks %s", line)
		}
	}
	if got := e.Post(edgetest.StateChanged); got != 200 || !strings.Contains(up.Requests()[len(up.Requests())-1].Body, "stateInstanceChanged") {
		t.Errorf("what would be dropped: status %d", got)
	}
	// What cannot go on does not.
	before := len(up.Requests())
	e.Post(edgetest.TextMessage + strings.Repeat(" ", 1<<10))
	e.WantRecord("outcome", "quarantined", "reason", "too_large")
	if response := e.Send(http.MethodGet, e.URL, nil); response.StatusCode != 405 || response.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("GET: status %d, %v", response.StatusCode, response.Header)
	}
	if len(up.Requests()) != before {
		t.Error("it was delivered")
	}
	if kept := e.Kept(); len(kept) != 1 {
		t.Errorf("%d kept", len(kept))
	}
}

// TestLogBody: bodies are in the log only if that is said.
func TestLogBody(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	for option, want := range map[string]string{"": "", "log_body\n": edgetest.TextMessage} {
		e := edgetest.Start(t, edgetest.Site(option+edgetest.Loopback+"reverse_proxy "+up.Address))
		e.Post(edgetest.TextMessage)
		if got := e.Record().Text("body"); got != want {
			t.Errorf("%q: body %q", option, got)
		}
	}
}
