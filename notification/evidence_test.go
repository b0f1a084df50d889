package notification

import (
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// evidence is how many genuine bodies stand behind a schema, by typeInstance.
type evidence map[string]int

// enough is how many bodies of a messenger it takes to check what is inside a block.
const enough = 3

var (
	countOf    = regexp.MustCompile(`Genuine bodies checked: ([^.]*)\.`)
	countIn    = regexp.MustCompile(`(\d+) of (WhatsApp|MAX|Telegram)`)
	instanceOf = map[string]string{"WhatsApp": "whatsapp", "MAX": "v3", "Telegram": "telegram"}
)

// evidenceOf reads the description of a schema; nil if it says nothing.
func evidenceOf(schema map[string]any) evidence {
	said := countOf.FindStringSubmatch(text(schema["description"]))
	if said == nil {
		return nil
	}
	found := evidence{}
	for _, count := range countIn.FindAllStringSubmatch(said[1], -1) {
		found[instanceOf[count[2]]], _ = strconv.Atoi(count[1])
	}
	return found
}

func builtinSchemas(t *testing.T) map[string]map[string]any {
	t.Helper()
	names, err := fs.Glob(SchemaFiles(), "*.json")
	if err != nil {
		t.Fatal(err)
	}
	docs := make(map[string]map[string]any)
	for _, name := range names {
		file, err := fs.ReadFile(SchemaFiles(), name)
		if err != nil {
			t.Fatal(err)
		}
		docs[strings.TrimSuffix(name, ".json")] = object(parsed(t, string(file)))
	}
	return docs
}

// TestEvidence holds every schema to the bodies behind it: it looks inside a block for the messengers of
// which there are enough, and for no other.
func TestEvidence(t *testing.T) {
	envelope := []string{"typeWebhook", "instanceData", "timestamp"}
	for name, schema := range builtinSchemas(t) {
		if name+".json" == commonFile {
			continue
		}
		found := evidenceOf(schema)
		if found == nil {
			t.Errorf("%s does not say how many bodies stand behind it", name)
			continue
		}
		for property, v := range object(schema["properties"]) {
			if slices.Contains(envelope, property) {
				continue
			}
			block := object(v)
			for _, keyword := range []string{"$ref", "required", "anyOf"} {
				if block[keyword] != nil {
					t.Errorf("%s: %s has %s, for any messenger", name, property, keyword)
				}
			}
			for _, keyword := range []string{"properties", "items"} {
				if demand := demandIn(block[keyword]); demand != "" {
					t.Errorf("%s: %s has %s inside, for any messenger", name, property, demand)
				}
			}
		}
		for messenger := range messengersIn(schema) {
			if found[messenger] < enough {
				t.Errorf("%s checks more for %s, with %d bodies", name, messenger, found[messenger])
			}
		}
		for messenger, count := range found {
			more := object(schema["$defs"])[messengerDef+messenger]
			if strings.HasPrefix(name, messagePrefix) && count >= enough && more == nil {
				t.Errorf("%s checks nothing more for %s, with %d bodies", name, messenger, count)
			}
		}
	}
}

// demandIn returns a keyword by which a schema, or one within it, can fail; "" if there is none.
func demandIn(schema any) string {
	for name, v := range object(schema) {
		if slices.Contains([]string{"type", "required", "$ref", "anyOf", "minLength"}, name) {
			if _, isMember := v.(map[string]any); !isMember && v != true {
				return name
			}
		}
		if demand := demandIn(v); demand != "" {
			return demand
		}
	}
	return ""
}

// TestEvidenceInDocs: the tables say what the schemas say.
func TestEvidenceInDocs(t *testing.T) {
	document, err := os.ReadFile("../docs/schemas.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^\| (\w+)[^|]*\| (\d+) \| (\d+) \| (\d+) \|$`).FindAllStringSubmatch(string(document), -1)
	told := make(map[string]string)
	for _, row := range rows {
		told[row[1]] = strings.Join(row[2:], " ")
	}
	count := 0
	for name, schema := range builtinSchemas(t) {
		if name+".json" == commonFile {
			continue
		}
		count++
		found := evidenceOf(schema)
		want := fmt.Sprint(found["whatsapp"], found["v3"], found["telegram"])
		if got := told[strings.TrimPrefix(name, messagePrefix)]; got != want {
			t.Errorf("%s: the docs say %q, the schema %q", name, got, want)
		}
	}
	if len(rows) != count {
		t.Errorf("%d rows of %d schemas", len(rows), count)
	}
}

// TestFewBodies has faults inside a block that are found only for a messenger of which enough bodies are known.
func TestFewBodies(t *testing.T) {
	message := func(messenger, messageData string) string {
		return `{"typeWebhook":"outgoingMessageReceived","instanceData":{"idInstance":1,"typeInstance":` + messenger + `},"timestamp":1,"idMessage":"",` +
			`"senderData":{"chatId":""},"messageData":` + messageData + `}`
	}
	const (
		image = `{"typeMessage":"imageMessage","fileMessageData":{"isForwarded":"no"}}`
		text  = `{"typeMessage":"textMessage","textMessageData":{}}`
	)
	s := load(t, "")
	for _, tt := range []struct {
		name, body, want string // want is the pointer of the only fault
	}{
		{"voters as objects", message(`"whatsapp"`, `{"typeMessage":"pollUpdateMessage","pollMessageData":{"votes":[{"optionVoters":[{"wid":"1"}]}]}}`), ""},
		{"half a battery", `{"typeWebhook":"deviceInfo","instanceData":{"idInstance":1},"deviceData":{"battery":0.5}}`, ""},
		{"device without its block", `{"typeWebhook":"deviceInfo","instanceData":{"idInstance":1},"deviceData":5}`, "/deviceData"},
		{"reaction of one's own", message(`"telegram"`, `{"typeMessage":"reactionMessage","extendedTextMessageData":{"text":"+"}}`), ""},
		{"reaction without its block", message(`"telegram"`, `{"typeMessage":"reactionMessage"}`), "/messageData/extendedTextMessageData"},
		{"poll without its block", message(`"whatsapp"`, `{"typeMessage":"pollUpdateMessage","pollMessageData":[]}`), "/messageData/pollMessageData"},
		{"order without its block", message(`"whatsapp"`, `{"typeMessage":"orderMessage"}`), "/messageData/orderMessage"},
		{"product, its block null", message(`"whatsapp"`, `{"typeMessage":"productMessage","productMessage":null}`), "/messageData/productMessage"},
		{"image, WhatsApp", message(`"whatsapp"`, image), "/messageData/fileMessageData/isForwarded"},
		{"image, WhatsApp by an escape", message(`"\u0077hatsapp"`, image), "/messageData/fileMessageData/isForwarded"},
		{"image, not said", message(`null`, image), "/messageData/fileMessageData/isForwarded"},
		{"image, empty", message(`""`, image), "/messageData/fileMessageData/isForwarded"},
		{"image, MAX", message(`"v3"`, image), ""},
		{"image, Telegram", message(`"telegram"`, image), ""},
		{"image, a new messenger", message(`"new"`, image), ""},
		{"image without its block, a new messenger", message(`"new"`, `{"typeMessage":"imageMessage"}`), "/messageData/fileMessageData"},
		{"text, WhatsApp", message(`"whatsapp"`, text), "/messageData/textMessageData/textMessage"},
		{"text, MAX", message(`"v3"`, text), "/messageData/textMessageData/textMessage"},
		{"text, Telegram", message(`"telegram"`, text), "/messageData/textMessageData/textMessage"},
		{"text, a new messenger", message(`"new"`, text), ""},
		{"status, WhatsApp", `{"typeWebhook":"outgoingMessageStatus","instanceData":{"idInstance":1},"timestamp":1,"status":"","sendByApi":1}`, "/sendByApi"},
		{"status, MAX", `{"typeWebhook":"outgoingMessageStatus","instanceData":{"idInstance":1,"typeInstance":"v3"},"timestamp":1,"status":"","sendByApi":1}`, ""},
		{"incoming status", `{"typeWebhook":"incomingMessageStatus","instanceData":{"idInstance":1},"timestamp":1,"status":"read","sendByApi":1}`, ""},
		{"incoming status without it", `{"typeWebhook":"incomingMessageStatus","instanceData":{"idInstance":1},"timestamp":1}`, "/status"},
	} {
		n, err := s.Parse([]byte(tt.body))
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		faults := s.Validate(n)
		if tt.want == "" && faults != nil || tt.want != "" && (len(faults) != 1 || faults[0].Pointer != tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, faults, tt.want)
		}
		if slow, _ := s.judge(n); n.met != (len(slow) == 0) {
			t.Errorf("%s: the pass says %v, the library %v", tt.name, n.met, slow)
		}
	}
}

// TestPropertiesHaveATypeOrEvidence finds a property that a schema names and does not check by mistake:
// what is common, or checked for a messenger, has a type.
func TestPropertiesHaveATypeOrEvidence(t *testing.T) {
	untyped := []string{"videoNote"} // no body has it
	count := 0
	for location, schema := range load(t, "").byLocation {
		if !strings.Contains(location, commonFile) && !strings.Contains(location, "/$defs/") {
			continue
		}
		for name, member := range schema.Properties {
			count++
			for member.Types == nil && member.Ref != nil {
				member = member.Ref
			}
			if member.Types == nil && member.Properties == nil && member.Items2020 == nil && !slices.Contains(untyped, name) {
				t.Errorf("%s: %s has no type", location, name)
			}
		}
	}
	if count < 130 {
		t.Errorf("only %d properties", count)
	}
}
