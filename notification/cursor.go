package notification

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// cursor walks through a text that is known to be JSON. That makes it several times as fast as a decoder,
// which has to check.
type cursor struct {
	text   []byte
	at     int
	passed int // names and values so far
	known  *names
	room   []byte // for names with escapes
}

// peek returns the first byte of the next value, name or end, 0 at the end of the text.
func (c *cursor) peek() byte {
	for ; c.at < len(c.text); c.at++ {
		if b := c.text[c.at]; b > ' ' && b != ',' && b != ':' {
			return b
		}
	}
	return 0
}

// ends moves past the end of the array or object if that is next, and reports whether it was.
func (c *cursor) ends() bool {
	switch c.peek() {
	case ']', '}', 0:
		c.at++
		return true
	}
	return false
}

// name reads a member's name and returns its number.
func (c *cursor) name() int32 {
	c.peek()
	start := c.at
	c.at = stringEnd(c.text, start)
	c.passed++
	quoted := c.text[start+1 : c.at-1]
	number := c.known.number(quoted)
	if number != otherName || bytes.IndexByte(quoted, '\\') < 0 {
		return number
	}
	c.room, _ = jsontext.AppendUnquote(c.room[:0], c.text[start:c.at])
	return c.known.number(c.room)
}

// scalar reads a value that contains no other.
func (c *cursor) scalar() []byte {
	quoted := c.peek() == '"'
	start := c.at
	c.passed++
	if quoted {
		c.at = stringEnd(c.text, start)
		return c.text[start:c.at]
	}
	for c.at < len(c.text) {
		if b := c.text[c.at]; b <= ' ' || b == ',' || b == ']' || b == '}' {
			break
		}
		c.at++
	}
	return c.text[start:c.at]
}

// skip moves past a value with everything in it, and returns it.
func (c *cursor) skip() []byte {
	if b := c.peek(); b != '{' && b != '[' {
		return c.scalar()
	}
	start, depth := c.at, 0
	for {
		switch c.peek() {
		case '{', '[':
			depth++
			c.passed++
			c.at++
		case '}', ']':
			c.at++
			if depth--; depth == 0 {
				return c.text[start:c.at]
			}
		case 0:
			return c.text[start:]
		default:
			c.scalar()
		}
	}
}

// stringEnd returns where the string that begins at a quote ends.
func stringEnd(text []byte, start int) int {
	for at := start + 1; at < len(text); at++ {
		quote := bytes.IndexByte(text[at:], '"')
		if quote < 0 {
			break
		}
		at += quote
		before := at
		for text[before-1] == '\\' {
			before--
		}
		if (at-before)%2 == 0 {
			return at + 1
		}
	}
	return len(text)
}

// member moves to a member of an object and returns its value, nil if it does not exist.
func (c *cursor) member(number int32) []byte {
	if c.peek() != '{' {
		return nil
	}
	c.at++
	for !c.ends() {
		if c.name() == number {
			return c.skip()
		}
		c.skip()
	}
	return nil
}

// codePoints counts the code points of a string, up to a limit. A broken byte counts as one, and so does
// half of a surrogate pair.
func codePoints(quoted []byte, limit int) (count int) {
	rest := quoted[1 : len(quoted)-1]
	for ; count < limit && len(rest) > 0; count++ {
		switch {
		case rest[0] != '\\':
			_, size := utf8.DecodeRune(rest)
			rest = rest[size:]
		case rest[1] != 'u':
			rest = rest[2:]
		case isHalf(rest, "89abAB") && isHalf(rest[6:], "cdefCDEF"):
			rest = rest[12:]
		default:
			rest = rest[6:]
		}
	}
	return count
}

// isHalf reports whether a text begins with the escape of a surrogate that has one of these second digits.
func isHalf(text []byte, second string) bool {
	const escape = `\ud800`
	return len(text) >= len(escape) && text[0] == '\\' && text[1] == 'u' && text[2]|0x20 == 'd' && strings.IndexByte(second, text[3]) >= 0
}
