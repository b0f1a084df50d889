package quarantine

import (
	"bytes"
	"sync"

	bolt "go.etcd.io/bbolt"
)

// Summary says what a store holds, without reading it.
type Summary struct {
	Entries int
	// How many of them cannot be read. They are counted by day only.
	Unreadable int
	// By the fields of an entry, those without the field under "". Types are named by the function given to SummarizeBy.
	Reasons, Types, Instances Counts
	// By the day of receipt in UTC, such as "2026-11-21".
	Days Counts
}

// Counts are numbers of entries by name.
type Counts struct {
	Each []Count // in no particular order
	// Entries whose names are not counted one by one, because there are too many.
	Others int
}

// Count is how many entries have a name.
type Count struct {
	Name    string
	Entries int
}

// How many names are counted one by one, which bounds the memory to about 2 MB. A sender may make up instances.
const (
	mostReasons   = 100
	mostTypes     = 100
	mostInstances = 10_000
	mostDays      = 4000
	mostName      = 64 // bytes of a name
)

// summary counts entries as they come and go. Nothing of it is in the file: it is counted anew when the file is opened, so
// that it cannot differ from the file after a kill.
type summary struct {
	mu      sync.Mutex
	counted bool // false until the entries were counted, and after a failed write

	label         func(typ string) string
	typ, labelled []byte // the last one, as most have the same type

	entries, unreadable             int
	reasons, types, instances, days tally
}

// SummarizeBy sets the function that names the type of an entry in a Summary, from a list that is not long, and counts
// the entries there are, so that Summary need not. It is called with the empty type, too.
func (s *Store) SummarizeBy(label func(typ string) string) {
	if s.begin() != nil {
		return
	}
	defer s.life.RUnlock()
	s.writer <- struct{}{}
	defer func() { <-s.writer }()
	s.summary.mu.Lock()
	s.summary.label, s.summary.typ, s.summary.labelled, s.summary.counted = label, nil, nil, false
	s.summary.mu.Unlock()
	_ = s.countSummary() // Summary tries again
}

// Summary returns what the store holds. It reads the file only if it has to count anew: after a write has failed, or if
// SummarizeBy was not called.
func (s *Store) Summary() (Summary, error) {
	if err := s.begin(); err != nil {
		return Summary{}, err
	}
	defer s.life.RUnlock()
	for {
		if sum, counted := s.summary.get(); counted {
			for i, day := range sum.Days.Each { // its name is the beginning of an ID
				if name := day.Name; len(name) == len("20060102") {
					sum.Days.Each[i].Name = name[:4] + "-" + name[4:6] + "-" + name[6:]
				}
			}
			return sum, nil
		}
		s.writer <- struct{}{}
		err := s.countSummary()
		<-s.writer
		if err != nil {
			return Summary{}, err
		}
	}
}

// countSummary counts the entries, unless that is done. Only the writer may call it.
func (s *Store) countSummary() error {
	if err := s.file.Ready(); err != nil {
		return err
	}
	m := &s.summary
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.counted {
		return nil
	}
	m.entries, m.unreadable = 0, 0
	m.reasons, m.types, m.instances, m.days = newTally(mostReasons), newTally(mostTypes), newTally(mostInstances), newTally(mostDays)
	err := s.file.WriterView(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketEntries).Cursor()
		for k, v := c.Last(); k != nil; k, v = c.Prev() { // if the names are too many, those of the newest are counted
			m.count(traitsOf(k, v), 1)
		}
		return nil
	})
	m.counted = err == nil
	return err
}

// add counts entries that were written. Only the writer may call it.
func (m *summary) add(batch []*put, stats Stats) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.counted {
		return
	}
	for _, p := range batch {
		m.count(traitsOf([]byte(p.id), p.record), 1)
	}
	m.check(stats)
}

// remove counts entries that were deleted. Only the writer may call it.
func (m *summary) remove(gone []traits, stats Stats) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.counted {
		return
	}
	for _, t := range gone {
		m.count(t, -1)
	}
	m.check(stats)
}

// check has everything counted anew if it cannot be right, as when an entry has become unreadable since it was counted.
func (m *summary) check(stats Stats) {
	if m.entries != stats.Entries || m.unreadable < 0 || m.reasons.wrong || m.types.wrong || m.instances.wrong || m.days.wrong {
		m.counted = false
	}
}

// forget has everything counted anew when a Summary is wanted.
func (m *summary) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counted = false
}

func (m *summary) count(t traits, n int) {
	m.entries += n
	m.days.count(t.day, n)
	if t.unreadable {
		m.unreadable += n
		return
	}
	m.reasons.count(t.reason, n)
	m.instances.count(t.instance, n)
	if m.label == nil {
		m.types.count(t.typ, n)
		return
	}
	if m.labelled == nil || !bytes.Equal(t.typ, m.typ) {
		m.typ, m.labelled = append(m.typ[:0], t.typ...), []byte(m.label(string(t.typ)))
	}
	m.types.count(m.labelled, n)
}

