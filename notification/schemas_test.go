package notification

import (
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
)

func load(t testing.TB, dir string) *Schemas {
	t.Helper()
	schemas, err := LoadSchemas(dir)
	if err != nil {
		t.Fatal(err)
	}
	return schemas
}

func TestKnown(t *testing.T) {
	s := load(t, "")
	for _, typ := range []string{
		"incomingMessageReceived", "outgoingMessageReceived", "outgoingAPIMessageReceived", "outgoingMessageStatus", "incomingMessageStatus",
		"stateInstanceChanged", "statusInstanceChanged", "incomingCall", "outgoingCall", "incomingBlock", "deviceInfo", "quotaExceeded",
	} {
		if !s.KnownType(typ) || !slices.Contains(s.Types(), typ) {
			t.Errorf("type %s is not known", typ)
		}
	}
	for _, message := range []string{"textMessage", "ContactsArrayMessage", "contactsArrayMessage", "interactiveButtonsReply", "templateButtonReplyMessage", "templateButtonsReplyMessage", "orderMessage", "productMessage"} {
		if !s.KnownMessage(message) || !slices.Contains(s.Messages(), message) {
			t.Errorf("message %s is not known", message)
		}
	}
	for _, name := range []string{"", "common", "callsRtc", "IncomingCall", "messageData.textMessage", "ordermessage", "unsupported", "textmessage"} {
		if s.KnownType(name) || s.KnownMessage(name) {
			t.Errorf("%q is known", name)
		}
	}
	if !slices.IsSorted(s.Types()) || !slices.IsSorted(s.Messages()) {
		t.Error("not sorted")
	}
}

