package notification

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// samples has a value of each JSON type. 1.5 stands apart: it is a number and no integer.
var samples = map[string]any{
	"null": nil, "boolean": true, "integer": json.Number("5"), "number": json.Number("1.5"), "string": "s",
	"array": []any{}, "object": map[string]any{},
}

// place is a member that the schemas know, there or not.
type place struct {
	path     []string
	allowed  map[string]bool // by sample name
	required bool
	there    bool
}

// choice is an object of which one of several members is needed.
type choice struct {
	path  []string
	names []string
}

// survey walks a schema and a value in parallel and notes what the schema knows.
type survey struct {
	places  map[string]*place
	choices []choice
}

func (s *survey) walk(schema *jsonschema.Schema, v any, path []string) {
	if schema == nil {
		return
	}
	s.walk(schema.Ref, v, path)
	if p := s.places[pointerOf(path)]; p != nil && schema.Types != nil {
		types := schema.Types.ToStrings()
		for name := range samples {
			if !slices.Contains(types, name) && (name != "integer" || !slices.Contains(types, "number")) {
				p.allowed[name] = false
			}
		}
	}
	switch v := v.(type) {
	case map[string]any:
		for name, member := range schema.Properties {
			inner := append(slices.Clone(path), name)
			s.at(inner).there = v[name] != nil
			s.walk(member, v[name], inner)
		}
		for _, name := range schema.Required {
			s.at(append(slices.Clone(path), name)).required = true
		}
		if len(schema.AnyOf) > 0 {
			c := choice{path: path}
			for _, branch := range schema.AnyOf {
				c.names = append(c.names, branch.Required...)
			}
			s.choices = append(s.choices, c)
		}
	case []any:
		for i, element := range v {
			inner := append(slices.Clone(path), fmt.Sprint(i))
			if schema.Items2020 != nil {
				s.at(inner)
			}
			s.walk(schema.Items2020, element, inner)
		}
	}
}

func (s *survey) at(path []string) *place {
	pointer := pointerOf(path)
	if s.places[pointer] == nil {
		p := &place{path: path, allowed: map[string]bool{}}
		for name := range samples {
			p.allowed[name] = true
		}
		s.places[pointer] = p
	}
	return s.places[pointer]
}

