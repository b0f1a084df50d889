package notification

import (
	"encoding/json"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Limits of what a judge gives to the library, far above what any known notification has.
const (
	maxAsked      = 5_000   // names and values where only the library can judge
	maxAskedBytes = 1 << 20 // of these
	maxPart       = 5_000   // values in the part; after that only the first wrong element of each array
)

// judge checks a body of any length against a node in one pass, without a list of what is in it. Unlike a
// scan it is exact: where only the library can judge a value, it asks the library.
//
// A whole body is too much for the library, which makes a value and a fault for each element. So the judge
// records where the violating elements are, up to the maximum number of faults, and part makes from them a
// body that violates the same rules.
type judge struct {
	cursor
	checks  checks
	kept    []int // where the elements begin that go into the part
	held    int   // values so far that the part would have
	asked   int   // names and values that the library was asked about
	bytes   int
	tooMuch bool // too much to ask the library; the verdict is no
	more    bool // elements outside the part are or may be wrong
}

// check is the check of a value against a node.
type check struct {
	node    *node
	owner   int    // the check of the enclosing value, which fails with this one
	inner   int    // where the checks against other nodes for this value begin: node.all, followed by node.any
	missing uint64 // of node.required
	kept    int    // failed elements
	bad     bool   // it has failed
}

type checks []check

// nothing is the rest of the check of a value of the wrong type.
var nothing = new(node)

// value checks the next value, using the checks starting at index from.
func (j *judge) value(from int) {
	first := j.peek()
	j.held++
	j.checks.expand(from)
	for i := from; i < len(j.checks); i++ {
		if left := j.checks[i].node.left; left != nil {
			j.checks[i].bad = !j.ask(left)
		}
	}
	switch first {
	case '{':
		j.object(from)
	case '[':
		j.array(from)
	default:
		j.scalar(from, first)
	}
	j.checks.settle(from)
}

// expand adds the checks against the nodes that others refer to for the same value.
func (cs *checks) expand(from int) {
	for i := from; i < len(*cs); i++ {
		n := (*cs)[i].node
		(*cs)[i].inner, (*cs)[i].missing = len(*cs), n.required
		for _, other := range n.all {
			*cs = append(*cs, check{node: other})
		}
		for _, branch := range n.any {
			*cs = append(*cs, check{node: branch})
		}
	}
}

// settle works out the result of each check from the checks it refers to.
func (cs checks) settle(from int) {
	for i := len(cs) - 1; i >= from; i-- {
		c := &cs[i]
		branches := c.inner + len(c.node.all)
		for _, other := range cs[c.inner:branches] {
			c.bad = c.bad || other.bad
		}
		if len(c.node.any) == 0 {
			continue
		}
		met := false
		for _, branch := range cs[branches : branches+len(c.node.any)] {
			met = met || !branch.bad
		}
		c.bad = c.bad || !met
	}
}

// shape fails the checks that do not admit a value of that shape.
func (cs checks) shape(is shape) {
	for i := range cs {
		if c := &cs[i]; c.node.shapes&is == 0 {
			c.node, c.missing, c.bad = nothing, 0, true
		}
	}
}

// member adds the checks for a member, and reports whether any node names it.
func (cs *checks) member(from int, name int32) (named bool) {
	for i, to := from, len(*cs); i < to; i++ {
		c := &(*cs)[i]
		for at, known := range c.node.names {
			if known != name {
				continue
			}
			named = true
			c.missing &^= 1 << at // beyond 63, where none is required, the bit is 0
			if inner := c.node.members[at]; inner != nil {
				*cs = append(*cs, check{node: inner, owner: i})
			}
			break
		}
	}
	return named
}

func (j *judge) object(from int) {
	own := j.checks[from:]
	own.shape(isObject)
	mark := len(j.checks)
	j.at++
	j.passed++
	for !j.ends() {
		if name := j.name(); name != otherName {
			j.checks.member(from, name)
		}
		j.inner(mark)
	}
	for i := from; i < mark; i++ {
		c := &j.checks[i]
		c.bad = c.bad || c.missing != 0
	}
}

func (j *judge) array(from int) {
	j.checks[from:].shape(isArray)
	mark := len(j.checks)
	j.at++
	j.passed++
	for !j.ends() {
		limit := maxFaults
		if j.held >= maxPart {
			limit = 1
		}
		for i := from; i < mark; i++ {
			switch c := &j.checks[i]; {
			case c.node.items == nil:
			case c.kept >= limit:
				j.more = true // whatever the others are, the verdict stands
			default:
				j.checks = append(j.checks, check{node: c.node.items, owner: i})
			}
		}
		j.element(mark)
	}
}

// element checks an element, and keeps it if it fails.
func (j *judge) element(mark int) {
	j.peek()
	start, before, kept := j.at, j.held, len(j.kept)
	if !j.inner(mark) {
		j.kept, j.held = j.kept[:kept], before
		return
	}
	j.kept = append(j.kept, start)
}

// inner checks a member or element, using the checks from mark on, and then removes them. It reports
// whether any failed.
func (j *judge) inner(mark int) (bad bool) {
	end := len(j.checks)
	if end == mark {
		j.skip()
		return false
	}
	j.value(mark)
	for _, c := range j.checks[mark:end] {
		if c.bad {
			bad = true
			j.checks[c.owner].bad = true
			j.checks[c.owner].kept++
		}
	}
	j.checks = j.checks[:mark]
	return bad
}

func (j *judge) scalar(from int, first byte) {
	raw := j.cursor.scalar()
	own := j.checks[from:]
	switch first {
	case '"':
		own.shape(isString)
		for i := range own {
			c := &own[i]
			c.bad = c.bad || c.node.minLength > 0 && codePoints(raw, c.node.minLength) < c.node.minLength
		}
	case 't', 'f':
		own.shape(isBoolean)
	case 'n':
		own.shape(isNull)
	default:
		if isWhole(raw) {
			own.shape(isInteger)
		} else {
			own.shape(isFraction)
		}
	}
}

// ask lets the library judge the next value, without moving past it.
func (j *judge) ask(schema *jsonschema.Schema) bool {
	if j.tooMuch {
		return false
	}
	at, before := j.at, j.passed
	text := j.skip()
	j.asked += j.passed - before
	j.bytes += len(text)
	j.at = at
	if j.asked > maxAsked || j.bytes > maxAskedBytes {
		j.tooMuch = true
		return false
	}
	return schema.Validate(valueOf(text)) == nil
}

// valueOf returns the value of a text, usually a short one, that has been parsed before.
func valueOf(text []byte) any {
	switch text[0] {
	case '{', '[':
		v, _ := parseValue(text, vendorNames())
		return v
	case '"':
		s, _ := jsontext.AppendUnquote(nil, text) // the error only says that it was repaired
		return string(s)
	case 't', 'f':
		return text[0] == 't'
	case 'n':
		return nil
	default:
		return json.Number(text)
	}
}
