package console

import (
	"encoding/json"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// hidden stands for what is not shown.
const hidden = "•••"

// mask hides most of a chat's ID: 79001234567@c.us becomes 7900•••4567@c.us. The ID of a group is masked as well, and that
// of an old one has the number of who founded it: 79001234567-1581234567@g.us becomes 7900•••4567-15•••67@g.us. Of what has
// another form nothing is left, because nobody knows what it is.
func mask(chat string) string {
	if chat == "" {
		return ""
	}
	local, domain, addressed := strings.Cut(chat, "@")
	if addressed && isDomain(domain) {
		domain = "@" + domain
	} else if addressed {
		return hidden
	}
	sign := ""
	if rest, negative := strings.CutPrefix(local, "-"); negative { // a group of MAX or Telegram
		sign, local = "-", rest
	}
	parts := strings.Split(local, "-")
	if len(parts) > 2 {
		return hidden + domain
	}
	for i, part := range parts {
		if !isNumber(part) {
			return hidden + domain
		}
		parts[i] = maskNumber(part)
	}
	return sign + strings.Join(parts, "-") + domain
}

func isDomain(name string) bool {
	switch name {
	case "c.us", "g.us", "s.whatsapp.net", "lid", "broadcast", "newsletter":
		return true
	}
	return false
}

func isNumber(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}

// maskNumber keeps four digits at each end of a number that has more than ten, two of a shorter one, and none of one that
// would be told by them.
func maskNumber(digits string) string {
	n := len(digits)
	switch {
	case n > 10:
		return digits[:4] + hidden + digits[n-4:]
	case n > 6:
		return digits[:2] + hidden + digits[n-2:]
	}
	return hidden
}

// spelled finds numbers as people and programs write them: +7 (900) 123-45-67. It also finds dates and addresses.
var spelled = regexp.MustCompile(`\d(?:[\d ().-]*\d)?`)

// maskText masks what may be phone numbers in what somebody else wrote, such as a handler's answer: what has more than eight
// digits, in any spelling, or stands before an @ or the end of a text that was cut off. It costs a handler's numbers of
// orders and instances as well.
func maskText(text string) string {
	var out strings.Builder
	for at := spelled.FindStringIndex(text); at != nil; at = spelled.FindStringIndex(text) {
		found, rest := text[at[0]:at[1]], text[at[1]:]
		out.WriteString(text[:at[0]])
		number := strings.Map(func(r rune) rune {
			if r < '0' || r > '9' {
				return -1
			}
			return r
		}, found)
		_, err := netip.ParseAddr(found)
		if before := strings.HasPrefix(rest, "@") || strings.HasPrefix(rest, "%40") || strings.HasPrefix(rest, "…"); before || len(number) > 8 && err != nil {
			found = maskNumber(number)
		}
		out.WriteString(found)
		text = rest
	}
	return out.String() + text
}

// A cleaner copies JSON, and leaves out bodies and, if it is told to, phone numbers.
type cleaner struct {
	phones bool // they are shown

	from *jsontext.Decoder
	to   *jsontext.Encoder
}

func newCleaner(to io.Writer, from io.Reader, phones bool) *cleaner {
	lax := []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true), jsontext.PreserveRawStrings(true)}
	return &cleaner{phones: phones, from: jsontext.NewDecoder(from, lax...), to: jsontext.NewEncoder(to, lax...)}
}

// next copies one value of what may be many. It returns io.EOF after the last one.
func (c *cleaner) next() error {
	for {
		if err := c.step(); err != nil {
			return err
		}
		if c.from.StackDepth() == 0 {
			return nil
		}
	}
}

// step copies a token. Behind a name it decides what becomes of the value.
func (c *cleaner) step() error {
	kind, n := c.from.StackIndex(c.from.StackDepth())
	token, err := c.from.ReadToken()
	if err != nil {
		return err
	}
	if kind != '{' || n%2 != 0 || token.Kind() != '"' {
		return c.to.WriteToken(token)
	}
	name := token.String()
	if name == "body" || name == "body_base64" {
		return c.from.SkipValue()
	}
	if err := c.to.WriteToken(token); err != nil {
		return err
	}
	switch {
	case c.phones:
	case name == "chat":
		return c.chat()
	case (name == "said" || name == "text" || name == "error") && c.from.PeekKind() == '"' && !ours(c.from.StackPointer()):
		return c.text()
	}
	return nil
}

// chat copies a chat and masks it.
func (c *cleaner) chat() error {
	value, err := c.from.ReadValue()
	if err != nil {
		return err
	}
	switch value.Kind() {
	case '"':
		var text string
		if err := json.Unmarshal(value, &text); err != nil {
			return err
		}
		return c.to.WriteToken(jsontext.String(mask(text)))
	case 'n':
		return c.to.WriteToken(jsontext.Null)
	}
	return c.to.WriteToken(jsontext.String(hidden)) // none of ours
}

// ours reports whether a text of an answer is one of ours: those of alerts name instances and no chat.
func ours(at jsontext.Pointer) bool { return strings.HasPrefix(string(at), "/alerts/") }

// text copies what somebody else wrote and masks the numbers in it.
func (c *cleaner) text() error {
	token, err := c.from.ReadToken()
	if err != nil {
		return err
	}
	if text := token.String(); maskText(text) != text {
		return c.to.WriteToken(jsontext.String(maskText(text)))
	}
	return c.to.WriteToken(token)
}

// pick copies those members of an object that have one of some names.
func pick(to io.Writer, from io.Reader, names []string) error {
	object := make(map[string]json.RawMessage)
	if err := json.NewDecoder(from).Decode(&object); err != nil {
		return err
	}
	for name := range object {
		if !slices.Contains(names, name) {
			delete(object, name)
		}
	}
	if len(object) == 0 { // what is empty is left out
		object[names[0]] = json.RawMessage(`""`)
	}
	return json.NewEncoder(to).Encode(object)
}
