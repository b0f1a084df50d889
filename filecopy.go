package greenapi

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/greenapi-community/caddy-green-api/internal/address"
)

// entries are what a copy of a followed file lists.
type entries interface {
	count() int
	missingFrom(newer entries) int // how many of them the newer copy does not list
}

// A fileCopy is one copy of a followed file, as far as a loss can be seen in it.
type fileCopy struct {
	text   []byte
	listed entries
	ended  bool // the last line has a line end
}

func newCopy(text []byte, listed entries) fileCopy {
	return fileCopy{text, listed, bytes.HasSuffix(text, []byte("\n"))}
}

// fewLost is how many entries a file may lose at once, however short it is. Above it, a loss of more
// than a tenth is doubtful.
const fewLost = 10

var errCutShort = errors.New("the last line has no line end, and had one before, as if the file was cut short; " +
	"want it whole, or 'caddy reload --force' if it is meant")

// doubtEnd is an error if a newer copy ends in the middle of a line, as far as that can be seen.
func (c fileCopy) doubtEnd(text []byte) error {
	if c.ended && len(text) > 0 && !newCopy(text, nil).ended {
		return errCutShort
	}
	return nil
}

// doubt is an error if a newer copy seems to have been cut short.
func (c fileCopy) doubt(newer fileCopy) error {
	if err := c.doubtEnd(newer.text); err != nil {
		return err
	}
	return c.doubtLoss(newer.listed)
}

// doubtLoss is an error if a newer copy has lost so much that it seems to have been cut short.
func (c fileCopy) doubtLoss(newer entries) error {
	if lost, before := c.listed.missingFrom(newer), c.listed.count(); lost > fewLost && lost*10 > before {
		return fmt.Errorf("%d of %d entries are missing, as if the file was cut short; want it whole, or 'caddy reload --force' if it is meant", lost, before)
	}
	return nil
}

// byteOrderMark names the mark that a text begins with, "" if there is none. Editors on Windows write
// it, and it looks like nothing.
func byteOrderMark(text []byte) string {
	for _, mark := range []struct{ name, bytes string }{{"UTF-8", "\xef\xbb\xbf"}, {"UTF-16", "\xff\xfe"}, {"UTF-16", "\xfe\xff"}} {
		if bytes.HasPrefix(text, []byte(mark.bytes)) {
			return mark.name
		}
	}
	return ""
}

// instanceList is the instances that a file lists.
type instanceList map[string][]string

func (l instanceList) count() int { return len(l) }

func (l instanceList) missingFrom(newer entries) (n int) {
	other := newer.(instanceList)
	for id := range l {
		if _, there := other[id]; !there {
			n++
		}
	}
	return n
}

// addressList is the addresses that a file lists.
type addressList struct{ address.Set }

func (l addressList) count() int { return len(l.Set) }

func (l addressList) missingFrom(newer entries) int {
	return l.Missing(newer.(addressList).Set)
}
