package notification

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

//go:embed schemas/*.json
var schemaFS embed.FS

// messagePrefix begins the file names of the schemas for messageData. commonFile holds what the others
// share and applies to nothing by itself.
const (
	messagePrefix = "messageData."
	commonFile    = "common.json"
)

// aliases are message types that share another's schema. They are here and not in files because file names
// in a Go module must differ in more than case. (GREEN-API docs from before 2024 print the capital, read
// 2026-07.)
var aliases = map[string]string{"ContactsArrayMessage": "contactsArrayMessage"}

// Schemas are compiled JSON Schemas (draft 2020-12), one for each typeWebhook and one for each typeMessage.
// They are safe for concurrent use.
type Schemas struct {
	types      map[string]*jsonschema.Schema
	messages   map[string]*jsonschema.Schema
	byLocation map[string]*jsonschema.Schema                        // every schema within them
	messengers map[*jsonschema.Schema]map[string]*jsonschema.Schema // what a schema adds for a typeInstance

	warnings []Warning
	known    map[string]bool // the member names that they list or require

	names *names                       // the numbered names in the nodes
	nodes map[*jsonschema.Schema]*node // for types, messages, and additions for a typeInstance

	fingerprint [sha256.Size]byte
}

// SchemaFiles returns the built-in schemas: common.json, TYPE.json for the whole body and
// messageData.MESSAGE.json for messageData, all in the root of the file system.
func SchemaFiles() fs.FS {
	files, err := fs.Sub(schemaFS, "schemas")
	if err != nil {
		panic(err) // only for a malformed name
	}
	return files
}

// KnownType reports whether there is a schema for the typeWebhook.
func (s *Schemas) KnownType(typ string) bool {
	return s.types[typ] != nil
}

// Results of Kind for types without a schema.
const (
	KindOther = "other" // a type that no schema knows
	KindNone  = "none"  // no type at all
)

// Kind returns the typeWebhook if it has a schema, otherwise KindOther or KindNone. Metric labels and alert
// groups need such a closed list.
func (s *Schemas) Kind(typ string) string {
	switch {
	case typ == "":
		return KindNone
	case s.KnownType(typ):
		return typ
	}
	return KindOther
}

// KnownMessage reports whether there is a schema for the typeMessage.
func (s *Schemas) KnownMessage(msg string) bool {
	return s.messages[msg] != nil
}

// Types returns the known typeWebhooks, sorted.
func (s *Schemas) Types() []string {
	return slices.Sorted(maps.Keys(s.types))
}

// Messages returns the known typeMessages, sorted.
func (s *Schemas) Messages() []string {
	return slices.Sorted(maps.Keys(s.messages))
}

// Warnings returns what in the files of LoadSchemas' directory probably does not mean what it says, by file
// and place.
func (s *Schemas) Warnings() []Warning {
	return slices.Clone(s.warnings)
}

// Validate returns what is wrong with a notification, sorted by pointer and keyword, at most 100 faults, or
// nil. It checks the whole body by its type and then messageData by its message type. It does not check an
// unknown message type, and nothing of an unknown type.
func (s *Schemas) Validate(n *Notification) []Fault {
	faults, _ := s.Faults(n)
	return faults
}

// Faults is Validate, and also reports whether there may be more faults than it returns. Then the list does
// not show that nothing else is wrong.
func (s *Schemas) Faults(n *Notification) (faults []Fault, more bool) {
	if n.checked == s && n.met || n.checked != s && s.accepts(n) {
		return nil, false
	}
	return s.judge(n)
}

// accepts scans a notification that was parsed without these schemas, and reports whether it meets them.
func (s *Schemas) accepts(n *Notification) bool {
	pass := scans.Get().(*scan)
	ok := pass.read(n.body, s.names) && s.accept(pass, n.Type, n.Message)
	pass.release()
	return ok
}

// accept reports whether what a pass has read meets its schemas. If it does not, or that is uncertain, a
// judge decides.
func (s *Schemas) accept(pass *scan, typ, message string) bool {
	whole := s.types[typ]
	if whole == nil {
		return true
	}
	if pass.partial {
		return false
	}
	messenger := pass.messenger()
	if !s.meets(pass, whole, messenger, 0) {
		return false
	}
	inner := s.messages[message]
	return inner == nil || s.meets(pass, inner, messenger, pass.find(0, nameMessageData))
}

