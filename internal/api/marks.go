package api

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// Mark is a place in the body of an entry where something is wrong.
type Mark struct {
	Pointer string `json:"pointer,omitempty"`
	Keyword string `json:"keyword,omitempty"`
	Cause   string `json:"cause,omitempty"` // of a body that is no JSON

	// The bytes of the body from Start, before End. Of a member that is missing, the object that misses it.
	Start   int  `json:"start"`
	End     int  `json:"end"`
	Missing bool `json:"missing,omitempty"`
}

// mostMarks is how many faults of an entry are looked for in its body.
const mostMarks = 100

// Marks returns where the faults of an entry are in its body. A body that is encoded, or that cannot be read as JSON as far
// as a fault, has no place for it.
func Marks(e quarantine.Entry) []Mark {
	marks := []Mark{}
	if len(e.Header["Content-Encoding"]) > 0 {
		return marks
	}
	if e.Cause != "" && e.Offset <= int64(len(e.Body)) {
		return append(marks, Mark{Cause: e.Cause, Start: int(e.Offset), End: min(int(e.Offset)+1, len(e.Body))})
	}
	var places []*place
	for _, fault := range e.Faults[:min(len(e.Faults), mostMarks)] {
		places = append(places, newPlace(fault.Pointer))
	}
	find(e.Body, places)
	for i, p := range places {
		if fault := e.Faults[i]; p.depth >= 0 {
			marks = append(marks, Mark{Pointer: fault.Pointer, Keyword: fault.Keyword, Start: p.start, End: p.end, Missing: p.depth < len(p.names)})
		}
	}
	return marks
}

// place is the value that a pointer leads to, or the innermost on the way there.
type place struct {
	names      []string // of the pointer
	on         int      // how many of them lead to the value that is read now
	depth      int      // how many lead to the value that was found; -1 if none was
	start, end int
}

func newPlace(pointer string) *place {
	p := &place{depth: -1}
	if pointer != "" {
		p.names = strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	}
	for i, name := range p.names {
		p.names[i] = strings.ReplaceAll(strings.ReplaceAll(name, "~1", "/"), "~0", "~")
	}
	return p
}

// frame is an object or an array that is being read.
type frame struct {
	object bool
	name   string // of the member that comes next
	index  int    // of the element that comes next
	start  int
}

// find sets the places that are in a body. It goes through it once, and stops where it is no JSON. Of two members of a
// name, the last counts, as for most handlers.
func find(body []byte, places []*place) {
	d := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	var frames []frame
	// enter notes that a value begins, and leave where it ended.
	enter := func() {
		if len(frames) == 0 {
			return
		}
		name := frames[len(frames)-1].next() // once: there may be many elements, and many places
		for _, p := range places {
			if p.on == len(frames)-1 && p.on < len(p.names) && p.names[p.on] == name {
				p.on++
			}
		}
	}
	leave := func(start, end int) {
		for _, p := range places {
			if p.on == len(frames) && p.on >= p.depth {
				p.depth, p.start, p.end = p.on, start, end
			}
			p.on = min(p.on, max(len(frames)-1, 0))
		}
		if len(frames) > 0 {
			frames[len(frames)-1].index++
			frames[len(frames)-1].name = ""
		}
	}
	named := false // the next text is a value, not a name
	for whole := false; !whole; whole = len(frames) == 0 {
		switch kind := d.PeekKind(); kind {
		case '{', '[':
			enter()
			if _, err := d.ReadToken(); err != nil {
				return
			}
			frames = append(frames, frame{object: kind == '{', start: int(d.InputOffset()) - 1})
			named = false
		case '}', ']':
			if _, err := d.ReadToken(); err != nil {
				return
			}
			start := frames[len(frames)-1].start
			frames = frames[:len(frames)-1]
			leave(start, int(d.InputOffset()))
			named = false
		default:
			top := len(frames) - 1
			if top >= 0 && frames[top].object && !named {
				name, err := d.ReadToken()
				if err != nil {
					return
				}
				frames[top].name, named = name.String(), true
				continue
			}
			enter()
			value, err := d.ReadValue()
			if err != nil {
				return
			}
			end := int(d.InputOffset())
			leave(end-len(value), end)
			named = false
		}
	}
}

// next returns what a pointer calls the value that comes next.
func (f frame) next() string {
	if f.object {
		return f.name
	}
	return strconv.Itoa(f.index)
}
