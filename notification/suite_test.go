package notification

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// The folders lie beside the module in development only; without them their tests only say so.
const (
	genuineFolder = "../../shared/notifications"
	suitesFolder  = "../../shared/suites"
)

// glob returns the files that match, or logs that there are none.
func glob(t testing.TB, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Logf("no files %s: nothing is checked against them", pattern)
	}
	return files
}

func read(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestGenuine is the promise: no genuine body fails.
func TestGenuine(t *testing.T) {
	schemas := load(t, "")
	for _, file := range glob(t, genuineFolder+"/*.json") {
		n, err := Parse(read(t, file))
		if err != nil {
			t.Errorf("%s: %v", filepath.Base(file), err)
			continue
		}
		if faults := schemas.Validate(n); faults != nil {
			t.Errorf("%s: %v", filepath.Base(file), faults)
		}
		if !schemas.accepts(n) {
			t.Errorf("%s is left to the library", filepath.Base(file))
		}
		if !schemas.KnownType(n.Type) || n.Message != "" && !schemas.KnownMessage(n.Message) {
			t.Errorf("%s: %s %s is not known", filepath.Base(file), n.Type, n.Message)
		}
	}
}

// TestParsingSuite runs JSONTestSuite, each case alone and as the value of a member.
func TestParsingSuite(t *testing.T) {
	for _, file := range glob(t, suitesFolder+"/json-parsing/test_parsing/*.json") {
		name := filepath.Base(file)
		text := read(t, file)
		_, alone := Parse(text)
		_, inside := Parse([]byte(with(string(text))))
		switch {
		case strings.HasPrefix(name, "n_"):
			if alone == nil {
				t.Errorf("%s is accepted", name)
			}
			if inside == nil {
				t.Errorf("%s is accepted as a value", name)
			}
		case strings.Contains(name, "duplicated_key"):
			if inside == nil {
				t.Errorf("%s is accepted, a name twice and all", name)
			}
		case strings.HasPrefix(name, "y_"):
			var syntax *SyntaxError
			if errors.As(inside, &syntax) && syntax.Cause == causeLongNumber {
				continue // y_number_double_close_to_zero has 80 bytes
			}
			if inside != nil {
				t.Errorf("%s: %v", name, inside)
			}
		}
	}
}

// malformed are ways to break any object; each must be refused whatever it is done to.
var malformed = map[string]func(body string) string{
	"empty":                func(string) string { return "" },
	"in an array":          func(b string) string { return "[" + b + "]" },
	"as a string":          func(b string) string { return `"` + b + `"` },
	"byte-order mark":      func(b string) string { return "\xef\xbb\xbf" + b },
	"NUL before":           func(b string) string { return "\x00" + b },
	"NUL after":            func(b string) string { return b + "\x00" },
	"twice":                func(b string) string { return b + b },
	"comma after":          func(b string) string { return b + "," },
	"brace after":          func(b string) string { return b + "}" },
	"brace missing":        func(b string) string { return b[:len(b)-1] },
	"first brace missing":  func(b string) string { return b[1:] },
	"bracket for brace":    func(b string) string { return b[:len(b)-1] + "]" },
	"trailing comma":       func(b string) string { return b[:len(b)-1] + ",}" },
	"leading comma":        func(b string) string { return "{," + b[1:] },
	"comment":              func(b string) string { return "{/* x */" + b[1:] },
	"line comment":         func(b string) string { return "// x\n" + b },
	"single quotes":        func(b string) string { return strings.ReplaceAll(b, `"`, "'") },
	"no quotes":            func(b string) string { return strings.ReplaceAll(b, `"`, "") },
	"typographic quotes":   func(b string) string { return strings.ReplaceAll(b, `"`, "“") },
	"no colons":            func(b string) string { return strings.ReplaceAll(b, `":`, `" `) },
	"equals signs":         func(b string) string { return strings.ReplaceAll(b, `":`, `"=`) },
	"no commas":            func(b string) string { return strings.ReplaceAll(b, `,"`, `"`) },
	"doubled commas":       func(b string) string { return strings.ReplaceAll(b, `,"`, `,,"`) },
	"semicolons":           func(b string) string { return strings.ReplaceAll(b, `,"`, `;"`) },
	"unescaped quote":      func(b string) string { return strings.Replace(b, `"typeWebhook":"`, `"typeWebhook":"a "b" `, 1) },
	"line break in string": func(b string) string { return strings.Replace(b, `"typeWebhook":"`, "\"typeWebhook\":\"\n", 1) },
	"bad escape":           func(b string) string { return strings.Replace(b, `"typeWebhook":"`, `"typeWebhook":"\q`, 1) },
	"backslash at end":     func(b string) string { return b[:len(b)-1] + `,"x":"\"}` },
	"leading zero":         func(b string) string { return strings.Replace(b, `"idInstance":`, `"idInstance":0`, 1) },
	"plus sign":            func(b string) string { return b[:len(b)-1] + `,"x":+1}` },
	"point alone":          func(b string) string { return b[:len(b)-1] + `,"x":.5}` },
	"no fraction":          func(b string) string { return b[:len(b)-1] + `,"x":1.}` },
	"no exponent":          func(b string) string { return b[:len(b)-1] + `,"x":1e}` },
	"hexadecimal":          func(b string) string { return b[:len(b)-1] + `,"x":0x1}` },
	"NaN":                  func(b string) string { return b[:len(b)-1] + `,"x":NaN}` },
	"Infinity":             func(b string) string { return b[:len(b)-1] + `,"x":-Infinity}` },
	"undefined":            func(b string) string { return b[:len(b)-1] + `,"x":undefined}` },
	"True":                 func(b string) string { return b[:len(b)-1] + `,"x":True}` },
	"huge number":          func(b string) string { return b[:len(b)-1] + `,"x":1e999}` },
	"name not a string":    func(b string) string { return b[:len(b)-1] + `,1:1}` },
	"name without value":   func(b string) string { return b[:len(b)-1] + `,"x"}` },
	"broken name":          func(b string) string { return b[:len(b)-1] + ",\"x\xff\":1}" },
	"lone surrogate name":  func(b string) string { return b[:len(b)-1] + `,"x\udc00":1}` },
	"too deep": func(b string) string {
		return b[:len(b)-1] + `,"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}"
	},
}

// TestMalformed breaks every example in every way, and cuts it off at every byte.
func TestMalformed(t *testing.T) {
	tried := 0
	refused := func(what, body string) {
		t.Helper()
		tried++
		var syntax *SyntaxError
		_, err := Parse([]byte(body))
		if !errors.As(err, &syntax) || syntax.Cause == "" || syntax.Offset < 0 || syntax.Offset > int64(len(body)) {
			t.Errorf("%s: got error %v", what, err)
		}
	}
	for i, e := range Examples() {
		body := compact(t, e.Body)
		for name, spoil := range malformed {
			if name == "leading zero" && strings.Contains(body, `"idInstance":"`) {
				continue // zeros may lead in a string
			}
			refused(e.Name+", "+name, spoil(body))
		}
		for at := i % 7; at < len(body); at += 7 {
			refused(e.Name+", cut off", body[:at])
		}
	}
	if tried < 10_000 {
		t.Errorf("only %d bodies tried", tried)
	}
	t.Logf("%d malformed bodies refused", tried)
}

