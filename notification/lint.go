package notification

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Warning is a place in an operator's own schema file that probably does not mean what it says.
type Warning struct {
	File    string
	Pointer string // JSON pointer into the file; "" for the whole file
	Text    string
}

// maxWarnings limits the warnings about one file.
const maxWarnings = 20

// Keywords of draft 2020-12, by what they contain. definitions is no longer one, but is still used.
var (
	schemaKeywords = strings.Fields("additionalProperties unevaluatedProperties items unevaluatedItems contains not if then else propertyNames contentSchema")
	mapKeywords    = strings.Fields("properties patternProperties $defs definitions dependentSchemas")
	listKeywords   = strings.Fields("allOf anyOf oneOf prefixItems")
	otherKeywords  = strings.Fields("$schema $id $anchor $ref $dynamicRef $dynamicAnchor $vocabulary $comment type enum const " +
		"multipleOf maximum exclusiveMaximum minimum exclusiveMinimum maxLength minLength pattern maxItems minItems uniqueItems maxContains minContains " +
		"maxProperties minProperties required dependentRequired title description default deprecated readOnly writeOnly examples format contentEncoding contentMediaType")
	// olderKeywords are meaningful only in a file whose $schema names an older draft.
	olderKeywords = strings.Fields("id dependencies additionalItems $recursiveRef $recursiveAnchor")
)

// latestDraft is part of the $schema of the draft that applies if a file names none.
const latestDraft = "draft/2020-12/"

// lint looks through the operator's own files for things that compile but are hardly meant.
func lint(docs map[string]schemaDoc) (all []Warning) {
	names := slices.Sorted(maps.Keys(docs))
	for _, name := range names {
		if docs[name].builtin {
			continue
		}
		l := linter{file: docs[name].file, latest: true}
		l.nameCase(name, names)
		if schema, ok := docs[name].doc.(map[string]any); ok {
			if draft, said := schema["$schema"].(string); said {
				l.latest = strings.Contains(draft, latestDraft)
			}
			l.messengers(schema)
			l.schema(schema, "")
		}
		if more := len(l.found) - maxWarnings; more > 0 {
			l.found = append(l.found[:maxWarnings:maxWarnings], Warning{File: l.file, Text: fmt.Sprintf("%d more", more)})
		}
		all = append(all, l.found...)
	}
	return all
}

// linter checks one file.
type linter struct {
	file   string
	latest bool // the file uses the latest draft
	found  []Warning
}

func (l *linter) warn(pointer, format string, args ...any) {
	l.found = append(l.found, Warning{File: l.file, Pointer: pointer, Text: fmt.Sprintf(format, args...)})
}

// nameCase finds a file that was meant to replace another one. An alias is a name of its own.
func (l *linter) nameCase(name string, names []string) {
	message := strings.TrimSuffix(strings.TrimPrefix(name, messagePrefix), ".json")
	if aliases[message] != "" && strings.HasPrefix(name, messagePrefix) {
		return
	}
	for _, other := range names {
		if other != name && strings.EqualFold(other, name) {
			l.warn("", "the name differs from %s in upper and lower case only: it adds a type that no notification may have, and replaces nothing", other)
			return
		}
	}
}

// messengers finds requirements for a messenger that does not exist.
func (l *linter) messengers(schema map[string]any) {
	for _, messenger := range slices.Sorted(messengersIn(schema)) {
		if !slices.Contains(typeInstances, messenger) {
			l.warn(pointerOf([]string{"$defs", messengerDef + messenger}), "no known messenger has this typeInstance; want %s", orList(typeInstances, false))
		}
	}
}

// schema finds unknown keywords, and format, in a schema and those within it.
func (l *linter) schema(v any, pointer string) {
	schema, ok := v.(map[string]any)
	if !ok {
		return // true, false, or a fault that the compiler reports
	}
	for _, keyword := range slices.Sorted(maps.Keys(schema)) {
		at := pointer + pointerOf([]string{keyword})
		value := schema[keyword]
		switch {
		case slices.Contains(schemaKeywords, keyword):
			l.schema(value, at)
			l.list(value, at) // items in an older draft
		case slices.Contains(mapKeywords, keyword):
			members, _ := value.(map[string]any)
			for _, name := range slices.Sorted(maps.Keys(members)) {
				l.schema(members[name], at+pointerOf([]string{name}))
			}
		case slices.Contains(listKeywords, keyword):
			l.list(value, at)
		case keyword == "format" && l.latest:
			l.warn(at, "format is a remark in draft 2020-12 and checks nothing; want pattern")
		case slices.Contains(otherKeywords, keyword), strings.HasPrefix(keyword, "x-"), !l.latest && slices.Contains(olderKeywords, keyword):
		default:
			l.unknown(keyword, at)
		}
	}
}

func (l *linter) list(v any, pointer string) {
	branches, _ := v.([]any)
	for i, branch := range branches {
		l.schema(branch, fmt.Sprintf("%s/%d", pointer, i))
	}
}

// unknown warns of a keyword that requires nothing, and suggests the one that may be meant.
func (l *linter) unknown(keyword, pointer string) {
	if len(l.found) > maxWarnings {
		l.warn("", "") // only to be counted
		return
	}
	if slices.Contains(olderKeywords, keyword) {
		l.warn(pointer, "no keyword of draft 2020-12 but of an older one, so it demands nothing; name that in $schema, or write it as the latest")
		return
	}
	known := slices.Concat(schemaKeywords, mapKeywords, listKeywords, otherKeywords)
	nearest := slices.MinFunc(known, func(a, b string) int {
		return cmp.Compare(editDistance(a, keyword), editDistance(b, keyword))
	})
	hint := "; a keyword of your own begins with x-"
	if editDistance(nearest, keyword) <= max(1, len(keyword)/4) {
		hint = "; do you mean " + nearest + "?"
	}
	l.warn(pointer, "no keyword of JSON Schema, so it demands nothing%s", hint)
}

// editDistance returns how many letters must be inserted, deleted or replaced, ignoring case, to turn one
// word into the other.
func editDistance(a, b string) int {
	const longest = 64
	a, b = strings.ToLower(a[:min(len(a), longest)]), strings.ToLower(b[:min(len(b), longest)])
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := before
			if a[i] != b[j] {
				replaced++
			}
			before, row[j+1] = row[j+1], min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
