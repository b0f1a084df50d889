package notification

import (
	"reflect"
	"testing"
)

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
		library := schemas.faults(n)
		if n.met && library != nil {
			t.Fatalf("accepted, but the library finds %v", library)
		}
		if got := schemas.Validate(n); !reflect.DeepEqual(got, library) {
			t.Fatalf("got %v, the library finds %v", got, library)
		}
		apart, err := Parse(body)
		if err != nil {
			t.Fatal(err)
		}
		if schemas.accepts(apart) != n.met || !reflect.DeepEqual(schemas.Validate(apart), library) {
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
		if v, ok := verdictOf(t, doc, value); ok && v.accepted && !v.valid {
			t.Fatalf("got %+v", v)
		}
	})
}
