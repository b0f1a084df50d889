package notification

import (
	"reflect"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// node is a schema compiled for checking the values of a body. It knows the keywords that the built-in
// schemas use. None of them can turn a violation into a match, as `not` could, so a check that is stricter
// than the schema costs only time, as a judge has to look closer, but never changes a verdict.
type node struct {
	left      *jsonschema.Schema // only the library can judge this one; the other fields are then unused
	asks      bool               // something in it is left to the library
	shapes    shape
	plain     bool // it requires only one of the shapes
	minLength int
	names     []int32 // of the members that the schema names, the required ones first
	members   []*node // requirements for each member, nil for none
	required  uint64  // one bit for each required name
	items     *node
	all       []*node // of $ref
	any       []*node // of anyOf; one of them is enough
}

// maxRequired is how many names a schema can require here.
const maxRequired = 64

// understood are the fields of jsonschema.Schema that become part of a node, or require nothing.
var understood = map[string]bool{
	"Bool": true, "Ref": true, "Types": true, "AnyOf": true, "Required": true, "Properties": true, "Items2020": true, "MinLength": true,
	"DraftVersion": true, "Location": true, "ID": true, "Anchor": true,
	"Title": true, "Description": true, "Default": true, "Comment": true, "ReadOnly": true, "WriteOnly": true, "Examples": true, "Deprecated": true,
}

// programmer makes nodes from schemas.
type programmer struct {
	known *names
	done  map[*jsonschema.Schema]*node // a schema in the making is left to the library, because it leads to itself
}

// program returns the node of a whole schema file. The meaning of $dynamicRef depends on everything that
// leads to it, so a part of such a schema cannot be judged alone.
func (p *programmer) program(schema *jsonschema.Schema) *node {
	n := p.node(schema)
	if n.asks && isDynamic(schema, make(map[*jsonschema.Schema]bool)) {
		return &node{left: schema, asks: true, shapes: isAny}
	}
	return n
}

// node returns the node of a schema. It leaves a schema with a keyword that is not understood to the
// library.
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

// schemasIn returns the schemas in a field of a schema: one, a list, or some by name.
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

// isUnderstood reports whether the schema has only understood keywords. It checks all fields, so that it
// does not miss one that the library adds some day.
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

// shapesOf returns the shapes that the schema's type, or the schema true or false, admits.
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

// addMembers adds what the schema requires of members and elements.
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

// addBranches adds what other schemas require of the value itself.
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
