package notification

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits of what is parsed. The vendor's bodies nest 6 deep.
const (
	maxDepth = 100
	maxBody  = math.MaxInt32 // positions in it are kept in 32 bits
)

// Broken text is allowed in values; name refuses it in names. Duplicate names in an object are found by members.
var (
	brokenText = jsontext.AllowInvalidUTF8(true)
	namesTwice = jsontext.AllowDuplicateNames(true)
)

// parseObject is parseValue for a body, which must be an object.
func parseObject(body []byte) (map[string]any, error) {
	return newParser(body, vendorNames()).onlyObject()
}

// parseEnvelope reads a body as parseObject does, but keeps only what is decisive. twice is where the first
// duplicate name begins, if that is known; then it does not search for duplicates. 0 means unknown.
func parseEnvelope(body []byte, twice int) (map[string]any, error) {
	p := newParser(body, vendorNames())
	p.envelope, p.twice = true, twice
	return p.onlyObject()
}

func (p *parser) onlyObject() (map[string]any, error) {
	if cause, at := lookAhead(p.body); cause != "" {
		return nil, &SyntaxError{Offset: int64(at), Cause: cause}
	}
	v, err := p.only()
	if err != nil {
		return nil, err
	}
	return v.(map[string]any), nil // lookAhead saw '{'
}

// lookAhead returns why a body cannot be an object, judging by its first bytes; "" if it can.
func lookAhead(body []byte) (cause string, at int) {
	rest := bytes.TrimLeft(body, " \t\r\n")
	at = len(body) - len(rest)
	switch {
	case len(body) > maxBody:
		return causeLong, maxBody
	case len(rest) == 0:
		return causeEmpty, at
	case rest[0] == '{':
		return "", at
	case bytes.HasPrefix(rest, []byte("\xef\xbb\xbf")), bytes.HasPrefix(rest, []byte("\xff\xfe")), bytes.HasPrefix(rest, []byte("\xfe\xff")):
		return causeByteOrderMark, at
	default:
		return causeNotObject, at
	}
}

// parseValue parses exactly one JSON value into map[string]any, []any, string, json.Number, bool and nil.
// names are names that it need not allocate, and may be nil. The error is a *SyntaxError.
func parseValue(body []byte, names map[string]string) (any, error) {
	return newParser(body, names).only()
}

// parser turns a text into a value, and reports where something is wrong.
type parser struct {
	body     []byte
	names    map[string]string
	decoder  *jsontext.Decoder
	members  members
	envelope bool // keep only what is decisive; the rest is still read, and may be wrong
	twice    int  // where the first duplicate name begins; 0 if unknown
	twins    bool // a twin has been kept
	room     []byte
}

func newParser(body []byte, names map[string]string) *parser {
	return &parser{
		body:    body,
		names:   names,
		members: newMembers(),
		decoder: jsontext.NewDecoder(bytes.NewBuffer(body), brokenText, namesTwice), // the buffer is not written to
	}
}

// only reads the only value.
func (p *parser) only() (any, error) {
	defer p.members.reset()
	v, err := p.value(1, "", true)
	if err != nil {
		return nil, err
	}
	end := p.decoder.InputOffset()
	if _, err := p.decoder.ReadToken(); !errors.Is(err, io.EOF) {
		rest := bytes.TrimLeft(p.body[end:], " \t\r\n")
		return nil, &SyntaxError{Offset: int64(len(p.body) - len(rest)), Cause: causeDataAfter}
	}
	return v, nil
}

