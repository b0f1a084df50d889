package greenapi

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/greenapi-community/caddy-green-api/internal/token"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// parseFile makes a set of a copy of the instances file and of the tokens of the config.
func (a *Auth) parseFile(text []byte) (entries, func(), error) {
	listed, err := parseInstances(text)
	if err != nil {
		return nil, nil, err
	}
	all := maps.Clone(listed)
	for id, tokens := range a.Instance {
		if _, twice := listed[notification.SameInstance(id)]; twice {
			return nil, nil, fmt.Errorf("instance %s is in the config, too; want it in one place", id)
		}
		all[id] = tokens
	}
	set, err := token.NewSet(a.Token, all, resolve)
	if err != nil {
		return nil, nil, err
	}
	return instanceList(listed), func() { a.set.Store(set) }, nil
}

// parseInstances reads an instances file: the tokens of each instance, by the shortest spelling of its id. Its errors name the line, never what is in it.
func parseInstances(text []byte) (map[string][]string, error) {
	listed := make(map[string][]string)
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = withoutComment(line)
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
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
			if _, _, ok := token.Split(secret); !ok {
				return nil, fmt.Errorf("line %d: instance %s: token %d: %w", number, id, i+1, token.ErrForm)
			}
		}
		listed[notification.SameInstance(id)] = tokens
	}
	if len(listed) == 0 {
		return nil, errors.New("no instance in it")
	}
	return listed, nil
}

// joinSchemes puts a scheme and its token together, which need no quotes in a file.
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
