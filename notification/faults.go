package notification

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// maxFaults limits what one body can report: every element of an array may have a fault.
const maxFaults = 100

// Fault is one schema rule that a body violates. It contains no value of the body, and no name that only
// the body has: * stands for such a name.
type Fault struct {
	Pointer string `json:"pointer"` // JSON pointer into the body, of the member that is missing or wrong
	Keyword string `json:"keyword"` // JSON Schema keyword, such as required or type
	Message string `json:"message"` // in words for the operator
}

// judging lets two bodies be judged at a time. What a judge and the library need is bounded for each.
var judging = make(chan struct{}, 2)

// judge returns what is wrong with a notification that the pass did not accept.
func (s *Schemas) judge(n *Notification) (faults []Fault, more bool) {
	if s.types[n.Type] == nil {
		return nil, false
	}
	judging <- struct{}{}
	defer func() { <-judging }()
	messenger := s.messengerOf(n.body)
	add := func(schema *jsonschema.Schema, text []byte, prefix string) {
		found, cut := s.faults(s.demands(schema, messenger), text, prefix)
		faults, more = append(faults, found...), more || cut
	}
	add(s.types[n.Type], n.body, "")
	if message := s.messages[n.Message]; message != nil {
		body := cursor{text: n.body, known: s.names}
		add(message, body.member(nameMessageData), "/messageData")
	}
	faults, cut := sortFaults(faults)
	return faults, more || cut
}

// faults checks a text, a whole body or part of one, against schemas in one pass. prefix is the pointer to
// the text.
func (s *Schemas) faults(schemas []*jsonschema.Schema, text []byte, prefix string) (faults []Fault, more bool) {
	if len(text) == 0 {
		return []Fault{{Pointer: prefix, Keyword: "schema", Message: "cannot be checked"}}, true // Parse cannot have made this
	}
	j := &judge{cursor: cursor{text: text, known: s.names}}
	for _, schema := range schemas {
		j.checks = append(j.checks, check{node: s.nodes[schema]})
	}
	j.value(0)
	if j.tooMuch {
		return []Fault{{Pointer: prefix, Keyword: "schema", Message: causeTooMuch}}, true
	}
	for i, schema := range schemas {
		if !j.checks[i].bad {
			continue
		}
		found, known := s.faultsOfPart(newPart(j, s.nodes[schema]), schema)
		for _, fault := range found {
			fault.Pointer = prefix + fault.Pointer
			faults = append(faults, fault)
		}
		more = more || j.more || !known
	}
	return faults, more
}

// faultsOfPart asks the library what is wrong with a part. known is false if it does not say.
func (s *Schemas) faultsOfPart(p *part, schema *jsonschema.Schema) (faults []Fault, known bool) {
	value := p.make()
	err := schema.Validate(value)
	var wrong *jsonschema.ValidationError
	if !errors.As(err, &wrong) {
		// The judge and the library agree, see FuzzMeets. The library returns no other error, and the text
		// of one might quote the body.
		return []Fault{{Keyword: "schema", Message: "cannot be checked"}}, false
	}
	p.restore(wrong, value, s.known, 0)
	return s.leaves(wrong), true
}

// causeTooMuch is reported for a body that the library must not be asked about.
var causeTooMuch = fmt.Sprintf("cannot be checked: too much for a schema with keywords that the built-in ones do not use; "+
	"where these are, want at most %d names and values, and %d bytes", maxAsked, maxAskedBytes)

// sortFaults sorts by pointer, keyword and message. It keeps one fault for each pointer and keyword,
// because a value may be required to be an object twice, once with null allowed, and at most maxFaults. It
// reports whether it left any out.
func sortFaults(faults []Fault) (sorted []Fault, more bool) {
	slices.SortFunc(faults, func(a, b Fault) int {
		return cmp.Or(
			cmp.Compare(a.Pointer, b.Pointer),
			cmp.Compare(a.Keyword, b.Keyword),
			cmp.Compare(len(a.Message), len(b.Message)),
			cmp.Compare(a.Message, b.Message),
		)
	})
	faults = slices.CompactFunc(faults, func(a, b Fault) bool {
		return a.Pointer == b.Pointer && a.Keyword == b.Keyword
	})
	return faults[:min(len(faults), maxFaults)], len(faults) > maxFaults
}

// leaves descends to the violated rules, past those that only lead to others.
func (s *Schemas) leaves(e *jsonschema.ValidationError) []Fault {
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		return s.missing(e, k.Missing)
	case *kind.AnyOf:
		return s.nearest(e, "anyOf")
	case *kind.OneOf:
		if len(e.Causes) > 0 {
			return s.nearest(e, "oneOf")
		}
	case *kind.Contains, *kind.PropertyNames: // the causes are about elements that may differ, or about a name as if it were the value
	default:
		if len(e.Causes) > 0 {
			var faults []Fault
			for _, cause := range e.Causes {
				faults = append(faults, s.leaves(cause)...)
			}
			return faults
		}
	}
	keyword := keywordOf(e.ErrorKind)
	return []Fault{{Pointer: pointerOf(e.InstanceLocation), Keyword: keyword, Message: messageOf(e.ErrorKind, keyword)}}
}