// vendorNames are the member names that the built-in schemas know, each mapped to itself.
var vendorNames = sync.OnceValue(func() map[string]string {
	names := make(map[string]string)
	files, err := fs.Glob(schemaFS, "schemas/*.json")
	if err != nil {
		panic(err) // only for a malformed pattern
	}
	for _, file := range files {
		text, err := schemaFS.ReadFile(file)
		if err != nil {
			panic(err) // the file is embedded
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text)) // parseValue itself needs these names
		if err != nil {
			panic(fmt.Sprintf("%s: %v", file, err))
		}
		collectNames(doc, names)
	}
	return names
})

// collectNames adds the names of properties at any depth of a schema.
func collectNames(schema any, names map[string]string) {
	switch schema := schema.(type) {
	case map[string]any:
		for keyword, v := range schema {
			if properties, ok := v.(map[string]any); ok && keyword == "properties" {
				for name := range properties {
					names[name] = name
				}
			}
			collectNames(v, names)
		}
	case []any:
		for _, v := range schema {
			collectNames(v, names)
		}
	}
}

// schemaDoc is one schema file as read.
type schemaDoc struct {
	file    string // the file's name in errors
	builtin bool
	doc     any
}

// compile compiles the files, named as in SchemaFiles, with no access to any other.
func compile(docs map[string]schemaDoc) (s *Schemas, err error) {
	names := slices.Sorted(maps.Keys(docs))
	current := ""
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, fmt.Errorf("schema %s: the validator cannot compile it", docs[current].file)
		}
	}()

	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.UseLoader(noLoader{})
	for _, name := range names {
		current = name
		if err := compiler.AddResource(schemaURL+name, docs[name].doc); err != nil {
			return nil, fmt.Errorf("schema %s: %w", docs[name].file, err)
		}
	}
	s = &Schemas{
		types:      make(map[string]*jsonschema.Schema),
		messages:   make(map[string]*jsonschema.Schema),
		byLocation: make(map[string]*jsonschema.Schema),
		messengers: make(map[*jsonschema.Schema]map[string]*jsonschema.Schema),
		known:      namesKnown(docs),
		names:      newNames(),
		nodes:      make(map[*jsonschema.Schema]*node),
	}
	p := &programmer{known: s.names, done: make(map[*jsonschema.Schema]*node)}
	for _, name := range names {
		current = name
		schema, err := compiler.Compile(schemaURL + name)
		if err != nil {
			return nil, compileError(docs, name, err)
		}
		s.index(schema)
		s.nodes[schema] = p.program(schema)
		if err := s.addMessengers(compiler, p, schema, docs, name); err != nil {
			return nil, compileError(docs, name, err)
		}
		what := strings.TrimSuffix(name, ".json")
		if message, ok := strings.CutPrefix(what, messagePrefix); ok {
			s.messages[message] = schema
		} else if name != commonFile {
			s.types[what] = schema
		}
	}
	s.addAliases()
	s.fingerprint, err = fingerprintOf(docs)
	return s, err
}

func (s *Schemas) addAliases() {
	for alias, message := range aliases {
		if s.messages[alias] == nil && s.messages[message] != nil {
			s.messages[alias] = s.messages[message]
		}
	}
}

// compileError names the file that is to blame: a built-in schema fails only because of what it refers to.
func compileError(docs map[string]schemaDoc, name string, err error) error {
	common := docs[commonFile]
	if docs[name].builtin && !common.builtin {
		return fmt.Errorf("schema %s: %s cannot use it: %w", common.file, name, err)
	}
	return fmt.Errorf("schema %s: %w", docs[name].file, err)
}

// index records the location of each schema whose members required may ask for.
func (s *Schemas) index(schema *jsonschema.Schema) {
	if schema == nil || s.byLocation[schema.Location] != nil {
		return
	}
	s.byLocation[schema.Location] = schema
	for _, member := range schema.Properties {
		s.index(member)
	}
	for _, list := range [][]*jsonschema.Schema{schema.AllOf, schema.AnyOf, schema.OneOf} {
		for _, branch := range list {
			s.index(branch)
		}
	}
	for _, inner := range []*jsonschema.Schema{schema.Ref, schema.Items2020, schema.If, schema.Then, schema.Else} {
		s.index(inner)
	}
}
