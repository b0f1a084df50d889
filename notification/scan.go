package notification

import (
	"bytes"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// shape is what a JSON value is, one bit each, so that a schema's types are a set of them.
type shape uint8

const (
	isNull shape = 1 << iota
	isBoolean
	isInteger  // written with nothing but digits and a sign
	isFraction // any other number; JSON Schema takes some, such as 1.0, for integers
	isString
	isArray
	isObject

	isNumber = isInteger | isFraction
	isAny    = isNull | isBoolean | isNumber | isString | isArray | isObject
)

// token is a value of a body: where it is, and the number of its name.
type token struct {
	shape      shape
	name       int32 // of a member; otherName for an element of an array
	start, end int   // its bytes in the body, unless it is an array or object
	next       int   // the token after it and all that is in it
}

// scan is one pass over a body: every value in it, in order, the body itself being the first. It
// is strict where Parse is strict, and stops at the first thing to refuse without saying what it
// is: that is for the parser, which makes a value of all it reads and so is much slower.
//
// It is used again for other bodies, so nothing that outlives a call may point into it.
type scan struct {
	body     []byte
	buffer   bytes.Buffer
	decoder  *jsontext.Decoder
	tokens   []token
	open     []int // the arrays and objects that have begun, by token
	inObject bool  // the innermost of them is an object
	wantName bool  // the next token is the name of a member
	name     int32 // of the next value
	text     []byte
}

// A name twice in one object is refused by the decoder. Broken text is let through, readName takes
// that back for names.
var scanOptions = jsontext.AllowInvalidUTF8(true)

var scans = sync.Pool{New: func() any {
	s := &scan{open: make([]int, 0, maxDepth)}
	s.decoder = jsontext.NewDecoder(&s.buffer, scanOptions)
	return s
}}

// Bounds of what one huge body leaves in the pool.
const (
	maxKeptTokens = 1 << 17 // a body of 1 MiB has some 70,000
	maxKeptText   = 1 << 10
)

// release gives the scan back.
func (s *scan) release() {
	s.reset()
	scans.Put(s)
}

// reset leaves nothing of the body's values. The decoder may keep some names until it is used again.
func (s *scan) reset() {
	clear(s.text[:cap(s.text)])
	s.body, s.buffer, s.text = nil, bytes.Buffer{}, s.text[:0]
	s.tokens, s.open = s.tokens[:0], s.open[:0]
	s.inObject, s.wantName, s.name = false, false, otherName
	if cap(s.tokens) > maxKeptTokens {
		s.tokens = nil
	}
	if cap(s.text) > maxKeptText {
		s.text = nil
	}
	s.decoder.Reset(&s.buffer, scanOptions)
}

// read reports whether the body is one JSON object and nothing more, and notes what is in it.
func (s *scan) read(body []byte, known *names) bool {
	s.body, s.buffer = body, *bytes.NewBuffer(body)
	end := 0
	for {
		// Past a comma or colon, too: whether it is in place, the decoder says. Where the token
		// begins is not to be had from it.
		at := end
		for at < len(body) && (body[at] <= ' ' || body[at] == ',' || body[at] == ':') {
			at++
		}
		if _, err := s.decoder.ReadToken(); err != nil {
			return false
		}
		end = int(s.decoder.InputOffset())
		if !s.take(at, end, known) {
			return false
		}
		if len(s.open) == 0 {
			break
		}
	}
	for end < len(body) && (body[end] == ' ' || body[end] == '\n' || body[end] == '\r' || body[end] == '\t') {
		end++
	}
	return end == len(body) && s.tokens[0].shape == isObject
}

// take notes the token that has been read.
func (s *scan) take(start, end int, known *names) bool {
	raw := s.body[start:end]
	switch c := raw[0]; c {
	case '"':
		if s.wantName {
			s.wantName = false
			return s.readName(raw, known)
		}
		s.scalar(isString, start, end)
	case '{', '[':
		return s.begin(c == '{')
	case '}', ']':
		s.finish()
	case 't', 'f':
		s.scalar(isBoolean, start, end)
	case 'n':
		s.scalar(isNull, start, end)
	default:
		number := numberShape(raw)
		s.scalar(number, start, end)
		return number != 0
	}
	return true
}

// begin notes that an array or object begins.
func (s *scan) begin(object bool) bool {
	if len(s.open) == maxDepth {
		return false
	}
	t := token{shape: isArray, name: s.name}
	if object {
		t.shape = isObject
	}
	s.open = append(s.open, len(s.tokens))
	s.tokens = append(s.tokens, t)
	s.inObject, s.wantName, s.name = object, object, otherName
	return true
}

// finish notes where it ends.
func (s *scan) finish() {
	last := len(s.open) - 1
	s.tokens[s.open[last]].next = len(s.tokens)
	s.open = s.open[:last]
	s.inObject = last > 0 && s.tokens[s.open[last-1]].shape == isObject
	s.wantName = s.inObject
}

// scalar notes a value that holds no other.
func (s *scan) scalar(is shape, start, end int) {
	s.tokens = append(s.tokens, token{shape: is, name: s.name, start: start, end: end, next: len(s.tokens) + 1})
	s.wantName, s.name = s.inObject, otherName
}

// readName looks a name up. One of the vendor's that Parse reads needs no more; any other may be known by
// its escapes, be broken, or differ from a decisive one in case only, though a schema may know it, too.
func (s *scan) readName(raw []byte, known *names) bool {
	quoted := raw[1 : len(raw)-1]
	if s.name = known.number(quoted); s.name != otherName {
		return s.name < ownNames || !s.isTwin(quoted)
	}
	if bytes.IndexByte(quoted, '\\') < 0 {
		return utf8.Valid(quoted) && !s.isTwin(quoted)
	}
	name, err := jsontext.AppendUnquote(s.text[:0], raw)
	if err != nil {
		return false
	}
	s.text, s.name = name, known.number(name)
	return s.name != otherName && s.name < ownNames || !s.isTwin(name)
}

// numberShape tells an integer from another number; 0 is one out of bounds. Digits alone, few as
// they are, fit a float64.
func numberShape(raw []byte) shape {
	if len(raw) > maxNumberBytes {
		return 0
	}
	for _, c := range raw {
		if c != '-' && (c < '0' || c > '9') {
			if !fitsFloat(raw) {
				return 0
			}
			return isFraction
		}
	}
	return isInteger
}

// raw is a value as it stands in the body; nothing of an array or object.
func (s *scan) raw(t *token) []byte {
	return s.body[t.start:t.end]
}
