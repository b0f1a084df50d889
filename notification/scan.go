package notification

import (
	"bytes"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// shape is the kind of a JSON value, one bit each, so that a schema's types are a set of them.
type shape uint8

const (
	isNull shape = 1 << iota
	isBoolean
	isInteger  // written with only digits and a sign
	isFraction // any other number; JSON Schema accepts some, such as 1.0, as integers
	isString
	isArray
	isObject

	isNumber = isInteger | isFraction
	isAny    = isNull | isBoolean | isNumber | isString | isArray | isObject
)

// token is a value in a body: its position, and the number of its name.
type token struct {
	shape      shape
	name       int32 // of a member; otherName for an array element
	start, end int32 // its bytes in the body, except for an array or object
	next       int32 // the token after it and everything in it
}

// scan is one pass over a body: every value in it, in order, starting with the body itself. It is as strict
// as the parser, and stops at the first thing to refuse without saying what that is. The parser does that; it
// keeps track of its position and so is slower. FuzzParse compares the two.
//
// A scan is reused for other bodies, so nothing that outlives a call may point into it.
type scan struct {
	body     []byte
	tokens   []token
	partial  bool  // there were more than maxTokens; all that Parse itself reads are included
	open     []int // the open arrays and objects, by token or unlisted
	members  members
	twice    int   // where a duplicate name begins, 0 for none
	inObject bool  // the innermost open one is an object
	name     int32 // of the next value
	text     []byte
}

// Arrays and objects whose tokens are not kept.
const (
	unlistedArray = -1 - iota
	unlistedObject
)

var scans = sync.Pool{New: func() any {
	return &scan{open: make([]int, 0, maxDepth), members: newMembers()}
}}

const (
	maxTokens   = 1 << 14 // as many as a body of 256 KiB or so has
	maxKeptText = 1 << 10 // what one huge body may leave in the pool
)

// release returns the scan to the pool.
func (s *scan) release() {
	s.reset()
	scans.Put(s)
}

// reset erases the body's values.
func (s *scan) reset() {
	clear(s.text[:cap(s.text)])
	s.body, s.text = nil, s.text[:0]
	s.tokens, s.open = s.tokens[:0], s.open[:0]
	s.twice, s.partial, s.inObject, s.name = 0, false, false, otherName
	s.members.reset()
	if cap(s.text) > maxKeptText {
		s.text = nil
	}
}

// read reports whether the body is one JSON object and nothing more, and records what is in it.
func (s *scan) read(body []byte, known *names) bool {
	s.body = body
	at := pastSpace(body, 0)
	if at == len(body) || body[at] != '{' {
		return false
	}
	s.begin(true)
	at++
	for first := true; len(s.open) > 0; {
		if at = pastSpace(body, at); at == len(body) {
			return false
		}
		if c := body[at]; c == '}' && s.inObject || c == ']' && !s.inObject {
			s.finish()
			at, first = at+1, false
			continue
		} else if !first {
			if c != ',' {
				return false
			}
			at = pastSpace(body, at+1)
		}
		if s.inObject {
			at = s.nameAt(at, known)
		}
		if at, first = s.valueAt(at); at == broken {
			return false
		}
	}
	return pastSpace(body, at) == len(body)
}

// nameAt reads a member's name, and returns where its value begins.
func (s *scan) nameAt(at int, known *names) int {
	if at == len(s.body) || s.body[at] != '"' {
		return broken
	}
	end := pastText(s.body, at+1)
	if end == broken || !s.readName(s.body[at:end], known) || !s.isFirst(at, end) {
		return broken
	}
	if at = pastSpace(s.body, end); at == len(s.body) || s.body[at] != ':' {
		return broken
	}
	return pastSpace(s.body, at+1)
}

// valueAt reads and records a value, or only the bracket with which it begins: then it returns true.
func (s *scan) valueAt(at int) (end int, begun bool) {
	if at == broken || at == len(s.body) {
		return broken, false
	}
	is := isString
	switch c := s.body[at]; c {
	case '{', '[':
		if !s.begin(c == '{') {
			return broken, false
		}
		return at + 1, true
	case '"':
		end = pastText(s.body, at+1)
	case 't':
		is, end = isBoolean, pastWord(s.body, at, "true")
	case 'f':
		is, end = isBoolean, pastWord(s.body, at, "false")
	case 'n':
		is, end = isNull, pastWord(s.body, at, "null")
	default:
		is, end = number(s.body, at)
	}
	if end != broken {
		s.scalar(is, at, end)
	}
	return end, false
}

// begin records the beginning of an array or object.
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
	s.inObject, s.name = object, otherName
	return true
}

// finish records its end.
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
}

// nextToken returns the number of the next token kept.
func (s *scan) nextToken() int32 {
	return int32(len(s.tokens)) //nolint:gosec // see maxTokens
}

// list keeps a token, unless there are too many and nothing looks it up by name.
func (s *scan) list(t token) bool {
	const outer = 2 // in the body itself, or in one of its members
	if len(s.tokens) >= maxTokens && (t.name == otherName || t.name >= ownNames || len(s.open) > outer || s.open[len(s.open)-1] < 0) {
		s.partial = true
		return false
	}
	s.tokens = append(s.tokens, t)
	return true
}

// scalar records a value that contains no other.
func (s *scan) scalar(is shape, start, end int) {
	s.list(token{shape: is, name: s.name, start: int32(start), end: int32(end), next: s.nextToken() + 1}) //nolint:gosec // see maxBody
	s.name = otherName
}

// readName looks a name up. A name of the vendor's that Parse reads needs no further check. Any other may
// have escapes, be broken, or differ from a decisive one only in case, even if a schema knows it.
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

// isFirst reports whether the name that has been read is not a duplicate.
func (s *scan) isFirst(start, end int) bool {
	if s.members.add(s.body, member{number: s.name, start: start + 1, end: end - 1}) {
		return true
	}
	s.twice = start
	return false
}

// number returns the shape and the end of a number, which must be within bounds. Plain digits, few as they are,
// fit a float64.
func number(body []byte, at int) (is shape, end int) {
	end, integer := pastNumber(body, at)
	switch {
	case end == broken || end-at > maxNumberBytes:
		return 0, broken
	case integer:
		return isInteger, end
	case !fitsFloat(body[at:end]):
		return 0, broken
	}
	return isFraction, end
}

// raw returns a value as it appears in the body; not for arrays and objects.
func (s *scan) raw(t *token) []byte {
	return s.body[t.start:t.end]
}
