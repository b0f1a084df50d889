package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// TestMask: what is left of a chat's ID.
func TestMask(t *testing.T) {
	for chat, want := range map[string]string{
		"":                                  "",
		"79001234567@c.us":                  "7900•••4567@c.us",
		"79001234567":                       "7900•••4567",
		"972501234567@c.us":                 "9725•••4567@c.us",
		"7900123456@c.us":                   "79•••56@c.us",
		"790012@c.us":                       "•••@c.us",
		"0@c.us":                            "•••@c.us",
		"79001234567-1581234567@g.us":       "7900•••4567-15•••67@g.us",
		"120363043968066561@g.us":           "1203•••6561@g.us",
		"123456789012345@lid":               "1234•••2345@lid",
		"status@broadcast":                  "•••@broadcast",
		"-10012345678901":                   "-1001•••8901",
		"10000000":                          "10•••00",
		"+79001234567@c.us":                 "•••@c.us",
		"7 900 123 45 67@c.us":              "•••@c.us",
		"79001234567@79001234567":           "•••",
		"79001234567@c.us@79001234567":      "•••",
		"@c.us":                             "•••@c.us",
		"@":                                 "•••",
		"-":                                 "•••",
		"--79001234567":                     "•••",
		"1-2-3":                             "•••",
		"٧٩٠٠١٢٣٤٥٦٧@c.us":                  "•••@c.us",
		"Анна":                              "•••",
		"79001234567\n@c.us":                "•••@c.us",
		strings.Repeat("7", 1000) + "@c.us": "7777•••7777@c.us",
	} {
		if got := mask(chat); got != want {
			t.Errorf("%q: %q, want %q", chat, got, want)
		}
	}
}

