package notification

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of what is parsed. The vendor's bodies nest 6 deep; a validator needs seconds for a
// number of 100,000 digits or for 1e-999999999.
const (
	maxDepth       = 100
	maxNumberBytes = 64
)

// parseObject is parseValue for a body, which must be an object.
func parseObject(body []byte) (map[string]any, error) {
	if cause, at := lookAhead(body); cause != "" {
		return nil, &SyntaxError{Offset: int64(at), Cause: cause}
	}
	v, err := parseValue(body, vendorNames())
	if err != nil {
		return nil, err
	}
	return v.(map[string]any), nil // the look ahead saw '{'
}

// lookAhead tells by the first bytes why a body cannot be an object; "" if it can.
func lookAhead(body []byte) (cause string, at int) {
	rest := bytes.TrimLeft(body, " \t\r\n")
	at = len(body) - len(rest)
	switch {
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

// parseValue reads exactly one JSON value into map[string]any, []any, string, json.Number, bool
// and nil. names are the names it need not allocate; they may be nil. The error is a *SyntaxError.
func parseValue(body []byte, names map[string]string) (any, error) {
	p := &parser{
		body:  body,
		names: names,
		// The option is for values only, name takes it back for names. The buffer is not written to.
		decoder: jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowInvalidUTF8(true)),
	}
	v, err := p.value(1)
	if err != nil {
		return nil, err
	}
	end := p.decoder.InputOffset()
	if _, err := p.decoder.ReadToken(); !errors.Is(err, io.EOF) {
		rest := bytes.TrimLeft(body[end:], " \t\r\n")
		return nil, &SyntaxError{Offset: int64(len(body) - len(rest)), Cause: causeDataAfter}
	}
	return v, nil
}

type parser struct {
	body    []byte
	names   map[string]string
	decoder *jsontext.Decoder
}

// value reads the next value, which may hold others up to maxDepth.
func (p *parser) value(depth int) (any, error) {
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
			return p.object(depth)
		}
		return p.array(depth)
	case '0':
		return p.number()
	}
	token, err := p.decoder.ReadToken()
	if err != nil {
		return nil, p.syntaxError(err)
	}
	switch token.Kind() {
	case '"':
		return token.String(), nil
	case 't':
		return true, nil
	case 'f':
		return false, nil
	default:
		return nil, nil // null is a value of its own
	}
}

// object reads the members and the end of an object.
func (p *parser) object(depth int) (any, error) {
	members := make(map[string]any)
	for p.decoder.PeekKind() != '}' {
		name, err := p.name()
		if err != nil {
			return nil, err
		}
		if members[name], err = p.value(depth + 1); err != nil {
			return nil, err
		}
	}
	return members, p.close()
}

// array reads the elements and the end of an array.
func (p *parser) array(depth int) (any, error) {
	elements := []any{}
	for p.decoder.PeekKind() != ']' {
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		elements = append(elements, v)
	}
	return elements, p.close()
}

func (p *parser) close() error {
	if _, err := p.decoder.ReadToken(); err != nil {
		return p.syntaxError(err)
	}
	return nil
}

// name reads a member's name, strictly: two broken names would be one after their repair, and
// what a schema looks up by name must not depend on how a parser repairs.
func (p *parser) name() (string, error) {
	raw, err := p.decoder.ReadValue()
	if err != nil {
		return "", p.syntaxError(err)
	}
	quoted := raw[1 : len(raw)-1]
	if name, ok := p.names[string(quoted)]; ok {
		return name, nil
	}
	if bytes.IndexByte(quoted, '\\') < 0 && utf8.Valid(quoted) {
		return string(quoted), nil
	}
	name, err := jsontext.AppendUnquote(nil, raw)
	if err != nil {
		return "", p.fail(causeBadName, int(p.decoder.InputOffset())-len(raw))
	}
	return string(name), nil
}

// number reads a number as it is written, within bounds.
func (p *parser) number() (any, error) {
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
	return json.Number(raw), nil
}

// fitsFloat reports whether a JSON number is neither too large for a float64 nor rounded to zero.
func fitsFloat(raw []byte) bool {
	mantissa := raw
	if e := bytes.IndexAny(raw, "eE"); e >= 0 {
		mantissa = raw[:e]
		if exponent := bytes.TrimLeft(raw[e+1:], "+-0"); len(exponent) > 3 {
			return false
		}
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	return err == nil && (f != 0 || !bytes.ContainsAny(mantissa, "123456789"))
}
