package notification

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// maxShared limits the string that all fields share, so that keeping an instance does not keep a megabyte
// of name in memory.
const maxShared = 1 << 10

// notification returns the notification in a body, nil if anything has to be refused.
func (s *scan) notification(body []byte, known *names) *Notification {
	if len(body) > maxBody || !s.read(body, known) {
		return nil
	}
	var at [ownNames]int // the body's own members, 0 for none
	for i := 1; i < len(s.tokens); i = int(s.tokens[i].next) {
		if name := s.tokens[i].name; name < ownNames {
			at[name] = i
		}
	}
	n := &Notification{body: body}
	if t := &s.tokens[at[nameTimestamp]]; t.shape&isNumber != 0 {
		n.Timestamp = seconds(s.raw(t))
	}
	texts := [...]struct {
		field *string
		token int
	}{
		{&n.Type, at[nameType]},
		{&n.Instance, s.member(at[nameInstanceData], nameInstance)},
		{&n.Message, s.member(at[nameMessageData], nameMessage)},
		{&n.Chat, s.chat(&at)},
		{&n.ID, at[nameID]},
	}
	var ends [len(texts)]int
	s.text = s.text[:0]
	for i, t := range texts {
		s.appendText(t.token, t.field == &n.Instance)
		ends[i] = len(s.text)
	}
	all, begin := string(s.text), 0 // a single string for all fields
	for i, t := range texts {
		*t.field, begin = all[begin:ends[i]], ends[i]
		if len(all) > maxShared {
			*t.field = strings.Clone(*t.field)
		}
	}
	ok := false
	if n.Instance, ok = digits(n.Instance); !ok || n.Type == "" {
		return nil
	}
	return n
}

// member returns a member of a member of the body, or 0.
func (s *scan) member(outer int, name int32) int {
	if outer == 0 {
		return 0
	}
	return s.find(outer, name)
}

// find returns a member of the object at a token, or 0.
func (s *scan) find(object int, name int32) int {
	if s.tokens[object].shape != isObject {
		return 0
	}
	for i := object + 1; i < int(s.tokens[object].next); i = int(s.tokens[i].next) {
		if s.tokens[i].name == name {
			return i
		}
	}
	return 0
}

// chat returns the first existing member that may name the chat, or 0.
func (s *scan) chat(at *[ownNames]int) int {
	if sender := s.member(at[nameSenderData], nameChat); s.isText(sender) {
		return sender
	}
	if s.isText(at[nameChat]) {
		return at[nameChat]
	}
	s.text = s.text[:0]
	if s.appendText(at[nameType], false); string(s.text) == "incomingCall" {
		return at[nameFrom]
	}
	return 0
}

// isText reports whether the value is a non-empty string.
func (s *scan) isText(token int) bool {
	t := &s.tokens[token]
	return t.shape == isString && t.end-t.start > int32(len(`""`))
}

// appendText appends to text a string, repaired if broken, or the digits of a number if number is set.
// Other values append nothing.
func (s *scan) appendText(token int, number bool) {
	t := &s.tokens[token]
	switch {
	case t.shape == isString:
		s.text, _ = jsontext.AppendUnquote(s.text, s.raw(t)) // the error only says that it was repaired
	case number && t.shape == isInteger:
		s.text = append(s.text, s.raw(t)...)
	}
}
