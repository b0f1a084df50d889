package notification

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// schemaURL is the base of the schemas' URLs: a $ref to common.json#/$defs/… resolves against it. It is
// never fetched.
const schemaURL = "green-api:///schemas/"

// maxSchemaBytes is the largest schema file to read; the built-in ones are below 10 KiB.
const maxSchemaBytes = 256 << 10

// noLoader refuses any $ref to outside the set: a check must not depend on the network, nor read files that
// nobody named.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	if name, ok := strings.CutPrefix(url, schemaURL); ok {
		return nil, fmt.Errorf("$ref to %q, which is not there", name)
	}
	return nil, fmt.Errorf("$ref to %q, but only schema files beside this one are read", url)
}

// LoadSchemas compiles the built-in schemas together with the files in dir ("" for none). A file with the
// name of a built-in one replaces it; X.json adds the type X, and messageData.X.json the message type X.
// Hidden files and READMEs are skipped. For any other file, and for one that cannot be read or compiled,
// the error names it.
func LoadSchemas(dir string) (*Schemas, error) {
	if dir == "" {
		return compileBuiltin()
	}
	docs, err := builtinDocs()
	if err != nil {
		return nil, err
	}
	if err := readDir(dir, docs); err != nil {
		return nil, err
	}
	s, err := compile(docs)
	if err == nil {
		s.warnings = lint(docs)
	}
	return s, err
}

// compileBuiltin compiles the built-in schemas once. They never change, so all configs share them.
var compileBuiltin = sync.OnceValues(func() (*Schemas, error) {
	docs, err := builtinDocs()
	if err != nil {
		return nil, err
	}
	return compile(docs)
})

// builtinDocs returns the built-in schemas, by file.
func builtinDocs() (map[string]schemaDoc, error) {
	docs := make(map[string]schemaDoc)
	builtin := SchemaFiles()
	entries, err := fs.ReadDir(builtin, ".")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		text, err := fs.ReadFile(builtin, entry.Name())
		if err != nil {
			return nil, err
		}
		doc, err := parseValue(text, nil)
		if err != nil {
			return nil, fmt.Errorf("schema %s: %w", entry.Name(), err)
		}
		docs[entry.Name()] = schemaDoc{file: entry.Name() + " (built in)", builtin: true, doc: doc}
	}
	return docs, nil
}

// readDir adds the schemas in a directory to docs.
func readDir(dir string, docs map[string]schemaDoc) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") || strings.HasPrefix(strings.ToUpper(name), "README") {
			continue
		}
		file := filepath.Join(dir, name)
		if !isSchemaName(name) {
			return fmt.Errorf("%s is no schema; want %s, TYPE.json or %sMESSAGE.json (letters, digits, - and _)",
				file, commonFile, messagePrefix)
		}
		text, err := readSchema(file)
		if err != nil {
			return fmt.Errorf("schema %s: %w", file, err)
		}
		doc, err := parseValue(text, nil)
		if err != nil {
			return fmt.Errorf("schema %s: %w", file, err)
		}
		docs[name] = schemaDoc{file: file, doc: doc}
	}
	return nil
}

// isSchemaName accepts TYPE.json and messageData.MESSAGE.json.
func isSchemaName(name string) bool {
	what, ok := strings.CutSuffix(name, ".json")
	if !ok || what+"." == messagePrefix {
		return false
	}
	what = strings.TrimPrefix(what, messagePrefix)
	for _, c := range what {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return what != ""
}

// readSchema reads a regular file. A pipe would make the load wait.
func readSchema(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if info.Size() > maxSchemaBytes {
		return nil, fmt.Errorf("longer than %d bytes", maxSchemaBytes)
	}
	text, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err == nil && (bytes.HasPrefix(text, []byte("\xef\xbb\xbf")) || bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff"))) {
		return nil, errors.New("it begins with a byte-order mark; want UTF-8 without one")
	}
	return text, err
}
