package notification

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Values of SyntaxError.Cause.
const (
	causeEmpty           = "empty body"
	causeLong            = "longer than 2 GiB"
	causeByteOrderMark   = "byte-order mark"
	causeNotObject       = "not a JSON object"
	causeEnd             = "unexpected end"
	causeDataAfter       = "data after the object"
	causeDepth           = "nested deeper than 100"
	causeTwice           = "name twice in one object"
	causeTwin            = "name twice but for upper case or a NUL"
	causeBadName         = "name with broken UTF-8 or a lone surrogate"
	causeNameNotString   = "name that is not a string"
	causeLeadingZero     = "number with a leading zero"
	causeLongNumber      = "number longer than 64 bytes"
	causeNumberRange     = "number out of range"
	causeControl         = "control character in a string"
	causeEscape          = "invalid escape in a string"
	causeOutOfPlace      = "comma, colon or bracket out of place"
	causeCharacter       = "unexpected character"
	causeNoType          = "no typeWebhook"
	causeBadType         = "typeWebhook is not a non-empty string"
	causeNoInstanceData  = "no instanceData"
	causeBadInstanceData = "instanceData is not an object"
	causeNoInstance      = "no idInstance"
	causeBadInstance     = "idInstance is not 1 to 20 digits"
)

// SyntaxError says why a body is not a notification. It never quotes a value of the body.
type SyntaxError struct {
	Offset  int64  // byte of the body at which it was found, from 0
	Pointer string // JSON pointer to the place, up to the first name that is not the vendor's; "" is the whole body
	Cause   string // from a closed list, in words for the operator
}

// Error returns, for example, "byte 72: number with a leading zero, at /instanceData/idInstance".
func (e *SyntaxError) Error() string {
	if e.Pointer == "" {
		return fmt.Sprintf("byte %d: %s", e.Offset, e.Cause)
	}
	return fmt.Sprintf("byte %d: %s, at %s", e.Offset, e.Cause, e.Pointer)
}

// refusal returns why a body is not a notification. It reads a body that a scan has refused again, with a
// parser that keeps track of its position, but keeps only what is decisive. twice is where the scan found a
// name for the second time; 0 if it did not, or ended before.
func refusal(body []byte, twice int) error {
	root, err := parseEnvelope(body, twice)
	if err != nil {
		return err
	}
	if err := envelopeError(body, root); err != nil {
		return err
	}
	return &SyntaxError{Cause: causeCharacter} // the two agree, see FuzzParse; if they ever do not, the scan is right
}

// envelopeError checks the two fields without which a body is not a notification: its type and its
// instance.
func envelopeError(body []byte, root map[string]any) *SyntaxError {
	typ, there := root["typeWebhook"]
	if !there {
		return semanticError(body, causeNoType, "typeWebhook")
	}
	if text, _ := typ.(string); text == "" {
		return semanticError(body, causeBadType, "typeWebhook")
	}

	instance, there := root["instanceData"]
	if !there {
		return semanticError(body, causeNoInstanceData, "instanceData")
	}
	data, ok := instance.(map[string]any)
	if !ok {
		return semanticError(body, causeBadInstanceData, "instanceData")
	}
	id, there := data["idInstance"]
	if !there {
		return semanticError(body, causeNoInstance, "instanceData", "idInstance")
	}
	text, _ := id.(string)
	if number, ok := id.(json.Number); ok {
		text = string(number)
	}
	if _, ok := digits(text); !ok {
		return semanticError(body, causeBadInstance, "instanceData", "idInstance")
	}
	if path := twin(root); path != nil {
		return semanticError(body, causeTwin, path...)
	}
	return nil
}

// fail reports a fault in the value that was read last.
func (p *parser) fail(cause string, at int) *SyntaxError {
	return &SyntaxError{Offset: int64(at), Pointer: vendorPointer(p.decoder.StackPointer()), Cause: cause}
}

// syntaxError turns an error of the decoder, whose text quotes the body, into one that does not.
func (p *parser) syntaxError(err error) *SyntaxError {
	var syntactic *jsontext.SyntacticError
	if !errors.As(err, &syntactic) {
		return p.fail(causeEnd, len(p.body)) // io.EOF: there was only white space
	}
	at := int(syntactic.ByteOffset)
	found := &SyntaxError{Offset: int64(at), Pointer: vendorPointer(syntactic.JSONPointer), Cause: causeCharacter}
	switch {
	case errors.Is(err, jsontext.ErrNonStringName):
		found.Cause = causeNameNotString
	case errors.Is(err, io.ErrUnexpectedEOF) || at >= len(p.body):
		found.Offset, found.Cause = int64(len(p.body)), causeEnd
	case p.leadingZero(at):
		// The decoder takes the 0 as the number and reports the next digit as out of place.
		at--
		if at > 0 && p.body[at-1] == '-' {
			at--
		}
		return p.fail(causeLeadingZero, at)
	case p.inString(at):
		found.Cause = causeControl
		if p.body[at] == '\\' {
			found.Cause = causeEscape
		}
	case strings.IndexByte(",:[]{}", p.body[at]) >= 0:
		found.Cause = causeOutOfPlace
	}
	return found
}

func (p *parser) leadingZero(at int) bool {
	return at > 0 && p.body[at-1] == '0' && p.body[at] >= '0' && p.body[at] <= '9'
}

// inString reports whether the byte is inside a string, which the decoder then could not finish.
func (p *parser) inString(at int) bool {
	rest := bytes.TrimLeft(p.body[p.decoder.InputOffset():], " \t\r\n,:")
	return len(rest) > 0 && rest[0] == '"' && at > len(p.body)-len(rest)
}

// semanticError reports the member at the path, or the object that lacks it. Only a refused body is read a
// second time to find the place.
func semanticError(body []byte, cause string, path ...string) *SyntaxError {
	return &SyntaxError{
		Offset:  offsetOf(body, path),
		Pointer: "/" + strings.Join(path, "/"),
		Cause:   cause,
	}
}

// offsetOf returns where the value at the path begins, or else where the innermost existing object does.
func offsetOf(body []byte, path []string) int64 {
	d := jsontext.NewDecoder(bytes.NewBuffer(body), brokenText, namesTwice)
	var begin int64
	for _, name := range path {
		if _, err := d.ReadToken(); err != nil {
			return begin
		}
		begin = d.InputOffset() - 1
		if !seek(d, name) {
			return begin
		}
	}
	value, err := d.ReadValue()
	if err != nil {
		return begin
	}
	return d.InputOffset() - int64(len(value))
}

// seek reads on to the value of a member of the object whose brace was read last.
func seek(d *jsontext.Decoder, name string) bool {
	for d.PeekKind() == '"' {
		token, err := d.ReadToken()
		if err != nil {
			return false
		}
		if token.String() == name {
			return true
		}
		if err := d.SkipValue(); err != nil {
			return false
		}
	}
	return false
}

// vendorPointer cuts a pointer before the first name that is not the vendor's. In broken JSON (with an
// unescaped quote in a text) what looks like a name may be the text of a message.
func vendorPointer(pointer jsontext.Pointer) string {
	names := vendorNames()
	var kept strings.Builder
	for token := range pointer.Tokens() {
		if _, ok := names[token]; !ok && !isIndex(token) {
			break
		}
		kept.WriteString("/" + token) // the vendor's names need no escaping
	}
	return kept.String()
}

// isIndex reports whether the token can be an array index. More digits may be a phone number.
func isIndex(token string) bool {
	return token != "" && len(token) <= 5 && strings.Trim(token, "0123456789") == ""
}
