package greenapi

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

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
