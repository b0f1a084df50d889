package api

import (
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/quarantine"
)

func TestMarks(t *testing.T) {
	for name, test := range map[string]struct {
		body, pointer string
		want          string // the bytes of the mark; "" if there is none
		missing       bool
	}{
		"a member":           {`{"a": {"b" : 5 }}`, "/a/b", `5`, false},
		"an element":         {`{"a": [1, "two", 3]}`, "/a/1", `"two"`, false},
		"an object":          {` {"a": {"b": 5}} `, "/a", `{"b": 5}`, false},
		"all":                {` {"a": 1} `, "", `{"a": 1}`, false},
		"one that misses":    {`{"a": {"c": 5}, "b": 1}`, "/a/b", `{"c": 5}`, true},
		"missing at the top": {`{"a": 1}`, "/b/c", `{"a": 1}`, true},
		"beside it":          {`{"a": {"x": 1}, "c": {"b": 2}}`, "/a/b", `{"x": 1}`, true},
		"deeper of the name": {`{"x": {"a": 1}, "a": 2}`, "/a", `2`, false},
		"an escaped name":    {`{"a/b": {"c~d": "\u0041"}}`, "/a~1b/c~0d", `"\u0041"`, false},
		"a name in escapes":  {`{"\u0061": true}`, "/a", `true`, false},
		"a name twice":       {`{"a": 1, "a": 2}`, "/a", `2`, false},
		"an empty name":      {`{"": {"": null}}`, "//", `null`, false},
		"a name as a value":  {`{"b": "a", "a": 1}`, "/a", `1`, false},
		"broken behind it":   {`{"a": [1, 2}`, "/a/1", `2`, false},
		"broken before it":   {`{"b": [1, 2}, "a": 1}`, "/a", ``, false},
		"not UTF-8":          {"{\"a\": \"\xff\"}", "/a", "\"\xff\"", false},
		"nothing":            {``, "/a", ``, false},
		"two values":         {`{"a": 1} {"a": 2}`, "/a", `1`, false},
		"a hundred deep":     {strings.Repeat(`{"a":`, 100) + "7" + strings.Repeat("}", 100), strings.Repeat("/a", 100), "7", false},
	} {
		t.Run(name, func(t *testing.T) {
			marks := Marks(quarantine.Entry{Body: []byte(test.body), Faults: []quarantine.Fault{{Pointer: test.pointer, Keyword: "type"}}})
			if test.want == "" {
				if len(marks) > 0 {
					t.Errorf("got %+v, want none", marks)
				}
				return
			}
			if len(marks) != 1 {
				t.Fatalf("got %+v, want one", marks)
			}
			m := marks[0]
			if got := test.body[m.Start:m.End]; got != test.want || m.Missing != test.missing || m.Pointer != test.pointer || m.Keyword != "type" {
				t.Errorf("%+v is %q, want %q, missing %t", m, got, test.want, test.missing)
			}
		})
	}
}

func TestMarkOfMalformed(t *testing.T) {
	marks := Marks(quarantine.Entry{Body: []byte(`{"a": 05}`), Offset: 6, Cause: "leading zero"})
	if len(marks) != 1 || marks[0] != (Mark{Cause: "leading zero", Start: 6, End: 7}) {
		t.Errorf("%+v", marks)
	}
	if marks := Marks(quarantine.Entry{Body: []byte(`{"a"`), Offset: 4, Cause: "ends early"}); len(marks) != 1 || marks[0].Start != 4 || marks[0].End != 4 {
		t.Errorf("at the end: %+v", marks)
	}
	if marks := Marks(quarantine.Entry{Body: []byte("\x1f\x8b"), Header: map[string][]string{"Content-Encoding": {"gzip"}}, Faults: []quarantine.Fault{{Pointer: "/a"}}}); len(marks) != 0 {
		t.Errorf("of an encoded one: %+v", marks)
	}
}

// FuzzMarks: a mark is within the body, whatever the body is.
func FuzzMarks(f *testing.F) {
	f.Add(`{"a": [1, {"b": 2}]}`, "/a/1/b")
	f.Add(`[[[`, "/0/0/0")
	f.Add("{\"\xff\":}", "/~2")
	f.Fuzz(func(t *testing.T, body, pointer string) {
		for _, m := range Marks(quarantine.Entry{Body: []byte(body), Faults: []quarantine.Fault{{Pointer: pointer}}}) {
			if m.Start < 0 || m.End < m.Start || m.End > len(body) || body[m.Start:m.End] == "" {
				t.Errorf("%+v of %q", m, body)
			}
		}
	})
}