func (m *summary) get() (sum Summary, counted bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.counted {
		return Summary{}, false
	}
	return Summary{
		Entries: m.entries, Unreadable: m.unreadable,
		Reasons: m.reasons.list(), Types: m.types.list(), Instances: m.instances.list(), Days: m.days.list(),
	}, true
}

// tally counts by name. While there are others, no further name is counted by itself: either all entries of a name are
// among the others, or none is, and a deletion is counted where the entry was.
type tally struct {
	most   int
	each   map[string]*Count
	last   *Count // most likely the next one, too
	others int
	wrong  bool // more entries of a name are gone than were there
}

func newTally(most int) tally { return tally{most: most, each: make(map[string]*Count)} }

func (t *tally) count(name []byte, n int) {
	if len(name) > mostName {
		name = name[:mostName]
	}
	at := t.last
	if at == nil || at.Name != string(name) {
		at = t.each[string(name)]
	}
	switch {
	case at == nil && (n < 0 || t.others > 0 || len(t.each) >= t.most):
		t.others += n
		t.wrong = t.wrong || t.others < 0
		return
	case at == nil:
		at = &Count{Name: string(name)}
		t.each[at.Name] = at
	}
	t.last = at
	at.Entries += n
	t.wrong = t.wrong || at.Entries < 0
	if at.Entries == 0 {
		delete(t.each, at.Name)
		t.last = nil
	}
}

func (t *tally) list() Counts {
	counts := Counts{Each: make([]Count, 0, len(t.each)), Others: t.others}
	for _, count := range t.each {
		counts.Each = append(counts.Each, *count)
	}
	return counts
}

// traits are what an entry is counted by.
type traits struct {
	day, reason, typ, instance []byte
	unreadable                 bool
}

// clone returns traits that share no memory with a file.
func (t traits) clone() traits {
	return traits{bytes.Clone(t.day), bytes.Clone(t.reason), bytes.Clone(t.typ), bytes.Clone(t.instance), t.unreadable}
}

// traitsOf returns the traits of an entry, which may share its memory.
func traitsOf(id, record []byte) traits {
	t := traits{day: id[:min(len(id), len("20060102"))]}
	head, _, err := splitHead(record)
	if err != nil {
		t.unreadable = true
		return t
	}
	if scanHead(head, &t) {
		return t
	}
	e, err := decodeEntry(head)
	t.reason, t.typ, t.instance, t.unreadable = []byte(e.Reason), []byte(e.Type), []byte(e.Instance), err != nil
	return t
}

// scanHead finds the traits in a head, for a tenth of what decoding it costs. It returns false if it does not know, as for
// values with escapes.
func scanHead(head []byte, t *traits) (ok bool) {
	rest, ok := bytes.CutPrefix(head, []byte("{"))
	for ok && len(rest) > 0 && rest[0] == '"' {
		var name, value []byte
		var plain bool
		if name, rest, plain = cutString(rest); !plain || len(rest) == 0 || rest[0] != ':' {
			return false
		}
		rest = rest[1:]
		if len(rest) == 0 {
			return false
		}
		at := t.named(name)
		switch {
		case rest[0] == '"':
			value, rest, plain = cutString(rest)
			if at != nil {
				*at, ok = value, plain
			}
		case at != nil:
			return false
		default:
			rest, ok = skipValue(rest)
		}
		if t.reason != nil && t.typ != nil && t.instance != nil {
			return ok
		}
		if len(rest) == 0 {
			return false
		}
		if rest[0] == '}' {
			return ok && len(rest) == 1
		}
		ok = ok && rest[0] == ','
		rest = rest[1:]
	}
	return false
}

// named returns the trait that a head has under a name, nil if it is none.
func (t *traits) named(name []byte) *[]byte {
	switch string(name) {
	case "reason":
		return &t.reason
	case "type":
		return &t.typ
	case "instance":
		return &t.instance
	}
	return nil
}

// cutString returns the JSON string at the beginning of text, without its quotes, and what is behind it. plain means that
// there is no escape in it.
func cutString(text []byte) (s, rest []byte, plain bool) {
	text = text[1:]
	plain = true
	for at := 0; ; {
		n := bytes.IndexByte(text[at:], '"')
		if n < 0 {
			return nil, nil, false
		}
		backslash := bytes.IndexByte(text[at:at+n], '\\')
		if backslash < 0 {
			return text[:at+n], text[at+n+1:], plain
		}
		plain = false
		if at += backslash + 2; at > len(text) {
			return nil, nil, false
		}
	}
}

// skipValue returns what is behind the JSON value at the beginning of text, which is not a string.
func skipValue(text []byte) (rest []byte, ok bool) {
	depth := 0
	for len(text) > 0 {
		switch text[0] {
		case '"':
			if _, text, _ = cutString(text); text == nil {
				return nil, false
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return text, true
			}
			depth--
		case ',':
			if depth == 0 {
				return text, true
			}
		}
		text = text[1:]
	}
	return nil, false
}
