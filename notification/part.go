package notification

import (
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// part builds a value from what a judge has kept of a body: the members that the schema names, and the
// array elements that violate it. To the schema the value is as wrong as the body.
type part struct {
	cursor
	checks checks
	kept   []int // where the remaining kept elements begin, in order
	places places
}

// places says where the values of a part are in the body.
type places struct {
	indexes []int // of the elements of an array
	inner   map[string]*places
}

// add adds the places of a member or element.
func (p *places) add(name string) *places {
	if p.inner == nil {
		p.inner = make(map[string]*places)
	}
	inner := new(places)
	p.inner[name] = inner
	return inner
}

// newPart starts the part for what the judge has judged.
func newPart(j *judge, n *node) *part {
	slices.Sort(j.kept)
	return &part{
		cursor: cursor{text: j.text, known: j.known},
		checks: checks{{node: n}}, kept: j.kept,
	}
}

// make builds the value.
func (p *part) make() any {
	return p.value(0, &p.places)
}

// value builds the next value, as far as the checks starting at index from look at it.
func (p *part) value(from int, at *places) any {
	first := p.peek()
	p.checks.expand(from)
	for _, c := range p.checks[from:] {
		if c.node.left != nil {
			return p.whole()
		}
	}
	switch first {
	case '{':
		return p.object(from, at)
	case '[':
		return p.array(from, at)
	case '"':
		return p.string(from)
	default:
		return p.whole()
	}
}

// whole builds all of a value.
func (p *part) whole() any {
	return valueOf(p.skip())
}

// string returns some string of the same length, as far as the length matters.
func (p *part) string(from int) any {
	length := 0
	for _, c := range p.checks[from:] {
		length = max(length, c.node.minLength)
	}
	return strings.Repeat("x", codePoints(p.scalar(), length))
}

func (p *part) object(from int, at *places) any {
	members := make(map[string]any)
	mark := len(p.checks)
	p.at++
	for !p.ends() {
		number := p.name()
		named := number != otherName && p.checks.member(from, number)
		if len(p.checks) == mark {
			if p.skip(); named {
				members[p.known.list[number]] = nil // that it exists is enough
			}
			continue
		}
		name := p.known.list[number]
		members[name] = p.value(mark, at.add(name))
		p.checks = p.checks[:mark]
	}
	return members
}

func (p *part) array(from int, at *places) any {
	elements := []any{}
	mark := len(p.checks)
	p.at++
	for index := 0; !p.ends(); index++ {
		p.peek()
		if !p.isKept() {
			p.skip()
			continue
		}
		for _, c := range p.checks[from:mark] {
			if c.node.items != nil {
				p.checks = append(p.checks, check{node: c.node.items})
			}
		}
		at.indexes = append(at.indexes, index)
		elements = append(elements, p.value(mark, at.add(strconv.Itoa(len(elements)))))
		p.checks = p.checks[:mark]
	}
	return elements
}

// isKept reports whether the element that begins here was kept.
func (p *part) isKept() bool {
	for len(p.kept) > 0 && p.kept[0] < p.at {
		p.kept = p.kept[1:]
	}
	return len(p.kept) > 0 && p.kept[0] == p.at
}

// unknownName replaces in a pointer a name that no schema knows. An operator's own schema may look at
// members whatever their names are (additionalProperties), and a body may have a person's name there.
const unknownName = "*"

// restore translates the locations of errors from the part, whose value is value, to the body. It keeps
// only names that schemas know. sure is how many names of e's location are certain, if that is in doubt.
func (p *part) restore(e *jsonschema.ValidationError, value any, known map[string]bool, sure int) {
	place := slices.Clone(e.InstanceLocation)
	if borrowsPlace(e, value) {
		e.InstanceLocation = place[:min(sure, len(place))]
	} else {
		sure = len(place)
	}
	for i := range place {
		place[i] = unknownName
	}
	at := &p.places // nil where all of the body's value is in the part
	v := value
	for i, name := range e.InstanceLocation {
		if elements, ok := v.([]any); ok {
			index, err := strconv.Atoi(name)
			if err != nil || index < 0 || index >= len(elements) {
				break // the library names a place that does not exist
			}
			v = elements[index]
			place[i] = name
			if at != nil && len(at.indexes) > 0 {
				place[i] = strconv.Itoa(at.indexes[index])
			}
		} else {
			members, _ := v.(map[string]any)
			v = members[name]
			if known[name] {
				place[i] = name
			}
		}
		if at != nil {
			at = at.inner[name]
		}
	}
	e.InstanceLocation = place
	for _, cause := range e.Causes {
		p.restore(cause, value, known, sure)
	}
}

// borrowsPlace reports whether the location of an error is not its own. For propertyNames and contentSchema
// the library hands out a slice that it keeps using, so that it names another place in the end.
func borrowsPlace(e *jsonschema.ValidationError, value any) bool {
	switch k := e.ErrorKind.(type) {
	case *kind.PropertyNames:
		v := value
		for _, name := range e.InstanceLocation {
			v = inside(v, name)
		}
		members, _ := v.(map[string]any)
		_, there := members[k.Property]
		return !there
	case *kind.ContentSchema:
		return true
	}
	return false
}

// inside returns a member of an object or an element of an array, or nil.
func inside(v any, name string) any {
	switch v := v.(type) {
	case map[string]any:
		return v[name]
	case []any:
		if index, err := strconv.Atoi(name); err == nil && index >= 0 && index < len(v) {
			return v[index]
		}
	}
	return nil
}
