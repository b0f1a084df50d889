package notification

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// verdict is what becomes of a value by a schema.
type verdict struct {
	understood bool // the pass has a word in it
	accepted   bool // by the pass
	judged     bool // to be valid, by a judge; if not, and nothing else is said, the part that it keeps is as wrong
	valid      bool // by the library
}

// verdictOf holds a value against a schema in both ways. ok is false where there is nothing to
// compare: the schema does not compile, or the value is none that Parse takes.
func verdictOf(t testing.TB, schema any, value string) (v verdict, ok bool) {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.UseLoader(noLoader{})
	const name = schemaURL + "x.json"
	if compiler.AddResource(name, schema) != nil {
		return v, false
	}
	compiled, err := compiler.Compile(name)
	if err != nil {
		return v, false
	}
	body := []byte(`{"x":` + value + `}`)
	root, err := parseObject(body)
	if err != nil {
		return v, false
	}
	if len(root) > 1 {
		return v, false
	}
	v.valid = compiled.Validate(root["x"]) == nil

	p := &programmer{known: newNames(), done: make(map[*jsonschema.Schema]*node)}
	n := p.program(compiled)
	v.understood = !n.asks
	pass := scans.Get().(*scan)
	defer pass.release()
	if !pass.read(body, p.known) {
		t.Fatalf("%s is not read", body)
	}
	v.accepted = pass.meets(n, 1)
	j := &judge{cursor: cursor{text: []byte(value), known: p.known}, checks: checks{{node: n}}}
	j.value(0)
	if j.tooMuch {
		return v, false
	}
	if v.judged = !j.checks[0].bad; !v.judged && compiled.Validate(newPart(j, n).make()) == nil {
		t.Fatalf("the part of %s is valid", value)
	}
	return v, true
}

// pathOf is the path of a pointer whose names need no escape.
func pathOf(pointer string) []string {
	return strings.Split(pointer, "/")[1:]
}