// missing returns one fault for each missing member, at the place where it should be.
func (s *Schemas) missing(e *jsonschema.ValidationError, names []string) []Fault {
	var faults []Fault
	for _, name := range names {
		message := "missing"
		if want := s.wanted(e.SchemaURL, name); len(want) > 0 {
			message += "; want " + orList(want, true)
		}
		faults = append(faults, Fault{
			Pointer: pointerOf(append(slices.Clone(e.InstanceLocation), name)),
			Keyword: "required",
			Message: message,
		})
	}
	return faults
}

// nearest reports the branch of an anyOf or oneOf that got furthest into the body, because that is the one
// the sender meant. If every branch only lacks what it requires, none was meant, and a single fault names
// the choice.
func (s *Schemas) nearest(e *jsonschema.ValidationError, keyword string) []Fault {
	if choice := choices(e); choice != nil {
		return []Fault{{
			Pointer: pointerOf(e.InstanceLocation),
			Keyword: keyword,
			Message: "missing; one of " + strings.Join(choice, ", ") + " is needed",
		}}
	}
	var best []Fault
	bestDepth := -1
	for _, branch := range e.Causes {
		faults := s.leaves(branch)
		depth := 0
		for _, f := range faults {
			d := 2 * strings.Count(f.Pointer, "/")
			if f.Keyword == "required" {
				d-- // a wrong member is nearer than a missing one
			}
			depth = max(depth, d)
		}
		if depth > bestDepth || depth == bestDepth && len(faults) < len(best) {
			best, bestDepth = faults, depth
		}
	}
	return best
}

// choices returns what each branch lacks, or nil if any branch fails for another reason than missing
// members of this very object.
func choices(e *jsonschema.ValidationError) []string {
	var all []string
	for _, branch := range e.Causes {
		required, ok := branch.ErrorKind.(*kind.Required)
		if !ok || len(branch.InstanceLocation) != len(e.InstanceLocation) {
			return nil
		}
		all = append(all, strings.Join(required.Missing, " with "))
	}
	return all
}

// wanted returns the types that the schema at a location requires of a member.
func (s *Schemas) wanted(location, name string) []string {
	schema := s.byLocation[location]
	if schema == nil {
		return nil
	}
	member := schema.Properties[name]
	for member != nil && member.Types == nil {
		member = member.Ref
	}
	if member == nil {
		return nil
	}
	return member.Types.ToStrings()
}

func keywordOf(k jsonschema.ErrorKind) string {
	switch k.(type) {
	case *kind.FalseSchema:
		return "false" // a schema, not a keyword
	case *kind.Not:
		return "not"
	case *kind.RefCycle:
		return "$ref"
	}
	if path := k.KeywordPath(); len(path) > 0 {
		return path[0]
	}
	return "schema"
}

// messages are the texts for keywords that occur only in an operator's own schemas. The library's texts
// would quote the body.
var messages = map[string]string{
	"$ref":                  "cannot be checked: the schema only refers to itself",
	"false":                 "must not be there",
	"enum":                  "not one of the values allowed",
	"const":                 "not the value wanted",
	"format":                "not in the format wanted",
	"pattern":               "does not match the pattern",
	"minLength":             "too short",
	"maxLength":             "too long",
	"minimum":               "too small",
	"exclusiveMinimum":      "too small",
	"maximum":               "too large",
	"exclusiveMaximum":      "too large",
	"multipleOf":            "not a multiple of the number wanted",
	"minItems":              "too few elements",
	"maxItems":              "too many elements",
	"uniqueItems":           "an element twice",
	"contains":              "an element wanted is not there",
	"minContains":           "too few of an element wanted",
	"maxContains":           "too many of an element",
	"minProperties":         "too few members",
	"maxProperties":         "too many members",
	"additionalProperties":  "has a member that is not allowed",
	"unevaluatedProperties": "has a member that is not allowed",
	"propertyNames":         "has a member whose name is not allowed",
	"dependentRequired":     "lacks a member that another asks for",
	"not":                   "has a form that is not allowed",
	"oneOf":                 "fits more than one form",
}

func messageOf(k jsonschema.ErrorKind, keyword string) string {
	if k, ok := k.(*kind.Type); ok {
		return "want " + orList(k.Want, false) + ", got " + k.Got
	}
	if message, ok := messages[keyword]; ok {
		return message
	}
	return "breaks the rule"
}

// orList returns "string, number or null" or, with articles, "a string, a number or null".
func orList(types []string, articles bool) string {
	var words []string
	null := false
	for _, t := range types {
		switch {
		case t == "null":
			null = true
			continue
		case articles && strings.ContainsRune("aio", rune(t[0])):
			t = "an " + t
		case articles:
			t = "a " + t
		}
		words = append(words, t)
	}
	if null {
		words = append(words, "null")
	}
	if last := len(words) - 1; last > 0 {
		return strings.Join(words[:last], ", ") + " or " + words[last]
	}
	return strings.Join(words, "")
}

var pointerEscape = strings.NewReplacer("~", "~0", "/", "~1")

// pointerOf returns the JSON pointer (RFC 6901) for a path.
func pointerOf(path []string) string {
	var b strings.Builder
	for _, token := range path {
		b.WriteByte('/')
		b.WriteString(pointerEscape.Replace(token))
	}
	return b.String()
}
