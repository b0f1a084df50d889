package traps

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// TestTrapJSON takes texts that parsers are at odds about through the edge, alone and as a member of
// a notification: what is no JSON is kept, and no handler sees anything of it; what is goes through,
// byte for byte. JSONTestSuite adds to ours when its folder is there.
func TestTrapJSON(t *testing.T) {
	broken := map[string]string{
		"nothing": "", "space": " ", "a BOM": "\ufeff{}", "a comma too many": `[1,]`, "a comma too few": `[1 2]`, "single quotes": `{'a':1}`,
		"no quotes": `{a:1}`, "a comment": `{"a":1/**/}`, "not a number": `[NaN]`, "hexadecimal": `[0x1]`, "leading zero": `[01]`, "plus": `[+1]`,
		"no fraction": `[1.]`, "no exponent": `[1e]`, "a tab in a string": "[\"\t\"]", "an unknown escape": `["\x41"]`, "half an escape": `["\u00"]`,
		"open": `[[[[`, "closed twice": `[]]`, "the wrong end": `[1}`, "after the end": `{} {}`, "a NUL": "[\x00]", "capitals": `[True]`, "cut": `["a`,
	}
	whole := map[string]string{
		"empty object": `{}`, "empty array": `[]`, "deep": strings.Repeat("[", 50) + strings.Repeat("]", 50), "spaces": " [ 1 ,\r\n\t2 ] ",
		"escapes": `["\"\\\/\b\f\n\r\t\u0041"]`, "a surrogate pair": `["\ud83d\ude00"]`, "numbers": `[-0,0.5,1e5,1E-5,123456789012345678901]`, "null": `null`,
	}
	files, err := filepath.Glob("../shared/suites/json-parsing/test_parsing/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		switch name := filepath.Base(file); name[:2] {
		case "n_":
			broken[name] = string(text)
		case "y_":
			whole[name] = string(text)
		}
	}

	up := edgetest.NewWitness(t)
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	member := func(text string) string {
		return edgetest.TextMessage[:len(edgetest.TextMessage)-1] + `,"x":` + text + `}`
	}
	// JSON allows these, but two parsers may see two values in them.
	for _, name := range []string{"y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json", "y_number_double_close_to_zero.json"} {
		if text, there := whole[name]; there {
			broken[name] = text
			delete(whole, name)
		}
	}
	sent, kept := make(map[string]bool), 0
	for name, text := range broken {
		for _, body := range []string{text, member(text)} {
			if status := e.Post(body); status != 200 {
				t.Errorf("%s: status %d", name, status)
			}
			if got := e.Record(); got.Text("outcome") != "quarantined" || got.Text("reason") != reason.Malformed {
				t.Errorf("%s: %s, %s", name, got.Text("outcome"), got.Text("reason"))
			}
			sent[body] = true
			kept++
		}
	}
	if seen := up.Seen(); seen > 0 {
		t.Errorf("the handlers saw %d connections and requests", seen)
	}
	for name, text := range whole {
		if e.Post(member(text)); e.Record().Text("outcome") != "delivered" {
			t.Errorf("%s: %s", name, e.Record().Text("reason"))
		} else if got := up.Requests(); got[len(got)-1].Body != member(text) {
			t.Errorf("%s: the handler got %q", name, got[len(got)-1].Body)
		}
	}
	e.Kept() // ends the edge
	entries := edgetest.ReadQuarantineWhole(t, e.Dir)
	for _, entry := range entries {
		delete(sent, string(entry.Body))
	}
	if len(entries) != kept || len(sent) > 0 {
		t.Errorf("%d entries of %d, without %q", len(entries), kept, slices.Collect(maps.Keys(sent)))
	}
	t.Logf("%d broken, %d whole", len(broken), len(whole))
}
