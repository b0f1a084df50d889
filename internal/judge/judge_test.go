package judge

import (
	"cmp"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

const textMessage = `{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1101000001,` +
	`"wid":"79001234567@c.us","typeInstance":"whatsapp"},"timestamp":1700000000,"idMessage":"3EB0C767D097B7C7C030",` +
	`"senderData":{"chatId":"79001234568@c.us","sender":"79001234568@c.us","senderName":"Test Sender"},` +
	`"messageData":{"typeMessage":"textMessage","textMessageData":{"textMessage":"a canary sings"}}}`

// options are those of the gate validate that make its rules.
type options struct {
	Accept, Drop                         []string
	UnknownType, UnknownMessage, Invalid string
}

var builtIn = sync.OnceValues(func() (*notification.Schemas, error) { return notification.LoadSchemas("") })

func rulesOf(t testing.TB, o options) *Rules {
	t.Helper()
	schemas, err := builtIn()
	if err != nil {
		t.Fatal(err)
	}
	rules := Defaults()
	rules.Schemas = schemas
	rules.UnknownType = cmp.Or(o.UnknownType, rules.UnknownType)
	rules.UnknownMessage = cmp.Or(o.UnknownMessage, rules.UnknownMessage)
	rules.Invalid = cmp.Or(o.Invalid, rules.Invalid)
	if rules.Wanted, _, err = NewWanted(o.Accept, o.Drop, schemas); err != nil {
		t.Fatal(err)
	}
	return &rules
}

func parsed(t testing.TB, body string) *notification.Notification {
	t.Helper()
	n, err := notification.Parse([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestJudge(t *testing.T) {
	body := func(typ, message string) string {
		text := strings.Replace(textMessage, `"incomingMessageReceived"`, `"`+typ+`"`, 1)
		if message == "" {
			return strings.Replace(text, `"typeMessage":"textMessage",`, "", 1)
		}
		return strings.Replace(text, `"typeMessage":"textMessage"`, `"typeMessage":"`+message+`"`, 1)
	}
	const in = "incomingMessageReceived"
	for _, test := range []struct {
		name    string
		options options
		body    string
		outcome outcome.Outcome // "" for going on
		reason  string          // of the verdict, or of the remark
	}{
		{"genuine", options{}, body(in, "textMessage"), "", ""},
		{"drop a type", options{Drop: []string{in}}, body(in, "textMessage"), outcome.Dropped, reason.Unwanted},
		{"drop a message type", options{Drop: []string{in + ".textMessage"}}, body(in, "textMessage"), outcome.Dropped, reason.Unwanted},
		{"drop another message type", options{Drop: []string{in + ".imageMessage"}}, body(in, "textMessage"), "", ""},
		{"drop of another type", options{Drop: []string{"outgoingMessageReceived.textMessage"}}, body(in, "textMessage"), "", ""},
		{"drop comes before the schema", options{Drop: []string{in}}, body(in, ""), outcome.Dropped, reason.Unwanted},
		{"drop of an unknown type", options{Drop: []string{"brandNew"}}, body("brandNew", "textMessage"), outcome.Dropped, reason.Unwanted},
		{"accept the type", options{Accept: []string{in}}, body(in, "textMessage"), "", ""},
		{"accept the status of what came in", options{Accept: []string{"incomingMessageStatus"}}, `{"typeWebhook":"incomingMessageStatus","instanceData":{"idInstance":1101000001},"timestamp":1,"status":"read"}`, "", ""},
		{"accept orders", options{Accept: []string{in + ".orderMessage"}, UnknownMessage: Quarantine}, strings.Replace(body(in, "orderMessage"), `"textMessageData"`, `"orderMessage"`, 1), "", ""},
		{"order without its block", options{}, body(in, "orderMessage"), outcome.Quarantined, reason.Schema},
		{"drop products", options{Drop: []string{in + ".productMessage"}}, body(in, "productMessage"), outcome.Dropped, reason.Unwanted},
		{"accept another type", options{Accept: []string{"incomingCall"}}, body(in, "textMessage"), outcome.Dropped, reason.Unwanted},
		{"accept the message type", options{Accept: []string{in + ".textMessage"}}, body(in, "textMessage"), "", ""},
		{"accept another message type", options{Accept: []string{in + ".imageMessage"}}, body(in, "textMessage"), outcome.Dropped, reason.Unwanted},
		{"accept, unknown type", options{Accept: []string{"incomingCall"}}, body("brandNew", "textMessage"), outcome.Quarantined, reason.UnknownType},
		{"accept, unknown message type", options{Accept: []string{in + ".imageMessage"}}, body(in, "brandNew"), "", reason.UnknownMessage},
		{"accept another type, unknown message type", options{Accept: []string{"incomingCall"}}, body(in, "brandNew"), outcome.Dropped, reason.Unwanted},
		{"accept, no message type", options{Accept: []string{in + ".imageMessage"}}, body(in, ""), outcome.Quarantined, reason.Schema},
		{"unknown type", options{}, body("brandNew", "textMessage"), outcome.Quarantined, reason.UnknownType},
		{"unknown type pass", options{UnknownType: "pass"}, body("brandNew", "textMessage"), "", reason.UnknownType},
		{"unknown type drop", options{UnknownType: "drop"}, body("brandNew", "textMessage"), outcome.Dropped, reason.UnknownType},
		{"unknown message type", options{}, body(in, "brandNew"), "", reason.UnknownMessage},
		{"unknown message type quarantine", options{UnknownMessage: "quarantine"}, body(in, "brandNew"), outcome.Quarantined, reason.UnknownMessage},
		{"unknown message type drop", options{UnknownMessage: "drop"}, body(in, "brandNew"), outcome.Dropped, reason.UnknownMessage},
		{"no message type", options{}, body(in, ""), outcome.Quarantined, reason.Schema},
		{"invalid pass", options{Invalid: "pass"}, body(in, ""), "", reason.Schema},
		{"invalid drop", options{Invalid: "drop"}, body(in, ""), outcome.Dropped, reason.Schema},
		{"case counts", options{}, strings.Replace(body(in, "textMessage"), in, "IncomingMessageReceived", 1), outcome.Quarantined, reason.UnknownType},
	} {
		t.Run(test.name, func(t *testing.T) {
			end, remark := rulesOf(t, test.options).Judge(parsed(t, test.body))
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

// TestGenuine judges every example and every genuine body: all pass.
func TestGenuine(t *testing.T) {
	rules := rulesOf(t, options{})
	bodies := make(map[string][]byte)
	for _, example := range notification.Examples() {
		bodies[example.Name] = example.Body
	}
	files, err := filepath.Glob("../../../shared/notifications/*.json")
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
		n, end := rules.Parse(body)
		if end == nil {
			var remark *outcome.Verdict
			if end, remark = rules.Judge(n); remark != nil {
				t.Errorf("%s: %s", name, remark.Reason)
			}
		}
		if end != nil {
			t.Errorf("%s: %s %s %v %v", name, end.Outcome, end.Reason, end.Faults, end.Syntax)
		}
	}
}

// TestVendorExample: the vendor's page prints an idInstance that is no JSON. The sender would repeat
// it for a day, so the quarantine takes it, with what is wrong and where.
func TestVendorExample(t *testing.T) {
	const printed = `{"typeWebhook":"stateInstanceChanged","instanceData":{"idInstance":000001,"wid":"79001234567@c.us",` +
		`"typeInstance":"whatsapp"},"timestamp":1700000000,"stateInstance":"authorized"}`
	_, end := new(Rules).Parse([]byte(printed))
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

// TestWrapping: a body that handlers may read otherwise than the schema is kept, one that is too long
// as well, before anything is parsed.
func TestWrapping(t *testing.T) {
	rules := rulesOf(t, options{})
	largest := textMessage + strings.Repeat(" ", int(rules.MaxBody)-len(textMessage))
	for _, test := range []struct {
		name   string
		body   string
		header http.Header
		reason reason.Reason // "" for going on
	}{
		{"no header", textMessage, nil, ""},
		{"as GREEN-API sends it", textMessage, http.Header{"Content-Type": {notification.ContentType}}, ""},
		{"another spelling", textMessage, http.Header{"Content-Type": {`Application/JSON; charset="UTF8"`}}, ""},
		{"a kind of JSON", textMessage, http.Header{"Content-Type": {"application/vnd.example+json"}}, ""},
		{"not encoded", textMessage, http.Header{"Content-Encoding": {"Identity"}}, ""},
		{"a form", textMessage, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, reason.Encoding},
		{"another charset", textMessage, http.Header{"Content-Type": {"application/json; charset=utf-16"}}, reason.Encoding},
		{"two charsets", textMessage, http.Header{"Content-Type": {"application/json; charset=utf-8; charset=utf-16"}}, reason.Encoding},
		{"two content types", textMessage, http.Header{"Content-Type": {"application/json", "application/json"}}, reason.Encoding},
		{"encoded", textMessage, http.Header{"Content-Encoding": {"gzip"}}, reason.Encoding},
		{"encoded twice", textMessage, http.Header{"Content-Encoding": {"identity", "identity"}}, reason.Encoding},
		{"as long as it may be", largest, nil, ""},
		{"too long", largest + " ", nil, reason.TooLarge},
		{"no notification", "{", nil, reason.Malformed},
	} {
		n, end, remark := rules.JudgeBody([]byte(test.body), test.header)
		switch {
		case n == nil || remark != nil:
			t.Errorf("%s: %v, remark %+v", test.name, n, remark)
		case test.reason == "" && (end != nil || n.Instance != "1101000001"):
			t.Errorf("%s: %+v of instance %q", test.name, end, n.Instance)
		case test.reason != "" && (end == nil || end.Reason != test.reason || end.Outcome != outcome.Quarantined || end.Status != 200):
			t.Errorf("%s: %+v, want %s", test.name, end, test.reason)
		}
	}
}

// TestDrift: what the drift guard has learned goes on, marked, and only as far as options allow.
func TestDrift(t *testing.T) {
	unknownType := strings.Replace(textMessage, "incomingMessageReceived", "brandNew", 1)
	broken := strings.Replace(textMessage, `"typeMessage":"textMessage",`, "", 1)
	for _, test := range []struct {
		name           string
		body           string
		options        options
		learned, holds bool
		end            outcome.Outcome // "" for going on with a remark
		marked         bool
	}{
		{"type learned", unknownType, options{}, true, true, "", true},
		{"type not learned", unknownType, options{}, false, true, outcome.Quarantined, false},
		{"type learned but dropped", unknownType, options{UnknownType: Drop}, true, true, outcome.Dropped, false},
		{"rule given up", broken, options{}, false, false, "", true},
		{"rule given up, although dropped", broken, options{Invalid: Drop}, false, false, "", true},
		{"rule enforced", broken, options{}, false, true, outcome.Quarantined, false},
	} {
		rules := rulesOf(t, test.options)
		rules.Drift = &Drift{
			Learned: func(typ string) bool { return typ == "brandNew" && test.learned },
			Holds: func(schemas *notification.Schemas, n *notification.Notification, faults []notification.Fault, _ bool) bool {
				return schemas != rules.Schemas || n.Instance == "" || len(faults) == 0 || test.holds
			},
		}
		end, remark := rules.Judge(parsed(t, test.body))
		said, got := remark, outcome.Outcome("")
		if end != nil {
			said, got = end, end.Outcome
		}
		if said == nil || got != test.end || test.marked != (len(said.Fields) == 1 && said.Fields[0].Key == "drift") {
			t.Errorf("%s: end %+v, remark %+v", test.name, end, remark)
		}
	}
}

// TestNewWanted: a typing error in accept is an error, in drop only something to be told.
func TestNewWanted(t *testing.T) {
	schemas := rulesOf(t, options{}).Schemas
	for _, test := range []struct {
		accept, drop []string
		unknown, err string
	}{
		{accept: []string{"incomingCall"}},
		{drop: []string{"incomingCall", "brandNew", "brandNew.textMessage", "incomingMessageReceived.brandNew"}, unknown: "brandNew brandNew.textMessage incomingMessageReceived.brandNew"},
		{accept: []string{"incomingCall"}, drop: []string{"incomingCall"}, err: "accept, drop: want one of them, not both"},
		{accept: []string{"incomingcall"}, err: `accept: unknown type "incomingcall"; want TYPE or TYPE.MESSAGE`},
		{accept: []string{"incomingMessageReceived.brandNew"}, err: `accept: unknown type "incomingMessageReceived.brandNew"`},
	} {
		_, unknown, err := NewWanted(test.accept, test.drop, schemas)
		if strings.Join(unknown, " ") != test.unknown || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("accept %q drop %q: unknown %q, error %v", test.accept, test.drop, unknown, err)
		}
	}
}
