package greenapi

import (
	"errors"
	"fmt"
	"strings"

	"github.com/greenapi-community/caddy-green-api/notification"
)

// wantedSet is what `accept` and `drop` say.
type wantedSet struct {
	accept, drop map[string]bool // by TYPE or TYPE.MESSAGE
	schemas      *notification.Schemas
}

// newWantedSet also returns the entries of drop that no schema knows. In accept they are an error:
// a slip of the pen there would drop what is wanted.
func newWantedSet(accept, drop []string, schemas *notification.Schemas) (set wantedSet, unknown []string, err error) {
	if len(accept) > 0 && len(drop) > 0 {
		return set, nil, errors.New("accept, drop: want one of them, not both")
	}
	set = wantedSet{accept: make(map[string]bool), drop: make(map[string]bool), schemas: schemas}
	for _, entry := range accept {
		if !set.known(entry) {
			return set, nil, fmt.Errorf("accept: unknown type %q; want TYPE or TYPE.MESSAGE, as incomingMessageReceived.textMessage; "+
				"the types are %s; a new one needs a schema in 'schemas'", entry, strings.Join(schemas.Types(), ", "))
		}
		set.accept[entry] = true
	}
	for _, entry := range drop {
		if !set.known(entry) {
			unknown = append(unknown, entry)
		}
		set.drop[entry] = true
	}
	return set, unknown, nil
}

func (set wantedSet) known(entry string) bool {
	typ, message, both := strings.Cut(entry, ".")
	return set.schemas.KnownType(typ) && (!both || set.schemas.KnownMessage(message))
}

// wants tells whether the notification is to be delivered. One of an unknown type or message type
// is not unwanted: what becomes of it is the operator's to say.
func (set wantedSet) wants(n *notification.Notification) bool {
	both := n.Type + "." + n.Message
	if set.drop[n.Type] || set.drop[both] {
		return false
	}
	if len(set.accept) == 0 || set.accept[n.Type] || set.accept[both] {
		return true
	}
	if !set.schemas.KnownType(n.Type) {
		return true
	}
	if n.Message != "" && !set.schemas.KnownMessage(n.Message) {
		return set.acceptsSome(n.Type)
	}
	// A type of which only some message types are accepted, and none is given: broken.
	return n.Message == "" && set.acceptsSome(n.Type)
}

// acceptsSome tells whether accept names a message type of typ.
func (set wantedSet) acceptsSome(typ string) bool {
	for entry := range set.accept {
		if strings.HasPrefix(entry, typ+".") {
			return true
		}
	}
	return false
}
