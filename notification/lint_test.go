package notification

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestWarnings(t *testing.T) {
	t.Parallel()
	const latest = `"$schema":"https://json-schema.org/draft/2020-12/schema"`
	for _, tt := range []struct {
		file, text string
		want       []string // pointer and a part of the text
	}{
		{"messageData.textmessage.json", `false`, []string{" the name differs from messageData.textMessage.json in upper and lower case only"}},
		{"IncomingCall.json", `{}`, []string{" the name differs from incomingCall.json"}},
		{"Common.json", `{}`, []string{" the name differs from common.json"}},
		{"messageData.ContactsArrayMessage.json", `{}`, nil},
		{"messageData.contactsarrayMessage.json", `{}`, []string{" the name differs from messageData.contactsArrayMessage.json"}},
		{"incomingCall.json", `{"requiered":["from"]}`, []string{"/requiered no keyword of JSON Schema, so it demands nothing; do you mean required?"}},
		{"a.json", `{"Required":[]}`, []string{"/Required no keyword of JSON Schema, so it demands nothing; do you mean required?"}},
		{"a.json", `{"maxlength":1,"minlenght":1,"propertys":{},"enums":[],"additionalproperties":false,"ref":"#"}`, []string{
			"/additionalproperties no keyword of JSON Schema, so it demands nothing; do you mean additionalProperties?", "do you mean enum?", "do you mean maxLength?",
			"do you mean minLength?", "do you mean properties?", "do you mean $ref?",
		}},
		{"a.json", `{"nonsense":1}`, []string{"/nonsense no keyword of JSON Schema, so it demands nothing; a keyword of your own begins with x-"}},
		{"a.json", `{"x-ours":{"requiered":1},"default":{"requiered":1},"examples":[{"requiered":1}],"const":{"requiered":1},"enum":[{"requiered":1}]}`, nil},
		{"a.json", `{"properties":{"requiered":{"type":"string"}},"required":["requiered"],"dependentRequired":{"requiered":[]}}`, nil},
		{"a.json", `{"properties":{"a/b":{"items":{"anyOf":[true,{"typ":1}]}}},"$defs":{"x":{"not":{"typ":1}}},"if":{"typ":1},"patternProperties":{"^a":{"typ":1}},"prefixItems":[{"typ":1}]}`, []string{
			"/$defs/x/not/typ ", "/if/typ ", "/patternProperties/^a/typ ", "/prefixItems/0/typ ", "/properties/a~1b/items/anyOf/1/typ ",
		}},
		{"a.json", `{"properties":{"a":{"format":"email"}}}`, []string{"/properties/a/format format is a remark in draft 2020-12 and checks nothing; want pattern"}},
		{"a.json", `{` + latest + `,"format":"email"}`, []string{"/format format is a remark"}},
		{"a.json", `{"$schema":"http://json-schema.org/draft-07/schema#","format":"email","dependencies":{"a":["b"]},"items":[{"typ":1}],"additionalItems":false}`, []string{"/items/0/typ "}},
		{"a.json", `{"dependencies":{"a":["b"]}}`, []string{"/dependencies no keyword of draft 2020-12 but of an older one"}},
		{"a.json", `{"definitions":{"a":{"type":"string"}},"$comment":"x","$anchor":"y","unevaluatedProperties":true}`, nil},
		{"a.json", `{"$defs":{"typeInstance=max":{},"typeInstance=v3":{},"typeInstance=telegram":{},"typeInstance=whatsapp":{}}}`, []string{
			"/$defs/typeInstance=max no known messenger has this typeInstance; want whatsapp, v3 or telegram",
		}},
	} {
		s := load(t, folder(t, map[string]string{tt.file: tt.text}))
		warnings := s.Warnings()
		if len(warnings) != len(tt.want) {
			t.Errorf("%s %s: got %v", tt.file, tt.text, warnings)
			continue
		}
		for i, w := range warnings {
			if got := w.Pointer + " " + w.Text; !strings.Contains(got, tt.want[i]) || !strings.HasSuffix(w.File, tt.file) {
				t.Errorf("%s %s: got %s: %s, want %s", tt.file, tt.text, w.File, got, tt.want[i])
			}
		}
	}
}

// TestNoWarnings: the built-in schemas are sound, also when they are written out.
func TestNoWarnings(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, SchemaFiles()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", dir} {
		if warnings := load(t, dir).Warnings(); len(warnings) > 0 {
			t.Errorf("got %v", warnings)
		}
	}
}

func TestWarningsAreBounded(t *testing.T) {
	var keywords []string
	for i := range 100 {
		keywords = append(keywords, fmt.Sprintf(`"nonsense%d":1`, i))
	}
	warnings := load(t, folder(t, map[string]string{"a.json": "{" + strings.Join(keywords, ",") + "}"})).Warnings()
	if len(warnings) != maxWarnings+1 || warnings[maxWarnings].Text != "80 more" {
		t.Errorf("got %d, %v", len(warnings), warnings[len(warnings)-1])
	}
}

func TestEditDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"Required", "required", 0}, {"requiered", "required", 1}, {"minlenght", "minLength", 2}, {"abc", "xyz", 3}} {
		if got := editDistance(tt.a, tt.b); got != tt.want {
			t.Errorf("%s, %s: got %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
