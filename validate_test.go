package greenapi

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

func parsed(t testing.TB, body string) *notification.Notification {
	t.Helper()
	n, err := notification.Parse([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newValidate(t testing.TB, va Validate) *Validate {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	if err := va.provision(ctx); err != nil {
		t.Fatal(err)
	}
	return &va
}

func TestValidateJudge(t *testing.T) {
	body := func(typ, message string) string {
		text := strings.Replace(edgetest.TextMessage, `"incomingMessageReceived"`, `"`+typ+`"`, 1)
		if message == "" {
			return strings.Replace(text, `"typeMessage":"textMessage",`, "", 1)
		}
		return strings.Replace(text, `"typeMessage":"textMessage"`, `"typeMessage":"`+message+`"`, 1)
	}
	const in = "incomingMessageReceived"
	for _, test := range []struct {
		name    string
		options Validate
		body    string
		outcome outcome.Outcome // "" for going on
		reason  string          // of the verdict, or of the remark
	}{
		{"genuine", Validate{}, body(in, "textMessage"), "", ""},
		{"drop a type", Validate{Drop: []string{in}}, body(in, "textMessage"), outcome.Dropped, reason.Unwanted},
		{"drop a message type", Validate{Drop: []string{in + ".textMessage"}}, body(in, "textMessage"), outcome.Dropped, reason.Unwanted},
		{"drop another message type", Validate{Drop: []string{in + ".imageMessage"}}, body(in, "textMessage"), "", ""},
		{"drop of another type", Validate{Drop: []string{"outgoingMessageReceived.textMessage"}}, body(in, "textMessage"), "", ""},
		{"drop comes before the schema", Validate{Drop: []string{in}}, body(in, ""), outcome.Dropped, reason.Unwanted},
		{"drop of an unknown type", Validate{Drop: []string{"brandNew"}}, body("brandNew", "textMessage"), outcome.Dropped, reason.Unwanted},
		{"accept the type", Validate{Accept: []string{in}}, body(in, "textMessage"), "", ""},
		{"accept the status of what came in", Validate{Accept: []string{"incomingMessageStatus"}}, `{"typeWebhook":"incomingMessageStatus","instanceData":{"idInstance":1101000001},"timestamp":1,"status":"read"}`, "", ""},
		{"accept orders", Validate{Accept: []string{in + ".orderMessage"}, UnknownMessage: actionQuarantine}, strings.Replace(body(in, "orderMessage"), `"textMessageData"`, `"orderMessage"`, 1), "", ""},
		{"order without its block", Validate{}, body(in, "orderMessage"), outcome.Quarantined, reason.Schema},
		{"drop products", Validate{Drop: []string{in + ".productMessage"}}, body(in, "productMessage"), outcome.Dropped, reason.Unwanted},
		{"accept another type", Validate{Accept: []string{"incomingCall"}}, body(in, "textMessage"), outcome.Dropped, reason.Unwanted},
		{"accept the message type", Validate{Accept: []string{in + ".textMessage"}}, body(in, "textMessage"), "", ""},
		{"accept another message type", Validate{Accept: []string{in + ".imageMessage"}}, body(in, "textMessage"), outcome.Dropped, reason.Unwanted},
		{"accept, unknown type", Validate{Accept: []string{"incomingCall"}}, body("brandNew", "textMessage"), outcome.Quarantined, reason.UnknownType},
		{"accept, unknown message type", Validate{Accept: []string{in + ".imageMessage"}}, body(in, "brandNew"), "", reason.UnknownMessage},
		{"accept, no message type", Validate{Accept: []string{in + ".imageMessage"}}, body(in, ""), outcome.Quarantined, reason.Schema},
		{"unknown type", Validate{}, body("brandNew", "textMessage"), outcome.Quarantined, reason.UnknownType},
		{"unknown type pass", Validate{UnknownType: "pass"}, body("brandNew", "textMessage"), "", reason.UnknownType},
		{"unknown type drop", Validate{UnknownType: "drop"}, body("brandNew", "textMessage"), outcome.Dropped, reason.UnknownType},
		{"unknown message type", Validate{}, body(in, "brandNew"), "", reason.UnknownMessage},
		{"unknown message type quarantine", Validate{UnknownMessage: "quarantine"}, body(in, "brandNew"), outcome.Quarantined, reason.UnknownMessage},
		{"unknown message type drop", Validate{UnknownMessage: "drop"}, body(in, "brandNew"), outcome.Dropped, reason.UnknownMessage},
		{"no message type", Validate{}, body(in, ""), outcome.Quarantined, reason.Schema},
		{"invalid pass", Validate{Invalid: "pass"}, body(in, ""), "", reason.Schema},
		{"invalid drop", Validate{Invalid: "drop"}, body(in, ""), outcome.Dropped, reason.Schema},
		{"case counts", Validate{}, strings.Replace(body(in, "textMessage"), in, "IncomingMessageReceived", 1), outcome.Quarantined, reason.UnknownType},
	} {
		t.Run(test.name, func(t *testing.T) {
			end, remark := newValidate(t, test.options).judge(parsed(t, test.body))
			var got outcome.Outcome
			why := ""
			switch {
			case end != nil:
				got, why = end.Outcome, string(end.Reason)
				if end.Status != 200 {
					t.Errorf("status %d: the sender would send it again", end.Status)
				}
			case remark != nil:
				why = string(remark.Reason)
			}
			if got != test.outcome || why != test.reason {
				t.Errorf("%q %q, want %q %q", got, why, test.outcome, test.reason)
			}
		})
	}
}

// TestValidateGenuine sends everything genuine that there is: it passes.
func TestValidateGenuine(t *testing.T) {
	va := newValidate(t, Validate{})
	bodies := make(map[string][]byte)
	for _, example := range notification.Examples() {
		bodies[example.Name] = example.Body
	}
	files, err := filepath.Glob("../shared/notifications/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if bodies[file], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	if len(bodies) < 100 {
		t.Fatalf("only %d bodies", len(bodies))
	}
	t.Logf("%d examples and %d genuine bodies", len(bodies)-len(files), len(files))
	for name, body := range bodies {
		n, end := va.parseBody(body)
		if end == nil {
			var remark *outcome.Verdict
			if end, remark = va.judge(n); remark != nil {
				t.Errorf("%s: %s", name, remark.Reason)
			}
		}
		if end != nil {
			t.Errorf("%s: %s %s %v %v", name, end.Outcome, end.Reason, end.Faults, end.Syntax)
		}
	}
}

// TestValidateVendorExample: the vendor's page prints an idInstance that is no JSON. The sender
// would repeat it for a day, so it is kept, with what is wrong and where.
func TestValidateVendorExample(t *testing.T) {
	printed := strings.Replace(edgetest.StateChanged, "1101000001", "000001", 1)
	_, end := new(Validate).parseBody([]byte(printed))
	if end == nil || end.Reason != reason.Malformed || end.Status != 200 {
		t.Fatalf("verdict %+v", end)
	}
	at := strings.Index(printed, "000001")
	if got := int(end.Syntax.Offset); got != at && got != at+1 {
		t.Errorf("byte %d, want %d", got, at)
	}
	if !strings.Contains(end.Syntax.Error(), "leading zero") {
		t.Errorf("message %q", end.Syntax)
	}
}

// TestLargest: with every size and duration as large as it can be, notifications are taken as ever.
func TestLargest(t *testing.T) {
	const longest = "2562047h"
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
