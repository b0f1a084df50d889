package notification

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"slices"
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
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
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
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
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
	for _, row := range []struct{ accepted, refused []string }{
		{accepted: []string{`0`, `-0`, `-1`, `1.5`, `1E+2`, `1e-2`, `0e5`, `123456789012345678901234567890`}},
		{refused: []string{`01`, `-01`, `+1`, `.5`, `1.`, `1.e5`, `1e`, `1e+`, `-`, `--1`, `1 2`}},
		{refused: []string{`0x1`, `1_000`, `Infinity`, `-Infinity`, `NaN`, "１", `1e999`, `1e-999`, `0.` + strings.Repeat("1", 70)}},
		{accepted: []string{`""`, `"\u0000"`, `"\ud83d\ude00"`, `"\"\\\/\b\f\n\r\t"`, "\"\x7f\"", "\"\u2028\"", "\"\U0010ffff\"", "\"\ufeff\""}},
		{accepted: []string{`"\ud800"`, `"\udc00\ud800"`, `"\ud800\u0041"`, "\"\xff\"", "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", "\"\xf4\xbf\xbf\xbf\""}}, // lenient
		{refused: []string{`"\x41"`, `"\u12"`, `"\u12G4"`, `"\U0041"`, `"\`, `"\"`, "\"\n\"", "\"\t\"", "\"\x00\"", "\"\x1f\"", `'a'`, `a`, "“a”"}},
		{accepted: []string{`true`, `false`, `null`}, refused: []string{`True`, `nul`, `nulll`, `undefined`, ``}},
		{accepted: []string{`[]`, `[1,[2,{}]]`, " [ 1 ,\t2\r\n] "}, refused: []string{`[1,]`, `[,1]`, `[1,,2]`, `[1`, `1]`, `[1}`, `[1 2]`, "[1,\v2]", "[1,\u00a02]", "[\f]"}},
		{accepted: []string{`{}`, `{"":1}`, `{"a":{"a":1}}`, `{"a":1,"A":2}`, `{"\u0061":1}`, "{\"\u00e9\":1,\"e\u0301\":2}", `{"__proto__":{}}`}},
		{refused: []string{`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a":1,"b":[{"c":1,"c":1}]}`, "{\"\xff\":1}", `{"\ud800":1}`, "{\"\xff\":1,\"\xfe\":2}"}},
		{refused: []string{`{"a"}`, `{"a":}`, `{:1}`, `{"a":1,}`, `{,}`, `{a:1}`, `{1:1}`, `{"a" 1}`, `{"a"::1}`, `{"a":1`, `{"a":1]`, `{"a":1;"b":2}`, `{null:1}`}},
		{refused: []string{`[1]//x`, `/**/1`, `#1`, "\ufeff1", "1\x00", "\x1a", `1}`, `1},{`, strings.Repeat("[", 100_000), strings.Repeat("[", 100) + strings.Repeat("]", 100), strings.Repeat(`{"a":`, 50_000)}},
	} {
		for i, text := range slices.Concat(row.accepted, row.refused) {
			if _, err := Parse([]byte(with(text))); (err == nil) != (i < len(row.accepted)) {
				t.Errorf("%.60q: got error %v", text, err)
			}
			conforms(t, text, []byte(text))
		}
	}
}
