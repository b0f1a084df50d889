package greenapi

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// What outsiders say may reach a terminal, through a command, a log or an alert. These runes would
// steer it, or show the text in another order than it has.

// isSteering reports whether a terminal, or whoever lays out a text, obeys the rune.
func isSteering(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
}

// printable keeps a text from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if isSteering(r) {
			return '?'
		}
		return r
	}, s)
}

// printableLines is printable for a text of several lines.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = printable(line)
	}
	return strings.Join(lines, "\n")
}

// printableJSON writes such runes as \u202e and the like, which means the same in JSON: outside ASCII
// there is nothing but strings. The control characters of ASCII are escaped or white space.
func printableJSON(text []byte) []byte {
	steers := func(r rune) bool { return r >= 0x7f && isSteering(r) }
	if bytes.IndexFunc(text, steers) < 0 {
		return text
	}
	var escaped strings.Builder
	for _, r := range string(text) {
		if steers(r) {
			fmt.Fprintf(&escaped, `\u%04x`, r)
		} else {
			escaped.WriteRune(r)
		}
	}
	return []byte(escaped.String())
}

// jsonWriter writes JSON so that a terminal can show it. Each Write is whole values, as those of an
// encoder are.
type jsonWriter struct{ to io.Writer }

func (w jsonWriter) Write(text []byte) (int, error) {
	if _, err := w.to.Write(printableJSON(text)); err != nil {
		return 0, err
	}
	return len(text), nil
}
