package quarantine

import (
	"errors"
	"maps"
	"slices"
	"time"
)

// filterFields are the fields that a Filter can match.
var filterFields = map[string]func(Entry) string{
	"id":       func(e Entry) string { return e.ID },
	"reason":   func(e Entry) string { return e.Reason },
	"type":     func(e Entry) string { return e.Type },
	"message":  func(e Entry) string { return e.Message },
	"instance": func(e Entry) string { return e.Instance },
	"chat":     func(e Entry) string { return e.Chat },
	"name":     func(e Entry) string { return e.Name },
}

// Filter selects entries. An entry must meet all conditions; the zero Filter selects every entry.
type Filter struct {
	// Selects what was received at this time or later. Zero: no bound.
	Since time.Time
	// Selects what was received before this time. Zero: no bound.
	Until time.Time
	// Selects what was kept before the entry with this number was; see Next. Zero: no bound.
	KeptBefore uint64
	// Each starts after this ID, which need not exist. Empty: at the beginning.
	After string
	// Each stops after this many selected entries. 0: no limit.
	Limit int

	// Each calls this for an unreadable entry that the filter may select. An error ends Each. Nil: such an
	// entry is treated as one that has nothing but its ID.
	Unreadable func(id string, err error) error

	wanted map[string]map[string]bool // values by field
	met    map[string]bool            // which of the wanted IDs Each has seen
}

// IsFilterField reports whether a Filter can match a field: id, reason, type, message, instance, chat or
// name.
func IsFilterField(name string) bool { return filterFields[name] != nil }

// Want adds values of a field, any of which matches. IsFilterField must hold for the field.
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

// Wants reports whether Want was called with this value of the field.
func (f *Filter) Wants(field, value string) bool { return f.wanted[field][value] }

// Fields returns the fields with wanted values, sorted.
func (f *Filter) Fields() []string { return slices.Sorted(maps.Keys(f.wanted)) }

// Values returns the wanted values of a field, sorted.
func (f *Filter) Values(field string) []string { return slices.Sorted(maps.Keys(f.wanted[field])) }

// IsEmpty reports whether the filter has no condition. After and Limit are not conditions: they only page a
// list.
func (f *Filter) IsEmpty() bool {
	return len(f.wanted) == 0 && f.Since.IsZero() && f.Until.IsZero() && f.KeptBefore == 0
}

// Matches reports whether the filter selects an entry. An unreadable entry has no time of receipt and meets
// no condition about it.
func (f *Filter) Matches(e Entry) bool {
	for field, values := range f.wanted {
		if !values[filterFields[field](e)] {
			return false
		}
	}
	if e.Received.IsZero() && (!f.Since.IsZero() || !f.Until.IsZero()) {
		return false
	}
	return f.isKeptBefore(e.ID) && (f.Since.IsZero() || !e.Received.Before(f.Since)) && (f.Until.IsZero() || e.Received.Before(f.Until))
}

// isKeptBefore reports whether an entry was kept before the one with the number KeptBefore. One without a number may have been.
func (f *Filter) isKeptBefore(id string) bool {
	number, known := numberOf(id)
	return f.KeptBefore == 0 || !known || number < f.KeptBefore
}

// mayMatch reports whether the filter may select an entry of which only the ID is readable.
func (f *Filter) mayMatch(id string) bool {
	if ids := f.wanted["id"]; ids != nil {
		return ids[id]
	}
	at, known := TimeOf(id)
	if !known {
		return true
	}
	return f.isKeptBefore(id) && (f.Since.IsZero() || !at.Before(f.Since.Truncate(time.Millisecond))) && (f.Until.IsZero() || at.Before(f.Until))
}

// Each calls do with each selected entry, in order of ID and without its body, until do returns an error,
// which Each then returns. It reads in batches and holds no lock while do runs, so do may be slow and may
// change the store.
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

// look reports whether the filter selects an entry, and passes an unreadable one to Unreadable.
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

// Missing returns the wanted IDs that do not exist. An entry that the last Each has seen is not missing,
// even if it has been deleted since.
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
