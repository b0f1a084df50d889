package notification

import (
	"cmp"
	"errors"
	"reflect"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// libraryFaults is what the library finds in a whole body, and says whether that is too much.
func libraryFaults(t testing.TB, s *Schemas, n *Notification) (faults []Fault, more bool) {
	t.Helper()
	root := rootOf(t, n)
	add := func(schema *jsonschema.Schema, v any, prefix string) {
		for _, schema := range s.demands(schema, messengerIn(root)) {
			var wrong *jsonschema.ValidationError
			if !errors.As(schema.Validate(v), &wrong) {
				continue
			}
			for _, fault := range s.leaves(wrong) {
				fault.Pointer = prefix + fault.Pointer
				faults = append(faults, fault)
			}
		}
	}
	if add(s.types[n.Type], root, ""); s.types[n.Type] != nil {
		add(s.messages[n.Message], root["messageData"], "/messageData")
	}
	return sortFaults(faults)
}

// messengerIn is messengerOf for a body that is a value.
func messengerIn(root map[string]any) string {
	return cmp.Or(text(object(root["instanceData"])["typeInstance"]), defaultMessenger)
}

// FuzzVerdict: what the pass accepts, the library must; and Validate says what the library says,
// however the notification was parsed.
func FuzzVerdict(f *testing.F) {
	schemas, err := LoadSchemas("")
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range Examples() {
		f.Add([]byte(compact(f, e.Body)))
		n, err := Parse(e.Body)
		if err != nil {
			f.Fatal(err)
		}
		root := rootOf(f, n)
		for name := range surveyOf(schemas, n, root).places {
			f.Add([]byte(marshal(f, changed(root, pathOf(name), set(1.5)))))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := schemas.Parse(body)
		if err != nil {
			return
		}
		library, cut := libraryFaults(t, schemas, n)
		if n.met && library != nil {
			t.Fatalf("accepted, but the library finds %v", library)
		}
		got, more := schemas.Faults(n)
		if (got == nil) != (library == nil) || cut && !more || !more && !reflect.DeepEqual(got, library) {
			t.Fatalf("got %v (more: %v), the library finds %v", got, more, library)
		}
		apart, err := Parse(body)
		if err != nil {
			t.Fatal(err)
		}
		if schemas.accepts(apart) != n.met || !reflect.DeepEqual(schemas.Validate(apart), got) {
			t.Fatal("parsed apart it is judged otherwise")
		}
	})
}

// FuzzMeets holds any value against any schema.
func FuzzMeets(f *testing.F) {
	for _, group := range suiteGroups(f) {
		for _, test := range group.tests {
			f.Add(marshal(f, group.schema), marshal(f, object(test)["data"]))
		}
	}
	for _, schema := range []string{
		`{"type":["integer","null"]}`, `{"properties":{"a":{"type":"string","minLength":2}},"required":["a"]}`, `{"items":{"type":"number"}}`,
		`{"anyOf":[{"required":["a"]},{"type":"array"}],"$ref":"#/$defs/b","$defs":{"b":{"type":["object","array"]}}}`, `{"items":{"not":{}}}`,
	} {
		for _, value := range []string{`1.0`, `{"a":"b"}`, `{"a":"\u0061b"}`, `[1,"a"]`, "{\"a\":\"\xff\xff\"}"} {
			f.Add(schema, value)
		}
	}
	f.Fuzz(func(t *testing.T, schema, value string) {
		doc, err := parseValue([]byte(schema), nil)
		if err != nil {
			return
		}
		if v, ok := verdictOf(t, doc, value); ok && (v.accepted && !v.valid || v.judged != v.valid) {
			t.Fatalf("got %+v", v)
		}
	})
}
