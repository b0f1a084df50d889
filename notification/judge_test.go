package notification

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestFaultsOfLongBodies holds what is found in bodies that are too long for the pass against what the
// library finds in them.
func TestFaultsOfLongBodies(t *testing.T) {
	t.Parallel()
	s := load(t, folder(t, map[string]string{
		"list.json": `{"properties":{"integers":{"items":{"type":"integer"}},"texts":{"items":{"minLength":3}},"choice":{"anyOf":[{"items":{"type":"string"}},{"items":{"type":"integer"}},{"required":["a"]}]},` +
			`"known":{"items":{"properties":{"kind":{"enum":["a","b"]},"more":{"type":"array","items":{"type":"array","items":{"type":"null"}}}},"required":["kind"]}}}}`,
	}))
	long := func(value string) string { return strings.Repeat(value+",", maxTokens) }
	list := func(members string) string {
		return `{"typeWebhook":"list","instanceData":{"idInstance":1},` + members + "}"
	}
	for name, body := range map[string]string{
		"whole fractions":                list(`"integers":[` + long("1.0") + "10e-1]"),
		"one that is not":                list(`"integers":[` + long("1.0") + "1.5]"),
		"the first and the last":         list(`"integers":[null,` + long("1") + `""]`),
		"short texts":                    list(`"texts":[` + long(`"abc"`) + `"\ud83d\ude00\u00e9","\u00e9\u00e9\u00e9",5,""]`),
		"a choice":                       list(`"choice":[` + long("5") + "5]"),
		"no choice":                      list(`"choice":[` + long("5") + `"a"]`),
		"a list within":                  list(`"known":[{"kind":"a","more":[[` + long("null") + `5],[5],[null],5]},{"kind":"b"},{"kind":"b","more":[[],[null,5]]},{"kind":"c","more":[[]]},{}]`),
		"behind what nobody knows":       list(`"x":[` + long("null") + `{}],"integers":["a"]`),
		"elements that nobody knows":     list(`"x":{"integers":[` + long("5") + `{}]},"integers":[5]`),
		"contacts":                       contacts + long("null") + `{"displayName":5},{"vcard":"","displayName":null},7]}}`,
		"names with escapes":             contacts + long("null") + `{"display\u004eame":5},{"displayName\u0000":5}]}}`,
		"voters":                         poll + long(`{"optionVoters":["a"]}`) + `{"optionVoters":["a",5,"b",null,[]]},{"optionName":5},{"optionVoters":[]}]}}}`,
		"message type behind the values": `{"x":[` + long("1") + `1],` + contacts[1:] + `5,{},{"displayName":5}]}}`,
	} {
		n, err := s.Parse([]byte(body))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n.met {
			t.Errorf("%s: accepted by the pass, which has not seen it all", name)
		}
		want, cut := libraryFaults(t, s, n)
		if got, more := s.Faults(n); cut || more || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v (more: %v), want %v", name, got, more, want)
		}
		apart, err := Parse([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		apart.checked, apart.met = n.checked, n.met
		if !reflect.DeepEqual(apart, n) {
			t.Errorf("%s: got %+v, parsed apart %+v", name, n, apart)
		}
	}
}

// TestManyFaults: a list that may not be complete says so, and no fault is passed over for others.
func TestManyFaults(t *testing.T) {
	members := func(value string) string {
		var all []string
		for i := range 100 {
			all = append(all, fmt.Sprintf(`"k%d":%s`, i, value))
		}
		return strings.Join(all, ",")
	}
	s := load(t, folder(t, map[string]string{
		"list.json": `{"properties":{"a":{"items":{"items":{"type":"null"}}},"b":{"items":{"type":"null"}},"d":{"type":"null","items":{"type":"null"}},"c":{"items":{"properties":{` + members(`{"type":"null"}`) + `}}}}}`,
	}))
	list := func(members string) string {
		return `{"typeWebhook":"list","instanceData":{"idInstance":1},` + members + "}"
	}
	many := func(n int, value string) string { return strings.TrimSuffix(strings.Repeat(value+",", n), ",") }
	for name, tt := range map[string]struct {
		body string
		want int
		more bool
		has  string
	}{
		"few":               {list(`"b":[` + many(99, "5") + "]"), 99, false, "/b/98"},
		"too many":          {list(`"b":[` + many(101, "5") + "]"), 100, true, "/b/99"},
		"others":            {list(`"b":[` + many(101, "5") + `],"a":[[5]]`), 100, true, "/a/0/0"},
		"far more":          {list(`"b":[` + many(50_000, "5") + "]"), 100, true, "/b/0"},
		"behind good ones":  {list(`"b":[` + many(50_000, "null") + ",5]"), 1, false, "/b/50000"},
		"none of them":      {list(`"d":[` + many(200, "5") + "]"), 1, false, "/d"},
		"lists of many":     {list(`"a":[` + many(1000, "["+many(100, "5")+"]") + "]"), 100, true, "/a/0/0"},
		"much that is good": {list(`"a":[` + many(90, "["+many(99, "null")+",5]") + `],"b":[5,5]`), 92, false, "/b/1"},
		"no room for more":  {list(`"a":[` + many(90, "["+many(99, "5")+",null]") + `],"b":[5,5]`), 100, true, "/a/0/0"},
		"room for one":      {list(`"c":[` + many(90, "{"+strings.Replace(members("null"), "k9\":null", "k9\":5", 1)+"}") + `],"b":[5,5],"a":[[null],[5,5],[5]]`), 52, true, "/a/1/0"},
	} {
		n, err := Parse([]byte(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		faults, more := s.Faults(n)
		if len(faults) != tt.want || more != tt.more || !strings.Contains(fmt.Sprint(faults), "{"+tt.has+" type want null") {
			t.Errorf("%s: got %d faults, more: %v, %v", name, len(faults), more, faults)
		}
	}
}

// TestAskedTooMuch: the library is not asked about any part of a body that is too large, and the body
// then does not pass.
func TestAskedTooMuch(t *testing.T) {
	s := load(t, folder(t, map[string]string{
		"part.json":  `{"properties":{"x":{"items":{"maxLength":3}}}}`,
		"whole.json": `{"minProperties":1}`,
		"round.json": `{"properties":{"x":{"$ref":"#/$defs/r"}},"$defs":{"r":{"properties":{"r":{"$ref":"#/$defs/r"},"a":{"type":"null"}}}}}`,
	}))
	tooMuch := []Fault{{"", "schema", causeTooMuch}}
	texts := func(n int, value string) string {
		return `"x":[` + strings.TrimSuffix(strings.Repeat(value+",", n), ",") + "]"
	}
	for name, tt := range map[string]struct {
		typ, body string
		want      []Fault
	}{
		"as much as may be":   {"part", texts(maxAsked, `"abc"`), nil},
		"one more":            {"part", texts(maxAsked+1, `"abc"`), tooMuch},
		"one that is wrong":   {"part", texts(maxAsked-1, `"abc"`) + `,"y":0`, nil},
		"elsewhere":           {"part", `"x":["a"],"y":{` + texts(2*maxAsked, `"abc"`) + "}", nil},
		"wrong":               {"part", `"x":["a","abcd"],"y":{` + texts(2*maxAsked, `"abc"`) + "}", []Fault{{"/x/1", "maxLength", "too long"}}},
		"all of it":           {"whole", texts(maxAsked-9, "0"), nil},
		"more than all of it": {"whole", texts(maxAsked-8, "0"), tooMuch},
		"bytes":               {"whole", `"x":"` + strings.Repeat("a", maxAskedBytes) + `"`, tooMuch},
		"bytes elsewhere":     {"part", `"x":["a"],"y":"` + strings.Repeat("a", maxAskedBytes) + `"`, nil},
		"it leads to itself":  {"round", `"x":{"r":{"r":{"a":5}}}`, []Fault{{"/x/r/r/a", "type", "want null, got number"}}},
		"as it should":        {"round", `"x":{"r":{"r":{"a":null}}}`, nil},
	} {
		n, err := Parse([]byte(`{"typeWebhook":"` + tt.typ + `","instanceData":{"idInstance":1},` + tt.body + "}"))
		if err != nil {
			t.Fatal(err)
		}
		if got, more := s.Faults(n); !reflect.DeepEqual(got, tt.want) || more != reflect.DeepEqual(got, tooMuch) {
			t.Errorf("%s: got %v, more: %v", name, got, more)
		}
	}
}

// TestDynamic: what a reference means that depends on the way to it, only the library can say, of the
// whole body.
func TestDynamic(t *testing.T) {
	for _, tt := range []struct {
		schema string
		whole  bool
	}{
		{`{"properties":{"a":{"enum":[1]}}}`, false},
		{`{"properties":{"a":{"$dynamicRef":"#x"}},"$defs":{"x":{"$dynamicAnchor":"x","type":"null"}}}`, true},
		{`{"properties":{"a":{"patternProperties":{"b":{"prefixItems":[{"$dynamicRef":"#x"}]}}}},"$defs":{"x":{"$dynamicAnchor":"x"}}}`, true},
		{`{"properties":{"a":{"additionalProperties":{"$ref":"https://json-schema.org/draft/2020-12/schema"}}}}`, true},
		{`{"properties":{"a":{"$ref":"https://json-schema.org/draft/2019-09/schema"}}}`, true},
	} {
		s := load(t, folder(t, map[string]string{"own.json": tt.schema}))
		if n := s.nodes[s.types["own"]]; (n.left != nil) != tt.whole || !n.asks {
			t.Errorf("%s: got %+v", tt.schema, n)
		}
	}
}

// TestTurns: two bodies are judged at a time, and one with very many names is read; others wait.
func TestTurns(t *testing.T) {
	s := load(t, "")
	n, err := Parse([]byte(strings.Replace(textMessage, "1767225600", "null", 1)))
	if err != nil {
		t.Fatal(err)
	}
	names := full(mebibyte, valid, func(i int) string { return fmt.Sprintf(`,"%x":0`, i) }, "}")
	for name, tt := range map[string]struct {
		turns chan struct{}
		run   func() bool
	}{
		"judged": {judging, func() bool { return len(s.Validate(n)) == 1 }},
		"read":   {manyNames, func() bool { _, err := Parse(names); return err == nil }},
	} {
		for range cap(tt.turns) {
			tt.turns <- struct{}{}
		}
		done := make(chan bool)
		go func() { done <- tt.run() }()
		select {
		case <-done:
			t.Errorf("%s out of turn", name)
			continue
		case <-time.After(50 * time.Millisecond): // one that is not held up is faster, mostly
		}
		<-tt.turns
		if !<-done {
			t.Errorf("%s otherwise than in a turn of its own", name)
		}
		for range cap(tt.turns) - 1 {
			<-tt.turns
		}
		if len(tt.turns) != 0 {
			t.Errorf("%s: a turn does not end", name)
		}
	}
}

// TestLongNames: a name that only the body has may be long, and each fault within it leads through it.
func TestLongNames(t *testing.T) {
	s := load(t, folder(t, map[string]string{
		"own.json": `{"properties":{"x":{"additionalProperties":{"additionalProperties":{"type":"null"}}}}}`,
	}))
	long := strings.Repeat("é", maxAskedBytes/8)
	body := full(maxAskedBytes/2, `{"typeWebhook":"own","instanceData":{"idInstance":1},"x":{"`+long+`":{"y":0`, func(i int) string {
		if i > maxAsked/3 {
			return strings.Repeat(" ", 1000)
		}
		return fmt.Sprintf(`,"%d":5`, i)
	}, "}}}")
	n, err := s.Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	var faults []Fault
	used := measure(func() { faults = s.Validate(n) })
	if want := (Fault{"/x/*/*", "type", "want null, got number"}); len(faults) != 1 || faults[0] != want {
		t.Errorf("got %d faults, %.200v", len(faults), faults)
	}
	if used.allocated > 16*mebibyte {
		t.Errorf("allocates %d MiB", used.allocated/mebibyte)
	}
}
