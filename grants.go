package greenapi

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// grantSet is all tokens that are in force at a time.
type grantSet struct {
	key    [sha256.Size]byte
	grants map[digest]*grant
	own    map[string]bool // instances that have tokens of their own
	basic  bool            // some token is Basic

	// For replays: the header of the first token of each instance, "" for all others.
	headers map[string]string
}

// A grant is what one token admits.
type grant struct {
	shared    bool     // every instance without tokens of its own
	instances []string // sorted
}

// A digest of scheme and token, keyed with a random key of the process. Nobody outside can tell
// which tokens share a piece of their digests, so the time of a look-up in a map of them says
// nothing about any token, however much of it was guessed right, and however many there are.
type digest [sha256.Size]byte

// newGrantSet makes a set of the tokens of all and of single instances.
func newGrantSet(shared []string, instances map[string][]string) (*grantSet, error) {
	a := &grantSet{grants: make(map[digest]*grant), own: make(map[string]bool), headers: make(map[string]string)}
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
		if !isInstanceID(id) {
			return nil, errInstanceID
		}
		if a.own[sameInstance(id)] {
			return nil, fmt.Errorf("instance %s is there twice, with and without leading zeros; want all its tokens in one place", sameInstance(id))
		}
		a.own[sameInstance(id)] = true
		if len(tokens) == 0 {
			return nil, fmt.Errorf("instance %s: no token", id)
		}
		for i, token := range tokens {
			g, err := a.grant(token, sameInstance(id))
			if err != nil {
				return nil, fmt.Errorf("instance %s: token %d: %w", id, i+1, err)
			}
			g.instances = append(g.instances, sameInstance(id))
		}
	}
	for _, g := range a.grants {
		slices.Sort(g.instances)
	}
	return a, nil
}

// errInstanceID does not quote the id: it may be a token in the wrong place.
var errInstanceID = errors.New("instance: the id is not 1 to 20 digits; want an id and its tokens, as in 'instance 1101000001 {env.TOKEN}'")

var errTokenForm = errors.New("invalid token; want it as in the console: a bare token, \"Bearer …\" or \"Basic …\", " +
	"in printable ASCII; scheme and token are one argument, in quotes")

// dollar is a variable as nginx or a shell writes it, which would be taken for a token.
var dollar = regexp.MustCompile(`^\$\{?[A-Za-z_][A-Za-z0-9_]*\}?$`)

var errDollar = errors.New("it begins with $, which means nothing here; want {env.NAME} for a variable")

// grant resolves a token of the config, of one instance or of all, and returns the entry for it. Its
// errors never have a piece of the token.
func (a *grantSet) grant(text, instance string) (*grant, error) {
	if dollar.MatchString(text) {
		return nil, errDollar
	}
	resolved, err := resolve(text)
	if err != nil {
		return nil, err
	}
	scheme, token, ok := splitToken(resolved)
	if !ok {
		return nil, errTokenForm
	}
	if scheme == "basic" {
		a.basic = true
	}
	if a.headers[instance] == "" {
		a.headers[instance] = strings.ToUpper(scheme[:1]) + scheme[1:] + " " + token
	}
	key := a.digest(scheme, token)
	g := a.grants[key]
	if g == nil {
		g = new(grant)
		a.grants[key] = g
	}
	return g, nil
}

// splitToken takes apart a token of the console or a header's value. A bare token has the scheme
// bearer: so the vendor sends it.
func splitToken(text string) (scheme, token string, ok bool) {
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

// schemeOf is the scheme of a name in lower or upper case, "" for any other.
func schemeOf(name string) string {
	for _, scheme := range []string{"bearer", "basic"} {
		if strings.EqualFold(name, scheme) {
			return scheme
		}
	}
	return ""
}

func (a *grantSet) digest(scheme, token string) digest {
	text := make([]byte, 0, 256)
	text = append(text, a.key[:]...)
	text = append(text, scheme...)
	text = append(text, ' ')
	text = append(text, token...)
	return sha256.Sum256(text)
}

// find returns what the header's token admits, nil for nothing.
func (a *grantSet) find(header http.Header) *grant {
	values := header["Authorization"]
	if len(values) != 1 {
		return nil // two of them: which one do the handlers look at?
	}
	scheme, token, ok := splitToken(values[0])
	if !ok {
		return nil
	}
	return a.grants[a.digest(scheme, token)]
}

// admits reports whether the header's token is right for an instance.
func (a *grantSet) admits(header http.Header, instance string) bool {
	g := a.find(header)
	if a.own[instance] {
		return g != nil && g.admits(instance)
	}
	return g != nil && g.shared
}

func (g *grant) admits(instance string) bool {
	_, found := slices.BinarySearch(g.instances, instance)
	return found
}

// sameInstance makes one id of its spellings, as notification.Parse does: as a string, an id may
// have leading zeros, which no handler that reads a number would see.
func sameInstance(id string) string {
	if short := strings.TrimLeft(id, "0"); short != "" {
		return short
	}
	return "0"
}

func isInstanceID(id string) bool {
	if id == "" || len(id) > 20 {
		return false
	}
	for _, c := range id {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
