package greenapi

import (
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
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
