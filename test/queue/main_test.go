// Package queue gives notifications to a whole Caddy with a queue, and lets it be killed, reloaded and starved.
package queue

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	_ "github.com/greenapi-community/caddy-green-api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestMain gives the tests directories of their own, and can be Caddy itself.
func TestMain(m *testing.M) { edgetest.Main(m) }

// queued is a site with a queue that has these options.
func queued(options, upstreams string) string {
	return edgetest.SiteWith("", "green_api /green-api/webhook* {\n"+edgetest.Loopback+"queue {\n"+options+"\n}\nreverse_proxy "+upstreams+"\n}\nmetrics /metrics\n")
}

// message is a text message of a chat.
func message(instance, chat string, n int) string {
	return fmt.Sprintf(`{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":%s,"wid":"79990000001@c.us","typeInstance":"whatsapp"},`+
		`"timestamp":1795700000,"idMessage":"M%s-%s-%d","senderData":{"chatId":"%s@c.us","sender":"%s@c.us","senderName":"Ann"},`+
		`"messageData":{"typeMessage":"textMessage","textMessageData":{"textMessage":"%d"}}}`, instance, instance, chat, n, chat, chat, n)
}

const (
	instance = "1101000001"
	another  = "1101000002"
	chatA    = "79990000011"
	chatB    = "79990000012"
)

// ended waits until that many notifications have left the queue, and returns their records.
func ended(e *edgetest.Edge, n int) (records []edgetest.Record) {
	e.T.Helper()
	edgetest.Eventually(e.T, fmt.Sprintf("%d notifications have left the queue", n), func() bool {
		records = nil
		for _, r := range e.Logs.Records(e.T) {
			if r.Text("outcome") == "delivered" || r.Text("outcome") == "quarantined" {
				records = append(records, r)
			}
		}
		return len(records) >= n
	})
	return records
}

// bodies are the bodies that a handler was sent.
func bodies(u *edgetest.Upstream) (all []string) {
	for _, r := range u.Requests() {
		all = append(all, r.Body)
	}
	return all
}

// gate is a handler that holds each request until it is let through.
type gate struct {
	*edgetest.Upstream
	pass chan struct{}
}

func newGate(t *testing.T) *gate {
	g := &gate{pass: make(chan struct{})}
	g.Upstream = edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-g.pass:
		case <-r.Context().Done():
		case <-time.After(30 * time.Second):
		}
	})
	return g
}

// asked waits until a handler has been asked that often.
func asked(t *testing.T, u *edgetest.Upstream, n int) {
	t.Helper()
	edgetest.Eventually(t, fmt.Sprintf("the handler is asked %d times", n), func() bool { return len(u.Requests()) >= n })
}

func without(config string) string {
	from := strings.Index(config, "queue {")
	return config[:from] + config[from+strings.Index(config[from:], "}\n")+2:]
}