// TestSchemaFiles holds the files to what is written of them: a text for the reader, nothing
// that forbids, and names that a case-insensitive file system can tell apart.
func TestSchemaFiles(t *testing.T) {
	names, err := fs.Glob(SchemaFiles(), "*")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 40 {
		t.Errorf("only %d files", len(names))
	}
	seen := make(map[string]bool)
	for _, name := range names {
		if seen[strings.ToLower(name)] {
			t.Errorf("%s differs from another in case only", name)
		}
		seen[strings.ToLower(name)] = true
		text, err := fs.ReadFile(SchemaFiles(), name)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := parseValue(text, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		schema := object(doc)
		if schema["$schema"] != "https://json-schema.org/draft/2020-12/schema" || schema["title"] == nil || schema["description"] == nil {
			t.Errorf("%s lacks $schema, title or description", name)
		}
		keywords(t, name, doc)
	}
}

// plain are the keywords that the built-in schemas may use.
var plain = []string{"$schema", "$ref", "$defs", "title", "description", "type", "required", "properties", "items", "anyOf", "minLength"}

func keywords(t *testing.T, file string, schema any) {
	t.Helper()
	for keyword, v := range object(schema) {
		if !slices.Contains(plain, keyword) {
			t.Errorf("%s uses %s", file, keyword)
		}
		switch keyword {
		case "properties", "$defs":
			for _, inner := range object(v) {
				keywords(t, file, inner)
			}
		case "items":
			keywords(t, file, v)
		case "anyOf":
			for _, inner := range v.([]any) {
				keywords(t, file, inner)
			}
		}
	}
}

func TestExamples(t *testing.T) {
	s := load(t, "")
	types, messages, perMessenger := make(map[string]bool), make(map[string]bool), make(map[string]int)
	seen := make(map[string]bool)
	for _, e := range Examples() {
		n, err := Parse(e.Body)
		if err != nil {
			t.Errorf("%s: %v", e.Name, err)
			continue
		}
		if n.Type != e.Type || n.Message != e.Message {
			t.Errorf("%s holds %s %s", e.Name, n.Type, n.Message)
		}
		if faults := s.Validate(n); faults != nil {
			t.Errorf("%s: %v", e.Name, faults)
		}
		if faults, _ := libraryFaults(t, s, n); !s.accepts(n) || faults != nil {
			t.Errorf("%s: accepted %v, faults %v", e.Name, s.accepts(n), faults)
		}
		if seen[strings.ToLower(e.Name)] {
			t.Errorf("%s differs from another in case only", e.Name)
		}
		seen[strings.ToLower(e.Name)] = true
		types[e.Type], messages[e.Message] = true, true
		for _, messenger := range messengers {
			if strings.Contains(e.Name+".", "."+messenger+".") {
				perMessenger[messenger]++
			}
		}
		want := map[string]string{"max": "v3", "telegram": "telegram"}
		for messenger, typeInstance := range want {
			is := text(object(rootOf(t, n)["instanceData"])["typeInstance"]) == typeInstance
			if named := strings.Contains(e.Name+".", "."+messenger+"."); is != named {
				t.Errorf("%s: typeInstance does not fit the name", e.Name)
			}
		}
	}
	for _, typ := range s.Types() {
		if !types[typ] {
			t.Errorf("no example of %s", typ)
		}
	}
	for _, message := range s.Messages() {
		if !messages[message] {
			t.Errorf("no example of %s", message)
		}
	}
	for _, messenger := range messengers {
		if perMessenger[messenger] < 5 {
			t.Errorf("only %d examples of %s", perMessenger[messenger], messenger)
		}
	}
	t.Logf("%d examples: %v", len(seen), perMessenger)
}

func TestExamplesAreTheCallers(t *testing.T) {
	Examples()[0].Body[0] = 'x'
	if Examples()[0].Body[0] != '{' {
		t.Error("a caller can change the next caller's example")
	}
}

// TestLenient has what no schema may forbid.
func TestLenient(t *testing.T) {
	const envelope = `{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1},"timestamp":1,"idMessage":"","senderData":{"chatId":""},"messageData":`
	s := load(t, "")
	for name, body := range map[string]string{
		"unknown type":                `{"typeWebhook":"new","instanceData":{"idInstance":1},"timestamp":"x"}`,
		"unknown message":             envelope + `{"typeMessage":"unsupported"}}`,
		"more members":                envelope + `{"typeMessage":"textMessage","textMessageData":{"textMessage":"","new":{}},"new":[]},"new":null}`,
		"nulls":                       envelope + `{"typeMessage":"textMessage","textMessageData":{"textMessage":"","isForwarded":null},"quotedMessage":null}}`,
		"the other block null":        envelope + `{"typeMessage":"textMessage","textMessageData":{"textMessage":""},"TextMessageData":null}}`,
		"the other block there":       envelope + `{"typeMessage":"stickerMessage","fileMessageData":{},"stickerMessageData":{}}}`,
		"empty file":                  envelope + `{"typeMessage":"imageMessage","fileMessageData":{}}}`,
		"no votes":                    envelope + `{"typeMessage":"pollUpdateMessage","pollMessageData":{"votes":[]}}}`,
		"whole latitude":              envelope + `{"typeMessage":"locationMessage","locationMessageData":{"latitude":1,"longitude":-1e1}}}`,
		"timestamp 1.0":               `{"typeWebhook":"stateInstanceChanged","instanceData":{"idInstance":1},"timestamp":1.0,"stateInstance":"new"}`,
		"quota without a timestamp":   `{"typeWebhook":"quotaExceeded","instanceData":{"idInstance":1},"quotaData":{}}`,
		"status empty":                `{"typeWebhook":"outgoingMessageStatus","instanceData":{"idInstance":1},"timestamp":1,"status":""}`,
		"a lone surrogate in a text":  envelope + `{"typeMessage":"textMessage","textMessageData":{"textMessage":"\ud83d"}}}`,
		"kind not checked for quotes": envelope + `{"typeMessage":"buttonsMessage","buttonsMessage":{},"quotedMessage":"?"}}`,
	} {
		n, err := Parse([]byte(body))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if faults := s.Validate(n); faults != nil {
			t.Errorf("%s: %v", name, faults)
		}
	}
}

// TestConcurrent is for the race detector: one Schemas serves all requests.
func TestConcurrent(t *testing.T) {
	s := load(t, "")
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for _, e := range Examples() {
				n, err := s.Parse(e.Body)
				if err != nil || !n.met || s.Validate(n) != nil || n.Type != e.Type || n.Message != e.Message {
					t.Errorf("%s: %v, %+v", e.Name, err, n)
				}
			}
		})
	}
	group.Wait()
}
