package notification

import (
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Complete reports whether faults are all that Validate found in a body. It returns no more than a
// hundred, so of a list as long as that nobody knows what it leaves out.
func Complete(faults []Fault) bool { return len(faults) < maxFaults }

// Fingerprint is the same for two sets of schemas if, and only if, they demand the same.
func (s *Schemas) Fingerprint() [sha256.Size]byte { return s.fingerprint }

// fingerprintOf digests the schemas by name. Their white space and the order of their names do not matter.
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

// Shape returns the place in the schemas that a fault's pointer stands for: * takes the place of
// every array index, and of every name that the schemas do not know. So it is out of a closed list,
// whatever a body says.
func (s *Schemas) Shape(pointer string) string {
	known := s.knownNames()
	tokens := strings.Split(pointer, "/")
	for i, token := range tokens[1:] {
		if !known[pointerUnescape.Replace(token)] {
			tokens[i+1] = "*"
		}
	}
	return strings.Join(tokens, "/")
}

var pointerUnescape = strings.NewReplacer("~1", "/", "~0", "~")

// knownNames are the member names that the schemas speak of.
func (s *Schemas) knownNames() map[string]bool {
	s.shape.Do(func() {
		s.shapeNames = make(map[string]bool)
		for _, schema := range s.byLocation {
			for name := range schema.Properties {
				s.shapeNames[name] = true
			}
			for _, name := range schema.Required {
				s.shapeNames[name] = true
			}
		}
	})
	return s.shapeNames
}

// shapes is what Shape needs, made when it is first needed.
type shapes struct {
	shape      sync.Once
	shapeNames map[string]bool
}