// rootOf returns the body as a value.
func rootOf(t testing.TB, n *Notification) map[string]any {
	t.Helper()
	root, err := parseObject(n.body)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// object and text read nothing from a value of another type: a nil map may be read, too.

func object(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// surveyOf returns what the schemas know of an example.
func surveyOf(schemas *Schemas, n *Notification, root map[string]any) *survey {
	s := &survey{places: map[string]*place{}}
	for _, schema := range schemas.demands(schemas.types[n.Type], messengerIn(root)) {
		s.walk(schema, root, nil)
	}
	for _, schema := range schemas.demands(schemas.messages[n.Message], messengerIn(root)) {
		s.walk(schema, root["messageData"], []string{"messageData"})
	}
	return s
}

// changed returns a copy of v in which change was done to the parent of the last name of path.
func changed(v any, path []string, change func(parent any, name string)) any {
	var out any
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for name, member := range v {
			if len(path) > 1 && name == path[0] {
				member = changed(member, path[1:], change)
			}
			m[name] = member
		}
		out = m
	case []any:
		a := slices.Clone(v)
		for i := range a {
			if len(path) > 1 && fmt.Sprint(i) == path[0] {
				a[i] = changed(a[i], path[1:], change)
			}
		}
		out = a
	default:
		return v
	}
	if len(path) == 1 {
		change(out, path[0])
	}
	return out
}

func set(value any) func(any, string) {
	return func(parent any, name string) {
		switch parent := parent.(type) {
		case map[string]any:
			parent[name] = value
		case []any:
			var i int
			fmt.Sscan(name, &i)
			parent[i] = value
		}
	}
}

func remove(parent any, name string) {
	delete(parent.(map[string]any), name)
}

// mutator breaks one example at a time and counts.
type mutator struct {
	*testing.T
	schemas                         *Schemas
	removed, retyped, chosen, twice int
}

// caught asserts that the body is refused, by Parse or by a schema, for the keyword at the pointer.
func (m *mutator) caught(what string, root any, pointer, keyword string) {
	m.Helper()
	body, err := json.Marshal(root)
	if err != nil {
		m.Fatal(err)
	}
	n, err := Parse(body)
	if syntax, ok := errors.AsType[*SyntaxError](err); ok {
		if syntax.Pointer != pointer {
			m.Errorf("%s: %s %s: got %v", what, keyword, pointer, err)
		}
		return
	}
	faults := m.schemas.Validate(n)
	if again, err := m.schemas.Parse(body); err != nil || again.met || !reflect.DeepEqual(m.schemas.Validate(again), faults) {
		m.Errorf("%s: %s %s: in one pass: %+v, %v", what, keyword, pointer, again, err)
	}
	if !slices.ContainsFunc(faults, func(f Fault) bool { return f.Pointer == pointer && f.Keyword == keyword }) {
		m.Errorf("%s: %s %s: got %v", what, keyword, pointer, faults)
	}
	for _, f := range faults {
		// One thing is wrong, so nothing may be reported but that thing and its loss.
		if !strings.HasPrefix(f.Pointer, pointer) && f.Keyword != "anyOf" {
			m.Errorf("%s: %s %s: got %v too", what, keyword, pointer, f)
		}
	}
}

// TestMutations breaks every example in every place that its schemas know.
func TestMutations(t *testing.T) {
	t.Parallel()
	m := &mutator{T: t, schemas: load(t, "")}
	done := make(map[string]bool) // of one kind and messenger each place is tried once
	covered := make(map[string]bool)
	for _, e := range Examples() {
		n, err := Parse(e.Body)
		if err != nil {
			t.Fatalf("%s: %v", e.Name, err)
		}
		root := rootOf(t, n)
		s := surveyOf(m.schemas, n, root)
		for pointer, p := range s.places {
			key := e.Type + e.Message + messengerIn(root) + pointer
			if done[key] && !strings.HasPrefix(pointer, "/messageData/") {
				continue
			}
			done[key] = true
			covered[pointer[strings.LastIndex(pointer, "/")+1:]] = true
			m.place(e.Name, root, pointer, p)
		}
		for _, c := range s.choices {
			m.choice(e.Name, root, c)
		}
		m.doubled(e.Name, root, root, nil)
	}
	for name := range vendorNames() {
		if !covered[name] {
			t.Errorf("no example reaches %s", name)
		}
	}
	if m.removed < 500 || m.retyped < 10_000 || m.chosen < 50 || m.twice < 2_000 {
		t.Errorf("too few: %d removed, %d of another type, %d of a choice, %d names twice", m.removed, m.retyped, m.chosen, m.twice)
	}
	t.Logf("%d removed, %d of another type, %d of a choice, %d names twice", m.removed, m.retyped, m.chosen, m.twice)
}

func (m *mutator) place(example string, root any, pointer string, p *place) {
	if p.required {
		m.removed++
		m.caught(example, changed(root, p.path, remove), pointer, "required")
	}
	for name, value := range samples {
		if !p.allowed[name] {
			m.retyped++
			m.caught(example+" "+name, changed(root, p.path, set(value)), pointer, "type")
		}
	}
}

func (m *mutator) choice(example string, root any, c choice) {
	without, nulls := root, root
	var there []string
	for _, name := range c.names {
		path := append(slices.Clone(c.path), name)
		if lookup(root, path) != nil {
			there = append(there, name)
			without = changed(without, path, remove)
			nulls = changed(nulls, path, set(nil))
		}
	}
	if len(there) != 1 {
		m.Errorf("%s has %v of %v", example, there, c.names)
		return
	}
	m.chosen += 2
	m.caught(example, without, pointerOf(c.path), "anyOf")
	m.caught(example, nulls, pointerOf(append(slices.Clone(c.path), there[0])), "type")
}

func lookup(v any, path []string) any {
	for _, name := range path {
		v = object(v)[name]
	}
	return v
}

// doubled writes each name twice, plainly and by escape, with the same value and another.
func (m *mutator) doubled(example string, root, v any, path []string) {
	for name, member := range object(v) {
		inner := append(slices.Clone(path), name)
		const marker = "zz marker"
		for _, value := range []any{member, "other"} {
			body, err := json.Marshal(changed(root, append(slices.Clone(path), marker), set(value)))
			if err != nil {
				m.Fatal(err)
			}
			for _, second := range []string{name, fmt.Sprintf(`\u%04x`, name[0]) + name[1:]} {
				m.twice++
				_, err := Parse([]byte(strings.Replace(string(body), marker, second, 1)))
				var syntax *SyntaxError
				if !errors.As(err, &syntax) || syntax.Cause != causeTwice || syntax.Pointer != pointerOf(inner) {
					m.Errorf("%s: %s twice: got %v", example, pointerOf(inner), err)
				}
			}
		}
		m.doubled(example, root, member, inner)
	}
}
