package follow

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
)

// Entries are what a copy of a file lists.
type Entries interface {
	// Count returns how many there are.
	Count() int
	// MissingFrom returns how many of them a newer copy of the same type lacks.
	MissingFrom(newer Entries) int
}

// A fileCopy is what is needed of one copy of a file to detect a loss.
type fileCopy struct {
	text   []byte
	listed Entries
	ended  bool // the last line ends with a newline
}

func newCopy(text []byte, listed Entries) fileCopy {
	return fileCopy{text, listed, bytes.HasSuffix(text, []byte("\n"))}
}

// fewLost is how many entries a file may lose at once, however short it is. Beyond that, a loss of more
// than a tenth is doubtful.
const fewLost = 10

var errCutShort = errors.New("the last line has no line end, and had one before, as if the file was cut short; " +
	"want it whole, or 'caddy reload --force' if it is meant")

// doubtEnd returns an error if a newer copy seems to end in the middle of a line.
func (c fileCopy) doubtEnd(text []byte) error {
	if c.ended && len(text) > 0 && !newCopy(text, nil).ended {
		return errCutShort
	}
	return nil
}

// doubt returns an error if a newer copy seems to have been cut short.
func (c fileCopy) doubt(newer fileCopy) error {
	if err := c.doubtEnd(newer.text); err != nil {
		return err
	}
	return c.doubtLoss(newer.listed)
}

// doubtLoss returns an error if a newer copy has lost so much that it seems to have been cut short.
func (c fileCopy) doubtLoss(newer Entries) error {
	if lost, before := c.listed.MissingFrom(newer), c.listed.Count(); lost > fewLost && lost*10 > before {
		return fmt.Errorf("%d of %d entries are missing, as if the file was cut short; want it whole, or 'caddy reload --force' if it is meant", lost, before)
	}
	return nil
}

// A Memory remembers the copy of one file that is in effect. It outlives the config that read the file.
type Memory struct {
	mu   sync.Mutex
	copy fileCopy
}

// swap stores a copy and returns the previous one, which lists nil if there was none.
func (m *Memory) swap(newer fileCopy) fileCopy {
	if m == nil {
		return fileCopy{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.copy
	m.copy = newer
	return before
}

// get returns the copy, which lists nil if there is none.
func (m *Memory) get() fileCopy {
	if m == nil {
		return fileCopy{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.copy
}
