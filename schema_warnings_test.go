package greenapi

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/watch"
)

// TestSchemaWarnings: load and check warn of a schema file that probably does not mean what it says.
func TestSchemaWarnings(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"messageData.textmessage.json": "false", "incomingCall.json": `{"requiered":["from"]}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"validate {\nschemas "+dir+"\n}\n"))
	logs := e.Logs.All()
	for _, part := range []string{"the name differs from messageData.textMessage.json", `"pointer":"/requiered"`, "do you mean required?"} {
		if !strings.Contains(logs, part) {
			t.Errorf("the log lacks %s", part)
		}
	}
	stdout, stderr, code := edgetest.RunCommand(t, "", edgetest.StateChanged, "green-api", "check", "--schemas", dir, "-")
	if code != 0 || stdout != "pass        -  stateInstanceChanged\n" ||
		!strings.Contains(stderr, "incomingCall.json: /requiered: no keyword of JSON Schema") || !strings.Contains(stderr, "messageData.textmessage.json: /: the name differs") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

// TestNamesOfTheBody: a schema of one's own looks at members whatever their names are, and no such name
// reaches the log or an alert, not even by the drift guard.
func TestNamesOfTheBody(t *testing.T) {
	dir := t.TempDir()
	const schema = `{"properties":{"members":{"additionalProperties":{"type":"string"}}}}`
	if err := os.WriteFile(filepath.Join(dir, "messageData.textMessage.json"), []byte(schema), 0o600); err != nil {
		t.Fatal(err)
	}
	quickAlerts(t)
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Alerting(in.URL, "", edgetest.Loopback+"validate {\nschemas "+dir+"\n}\nreverse_proxy "+up.Address))
	for i := range enoughBreaks {
		body := strings.Replace(edgetest.Numbered(fmt.Sprint("N", i)), `"messageData":{`, fmt.Sprintf(`"messageData":{"members":{"CANARY Ivan +7900%d":5},`, i), 1)
		e.Post(strings.Replace(body, "1101000001", fmt.Sprint(1101000001+i%watch.DriftInstances), 1))
	}
	e.WantRecord("reason", "schema", "pointer", "[/messageData/members/*]", "keyword", "[type]")
	edgetest.Eventually(t, "alert", func() bool { return strings.Contains(strings.Join(in.All(), ""), "/messageData/members/* type") })
	if strings.Contains(e.Logs.All()+strings.Join(in.All(), ""), "CANARY") {
		t.Error("a name of the body is in the log or in an alert")
	}
}
