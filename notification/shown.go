package notification

import (
	"strconv"
	"strings"
)

// unknownName stands in a pointer for a name that no schema knows: a schema of an operator's own may look
// at members whatever their names are (additionalProperties), and a body may have a person's there.
const unknownName = "*"

var pointerUnescape = strings.NewReplacer("~1", "/", "~0", "~")

// hideNames puts * for each name in the pointers of faults that is the body's own.
func (s *Schemas) hideNames(faults []Fault, root map[string]any) []Fault {
	changed := false
	for i := range faults {
		if pointer := s.shownPointer(faults[i].Pointer, root); pointer != faults[i].Pointer {
			faults[i].Pointer, changed = pointer, true
		}
	}
	if changed {
		return sortFaults(faults)
	}
	return faults
}

// shownPointer is a pointer into the body with the indices of arrays, and of names those that a schema
// knows.
func (s *Schemas) shownPointer(pointer string, v any) string {
	if pointer == "" {
		return ""
	}
	path := strings.Split(pointer[1:], "/")
	for i, part := range path {
		if elements, ok := v.([]any); ok {
			at, err := strconv.Atoi(part)
			if err != nil || at < 0 || at >= len(elements) {
				v = nil
				path[i] = unknownName
				continue
			}
			v = elements[at]
			continue
		}
		name := pointerUnescape.Replace(part)
		members, _ := v.(map[string]any)
		v = members[name]
		if !s.known[name] {
			path[i] = unknownName
		}
	}
	return "/" + strings.Join(path, "/")
}

// namesKnown are the member names that schema files speak of.
func namesKnown(docs map[string]schemaDoc) map[string]bool {
	known := make(map[string]bool)
	for _, doc := range docs {
		addKnown(doc.doc, known)
	}
	return known
}

// addKnown adds the names that a schema, or one within it, lists or requires.
func addKnown(schema any, known map[string]bool) {
	switch schema := schema.(type) {
	case map[string]any:
		for keyword, v := range schema {
			switch keyword {
			case "properties", "dependentSchemas", "dependentRequired", "dependencies":
				members, _ := v.(map[string]any)
				for name, inner := range members {
					known[name] = true
					addTexts(inner, known)
				}
			case "required":
				addTexts(v, known)
			}
			addKnown(v, known)
		}
	case []any:
		for _, v := range schema {
			addKnown(v, known)
		}
	}
}

// addTexts adds those of a list of names.
func addTexts(list any, known map[string]bool) {
	names, _ := list.([]any)
	for _, name := range names {
		if name, ok := name.(string); ok {
			known[name] = true
		}
	}
}