// TestMaskText: numbers of phones in what handlers say.
func TestMaskText(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "",
		"boom":                  "boom",
		"no user 79001234567":   "no user 7900•••4567",
		`{"to":"79001234567"}`:  `{"to":"7900•••4567"}`,
		"790012345@c.us is new": "79•••45@c.us is new",
		"1@c.us, +972501234567: 79001234567@lid.": "•••@c.us, +9725•••4567: 7900•••4567@lid.",
		"to 6591234567 (Singapore)":               "to 65•••67 (Singapore)",
		"+7 (900) 123-45-67":                      "+7900•••4567",
		"+7 900 123.45.67 has left":               "+7900•••4567 has left",
		"6591234567%40c.us, 6591@C.US":            "65•••67%40c.us, •••@C.US",
		"no chat 790012…":                         "no chat •••…",
		"dial tcp 127.0.0.1:8080 after 30000 ms":  "dial tcp 127.0.0.1:8080 after 30000 ms",
		"10.255.255.253 said 500, 12345678":       "10.255.255.253 said 500, 12345678",
		"120363043968066561":                      "1203•••6561",
		"нет 79001234567, 42":                     "нет 7900•••4567, 42",
	} {
		if got := maskText(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// FuzzMask: no more than four digits in a row are left, and nothing that is no digit but the form.
func FuzzMask(f *testing.F) {
	for _, chat := range []string{"", "79001234567@c.us", "79001234567-1581234567@g.us", "-100", "a@b", "@", "7@lid@c.us"} {
		f.Add(chat)
	}
	f.Fuzz(func(t *testing.T, chat string) {
		got := mask(chat)
		if (got == "") != (chat == "") || !utf8.ValidString(got) || len(got) > 60 {
			t.Fatalf("%q: %q", chat, got)
		}
		row := 0
		for _, r := range got {
			if row++; !unicode.IsDigit(r) {
				row = 0
			}
			if row > 4 {
				t.Fatalf("%q: %q", chat, got)
			}
		}
		local, _, _ := strings.Cut(got, "@")
		if strings.Trim(strings.ReplaceAll(local, hidden, ""), "-0123456789") != "" {
			t.Fatalf("%q: %q", chat, got)
		}
		if had, left := digits(chat), digits(got); had > 0 && left >= had {
			t.Fatalf("%q: %q", chat, got)
		}

		// Wherever it stands in an answer, it is masked.
		quoted, err := json.Marshal(map[string]any{"entries": []any{map[string]any{"chat": chat, "body": "SECRET", "id": "1"}}})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := newCleaner(&out, bytes.NewReader(quoted), false).next(); err != nil {
			t.Fatal(err)
		}
		var clean struct{ Entries []map[string]string }
		if err := json.Unmarshal(out.Bytes(), &clean); err != nil || len(clean.Entries) != 1 || len(clean.Entries[0]) != 2 {
			t.Fatalf("%v: %s", err, out.Bytes())
		}
		if valid := strings.ToValidUTF8(chat, "\ufffd"); valid == chat && clean.Entries[0]["chat"] != got {
			t.Fatalf("%q: %q", chat, clean.Entries[0]["chat"])
		}
	})
}

func digits(text string) (n int) {
	for _, r := range text {
		if unicode.IsDigit(r) {
			n++
		}
	}
	return n
}

// TestCleaner: what is copied is what was there, but for chats and bodies.
func TestCleaner(t *testing.T) {
	for _, test := range []struct{ in, masked, shown string }{
		{`{"a":1}`, "{\"a\":1}\n", ""},
		{`{"n":12345678901234567890.10e2,"s":"\u202e\u003cb>","e":[],"o":{},"l":[true,false,null]}`, `{"n":12345678901234567890.10e2,"s":"\u202e\u003cb>","e":[],"o":{},"l":[true,false,null]}` + "\n", ""},
		{`{"chat":"79001234567@c.us","x":{"chat":"79001234567@c.us"}}`, `{"chat":"7900•••4567@c.us","x":{"chat":"7900•••4567@c.us"}}` + "\n", `{"chat":"79001234567@c.us","x":{"chat":"79001234567@c.us"}}` + "\n"},
		{`{"\u0063hat":"\u00379001234567@c.us"}`, `{"\u0063hat":"7900•••4567@c.us"}` + "\n", `{"\u0063hat":"\u00379001234567@c.us"}` + "\n"},
		{`{"chat":79001234567}`, `{"chat":"•••"}` + "\n", `{"chat":79001234567}` + "\n"},
		{`{"chat":null,"chats":["79001234567"]}`, `{"chat":null,"chats":["79001234567"]}` + "\n", ""},
		{`{"chat":["79001234567"],"a":1}`, `{"chat":"•••","a":1}` + "\n", `{"chat":["79001234567"],"a":1}` + "\n"},
		{`{"x":"chat","y":"79001234567"}`, `{"x":"chat","y":"79001234567"}` + "\n", ""},
		{`["chat","79001234567"]`, `["chat","79001234567"]` + "\n", ""},
		{`{"body":"x","a":1,"body_base64":"eA==","chat":"1","body":{"b":[1]}}`, `{"a":1,"chat":"•••"}` + "\n", `{"a":1,"chat":"1"}` + "\n"},
		{`{"b":{"body":"x"}} {"c":1}` + "\n" + `"s"`, "{\"b\":{}}\n{\"c\":1}\n\"s\"\n", ""},
		{`{"chat":"1","chat":"79001234567@c.us"}`, `{"chat":"•••","chat":"7900•••4567@c.us"}` + "\n", `{"chat":"1","chat":"79001234567@c.us"}` + "\n"},
		{
			`{"said":"no \u00379001234567","text":["79001234567"],"error":{"chat":"79001234567"},"status":79001234567}`,
			`{"said":"no 7900•••4567","text":["79001234567"],"error":{"chat":"7900•••4567"},"status":79001234567}` + "\n",
			`{"said":"no \u00379001234567","text":["79001234567"],"error":{"chat":"79001234567"},"status":79001234567}` + "\n",
		},
		{`{"alerts":[{"text":"1101000001 stands still"}],"standing":[{"said":"404 no 7900123456"}]}`, `{"alerts":[{"text":"1101000001 stands still"}],"standing":[{"said":"404 no 79•••56"}]}` + "\n", `{"alerts":[{"text":"1101000001 stands still"}],"standing":[{"said":"404 no 7900123456"}]}` + "\n"},
		{`{"error":"a\u202e\u003c","said":null}`, `{"error":"a\u202e\u003c","said":null}` + "\n", ""},
		{"", "", ""},
	} {
		for _, phones := range []bool{false, true} {
			want := test.masked
			if phones && test.shown != "" {
				want = test.shown
			}
			var out bytes.Buffer
			c := newCleaner(&out, strings.NewReader(test.in), phones)
			var err error
			for err == nil {
				err = c.next()
			}
			if !errors.Is(err, io.EOF) || out.String() != want {
				t.Errorf("%s, %v: %v, %s", test.in, phones, err, out.String())
			}
		}
	}
	for _, bad := range []string{"{", `{"chat":`, `{"chat":"790`, `{"body":"x`, "[1,", "<"} {
		c := newCleaner(io.Discard, strings.NewReader(bad), false)
		if err := c.next(); err == nil || errors.Is(err, io.EOF) && bad == "<" {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestPick: a body is handed on as it is, and nothing else of its entry.
func TestPick(t *testing.T) {
	for in, want := range map[string]string{
		`{"id":"1","chat":"79001234567@c.us","body":"a\u0000\u202e"}`: `{"body":"a\u0000\u202e"}`,
		`{"id":"1","body_base64":"gA=="}`:                             `{"body_base64":"gA=="}`,
		`{"id":"1"}`:                                                  `{"body":""}`,
	} {
		var out bytes.Buffer
		if err := pick(&out, strings.NewReader(in), []string{"body", "body_base64"}); err != nil || strings.TrimSpace(out.String()) != want {
			t.Errorf("%s: %v, %s", in, err, out.String())
		}
	}
	if err := pick(io.Discard, strings.NewReader("[]"), []string{"body"}); err == nil {
		t.Error("a list is taken for an entry")
	}
}
