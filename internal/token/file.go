package token

import (
	"errors"
	"fmt"
	"strings"

	"github.com/greenapi-community/caddy-green-api/internal/follow"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// A List is the content of an instances file: the tokens of each instance, by the shortest spelling of its
// ID.
type List map[string][]string

// Count returns the number of instances.
func (l List) Count() int { return len(l) }

// MissingFrom returns how many of the instances a newer List lacks.
func (l List) MissingFrom(newer follow.Entries) (n int) {
	other := newer.(List)
	for id := range l {
		if _, there := other[id]; !there {
			n++
		}
	}
	return n
}

// ParseList parses an instances file: an ID and its tokens per line. Its errors name the line and never
// quote it.
func ParseList(text []byte) (List, error) {
	listed := make(List)
	for number, fields := range follow.Lines(text) {
		id := fields[0]
		if !notification.IsInstanceID(id) {
			return nil, fmt.Errorf("line %d: the id is not 1 to 20 digits; want an id and its tokens, as in '1101000001 token'", number)
		}
		if _, twice := listed[notification.SameInstance(id)]; twice {
			return nil, fmt.Errorf("line %d: instance %s is there already; want all its tokens on one line", number, id)
		}
		tokens := joinSchemes(fields[1:])
		if len(tokens) == 0 {
			return nil, fmt.Errorf("line %d: instance %s: no token", number, id)
		}
		for i, secret := range tokens {
			if _, _, ok := Split(secret); !ok {
				return nil, fmt.Errorf("line %d: instance %s: token %d: %w", number, id, i+1, ErrForm)
			}
		}
		listed[notification.SameInstance(id)] = tokens
	}
	if len(listed) == 0 {
		return nil, errors.New("no instance in it")
	}
	return listed, nil
}

// joinSchemes joins each scheme with its token, as these need no quotes in a file.
func joinSchemes(words []string) (tokens []string) {
	for i := 0; i < len(words); i++ {
		word := words[i]
		if (strings.EqualFold(word, "Bearer") || strings.EqualFold(word, "Basic")) && i+1 < len(words) {
			i++
			word += " " + words[i]
		}
		tokens = append(tokens, word)
	}
	return tokens
}
