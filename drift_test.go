package greenapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

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
			for i := range 30 {
				test.send(e, ofInstance(broken(fmt.Sprint("A", i)), i%3))
			}
			if got := strings.Contains(e.logs.all(), "format changed"); got != test.turns {
				t.Errorf("turned: %t, want %t", got, test.turns)
			}
		})
	}
}

// ofInstance is a body as another instance of the same fleet sends it.
func ofInstance(body string, n int) string {
	return strings.Replace(body, "1101000001", fmt.Sprint(firstInstance+n), 1)
}