func compact(t testing.TB, body []byte) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, body); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// fieldsOf reads a notification from the value that the parser makes of a body.
func fieldsOf(root map[string]any) *Notification {
	n := &Notification{
		Type: text(root["typeWebhook"]), Message: text(object(root["messageData"])["typeMessage"]), ID: text(root["idMessage"]),
	}
	if timestamp, ok := root["timestamp"].(json.Number); ok {
		n.Timestamp = seconds([]byte(timestamp))
	}
	id := object(root["instanceData"])["idInstance"]
	if number, ok := id.(json.Number); ok {
		id = string(number)
	}
	n.Instance, _ = digits(text(id))
	n.Chat = text(object(root["senderData"])["chatId"])
	if n.Chat == "" {
		n.Chat = text(root["chatId"])
	}
	if n.Chat == "" && n.Type == "incomingCall" {
		n.Chat = text(root["from"])
	}
	return n
}

// FuzzParse holds Parse to the parser that says what is wrong, in what it refuses and what it
// reads, and to encoding/json: what the one accepts the other must.
func FuzzParse(f *testing.F) {
	for _, e := range Examples() {
		f.Add([]byte(compact(f, e.Body)))
	}
	for _, value := range []string{"1", `"\ud800"`, "\"\xff\"", "[[]]", "1e308", `{"a":1,"a":2}`, "00", "\x00"} {
		f.Add([]byte(with(value)))
	}
	schemas, err := LoadSchemas("")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		kept := bytes.Clone(body)
		n, err := Parse(body)
		both, bothErr := schemas.Parse(body)
		if !bytes.Equal(kept, body) {
			t.Fatal("the body has been changed")
		}
		root, slowErr := parseObject(body)
		if slowErr == nil {
			if err := envelopeError(body, root); err != nil {
				slowErr = err
			}
		}
		if !reflect.DeepEqual(err, slowErr) || !reflect.DeepEqual(bothErr, slowErr) {
			t.Fatalf("got error %v, with schemas %v, by the parser %v", err, bothErr, slowErr)
		}
		var syntax *SyntaxError
		if err != nil {
			if !errors.As(err, &syntax) || syntax.Offset < 0 || syntax.Offset > int64(len(body)) {
				t.Fatalf("got error %v", err)
			}
			return
		}
		var other map[string]any
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		if err := d.Decode(&other); err != nil {
			t.Fatalf("accepted, but encoding/json: %v", err)
		}
		var loose any
		if err := json.Unmarshal(body, &loose); err != nil {
			t.Fatalf("accepted, but encoding/json: %v", err)
		}
		if typ, _ := other["typeWebhook"].(string); typ != n.Type {
			t.Fatalf("type %q, by encoding/json %q", n.Type, typ)
		}
		if _, ok := n.Content(); !ok && n.Type != uncountedType {
			t.Fatal("accepted, but the content cannot be read")
		}
		want := fieldsOf(root)
		want.body = body
		if !reflect.DeepEqual(n, want) {
			t.Fatalf("got %+v, by the parser %+v", n, want)
		}
		want.checked, want.met = schemas, both.met
		if !reflect.DeepEqual(both, want) {
			t.Fatalf("got %+v with schemas, by the parser %+v", both, want)
		}
		for _, fault := range schemas.Validate(n) {
			if fault.Keyword == "" || fault.Message == "" || fault.Message == "breaks the rule" {
				t.Fatalf("got fault %+v", fault)
			}
		}
	})
}
