package notification

import (
	"reflect"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// node is a schema made ready to be held against the values of a body. It knows the keywords that
// the built-in schemas use. None of them can turn a breach into a match, as `not` could: so a check
// that is stricter than the schema loses time, as a judge then has to look closer, but never a verdict.
type node struct {
	left      *jsonschema.Schema // of which only the library can judge; there is then nothing else
	asks      bool               // something in it is left to the library
	shapes    shape
	plain     bool // it demands nothing but one of the shapes
	minLength int
	names     []int32 // of the members that the schema names; first those that it requires
	members   []*node // what it demands of each, nil for nothing
	required  uint64  // one bit for each name that is required
	items     *node
	all       []*node // of $ref
	any       []*node // of anyOf; one is enough
}

// maxRequired is how many names a schema can require here.
const maxRequired = 64

// understood are the fields of jsonschema.Schema that are made part of a node, or demand nothing.
var understood = map[string]bool{
	"Bool": true, "Ref": true, "Types": true, "AnyOf": true, "Required": true, "Properties": true, "Items2020": true, "MinLength": true,
	"DraftVersion": true, "Location": true, "ID": true, "Anchor": true,
	"Title": true, "Description": true, "Default": true, "Comment": true, "ReadOnly": true, "WriteOnly": true, "Examples": true, "Deprecated": true,
}

// programmer makes nodes of schemas.
type programmer struct {
	known *names
	done  map[*jsonschema.Schema]*node // what is being made is left to the library: it leads to itself
}

// program returns the node of a whole schema file. What $dynamicRef means depends on all that leads to
// it, so a part of such a schema cannot be judged alone.
func (p *programmer) program(schema *jsonschema.Schema) *node {
	n := p.node(schema)
	if n.asks && isDynamic(schema, make(map[*jsonschema.Schema]bool)) {
		return &node{left: schema, asks: true, shapes: isAny}
	}
	return n
}

// node returns the node of a schema, which leaves it to the library if it has a keyword that is not
// understood.
func (p *programmer) node(schema *jsonschema.Schema) *node {
	if n := p.done[schema]; n != nil {
		return n
	}
	left := &node{left: schema, asks: true, shapes: isAny}
	p.done[schema] = left
	if !isUnderstood(schema) {
		return left
	}
	n := &node{shapes: shapesOf(schema)}
	p.addMembers(n, schema)
	p.addBranches(n, schema)
	if schema.MinLength != nil {
		n.minLength = *schema.MinLength
	}
	n.plain = n.minLength == 0 && len(n.names) == 0 && n.items == nil && len(n.all) == 0 && len(n.any) == 0
	p.done[schema] = n
	return n
}

// isDynamic reports whether a schema leads to a reference whose target depends on the way to it.
func isDynamic(schema *jsonschema.Schema, seen map[*jsonschema.Schema]bool) bool {
	if seen[schema] {
		return false
	}
	seen[schema] = true
	if schema.DynamicRef != nil || schema.RecursiveRef != nil {
		return true
	}
	fields := reflect.ValueOf(schema).Elem()
	for i := range fields.NumField() {
		if !fields.Type().Field(i).IsExported() {
			continue
		}
		for _, inner := range schemasIn(fields.Field(i)) {
			if isDynamic(inner, seen) {
				return true
			}
		}
	}
	return false
}

// schemasIn returns the schemas in a field of a schema: one, a list, or some by their names.
func schemasIn(v reflect.Value) (schemas []*jsonschema.Schema) {
	switch v.Kind() {
	case reflect.Interface:
		return schemasIn(v.Elem())
	case reflect.Slice:
		for i := range v.Len() {
			schemas = append(schemas, schemasIn(v.Index(i))...)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			schemas = append(schemas, schemasIn(v.MapIndex(key))...)
		}
	case reflect.Pointer:
		if schema, ok := reflect.TypeAssert[*jsonschema.Schema](v); ok && schema != nil {
			return []*jsonschema.Schema{schema}
		}
	}
	return schemas
}

// isUnderstood reports whether the schema has no keyword but those above. It looks at all fields,
// so that one which the library gets one day is not passed over.
func isUnderstood(schema *jsonschema.Schema) bool {
	if schema.DraftVersion != 2020 || len(schema.Required) > maxRequired {
		return false
	}
	v := reflect.ValueOf(schema).Elem()
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if field.IsExported() && !understood[field.Name] && !v.Field(i).IsZero() {
			return false
		}
	}
	return true
}

// shapesOf are the values that the schema's type, or the schema true or false, admits.
func shapesOf(schema *jsonschema.Schema) shape {
	switch {
	case schema.Bool != nil && !*schema.Bool:
		return 0
	case schema.Types == nil:
		return isAny
	}
	var shapes shape
	for _, name := range schema.Types.ToStrings() {
		shapes |= map[string]shape{
			"null": isNull, "boolean": isBoolean, "integer": isInteger, "number": isNumber,
			"string": isString, "array": isArray, "object": isObject,
		}[name]
	}
	return shapes
}

// addMembers adds what the schema demands of members and elements.
func (p *programmer) addMembers(n *node, schema *jsonschema.Schema) {
	numbers := make(map[string]int)
	for i, name := range schema.Required {
		numbers[name] = i
		n.names = append(n.names, p.known.add(name))
		n.required |= 1 << i
	}
	n.members = make([]*node, len(n.names))
	for name, member := range schema.Properties {
		i, there := numbers[name]
		if !there {
			i = len(n.names)
			n.names = append(n.names, p.known.add(name))
			n.members = append(n.members, nil)
		}
		n.members[i] = p.inner(n, member)
	}
	if schema.Items2020 != nil {
		n.items = p.inner(n, schema.Items2020)
	}
}

// addBranches adds what is demanded of the value itself by way of other schemas.
func (p *programmer) addBranches(n *node, schema *jsonschema.Schema) {
	if schema.Ref != nil {
		n.all = append(n.all, p.inner(n, schema.Ref))
	}
	for _, branch := range schema.AnyOf {
		n.any = append(n.any, p.inner(n, branch))
	}
}

// inner returns the node of a schema within another.
func (p *programmer) inner(outer *node, schema *jsonschema.Schema) *node {
	n := p.node(schema)
	outer.asks = outer.asks || n.asks
	return n
}
