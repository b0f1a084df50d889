package delivery

import (
	"bytes"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
)

// leftOut stands for a part of a handler's answer that is not shown.
const leftOut = "…"

// saidOf returns what a handler said in one line: its status and the first line of its answer, or why there is no
// answer. Handlers repeat in their answers what they were sent. Texts, names and phone numbers are not for whoever
// looks at the state of an edge, so what stands in the body is left out.
func saidOf(got Answer, body []byte) string {
	if got.Status == 0 {
		if got.Err == nil {
			return ""
		}
		return outcome.Clip(got.Err.Error())
	}
	said := strconv.Itoa(got.Status)
	line, _, _ := strings.Cut(strings.TrimSpace(got.Text), "\n")
	if line = withoutValues(strings.TrimSpace(line), body); line != "" {
		said += " " + line
	}
	return outcome.Clip(said)
}

var (
	escaped = regexp.MustCompile(`(?:\\u[0-9a-fA-F]{4})+`)
	digits  = regexp.MustCompile(`\d[\d ().-]*\d`)
)

// withoutValues leaves out of a line what is a value in a body, and every phone number.
func withoutValues(line string, body []byte) string {
	line = escaped.ReplaceAllStringFunc(line, func(text string) string {
		if plain, err := strconv.Unquote(`"` + text + `"`); err == nil {
			return plain
		}
		return leftOut // half of a surrogate pair, or both: strconv knows no pairs
	})
	if line != "" {
		for value := range strings.Lines(valuesOf(body)) {
			line = withoutValue(line, strings.TrimSpace(value))
		}
	}
	return digits.ReplaceAllStringFunc(line, withoutPhone)
}

// fewDigits are too few for a phone number.
const fewDigits = 8

// withoutPhone leaves out digits that may be a phone number in some spelling.
func withoutPhone(text string) string {
	n := 0
	for i := range len(text) {
		if text[i] >= '0' && text[i] <= '9' {
			n++
		}
	}
	if _, err := netip.ParseAddr(text); n <= fewDigits || err == nil {
		return text
	}
	return leftOut
}

// certain is the length from which a part of a line counts as the beginning of a value: the rest of it may be cut off.
const certain = 12

// shortest is the length from which a value is left out: shorter ones stand in any text.
const shortest = 3

func withoutValue(line, value string) string {
	if len(value) < shortest {
		return line
	}
	begins := value[:min(len(value), certain)]
	for from := 0; ; {
		at := strings.Index(line[from:], begins)
		if at < 0 {
			return line
		}
		at += from
		end := at + len(begins)
		for end < len(line) && end-at < len(value) && line[end] == value[end-at] {
			end++
		}
		for end < len(line) && !utf8.RuneStart(line[end]) { // the part of a rune that they have in common
			end++
		}
		line = line[:at] + leftOut + line[end:]
		from = at + len(leftOut)
	}
}

// plain are values that say nothing of a person.
var plain = map[string]bool{"typeWebhook": true, "typeMessage": true, "typeInstance": true, "idInstance": true, "stateInstance": true, "status": true}

// valuesOf returns the values of a body, a line each. One with line ends is several.
func valuesOf(body []byte) string {
	var all strings.Builder
	dec := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	name := ""
	for {
		token, err := dec.ReadToken()
		if err != nil { // its end, or there is no more that a handler could read either
			return all.String()
		}
		if token.Kind() != '"' && token.Kind() != '0' {
			continue
		}
		text := token.String()
		if in, n := dec.StackIndex(dec.StackDepth()); in == '{' && n%2 == 1 {
			name = text
			continue
		}
		if !plain[name] {
			all.WriteString(text)
			all.WriteByte('\n')
		}
	}
}
