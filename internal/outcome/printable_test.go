package outcome

import (
	"encoding/json"
	"strings"
	"testing"
)

// steering are runes that a terminal obeys, beside control characters of ASCII.
const steering = "\u007f\u009b\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

func TestPrintable(t *testing.T) {
	for _, r := range steering + "\x00\x07\n\r\t\x1b" {
		if got := Printable("a" + string(r) + "z"); got != "a?z" {
			t.Errorf("%U: %q", r, got)
		}
		var back string
		quoted, _ := json.Marshal("a" + string(r) + "z")
		escaped := PrintableJSON(quoted)
		if err := json.Unmarshal(escaped, &back); err != nil || back != "a"+string(r)+"z" || strings.ContainsAny(string(escaped), steering) {
			t.Errorf("%U: as JSON %s, which is %q, %v", r, escaped, back, err)
		}
	}
	const plain = "Ünïcode, עברית, 日本語, 👨\u200d👩\u200d👧" // with the joiners of a family
	if Printable(plain) != plain || string(PrintableJSON([]byte(plain))) != plain {
		t.Errorf("%q is changed", plain)
	}
	if got := PrintableLines("a\n\u202eb\n"); got != "a\n?b\n" {
		t.Errorf("lines: %q", got)
	}
	if got := Printable("a\x9bz"); strings.Contains(got, "\x9b") { // no UTF-8
		t.Errorf("a byte: %q", got)
	}
}
