package notification

import (
	"bytes"
	"embed"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

//go:embed examples/*.json
var exampleFS embed.FS

// messengers are the parts of example file names that follow type and message type.
var messengers = []string{"whatsapp", "max", "telegram", "waba"}

// Example is a body with invented values, in the form in which the vendor sends its kind.
type Example struct {
	Name    string // TYPE[.MESSAGE].MESSENGER[.VARIANT], the file name without .json
	Type    string // typeWebhook
	Message string // messageData.typeMessage; "" when there is none
	Body    []byte // indented JSON
}

// Examples returns an example of every type, every message type and every form on which the vendor's
// sources disagree, sorted by name. The caller may modify the bodies.
func Examples() []Example {
	examples := slices.Clone(allExamples())
	for i := range examples {
		examples[i].Body = slices.Clone(examples[i].Body)
	}
	return examples
}

var allExamples = sync.OnceValue(func() []Example {
	files, err := fs.Glob(exampleFS, "examples/*.json")
	if err != nil {
		panic(err) // only for a malformed pattern
	}
	examples := make([]Example, 0, len(files))
	for _, file := range files {
		body, err := exampleFS.ReadFile(file)
		if err != nil {
			panic(err) // the file is embedded
		}
		e := Example{Name: strings.TrimSuffix(path.Base(file), ".json"), Body: body}
		parts := strings.Split(e.Name, ".")
		e.Type = parts[0]
		if len(parts) > 1 && !slices.Contains(messengers, parts[1]) {
			e.Message = parts[1]
		}
		examples = append(examples, e)
	}
	return examples
})

// Personalize turns an example into a notification of its own, with that instance, that idMessage if it has
// one, and that time. It returns the example unchanged if it is not JSON.
func Personalize(example []byte, instance, id string, now time.Time) []byte {
	decoder := jsontext.NewDecoder(bytes.NewReader(example))
	out := new(bytes.Buffer)
	encoder := jsontext.NewEncoder(out)
	for {
		token, err := decoder.ReadToken()
		if err != nil {
			return bytes.TrimSpace(out.Bytes()) // only at the end: the examples are valid
		}
		where := decoder.StackPointer()
		isName := false
		if kind, length := decoder.StackIndex(decoder.StackDepth()); kind == '{' {
			isName = length%2 == 1
		}
		switch {
		case isName:
		case where == "/idMessage":
			token = jsontext.String(id)
		case where == "/timestamp":
			token = jsontext.Int(now.Unix())
		case where == "/instanceData/idInstance":
			if n, err := strconv.ParseInt(instance, 10, 64); err == nil {
				token = jsontext.Int(n)
			}
		}
		if err := encoder.WriteToken(token); err != nil {
			return example
		}
	}
}
