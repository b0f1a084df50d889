package greenapi

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSchemaWarnings: what a schema file of one's own probably does not mean is said at load, and by check.
func TestSchemaWarnings(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"messageData.textmessage.json": "false", "incomingCall.json": `{"requiered":["from"]}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e := start(t, site(loopback+"validate {\nschemas "+dir+"\n}\n"))
	logs := e.logs.all()
	for _, part := range []string{"the name differs from messageData.textMessage.json", `"pointer":"/requiered"`, "do you mean required?"} {
		if !strings.Contains(logs, part) {
			t.Errorf("the log lacks %s", part)
		}
	}
	stdout, stderr, code := runCommand(t, "", stateChanged, "green-api", "check", "--schemas", dir, "-")
	if code != 0 || stdout != "pass        -  stateInstanceChanged\n" ||
		!strings.Contains(stderr, "incomingCall.json: /requiered: no keyword of JSON Schema") || !strings.Contains(stderr, "messageData.textmessage.json: /: the name differs") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}
