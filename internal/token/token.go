// Package token decides which instances a token admits.
package token

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/greenapi-community/caddy-green-api/notification"
)

// A Set holds all tokens that are in effect at a time.
type Set struct {
	resolve func(string) (string, error)
	key     [sha256.Size]byte
	grants  map[digest]*Grant
	Own     map[string]bool // instances that have tokens of their own
	Basic   bool            // at least one token is Basic

	Shortest int // length of the shortest token without its scheme; 0 if there is none

	// For replays: the header of the first token of each instance, "" for all others.
	Headers map[string]string
}

// A Grant says which instances a token admits.
type Grant struct {
	shared    bool     // all instances without tokens of their own
	instances []string // sorted
}

// A digest of scheme and token, keyed with a random key of the process. Nobody outside can tell which
// tokens share part of their digests. So the time of a map lookup reveals nothing about any token, however
// much of it was guessed right, and however many there are.
type digest [sha256.Size]byte

// NewSet returns a set of shared tokens and of tokens of single instances. resolve replaces the
// placeholders of a token.
func NewSet(shared []string, instances map[string][]string, resolve func(string) (string, error)) (*Set, error) {
	a := &Set{resolve: resolve, grants: make(map[digest]*Grant), Own: make(map[string]bool), Headers: make(map[string]string)}
	if _, err := rand.Read(a.key[:]); err != nil {
		return nil, err
	}
	for i, token := range shared {
		g, err := a.grant(token, "")
		if err != nil {
			return nil, fmt.Errorf("token %d: %w", i+1, err)
		}
		g.shared = true
	}
	for id, tokens := range instances {
		if !notification.IsInstanceID(id) {
			return nil, ErrInstanceID
		}
		if a.Own[notification.SameInstance(id)] {
			return nil, fmt.Errorf("instance %s is there twice, with and without leading zeros; want all its tokens in one place", notification.SameInstance(id))
		}
		a.Own[notification.SameInstance(id)] = true
		if len(tokens) == 0 {
			return nil, fmt.Errorf("instance %s: no token", id)
		}
		for i, token := range tokens {
			g, err := a.grant(token, notification.SameInstance(id))
			if err != nil {
				return nil, fmt.Errorf("instance %s: token %d: %w", id, i+1, err)
			}
			g.instances = append(g.instances, notification.SameInstance(id))
		}
	}
	for _, g := range a.grants {
		slices.Sort(g.instances)
	}
	return a, nil
}

// ErrInstanceID does not quote the ID: it may be a token in the wrong place.
var ErrInstanceID = errors.New("instance: the id is not 1 to 20 digits; want an id and its tokens, as in 'instance 1101000001 {env.TOKEN}'")

// ErrForm does not quote the token.
var ErrForm = errors.New("invalid token; want it as in the console: a bare token, \"Bearer …\" or \"Basic …\", " +
	"in printable ASCII; scheme and token are one argument, in quotes")

// IsVariable reports whether a text is a variable in the style of nginx or a shell, which would be mistaken
// for a token. See ErrDollar.
func IsVariable(text string) bool { return dollar.MatchString(text) }

var dollar = regexp.MustCompile(`^\$\{?[A-Za-z_][A-Za-z0-9_]*\}?$`)

// ErrDollar is about a variable of a shell, which would be a token that everybody can guess.
var ErrDollar = errors.New("it begins with $, which means nothing here; want {env.NAME} for a variable")

// grant resolves a token from the config, shared or of one instance, and returns its Grant. Its errors
// never contain any part of the token.
func (a *Set) grant(text, instance string) (*Grant, error) {
	if IsVariable(text) {
		return nil, ErrDollar
	}
	resolved, err := a.resolve(text)
	if err != nil {
		return nil, err
	}
	scheme, token, ok := Split(resolved)
	if !ok {
		return nil, ErrForm
	}
	if scheme == "basic" {
		a.Basic = true
	}
	if a.Shortest == 0 || len(token) < a.Shortest {
		a.Shortest = len(token)
	}
	if a.Headers[instance] == "" {
		a.Headers[instance] = strings.ToUpper(scheme[:1]) + scheme[1:] + " " + token
	}
	key := a.digest(scheme, token)
	g := a.grants[key]
	if g == nil {
		g = new(Grant)
		a.grants[key] = g
	}
	return g, nil
}

// Split splits a token from the console or a header's value. A bare token has the scheme bearer, because
// that is how the vendor sends it.
func Split(text string) (scheme, token string, ok bool) {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return "", "", false
		}
	}
	name, token, found := strings.Cut(strings.Trim(text, " "), " ")
	scheme = schemeOf(name)
	if !found {
		if scheme != "" {
			return "", "", false // a scheme and nothing after it
		}
		scheme, token = "bearer", name
	}
	token = strings.TrimLeft(token, " ")
	if token == "" || strings.Contains(token, " ") || scheme == "" {
		return "", "", false
	}
	return scheme, token, true
}

// schemeOf returns the scheme in lower case for its name in any case, "" for any other name.
func schemeOf(name string) string {
	for _, scheme := range []string{"bearer", "basic"} {
		if strings.EqualFold(name, scheme) {
			return scheme
		}
	}
	return ""
}

func (a *Set) digest(scheme, token string) digest {
	text := make([]byte, 0, 256)
	text = append(text, a.key[:]...)
	text = append(text, scheme...)
	text = append(text, ' ')
	text = append(text, token...)
	return sha256.Sum256(text)
}

// Find returns what the header's token admits, nil for nothing.
func (a *Set) Find(header http.Header) *Grant {
	values := header["Authorization"]
	if len(values) != 1 {
		return nil // with two, it is unknown which one the handlers read
	}
	scheme, token, ok := Split(values[0])
	if !ok {
		return nil
	}
	return a.grants[a.digest(scheme, token)]
}

// Admits reports whether the header's token is right for an instance.
func (a *Set) Admits(header http.Header, instance string) bool {
	return a.Lets(a.Find(header), instance)
}

// Lets reports whether what Find returned is right for an instance.
func (a *Set) Lets(g *Grant, instance string) bool {
	if a.Own[instance] {
		return g != nil && g.admits(instance)
	}
	return g != nil && g.shared
}

func (g *Grant) admits(instance string) bool {
	_, found := slices.BinarySearch(g.instances, instance)
	return found
}
