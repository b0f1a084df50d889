package notification

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// folder writes files to a new folder; a name that ends in a slash is a sub-folder.
func folder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.Mkdir(path, 0o700)
		} else {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func validate(t *testing.T, s *Schemas, body string) []Fault {
	t.Helper()
	n, err := Parse([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(n)
}

func TestLoadSchemasOverride(t *testing.T) {
	t.Parallel()
	const call = `{"typeWebhook":"incomingCall","instanceData":{"idInstance":1},"timestamp":1,"idMessage":"a","from":"b"}`
	const message = `{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1},"timestamp":1,"idMessage":"a",` +
		`"senderData":{"chatId":"5"},"messageData":{"typeMessage":"orderMessage"}}`

	t.Run("replaced", func(t *testing.T) {
		s := load(t, folder(t, map[string]string{"incomingCall.json": `{"required":["status"]}`}))
		if faults := validate(t, s, call); len(faults) != 1 || faults[0].Pointer != "/status" {
			t.Errorf("got %v", faults)
		}
	})
	t.Run("new type and message", func(t *testing.T) {
		s := load(t, folder(t, map[string]string{
			"newType.json":                  `{"properties":{"instanceData":{"$ref":"common.json#/$defs/instanceData"}},"required":["x"]}`,
			"messageData.orderMessage.json": `{"required":["orderMessageData"]}`,
			"README.md":                     "Ours.",
			".hidden":                       "{",
			".git/":                         "",
		}))
		if !s.KnownType("newType") || !s.KnownMessage("orderMessage") || !s.KnownType("incomingCall") {
			t.Error("not known")
		}
		if faults := validate(t, s, `{"typeWebhook":"newType","instanceData":{"idInstance":1,"wid":5}}`); len(faults) != 2 || faults[0].Pointer != "/instanceData/wid" {
			t.Errorf("got %v", faults)
		}
		if faults := validate(t, s, message); len(faults) != 1 || faults[0].Pointer != "/messageData/orderMessageData" {
			t.Errorf("got %v", faults)
		}
	})
	t.Run("common", func(t *testing.T) {
		text, err := fs.ReadFile(SchemaFiles(), commonFile)
		if err != nil {
			t.Fatal(err)
		}
		stricter := strings.Replace(string(text), `"required": ["idInstance"]`, `"required": ["idInstance", "wid"]`, 1)
		s := load(t, folder(t, map[string]string{commonFile: stricter}))
		if faults := validate(t, s, call); len(faults) != 1 || faults[0].Pointer != "/instanceData/wid" {
			t.Errorf("got %v", faults)
		}
	})
	t.Run("keywords that only the library knows", func(t *testing.T) {
		s := load(t, folder(t, map[string]string{
			"incomingCall.json":             `{"properties":{"from":{"pattern":"^x"}}}`,
			"messageData.orderMessage.json": `{"properties":{"typeMessage":{"maxLength":3}}}`,
		}))
		if faults := validate(t, s, call); len(faults) != 1 || faults[0].Keyword != "pattern" {
			t.Errorf("got %v", faults)
		}
		if faults := validate(t, s, message); len(faults) != 1 || faults[0].Keyword != "maxLength" {
			t.Errorf("got %v", faults)
		}
		if faults := validate(t, s, strings.Replace(call, `"from":"b"`, `"from":"x"`, 1)); faults != nil {
			t.Errorf("got %v", faults)
		}
	})
	t.Run("parsed with others", func(t *testing.T) {
		n, err := load(t, "").Parse([]byte(call))
		if err != nil || !n.met {
			t.Fatalf("got %+v, %v", n, err)
		}
		s := load(t, folder(t, map[string]string{"incomingCall.json": `{"required":["status"]}`}))
		if faults := s.Validate(n); len(faults) != 1 {
			t.Errorf("got %v", faults)
		}
	})
	t.Run("alias follows", func(t *testing.T) {
		s := load(t, folder(t, map[string]string{"messageData.contactsArrayMessage.json": `{"required":["y"]}`}))
		if faults := validate(t, s, strings.Replace(message, "orderMessage", "ContactsArrayMessage", 1)); len(faults) != 1 || faults[0].Pointer != "/messageData/y" {
			t.Errorf("got %v", faults)
		}
	})
	t.Run("of one messenger", func(t *testing.T) {
		for _, text := range []string{
			`{"$defs":{"typeInstance=telegram":{"required":["status"]}}}`,
			`{"$id":"https://example.com/a.json","$defs":{"typeInstance=telegram":{"$ref":"#/$defs/b"},"b":{"required":["status"]}}}`,
			`{"$defs":{"typeInstance=telegram":{"allOf":[{"required":["status"]}]}}}`, // left to the library
			`{"$defs":{"typeInstance=a/b~c d":{"required":["status"]}}}`,
		} {
			s := load(t, folder(t, map[string]string{"incomingCall.json": text}))
			messenger := "telegram"
			if strings.Contains(text, "a/b") {
				messenger = "a/b~c d"
			}
			of := strings.Replace(call, `"idInstance":1`, `"idInstance":1,"typeInstance":"`+messenger+`"`, 1)
			if faults := validate(t, s, of); len(faults) != 1 || faults[0].Pointer != "/status" {
				t.Errorf("%s: got %v", text, faults)
			}
			if faults := validate(t, s, call); faults != nil {
				t.Errorf("%s: of another: got %v", text, faults)
			}
		}
	})
	t.Run("true and false", func(t *testing.T) {
		s := load(t, folder(t, map[string]string{"a.json": "true", "incomingCall.json": "false"}))
		if faults := validate(t, s, call); len(faults) != 1 || faults[0] != (Fault{"", "false", "must not be there"}) {
			t.Errorf("got %v", faults)
		}
	})
	t.Run("written out", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.CopyFS(dir, SchemaFiles()); err != nil {
			t.Fatal(err)
		}
		if got, want := len(load(t, dir).byLocation), len(load(t, "").byLocation); got != want {
			t.Errorf("got %d schemas, want %d", got, want)
		}
	})
	t.Run("endless reference", func(t *testing.T) {
		s := load(t, folder(t, map[string]string{"incomingCall.json": `{"$ref":"#"}`}))
		if faults := validate(t, s, call); len(faults) != 1 || faults[0].Keyword != "$ref" {
			t.Errorf("got %v", faults)
		}
	})
}

func TestLoadSchemasErrors(t *testing.T) {
	tests := map[string]struct {
		file, text string
		want       string // beside the file's name
	}{
		"not JSON":              {"incomingCall.json", "{", "unexpected end"},
		"empty":                 {"incomingCall.json", "", "unexpected end"},
		"two values":            {"incomingCall.json", "{}{}", "data after"},
		"name twice":            {"incomingCall.json", `{"type":"object","type":"string"}`, "twice"},
		"not a schema":          {"incomingCall.json", "5", ""},
		"unknown type":          {"incomingCall.json", `{"type":"text"}`, ""},
		"odd keyword":           {"incomingCall.json", `{"required":"from"}`, ""},
		"bad pattern":           {"incomingCall.json", `{"pattern":"("}`, ""},
		"missing definition":    {"incomingCall.json", `{"$ref":"common.json#/$defs/nothing"}`, "nothing"},
		"missing file":          {"incomingCall.json", `{"$ref":"other.json"}`, "other.json"},
		"network":               {"incomingCall.json", `{"$ref":"http://127.0.0.1:1/x.json"}`, "http://127.0.0.1:1/x.json"},
		"secure network":        {"incomingCall.json", `{"$ref":"https://example.com/x.json"}`, "https://example.com/x.json"},
		"file":                  {"incomingCall.json", `{"$ref":"file:///etc/passwd"}`, "file:///etc/passwd"},
		"meta-schema elsewhere": {"incomingCall.json", `{"$schema":"http://127.0.0.1:1/schema"}`, "http://127.0.0.1:1/schema"},
		"other base":            {"incomingCall.json", `{"$id":"https://example.com/a.json","$ref":"common.json"}`, "https://example.com/common.json"},
		"huge number":           {"incomingCall.json", `{"maximum":1e999999999}`, "out of range"},
		"deep":                  {"incomingCall.json", strings.Repeat(`{"not":`, 1000), "deeper"},
		"large":                 {"incomingCall.json", strings.Repeat(" ", maxSchemaBytes) + "{}", "longer"},
		"other suffix":          {"incomingCall.yaml", "", "TYPE.json"},
		"no suffix":             {"incomingCall", "", "TYPE.json"},
		"no message":            {"messageData.json", "{}", "messageData.MESSAGE.json"},
		"empty message":         {"messageData..json", "{}", "messageData.MESSAGE.json"},
		"two points":            {"incomingCall.old.json", "{}", "TYPE.json"},
		"space":                 {"incoming call.json", "{}", "TYPE.json"},
		"byte-order mark":       {"incomingCall.json", "\xef\xbb\xbf{}", "byte-order mark"},
		"UTF-16":                {"incomingCall.json", "\xff\xfe{\x00}\x00", "byte-order mark"},
		"folder":                {"more/", "", "TYPE.json"},
		"folder like a schema":  {"more.json/", "", "regular"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, map[string]string{tt.file: tt.text})
			s, err := LoadSchemas(dir)
			if err == nil || s != nil {
				t.Fatal("loads")
			}
			file := filepath.Join(dir, tt.file)
			if !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want %q and %q in it", err, file, tt.want)
			}
		})
	}
	t.Run("common without a definition", func(t *testing.T) {
		dir := folder(t, map[string]string{commonFile: "{}"})
		if _, err := LoadSchemas(dir); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, commonFile)) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a schema file elsewhere", func(t *testing.T) {
		elsewhere := filepath.ToSlash(filepath.Join(folder(t, map[string]string{"good.json": "{}"}), "good.json"))
		dir := folder(t, map[string]string{"incomingCall.json": `{"$ref":"file:///` + strings.TrimPrefix(elsewhere, "/") + `"}`})
		if _, err := LoadSchemas(dir); err == nil {
			t.Error("loads")
		}
	})
	t.Run("no folder", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "none")
		if _, err := LoadSchemas(dir); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("unreadable", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Symlink("nowhere", filepath.Join(dir, "incomingCall.json")); err != nil {
			t.Log(err) // a system without symbolic links
			return
		}
		if _, err := LoadSchemas(dir); err == nil || !strings.Contains(err.Error(), "incomingCall.json") {
			t.Errorf("got %v", err)
		}
	})
}

