package outcome

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// Text from outside may reach a terminal through a command, the log or an alert. Some runes would control
// the terminal, or display the text in another order.

// isSteering reports whether a rune controls a terminal or the layout of a text.
func isSteering(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
}

// Printable replaces the runes that would control a terminal.
func Printable(s string) string {
	if isPlain(s) { // nearly everything
		return s
	}
	return strings.Map(func(r rune) rune {
		if isSteering(r) {
			return '?'
		}
		return r
	}, s)
}

// isPlain reports whether a text is printable ASCII.
func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// PrintableLines is Printable for a text with several lines.
func PrintableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = Printable(line)
	}
	return strings.Join(lines, "\n")
}

// PrintableJSON escapes such runes as \u202e and the like, which means the same in JSON, because only
// strings contain anything outside ASCII. ASCII control characters are already escaped, or white space.
func PrintableJSON(text []byte) []byte {
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

// JSONWriter writes JSON that a terminal can display. Each Write must be whole values, as an encoder writes
// them.
type JSONWriter struct{ To io.Writer }

// Write writes whole JSON values.
func (w JSONWriter) Write(text []byte) (int, error) {
	if _, err := w.To.Write(PrintableJSON(text)); err != nil {
		return 0, err
	}
	return len(text), nil
}

// MaxHead is how many bytes of a type, an ID or a name in a body are written or kept.
const MaxHead = 128

// Clip limits what a body may write into the log, which is read on a terminal.
func Clip(s string) string { return Printable(ClipTo(s, MaxHead)) }

// ClipTo cuts a text that is longer than most bytes.
func ClipTo(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