func parsed(t testing.TB, text string) any {
	t.Helper()
	v, err := parseValue([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestMeets has a schema, values that the pass accepts, and values that it leaves to the library:
// because they break the schema or because it cannot say.
func TestMeets(t *testing.T) {
	tests := []struct {
		schema         string
		accepted, left []string
	}{
		{`true`, []string{`1`, `null`, `{}`}, nil},
		{`{}`, []string{`1`, `[{"a":[]}]`}, nil},
		{`false`, nil, []string{`1`, `null`, `{}`}},
		{`{"title":"t","description":"d","default":1,"$comment":"c","examples":[1],"deprecated":true,"readOnly":true,"writeOnly":false,"more":5}`, []string{`1`}, nil},
		{`{"type":"null"}`, []string{`null`}, []string{`false`, `0`, `""`, `[]`, `{}`}},
		{`{"type":"boolean"}`, []string{`true`, `false`}, []string{`null`, `0`, `"true"`}},
		{`{"type":"integer"}`, []string{`0`, `-7`, `-0`, `123456789012345678901234567890`}, []string{`1.5`, `1e-1`, `"1"`, `null`, `1.0`, `10e-1`, `1E2`}},
		{`{"type":"number"}`, []string{`0`, `1.0`, `1.5`, `-1e-300`}, []string{`"1"`, `null`}},
		{`{"type":"string"}`, []string{`""`, `"\ud800"`, "\"\xff\""}, []string{`1`, `null`, `[]`}},
		{`{"type":"array"}`, []string{`[]`, `[1,{}]`}, []string{`{}`, `"[]"`}},
		{`{"type":"object"}`, []string{`{}`, `{"a":1}`}, []string{`[]`, `null`}},
		{`{"type":["string","null"]}`, []string{`"a"`, `null`}, []string{`1`, `{}`}},
		{`{"type":["integer","number"]}`, []string{`1`, `1.5`}, []string{`"1"`}},
		{`{"required":["a"]}`, []string{`{"a":null}`, `{"b":1,"a":1}`, `{"\u0061":1}`, `[]`, `5`}, []string{`{}`, `{"b":1}`, `{"A":1}`, `{"b":{"a":1}}`, `{"b":"a"}`}},
		{`{"required":["a","b"]}`, []string{`{"b":1,"a":1}`}, []string{`{"a":1}`, `{"b":1}`}},
		{`{"required":[""]}`, []string{`{"":1}`}, []string{`{}`, `{"x":1}`}},
		{`{"properties":{"":{"type":"null"}}}`, []string{`{"x":1}`, `{"":null}`}, []string{`{"":1}`}},
		{
			`{"properties":{"a":{"type":"string"},"b":{"properties":{"a":{"type":"null"}}}}}`,
			[]string{`{}`, `{"a":""}`, `{"b":{"a":null},"a":"x"}`, `{"c":{"a":5}}`, `{"b":5}`, `[{"a":5}]`},
			[]string{`{"a":1}`, `{"\u0061":1}`, `{"b":{"a":1}}`, `{"b":{},"c":{},"a":[]}`},
		},
		{`{"properties":{"a":{"type":"object"}},"required":["a"]}`, []string{`{"a":{}}`}, []string{`{}`, `{"a":[]}`}},
		{`{"properties":{"é\"\\":{"type":"null"}}}`, []string{`{"é\"\\":null}`}, []string{`{"é\"\\":1}`, `{"\u00e9\u0022\u005c":1}`}},
		{`{"items":{"type":"string"}}`, []string{`[]`, `["a","b"]`, `{"a":1}`, `5`}, []string{`[1]`, `["a",1]`, `[["a"]]`}},
		{`{"items":{"items":{"type":"null"}}}`, []string{`[[],[null,null],5]`}, []string{`[[null],[1]]`}},
		{`{"items":false}`, []string{`[]`}, []string{`[1]`}},
		{`{"minLength":1}`, []string{`"a"`, `"\u0000"`, `"\ud800"`, "\"\xff\"", `5`, `[]`}, []string{`""`}},
		{`{"minLength":2}`, []string{`"ab"`, `"éé"`, `"😀😀"`, "\"\xff\xff\"", "\"\xf0\x9f\x98\""}, []string{`"a"`, `"é"`, `"😀"`, `"\u0061"`, `"\ud83d\ude00"`, `"\u0061b"`}},
		{`{"minLength":0}`, []string{`""`}, nil},
		{`{"anyOf":[{"required":["a"]},{"required":["b"]}]}`, []string{`{"a":1}`, `{"b":1}`, `{"a":1,"b":1}`, `5`}, []string{`{}`, `{"c":1}`}},
		{`{"anyOf":[{"type":"string"},{"type":"object","properties":{"a":{"type":"null"}}}],"type":["object","string","null"]}`, []string{`""`, `{"a":null}`}, []string{`null`, `{"a":1}`, `[]`}},
		{`{"$ref":"#/$defs/a","type":"object","$defs":{"a":{"type":["object","null"],"required":["b"]}}}`, []string{`{"b":1}`}, []string{`null`, `{}`}},
		{`{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"type":"null"}}}`, []string{`null`}, []string{`1`}},
		{`{"properties":{"a":{"$ref":"#/$defs/n"},"b":{"$ref":"#/$defs/n"}},"$defs":{"n":{"type":"null"}}}`, []string{`{"a":null,"b":null}`}, []string{`{"a":null,"b":1}`}},
	}
	for _, tt := range tests {
		for _, accepted := range []bool{true, false} {
			values := tt.left
			if accepted {
				values = tt.accepted
			}
			for _, value := range values {
				got, ok := verdictOf(t, parsed(t, tt.schema), value)
				if !ok || !got.understood || got.accepted != accepted || got.accepted && !got.valid || got.judged != got.valid {
					t.Errorf("%s by %s: got %+v (%v), want it accepted: %v", value, tt.schema, got, ok, accepted)
				}
			}
		}
	}
}

// TestLeftToTheLibrary has schemas of which the pass must not say anything.
func TestLeftToTheLibrary(t *testing.T) {
	required := strings.TrimSuffix(strings.Repeat(`"a%d",`, maxRequired+1), ",")
	numbers := make([]any, maxRequired+1)
	for i := range numbers {
		numbers[i] = i
	}
	for _, keywords := range []string{
		`"enum":[1]`, `"const":1`, `"not":{}`, `"allOf":[{}]`, `"oneOf":[{}]`, `"if":{},"then":{}`, `"if":{},"else":{}`,
		`"minProperties":1`, `"maxProperties":1`, `"propertyNames":{}`, `"patternProperties":{"a":{}}`, `"additionalProperties":false`,
		`"additionalProperties":{}`, `"dependentRequired":{"a":["b"]}`, `"dependentSchemas":{"a":{}}`, `"unevaluatedProperties":false`,
		`"minItems":1`, `"maxItems":1`, `"uniqueItems":true`, `"contains":{}`, `"prefixItems":[{}]`, `"unevaluatedItems":false`,
		`"maxLength":1`, `"pattern":"a"`, `"minimum":1`, `"maximum":1`, `"exclusiveMinimum":1`, `"exclusiveMaximum":1`, `"multipleOf":1`,
		`"$dynamicRef":"#a","$dynamicAnchor":"a"`, `"$ref":"#"`, `"properties":{"a":{"$ref":"#"}}`, `"items":{"$ref":"#"}`, `"anyOf":[{"$ref":"#"}]`,
		`"$schema":"http://json-schema.org/draft-07/schema#"`, `"required":[` + fmt.Sprintf(required, numbers...) + `]`,
	} {
		for _, schema := range []string{
			`{` + keywords + `}`, `{"properties":{"x":{` + keywords + `}}}`, `{"items":{` + keywords + `}}`, `{"anyOf":[{},{` + keywords + `}]}`,
			`{"$ref":"#/$defs/d","$defs":{"d":{` + keywords + `}}}`,
		} {
			if strings.Contains(keywords, "$schema") && !strings.HasPrefix(schema, `{"$schema"`) {
				continue // another draft is for a whole file
			}
			if got, ok := verdictOf(t, parsed(t, schema), "1"); !ok || got.understood {
				t.Errorf("%s: got %+v, %v", schema, got, ok)
			}
		}
	}
}

// TestUnderstoodFields: a field that the library gets one day must not be passed over.
func TestUnderstoodFields(t *testing.T) {
	fields := reflect.TypeFor[jsonschema.Schema]()
	for name := range understood {
		if _, there := fields.FieldByName(name); !there {
			t.Errorf("no field %s", name)
		}
	}
}

// suiteGroup is a schema of the test suite with its cases.
type suiteGroup struct {
	description string
	schema      any
	tests       []any
}

// suiteGroups reads the JSON Schema Test Suite, if it is there.
func suiteGroups(t testing.TB) (groups []suiteGroup) {
	t.Helper()
	files := glob(t, suitesFolder+"/json-schema/tests/draft2020-12/*.json")
	files = append(files, glob(t, suitesFolder+"/json-schema/tests/draft2020-12/optional/*.json")...)
	for _, file := range files {
		list, err := parseValue(read(t, file), nil)
		if err != nil {
			t.Logf("%s: %v", filepath.Base(file), err)
			continue
		}
		for _, group := range list.([]any) {
			g := object(group)
			groups = append(groups, suiteGroup{filepath.Base(file) + ": " + text(g["description"]), g["schema"], g["tests"].([]any)})
		}
	}
	return groups
}

// TestSchemaSuite holds both ways against each other on the JSON Schema Test Suite.
func TestSchemaSuite(t *testing.T) {
	var compared, understood, accepted int
	for _, group := range suiteGroups(t) {
		for _, test := range group.tests {
			value := marshal(t, object(test)["data"])
			got, ok := verdictOf(t, group.schema, value)
			if !ok {
				continue
			}
			compared++
			if got.understood {
				understood++
			}
			if got.accepted {
				accepted++
			}
			want := object(test)["valid"] == true
			if got.accepted && !got.valid || got.accepted && !want || got.judged != got.valid {
				t.Errorf("%s: %s: %s: got %+v", group.description, text(object(test)["description"]), value, got)
			}
			if got.understood && got.valid && !got.accepted {
				t.Logf("left to the library: %s: %s: %s", group.description, text(object(test)["description"]), value)
			}
		}
	}
	t.Logf("%d cases compared, %d understood, %d accepted", compared, understood, accepted)
}
