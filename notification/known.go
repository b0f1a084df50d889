package notification

// namesKnown returns the member names that schema files mention.
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

// addTexts adds the strings in a list.
func addTexts(list any, known map[string]bool) {
	names, _ := list.([]any)
	for _, name := range names {
		if name, ok := name.(string); ok {
			known[name] = true
		}
	}
}
