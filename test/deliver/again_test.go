package deliver

import (
	"fmt"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestDeduplicate: only what a handler took is remembered, by event, and over reloads.
func TestDeduplicate(t *testing.T) {
	status := func(id, status string) string {
		return `{"typeWebhook":"outgoingMessageStatus","instanceData":{"idInstance":1101000001,"wid":"79001234567@c.us","typeInstance":"whatsapp"},` +
			`"timestamp":1700000000,"chatId":"79001234568@c.us","idMessage":"` + id + `","status":"` + status + `","sendByApi":true}`
	}
	up := edgetest.Script(t, "422", "200")
	config := edgetest.Site(edgetest.Loopback + "deliver {\ndeduplicate 24h\ndead_letter off\n}\nreverse_proxy " + up.Address)
	e := edgetest.Start(t, config)
	for i, test := range []struct {
		body   string
		status int
		reason string
	}{
		{edgetest.TextMessage, 502, "handler_refused"},
		{edgetest.TextMessage, 200, ""},
		{edgetest.TextMessage, 200, "duplicate"},
		{strings.Replace(edgetest.TextMessage, "1700000000", "1700000060", 1), 200, "duplicate"}, // GREEN-API's own
		{strings.Replace(edgetest.TextMessage, "1101000001", "1101000002", 1), 200, ""},
		{strings.Replace(edgetest.TextMessage, `"chatId":"79001234568@c.us"`, `"chatId":"79001234569@c.us"`, 1), 200, ""},
		{status("3EB0C767D097B7C7C030", "sent"), 200, ""},
		{status("3EB0C767D097B7C7C030", "delivered"), 200, ""},
		{status("3EB0C767D097B7C7C030", "delivered"), 200, "duplicate"},
		{edgetest.StateChanged, 200, ""},
		{strings.Replace(edgetest.StateChanged, "1700000000", "1700000060", 1), 200, ""}, // without idMessage: another one
		{edgetest.StateChanged, 200, "duplicate"},
		{strings.Replace(edgetest.TextMessage, "a canary sings", "a canary sings more", 1), 200, ""}, // a placeholder before
		{strings.Replace(edgetest.TextMessage, `"a canary sings"`, `"a canary sings","more":1`, 1), 200, ""},
		{strings.Replace(edgetest.TextMessage, `"typeWebhook":"incomingMessageReceived",`, "", 1)[:1] + strings.Replace(edgetest.TextMessage, `{"typeWebhook":"incomingMessageReceived",`, "", 1)[:len(edgetest.TextMessage)-len(`{"typeWebhook":"incomingMessageReceived",`)-1] +
			`,"typeWebhook":"incomingMessageReceived"}`, 200, "duplicate"}, // in another order
	} {
		if i%4 == 3 {
			if err := e.Load(config + fmt.Sprintf("\n# %d", i)); err != nil {
				t.Fatal(err)
			}
		}
		if got := e.Post(test.body); got != test.status {
			t.Errorf("%d: status %d, want %d", i, got, test.status)
		}
		if got := e.Record().Text("reason"); got != test.reason {
			t.Errorf("%d: reason %q, want %q", i, got, test.reason)
		}
	}
}
