package quarantine

import (
	"bytes"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Scan says where Newest begins, and how far it looks.
type Scan struct {
	// Newest begins before this ID, which need not exist. Empty: at the newest entry.
	Before string
	// Newest stops when it has looked at this many entries. 0: no limit.
	Most int
	// Newest stops after this time. 0: no limit.
	Time time.Duration
}

// Page is what Newest has found.
type Page struct {
	// The selected entries without their bodies, newest first.
	Entries []Entry
	// How many entries were looked at, selected or not.
	LookedAt int
	// Where to go on, as Before. Empty if there is nothing more to look at.
	More string
}

const (
	// How many entries Newest looks at in one transaction: as long as it lasts, Scrub and a failed write wait.
	newestBatch = 1000
	// Beyond that many values of a field, a mark for each takes longer than decoding.
	mostMarks = 8
)

// Newest returns the selected entries in reverse order of ID, at most Limit of them. It looks at one entry at least, and
// stops when scan says so, or when the entries fill 4 MiB: only an empty More means the end. After bounds it, too: entries
// up to that ID are not looked at. Unlike Each, it does not tell Missing what it has seen.
func (f *Filter) Newest(store *Store, scan Scan) (Page, error) {
	w := &backwards{filter: f, scan: scan, begun: time.Now(), at: []byte(scan.Before), end: []byte(f.After), marks: f.marks()}
	if !f.Until.IsZero() && datable(f.Until) {
		w.startBefore([]byte(newID(f.Until.Truncate(time.Millisecond).Add(time.Millisecond), 0)))
	}
	if !f.Since.IsZero() && datable(f.Since) {
		w.since = []byte(newID(f.Since.Truncate(time.Millisecond), 0))
	}
	for more := true; more; {
		var err error
		if more, err = w.batch(store); err != nil {
			return Page{}, err
		}
		for _, u := range w.unreadable { // outside of the transaction: Unreadable may call the store
			if err := f.Unreadable(u.id, fmt.Errorf("entry %q: %w", u.id, u.err)); err != nil {
				return Page{}, err
			}
		}
		w.unreadable = nil
	}
	return w.page, nil
}

// datable reports whether IDs made of t sort by time.
func datable(t time.Time) bool { return t.UTC().Year() >= 0 && t.UTC().Year() < 9999 }

// backwards is one Newest.
type backwards struct {
	filter *Filter
	scan   Scan
	begun  time.Time
	marks  [][][]byte

	at         []byte // it goes on before this ID; empty for the newest entry
	end, since []byte // not beyond the one, and not below the other
	size       int    // of the selected entries' heads
	late       bool   // the time is over
	page       Page
	unreadable []unreadable
}

type unreadable struct {
	id  string
	err error
}

// startBefore lets w start before an ID, unless it starts before a lower one.
func (w *backwards) startBefore(id []byte) {
	if len(w.at) == 0 || bytes.Compare(id, w.at) < 0 {
		w.at = id
	}
}

// batch looks at entries in one transaction. more means that there are more to look at.
func (w *backwards) batch(store *Store) (more bool, err error) {
	if err := store.begin(); err != nil {
		return false, err
	}
	defer store.life.RUnlock()
	err = store.file.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketEntries).Cursor()
		k, v := lastBefore(c, w.at)
		for n := 0; k != nil && bytes.Compare(k, w.end) > 0 && bytes.Compare(k, w.since) >= 0; k, v = c.Prev() {
			if w.stops() {
				w.page.More = string(w.at)
				return nil
			}
			if n++; n > newestBatch {
				more = true
				return nil
			}
			w.look(k, v)
			w.at = append(w.at[:0:0], k...) // the file's memory must not be kept
		}
		return nil
	})
	return more, err
}

// lastBefore returns the last entry before an ID, the last of all if that is empty.
func lastBefore(c *bolt.Cursor, id []byte) (k, v []byte) {
	if len(id) == 0 {
		return c.Last()
	}
	if k, _ := c.Seek(id); k == nil {
		return c.Last()
	}
	return c.Prev()
}

// stops reports whether w has looked far enough.
func (w *backwards) stops() bool {
	if w.page.LookedAt == 0 {
		return false
	}
	found := len(w.page.Entries)
	return w.late || w.filter.Limit > 0 && found >= w.filter.Limit || w.size >= listBytes ||
		w.scan.Most > 0 && w.page.LookedAt >= w.scan.Most
}

// look looks at one entry.
func (w *backwards) look(id, record []byte) {
	w.page.LookedAt++
	e, size, err := w.decode(id, record)
	if size > 0 || w.page.LookedAt%64 == 0 { // what needs no decoding takes about as long as a look at the clock
		w.late = w.scan.Time > 0 && time.Since(w.begun) >= w.scan.Time
	}
	switch {
	case err == nil && size == 0:
	case err != nil && w.filter.Unreadable != nil:
		if w.filter.mayMatch(e.ID) {
			w.unreadable = append(w.unreadable, unreadable{e.ID, err})
		}
	case w.filter.Matches(e):
		w.page.Entries = append(w.page.Entries, e)
		w.size += size
	}
}

// decode returns the entry of a record, and the size of its head, which is 0 if the filter does not select the entry, as is
// seen without decoding it. A damaged entry is always decoded, because damage is reported.
func (w *backwards) decode(id, record []byte) (e Entry, size int, err error) {
	if ids := w.filter.wanted["id"]; ids != nil && !ids[string(id)] {
		return Entry{}, 0, nil
	}
	head, _, err := splitHead(record)
	if err == nil {
		for _, field := range w.marks {
			if !containsAny(head, field) {
				return Entry{}, 0, nil
			}
		}
		e, err = decodeEntry(head)
	}
	e.ID = string(id)
	return e, max(len(head), 1), err
}

func containsAny(head []byte, marks [][]byte) bool {
	for _, mark := range marks {
		if bytes.Contains(head, mark) {
			return true
		}
	}
	return false
}

// marks returns, for wanted fields, bytes of which the head of each selected entry has one. They cost a hundredth of
// decoding it.
func (f *Filter) marks() (marks [][][]byte) {
	for field, values := range f.wanted {
		if field == "id" || len(values) > mostMarks { // the head has no ID
			continue
		}
		var wanted [][]byte
		for value := range values {
			if value == "" || !isPlain(value) {
				wanted = nil
				break
			}
			wanted = append(wanted, []byte(`"`+field+`":"`+value+`"`))
		}
		if wanted != nil {
			marks = append(marks, wanted)
		}
	}
	return marks
}

// isPlain reports whether JSON has only one way to write a string, whichever program writes it.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' || c == '/' {
			return false
		}
	}
	return true
}
