package notification

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// strictly is jsontext's own verdict on a text: one value, names once, all of it UTF-8.
func strictly(text []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(text))
	if _, err := d.ReadValue(); err != nil {
		return err
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return errors.New("data after the value")
	}
	return nil
}

// leniently is the same with what may be wrong inside strings of values.
func leniently(text []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(text), jsontext.AllowInvalidUTF8(true))
	if _, err := d.ReadValue(); err != nil {
		return err
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return errors.New("data after the value")
	}
	return nil
}

// bounds are the causes for which we refuse what the standard allows.
var bounds = []string{causeDepth, causeLongNumber, causeNumberRange}

// conforms holds our verdict on a text, as the value of a member, against jsontext's.
func conforms(t *testing.T, name string, text []byte) {
	t.Helper()
	body := []byte(with(string(text)))
	_, ours := Parse(body)
	var syntax *SyntaxError
	bounded := errors.As(ours, &syntax) && strings.Contains(strings.Join(bounds, "\n"), syntax.Cause)
	switch strict, lenient := strictly(body), leniently(body); {
	case ours == nil && lenient != nil:
		t.Errorf("%s: accepted, jsontext says %v", name, lenient)
	case ours != nil && strict == nil && !bounded:
		t.Errorf("%s: %v, jsontext accepts it", name, ours)
	case ours != nil && lenient == nil && !bounded && syntax.Cause != causeBadName:
		t.Errorf("%s: %v, wrong is only the inside of strings", name, ours)
	}
	if _, alone := Parse(text); alone == nil {
		t.Errorf("%s: accepted alone, it is no notification", name)
	} else if !errors.As(alone, &syntax) {
		t.Errorf("%s: got error %T", name, alone)
	}
}

// TestConformanceSuite: every case of JSONTestSuite that must be refused is refused as malformed,
// and no other is, but for a bound.
func TestConformanceSuite(t *testing.T) {
	for _, file := range glob(t, suitesFolder+"/json-parsing/test_parsing/*.json") {
		name, text := filepath.Base(file), read(t, file)
		if strings.HasPrefix(name, "n_") {
			for _, body := range [][]byte{text, []byte(with(string(text)))} {
				var syntax *SyntaxError
				if _, err := Parse(body); !errors.As(err, &syntax) {
					t.Errorf("%s: got error %v", name, err)
				}
			}
		}
		conforms(t, name, text)
	}
}

// TestConformance has the same ground, in cases of our own.
func TestConformance(t *testing.T) {
	for _, test := range []struct{ accepted, refused string }{
		{accepted: `0`}, {accepted: `-0`}, {accepted: `-1`}, {accepted: `1.5`}, {accepted: `1E+2`}, {accepted: `1e-2`}, {accepted: `0e5`}, {accepted: `123456789012345678901234567890`},
		{refused: `01`}, {refused: `-01`}, {refused: `+1`}, {refused: `.5`}, {refused: `1.`}, {refused: `1.e5`}, {refused: `1e`}, {refused: `1e+`}, {refused: `-`}, {refused: `--1`}, {refused: `1 2`},
		{refused: `0x1`}, {refused: `1_000`}, {refused: `Infinity`}, {refused: `-Infinity`}, {refused: `NaN`}, {refused: "１"}, {refused: `1e999`}, {refused: `1e-999`}, {refused: `0.` + strings.Repeat("1", 70)},
		{accepted: `""`}, {accepted: `"\u0000"`}, {accepted: `"\ud83d\ude00"`}, {accepted: `"\"\\\/\b\f\n\r\t"`}, {accepted: "\"\x7f\""}, {accepted: "\"\u2028\""}, {accepted: "\"\U0010ffff\""}, {accepted: "\"\ufeff\""},
		{accepted: `"\ud800"`}, {accepted: `"\udc00\ud800"`}, {accepted: `"\ud800\u0041"`}, {accepted: "\"\xff\""}, {accepted: "\"\xc0\xaf\""}, {accepted: "\"\xed\xa0\x80\""}, {accepted: "\"\xf4\xbf\xbf\xbf\""}, // lenient
		{refused: `"\x41"`}, {refused: `"\u12"`}, {refused: `"\u12G4"`}, {refused: `"\U0041"`}, {refused: `"\`}, {refused: `"\"`}, {refused: "\"\n\""}, {refused: "\"\t\""}, {refused: "\"\x00\""}, {refused: "\"\x1f\""}, {refused: `'a'`}, {refused: `a`}, {refused: "“a”"},
		{accepted: `true`}, {accepted: `false`}, {accepted: `null`}, {refused: `True`}, {refused: `nul`}, {refused: `nulll`}, {refused: `undefined`}, {refused: ``},
		{accepted: `[]`}, {accepted: `[1,[2,{}]]`}, {accepted: " [ 1 ,\t2\r\n] "}, {refused: `[1,]`}, {refused: `[,1]`}, {refused: `[1,,2]`}, {refused: `[1`}, {refused: `1]`}, {refused: `[1}`}, {refused: `[1 2]`}, {refused: "[1,\v2]"}, {refused: "[1,\u00a02]"}, {refused: "[\f]"},
		{accepted: `{}`}, {accepted: `{"":1}`}, {accepted: `{"a":{"a":1}}`}, {accepted: `{"a":1,"A":2}`}, {accepted: `{"\u0061":1}`}, {accepted: "{\"\u00e9\":1,\"e\u0301\":2}"}, {accepted: `{"__proto__":{}}`},
		{refused: `{"a":1,"a":2}`}, {refused: `{"a":1,"\u0061":2}`}, {refused: `{"a":1,"b":[{"c":1,"c":1}]}`}, {refused: "{\"\xff\":1}"}, {refused: `{"\ud800":1}`}, {refused: "{\"\xff\":1,\"\xfe\":2}"},
		{refused: `{"a"}`}, {refused: `{"a":}`}, {refused: `{:1}`}, {refused: `{"a":1,}`}, {refused: `{,}`}, {refused: `{a:1}`}, {refused: `{1:1}`}, {refused: `{"a" 1}`}, {refused: `{"a"::1}`}, {refused: `{"a":1`}, {refused: `{"a":1]`}, {refused: `{"a":1;"b":2}`}, {refused: `{null:1}`},
		{refused: `[1]//x`}, {refused: `/**/1`}, {refused: `#1`}, {refused: "\ufeff1"}, {refused: "1\x00"}, {refused: "\x1a"}, {refused: `1}`}, {refused: `1},{`}, {refused: strings.Repeat("[", 100_000)}, {refused: strings.Repeat("[", 100) + strings.Repeat("]", 100)}, {refused: strings.Repeat(`{"a":`, 50_000)},
	} {
		text := test.accepted + test.refused
		if _, err := Parse([]byte(with(text))); (err == nil) != (test.accepted != "") {
			t.Errorf("%.60q: got error %v", text, err)
		}
		conforms(t, text, []byte(text))
	}
}
