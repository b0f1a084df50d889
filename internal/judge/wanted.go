package judge

import (
	"errors"
	"fmt"
	"strings"

	"github.com/greenapi-community/caddy-green-api/notification"
)

// Wanted holds the options `accept` and `drop`. The zero value wants everything.
type Wanted struct {
	accept, drop map[string]bool // by TYPE or TYPE.MESSAGE
	schemas      *notification.Schemas
}

// NewWanted also returns the entries of drop that no schema knows. In accept such an entry is an error: a
// typo there would drop what is wanted.
func NewWanted(accept, drop []string, schemas *notification.Schemas) (w Wanted, unknown []string, err error) {
	if len(accept) > 0 && len(drop) > 0 {
		return w, nil, errors.New("accept, drop: want one of them, not both")
	}
	w = Wanted{accept: make(map[string]bool), drop: make(map[string]bool), schemas: schemas}
	for _, entry := range accept {
		if !w.known(entry) {
			return w, nil, fmt.Errorf("accept: unknown type %q; want TYPE or TYPE.MESSAGE, as incomingMessageReceived.textMessage; "+
				"the types are %s; a new one needs a schema in 'schemas'", entry, strings.Join(schemas.Types(), ", "))
		}
		w.accept[entry] = true
	}
	for _, entry := range drop {
		if !w.known(entry) {
			unknown = append(unknown, entry)
		}
		w.drop[entry] = true
	}
	return w, unknown, nil
}

func (w Wanted) known(entry string) bool {
	typ, message, both := strings.Cut(entry, ".")
	return w.schemas.KnownType(typ) && (!both || w.schemas.KnownMessage(message))
}

// wants reports whether to deliver the notification. One of an unknown type or message type is wanted:
// other options decide about it.
func (w Wanted) wants(n *notification.Notification) bool {
	if len(w.drop)+len(w.accept) == 0 {
		return true
	}
	both := make([]byte, 0, 128) // not on the heap, as a string would be
	both = append(append(append(both, n.Type...), '.'), n.Message...)
	if w.drop[n.Type] || w.drop[string(both)] {
		return false
	}
	if len(w.accept) == 0 || w.accept[n.Type] || w.accept[string(both)] {
		return true
	}
	if !w.schemas.KnownType(n.Type) {
		return true
	}
	if n.Message != "" && !w.schemas.KnownMessage(n.Message) {
		return w.acceptsSome(n.Type)
	}
	// A notification without a message type is broken if its type has only some message types accepted. Its
	// schema reports that.
	return n.Message == "" && w.acceptsSome(n.Type)
}

// acceptsSome reports whether accept names a message type of typ.
func (w Wanted) acceptsSome(typ string) bool {
	for entry := range w.accept {
		if strings.HasPrefix(entry, typ+".") {
			return true
		}
	}
	return false
}
