package notification

import (
	"bytes"
	"unicode/utf8"
)

// meets reports whether the value at a token, with everything in it, meets the node. It may say no where a
// judge says yes.
func (s *scan) meets(n *node, at int) bool {
	t := &s.tokens[at]
	if t.shape&n.shapes == 0 || n.left != nil {
		return false
	}
	for _, other := range n.all {
		if !s.meets(other, at) {
			return false
		}
	}
	if len(n.any) > 0 && !s.meetsAny(n.any, at) {
		return false
	}
	switch t.shape {
	case isObject:
		return len(n.names) == 0 || s.membersMeet(n, at)
	case isArray:
		return n.items == nil || s.elementsMeet(n.items, at)
	case isString:
		return n.minLength == 0 || s.isLong(t, n.minLength)
	default:
		return true
	}
}

func (s *scan) meetsAny(branches []*node, at int) bool {
	for _, branch := range branches {
		if s.meets(branch, at) {
			return true
		}
	}
	return false
}

// membersMeet checks the members that the schema names, and that no required one is missing.
func (s *scan) membersMeet(n *node, object int) bool {
	missing := n.required
	end := int(s.tokens[object].next)
	for at := object + 1; at < end; at = int(s.tokens[at].next) {
		name := s.tokens[at].name
		if name == otherName {
			continue
		}
		for i, known := range n.names {
			if known != name {
				continue
			}
			missing &^= 1 << i // beyond 63, where none is required, the bit is 0
			if !s.memberMeets(n.members[i], at) {
				return false
			}
			break
		}
	}
	return missing == 0
}

// memberMeets is meets, faster for most members.
func (s *scan) memberMeets(n *node, at int) bool {
	switch {
	case n == nil:
		return true
	case n.plain:
		return s.tokens[at].shape&n.shapes != 0
	default:
		return s.meets(n, at)
	}
}

func (s *scan) elementsMeet(n *node, array int) bool {
	for at := array + 1; at < int(s.tokens[array].next); at = int(s.tokens[at].next) {
		if !s.meets(n, at) {
			return false
		}
	}
	return true
}

// isLong reports whether a string has at least length code points; a broken byte counts as one. Of a string
// with escapes it only knows that it is not empty.
func (s *scan) isLong(t *token, length int) bool {
	quoted := s.body[t.start+1 : t.end-1]
	if len(quoted) < length {
		return false
	}
	return length == 1 || bytes.IndexByte(quoted, '\\') < 0 && utf8.RuneCount(quoted) >= length
}