// value reads the next value, which may contain others up to maxDepth. parent is its name. A value that is
// not kept is nil.
func (p *parser) value(depth int, parent string, keep bool) (any, error) {
	switch p.decoder.PeekKind() {
	case '{', '[':
		token, err := p.decoder.ReadToken()
		if err != nil {
			return nil, p.syntaxError(err)
		}
		if depth > maxDepth {
			return nil, p.fail(causeDepth, int(p.decoder.InputOffset())-1)
		}
		if token.Kind() == '{' {
			return p.object(depth, parent, keep)
		}
		return p.array(depth, keep && !p.envelope)
	case '0':
		return p.number(keep)
	}
	token, err := p.decoder.ReadToken()
	if err != nil {
		return nil, p.syntaxError(err)
	}
	switch token.Kind() {
	case '"':
		if !keep {
			return nil, nil
		}
		return token.String(), nil
	case 't':
		return true, nil
	case 'f':
		return false, nil
	default:
		return nil, nil // null is a value, too
	}
}

// object reads the members and the end of an object.
func (p *parser) object(depth int, parent string, keep bool) (any, error) {
	var members map[string]any
	if keep {
		members = make(map[string]any)
	}
	p.members.begin()
	for p.decoder.PeekKind() != '}' {
		text, err := p.name()
		if err != nil {
			return nil, err
		}
		kept, name := keep && (!p.envelope || p.isDecisive(parent, text)), ""
		if kept {
			name = p.text(text)
		}
		v, err := p.value(depth+1, name, kept)
		if err != nil {
			return nil, err
		}
		if kept {
			members[name] = v
		}
	}
	p.members.end()
	return members, p.close()
}

// isDecisive reports whether to keep a member of an envelope: it is decisive, or the first twin of a
// decisive one.
func (p *parser) isDecisive(parent string, name []byte) bool {
	for _, want := range decisive[parent] {
		switch {
		case string(name) == want:
			return true
		case !p.twins && isTwinName(name, want):
			p.twins = true
			return true
		}
	}
	return false
}

// text returns a name to keep.
func (p *parser) text(name []byte) string {
	if known, ok := p.names[string(name)]; ok {
		return known
	}
	return string(name)
}

// array reads the elements and the end of an array.
func (p *parser) array(depth int, keep bool) (any, error) {
	var elements []any
	if keep {
		elements = []any{}
	}
	for p.decoder.PeekKind() != ']' {
		v, err := p.value(depth+1, "", keep)
		if err != nil {
			return nil, err
		}
		if keep {
			elements = append(elements, v)
		}
	}
	return elements, p.close()
}

func (p *parser) close() error {
	if _, err := p.decoder.ReadToken(); err != nil {
		return p.syntaxError(err)
	}
	return nil
}

// isFirst reports whether the name from start to end is not a duplicate.
func (p *parser) isFirst(start, end int) bool {
	if p.twice != 0 {
		return start != p.twice
	}
	return p.members.add(p.body, member{start: start + 1, end: end - 1})
}

// name reads a member's name, strictly: two broken names could be the same after repair, and what a schema
// finds by name must not depend on how a parser repairs. The result is valid until the next read.
func (p *parser) name() ([]byte, error) {
	raw, err := p.decoder.ReadValue()
	if err != nil {
		return nil, p.syntaxError(err)
	}
	end := int(p.decoder.InputOffset())
	start := end - len(raw)
	name := []byte(raw[1 : len(raw)-1])
	if bytes.IndexByte(name, '\\') >= 0 || !utf8.Valid(name) {
		if p.room, err = jsontext.AppendUnquote(p.room[:0], raw); err != nil {
			return nil, p.fail(causeBadName, start)
		}
		name = p.room
	}
	if !p.isFirst(start, end) {
		return nil, p.fail(causeTwice, start)
	}
	return name, nil
}

// number reads a number as it is written, within limits.
func (p *parser) number(keep bool) (any, error) {
	raw, err := p.decoder.ReadValue()
	if err != nil {
		return nil, p.syntaxError(err)
	}
	if len(raw) > maxNumberBytes {
		return nil, p.fail(causeLongNumber, int(p.decoder.InputOffset())-len(raw))
	}
	if !fitsFloat(raw) {
		return nil, p.fail(causeNumberRange, int(p.decoder.InputOffset())-len(raw))
	}
	if !keep {
		return nil, nil
	}
	return json.Number(raw), nil
}
