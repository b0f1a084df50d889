package notification

import (
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// Fingerprint is the same for two sets of schemas if, and only if, they require the same.
func (s *Schemas) Fingerprint() [sha256.Size]byte { return s.fingerprint }

// fingerprintOf digests the schemas by name. White space and the order of names do not matter.
func fingerprintOf(docs map[string]schemaDoc) (sum [sha256.Size]byte, err error) {
	digest := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(docs)) {
		text, err := json.Marshal(docs[name].doc) // a map's keys are sorted
		if err != nil {
			return sum, err
		}
		digest.Write([]byte(name))
		digest.Write([]byte{0})
		digest.Write(text)
		digest.Write([]byte{0})
	}
	digest.Sum(sum[:0])
	return sum, nil
}

// Shape returns the place in the schemas that a fault's pointer stands for: * replaces every array index,
// and every name that the schemas do not know. So it comes from a closed list, whatever a body says.
func (s *Schemas) Shape(pointer string) string {
	tokens := strings.Split(pointer, "/")
	for i, token := range tokens[1:] {
		if !s.known[pointerUnescape.Replace(token)] {
			tokens[i+1] = unknownName
		}
	}
	return strings.Join(tokens, "/")
}

var pointerUnescape = strings.NewReplacer("~1", "/", "~0", "~")
