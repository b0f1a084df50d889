package quarantine

import (
	"errors"
	"maps"
	"slices"
	"time"
)

// filterFields are the fields that a Filter can ask for.
var filterFields = map[string]func(Entry) string{
	"id":       func(e Entry) string { return e.ID },
	"reason":   func(e Entry) string { return e.Reason },
	"type":     func(e Entry) string { return e.Type },
	"message":  func(e Entry) string { return e.Message },
	"instance": func(e Entry) string { return e.Instance },
	"chat":     func(e Entry) string { return e.Chat },
	"name":     func(e Entry) string { return e.Name },
}

// Filter chooses entries. All its conditions must be met; the zero Filter chooses every entry.
type Filter struct {
	// Chooses what was received at this time or later. Zero: no bound.
	Since time.Time
	// Chooses what was received before this time. Zero: no bound.
	Until time.Time
	// Each begins behind this ID, which need not exist. Empty: at the beginning.
	After string
	// Each ends after this many chosen entries. 0: no limit.
	Limit int

	// Each calls this for an entry that cannot be read and that the filter may choose. An error ends Each.
	// Nil: such an entry is treated as one that has nothing but its ID.
	Unreadable func(id string, err error) error

	wanted map[string]map[string]bool // values by field
	met    map[string]bool            // which of the IDs asked for Each has seen
}

// IsFilterField reports whether a Filter can ask for a field: id, reason, type, message, instance, chat or name.
func IsFilterField(name string) bool { return filterFields[name] != nil }

// Want asks for values of a field, beside those that were asked for before: any of them will do. The field must be one
// that IsFilterField knows.
func (f *Filter) Want(field string, values ...string) {
	if !IsFilterField(field) {
		panic("quarantine: filter: unknown field " + field)
	}
	if f.wanted == nil {
		f.wanted = make(map[string]map[string]bool)
	}
	if f.wanted[field] == nil {
		f.wanted[field] = make(map[string]bool)
	}
	for _, value := range values {
		f.wanted[field][value] = true
	}
}

// Wants reports whether a value of a field is asked for by name.
func (f *Filter) Wants(field, value string) bool { return f.wanted[field][value] }

// Fields returns the fields that are asked for, sorted.
func (f *Filter) Fields() []string { return slices.Sorted(maps.Keys(f.wanted)) }

// Values returns the values of a field that are asked for, sorted.
func (f *Filter) Values(field string) []string { return slices.Sorted(maps.Keys(f.wanted[field])) }

// IsEmpty reports whether the filter has no condition. After and Limit are none: they only cut a list into pages.
func (f *Filter) IsEmpty() bool { return len(f.wanted) == 0 && f.Since.IsZero() && f.Until.IsZero() }

// Matches reports whether the filter chooses an entry. An entry that cannot be read has no time of receipt and meets no
// condition about it.
func (f *Filter) Matches(e Entry) bool {
	for field, values := range f.wanted {
		if !values[filterFields[field](e)] {
			return false
		}
	}
	if e.Received.IsZero() && (!f.Since.IsZero() || !f.Until.IsZero()) {
		return false
	}
	return (f.Since.IsZero() || !e.Received.Before(f.Since)) && (f.Until.IsZero() || e.Received.Before(f.Until))
}

// mayMatch reports whether the filter may choose an entry of which only the ID can be read.
func (f *Filter) mayMatch(id string) bool {
	if ids := f.wanted["id"]; ids != nil {
		return ids[id]
	}
	at, known := TimeOf(id)
	if !known {
		return true
	}
	return (f.Since.IsZero() || !at.Before(f.Since.Truncate(time.Millisecond))) && (f.Until.IsZero() || at.Before(f.Until))
}

// Each calls do with each entry that the filter chooses, in the order of their IDs and without their bodies, until do
// returns an error, which Each then returns. Each reads a batch at a time and holds no lock while do runs, so do may take
// long and may change the store.
func (f *Filter) Each(store *Store, do func(Entry) error) error {
	after, left := f.After, f.Limit
	f.met = make(map[string]bool)
	for {
		const batch = 1000
		entries, err := store.List(after, batch)
		if len(entries) == 0 {
			return err
		}
		for _, entry := range entries {
			chosen, err := f.look(store, entry)
			if err != nil {
				return err
			}
			if !chosen {
				continue
			}
			if err := do(entry); err != nil {
				return err
			}
			if left--; left == 0 {
				return nil
			}
		}
		after = entries[len(entries)-1].ID
	}
}

// look reports whether the filter chooses an entry, and hands an unreadable one to Unreadable.
func (f *Filter) look(store *Store, e Entry) (chosen bool, err error) {
	if f.Wants("id", e.ID) {
		f.met[e.ID] = true
	}
	if f.Unreadable == nil || !e.Received.IsZero() {
		return f.Matches(e), nil
	}
	if !f.mayMatch(e.ID) {
		return false, nil
	}
	_, err = store.Get(e.ID)
	if err == nil || errors.Is(err, ErrNotFound) { // deleted meanwhile
		return false, nil
	}
	return false, f.Unreadable(e.ID, err)
}

// Missing returns the IDs asked for that no entry has. An entry that the last Each has seen is not missing, even if it was
// deleted since.
func (f *Filter) Missing(store *Store) (ids []string) {
	for _, id := range f.Values("id") {
		if f.met[id] {
			continue
		}
		if _, err := store.Get(id); errors.Is(err, ErrNotFound) {
			ids = append(ids, id)
		}
	}
	return ids
}
