package notification

import (
	"reflect"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// node is a schema made ready to be held against the tokens of a body. It knows the keywords that
// the built-in schemas use. None of them can turn a breach into a match, as `not` could: so a check
// that is stricter than the schema loses time, as the library then judges, but never a verdict.
type node struct {
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
	done  map[*jsonschema.Schema]*node // nil: cannot be made, or is being made
}

// node returns the node of a schema, or nil if anything that the schema leads to has a keyword that
// is not understood, or if it leads to itself: then all of it is left to the library.
func (p *programmer) node(schema *jsonschema.Schema) *node {
	if n, seen := p.done[schema]; seen {
		return n
	}
	p.done[schema] = nil
	n := &node{shapes: shapesOf(schema)}
	if !isUnderstood(schema) || !p.addMembers(n, schema) || !p.addBranches(n, schema) {
		return nil
	}
	if schema.MinLength != nil {
		n.minLength = *schema.MinLength
	}
	n.plain = n.minLength == 0 && len(n.names) == 0 && n.items == nil && len(n.all) == 0 && len(n.any) == 0
	p.done[schema] = n
	return n
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
func (p *programmer) addMembers(n *node, schema *jsonschema.Schema) bool {
	numbers := make(map[string]int)
	for i, name := range schema.Required {
		numbers[name] = i
		n.names = append(n.names, p.known.add(name))
		n.required |= 1 << i
	}
	n.members = make([]*node, len(n.names))
	for name, member := range schema.Properties {
		inner := p.node(member)
		if inner == nil {
			return false
		}
		i, there := numbers[name]
		if !there {
			i = len(n.names)
			n.names = append(n.names, p.known.add(name))
			n.members = append(n.members, nil)
		}
		n.members[i] = inner
	}
	if schema.Items2020 != nil {
		n.items = p.node(schema.Items2020)
		return n.items != nil
	}
	return true
}

// addBranches adds what is demanded of the value itself by way of other schemas.
func (p *programmer) addBranches(n *node, schema *jsonschema.Schema) bool {
	if schema.Ref != nil {
		inner := p.node(schema.Ref)
		if inner == nil {
			return false
		}
		n.all = append(n.all, inner)
	}
	for _, branch := range schema.AnyOf {
		inner := p.node(branch)
		if inner == nil {
			return false
		}
		n.any = append(n.any, inner)
	}
	return true
}
