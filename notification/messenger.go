package notification

import (
	"iter"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// A schema applies to notifications of every messenger. Requirements that only the bodies of one messenger
// support are in its $defs, in a schema named "typeInstance=" and the messenger's name in the body.
const messengerDef = "typeInstance="

// typeInstances are the existing messengers: WhatsApp (with WABA), MAX and Telegram.
var typeInstances = []string{"whatsapp", "v3", "telegram"}

// defaultMessenger is assumed if the body does not name one. It was the first messenger, and the only one
// when people wrote bodies by hand after the docs.
const defaultMessenger = "whatsapp"

// messengersIn yields the messengers for which a schema file has additional requirements.
func messengersIn(doc any) iter.Seq[string] {
	return func(yield func(string) bool) {
		schema, _ := doc.(map[string]any)
		defs, _ := schema["$defs"].(map[string]any)
		for name := range defs {
			if messenger, ok := strings.CutPrefix(name, messengerDef); ok && !yield(messenger) {
				return
			}
		}
	}
}

// messengerPointer returns the end of the URL of a schema file's requirements for a messenger.
func messengerPointer(messenger string) string {
	u := url.URL{Fragment: "/$defs/" + pointerEscape.Replace(messengerDef+messenger)}
	return u.String()
}

// addMessengers compiles a file's additional requirements for each messenger.
func (s *Schemas) addMessengers(compiler *jsonschema.Compiler, p *programmer, schema *jsonschema.Schema, docs map[string]schemaDoc, file string) error {
	for messenger := range messengersIn(docs[file].doc) {
		more, err := compiler.Compile(schemaURL + file + messengerPointer(messenger))
		if err != nil {
			return err
		}
		s.index(more)
		s.nodes[more] = p.program(more)
		if s.messengers[schema] == nil {
			s.messengers[schema] = make(map[string]*jsonschema.Schema)
		}
		s.messengers[schema][messenger] = more
	}
	return nil
}

// demands returns the schema, if it is not nil, and its additional requirements for a messenger.
func (s *Schemas) demands(schema *jsonschema.Schema, messenger string) []*jsonschema.Schema {
	if schema == nil {
		return nil
	}
	if more := s.messengers[schema][messenger]; more != nil {
		return []*jsonschema.Schema{schema, more}
	}
	return []*jsonschema.Schema{schema}
}

// meets reports whether the value at a token meets the schema for a notification of that messenger.
func (s *Schemas) meets(pass *scan, schema *jsonschema.Schema, messenger []byte, at int) bool {
	if !pass.meets(s.nodes[schema], at) {
		return false
	}
	more := s.messengers[schema][string(messenger)]
	return more == nil || pass.meets(s.nodes[more], at)
}

// messengerOf returns the messenger that a parsed body names.
func (s *Schemas) messengerOf(body []byte) string {
	root := cursor{text: body, known: s.names}
	data := cursor{text: root.member(nameInstanceData), known: s.names}
	value := data.member(nameTypeInstance)
	if len(value) < len(`"x"`) || value[0] != '"' {
		return defaultMessenger
	}
	text, _ := jsontext.AppendUnquote(nil, value) // a broken text is repaired
	return string(text)
}

// messenger is messengerOf for a scan. The result is valid until the scan reads its next text.
func (s *scan) messenger() []byte {
	s.text = s.text[:0]
	if data := s.find(0, nameInstanceData); data != 0 {
		if at := s.find(data, nameTypeInstance); at != 0 {
			s.appendText(at, false)
		}
	}
	if len(s.text) == 0 {
		s.text = append(s.text, defaultMessenger...)
	}
	return s.text
}