// FuzzSchema compiles anything and checks a body with it: whatever an operator writes, it must
// neither panic nor hang, and no fault may quote the body.
func FuzzSchema(f *testing.F) {
	names, err := fs.Glob(SchemaFiles(), "*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		text, err := fs.ReadFile(SchemaFiles(), name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	for _, file := range glob(f, suitesFolder+"/json-schema/tests/draft2020-12/*.json") {
		doc, err := parseValue(read(f, file), nil)
		if err != nil {
			f.Fatal(err)
		}
		for _, group := range doc.([]any) {
			f.Add(marshal(f, object(group)["schema"]))
		}
	}
	for _, schema := range []string{
		"null", "[]", `{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}`, `{"$dynamicRef":"#a","$dynamicAnchor":"a"}`,
		`{"multipleOf":1e-300}`, `{"minLength":1e300}`, `{"required":[5]}`, `{"$vocabulary":{}}`, `{"$id":"%zz"}`, `{"$id":"common.json"}`, `{"$anchor":""}`,
		`{"enum":["CANARY"]}`, `{"additionalProperties":false}`, `{"patternProperties":{".":{"type":"null"}}}`, `{"propertyNames":{"maxLength":1}}`,
	} {
		f.Add(schema)
	}
	n, err := Parse([]byte(canary))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		doc, err := parseValue([]byte(text), nil)
		if err != nil {
			return
		}
		s, err := compile(map[string]schemaDoc{"canary.json": {file: "canary.json", doc: doc}})
		if err != nil {
			return
		}
		for _, fault := range s.Validate(n) {
			if strings.Contains(fault.Message, "CANARY") || strings.Contains(fault.Message, "424242") {
				t.Errorf("got fault %+v", fault)
			}
		}
	})
}

// TestLoadSchemasOnce: the built-in schemas are compiled once, and a directory leaves them as they are.
func TestLoadSchemasOnce(t *testing.T) {
	load := func(dir string) *Schemas {
		t.Helper()
		s, err := LoadSchemas(dir)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := load("")
	if own := load(folder(t, map[string]string{"ownType.json": `{"type": "object"}`})); !own.KnownType("ownType") || own == before {
		t.Error("a directory adds nothing")
	}
	if after := load(""); after != before || after.KnownType("ownType") {
		t.Error("the built-in schemas are compiled again, or changed")
	}
}
