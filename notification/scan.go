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
	start, end int32 // its bytes in the body, unless it is an array or object
	next       int32 // the token after it and all that is in it
}

// scan is one pass over a body: every value in it, in order, the body itself being the first. It
// is strict where Parse is strict, and stops at the first thing to refuse without saying what it
// is: that is for the parser, which keeps track of where it is and so is slower.
//
// It is used again for other bodies, so nothing that outlives a call may point into it.
type scan struct {
	body     []byte
	buffer   bytes.Buffer
	decoder  *jsontext.Decoder
	tokens   []token
	partial  bool  // there were more than maxTokens; all that Parse itself reads are there
	open     []int // the arrays and objects that have begun, by token, or unlisted
	members  members
	twice    int   // where a name begins that is there twice, 0 for none
	inObject bool  // the innermost of them is an object
	wantName bool  // the next token is the name of a member
	name     int32 // of the next value
	text     []byte
}

// Arrays and objects of which no token is kept.
const (
	unlistedArray = -1 - iota
	unlistedObject
)

// Broken text is let through, readName takes that back for names. A name twice in one object is
// found by members.
var (
	brokenText = jsontext.AllowInvalidUTF8(true)
	namesTwice = jsontext.AllowDuplicateNames(true)
)

var scans = sync.Pool{New: func() any {
	s := &scan{open: make([]int, 0, maxDepth), members: newMembers()}
	s.decoder = jsontext.NewDecoder(&s.buffer, brokenText, namesTwice)
	return s
}}

const (
	maxTokens   = 1 << 14 // a body of 256 KiB or so has as many
	maxKeptText = 1 << 10 // what one huge body leaves in the pool
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
	s.twice, s.partial, s.inObject, s.wantName, s.name = 0, false, false, false, otherName
	s.members.reset()
	if cap(s.text) > maxKeptText {
		s.text = nil
	}
	s.decoder.Reset(&s.buffer, brokenText, namesTwice)
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
	return len(bytes.TrimLeft(body[end:], " \t\r\n")) == 0 && s.tokens[0].shape == isObject
}

// take notes the token that has been read.
func (s *scan) take(start, end int, known *names) bool {
	raw := s.body[start:end]
	switch c := raw[0]; c {
	case '"':
		if s.wantName {
			s.wantName = false
			return s.readName(raw, known) && s.isFirst(start, end)
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
	t, unlisted := token{shape: isArray, name: s.name}, unlistedArray
	if object {
		t.shape, unlisted = isObject, unlistedObject
		s.members.begin()
	}
	at := len(s.tokens)
	if !s.list(t) {
		at = unlisted
	}
	s.open = append(s.open, at)
	s.inObject, s.wantName, s.name = object, object, otherName
	return true
}

// finish notes where it ends.
func (s *scan) finish() {
	if s.inObject {
		s.members.end()
	}
	last := len(s.open) - 1
	if at := s.open[last]; at >= 0 {
		s.tokens[at].next = s.nextToken()
	}
	s.open = s.open[:last]
	s.inObject = false
	if last > 0 {
		outer := s.open[last-1]
		s.inObject = outer == unlistedObject || outer >= 0 && s.tokens[outer].shape == isObject
	}
	s.wantName = s.inObject
}

// nextToken is the number of the next token that is kept.
func (s *scan) nextToken() int32 {
	return int32(len(s.tokens)) //nolint:gosec // see maxTokens
}

// list keeps a token, unless there are too many and nobody asks for it by its name.
func (s *scan) list(t token) bool {
	const outer = 2 // in the body itself, or in a member of it
	if len(s.tokens) >= maxTokens && (t.name == otherName || t.name >= ownNames || len(s.open) > outer || s.open[len(s.open)-1] < 0) {
		s.partial = true
		return false
	}
	s.tokens = append(s.tokens, t)
	return true
}

// scalar notes a value that holds no other.
func (s *scan) scalar(is shape, start, end int) {
	s.list(token{shape: is, name: s.name, start: int32(start), end: int32(end), next: s.nextToken() + 1}) //nolint:gosec // see maxBody
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

// isFirst reports whether the name that has been read is there for the first time.
func (s *scan) isFirst(start, end int) bool {
	if s.members.add(s.body, member{number: s.name, start: start + 1, end: end - 1}) {
		return true
	}
	s.twice = start
	return false
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
