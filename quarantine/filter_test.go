package quarantine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// TestFilterPages: a long list comes in pages, in order, and whole.
func TestFilterPages(t *testing.T) {
	t.Parallel()
	s := openUnsynced(t, t.TempDir())
	const entries = 2500
	var group sync.WaitGroup
	for worker := range 50 {
		group.Go(func() {
			for i := range entries / 50 {
				mustPut(t, s, Entry{Reason: "schema", Instance: fmt.Sprint(i % 2), Body: []byte(fmt.Sprint(worker, i))})
			}
		})
	}
	group.Wait()
	count := func(f Filter) (n int, last string) {
		t.Helper()
		err := f.Each(s, func(e Entry) error {
			if e.ID <= last {
				t.Errorf("%s after %s", e.ID, last)
			}
			n, last = n+1, e.ID
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		return n, last
	}
	if n, _ := count(Filter{}); n != entries {
		t.Errorf("%d of %d", n, entries)
	}
	var half Filter
	half.Want("instance", "1")
	if n, _ := count(half); n != entries/2 {
		t.Errorf("%d of one instance", n)
	}
	seen := 0
	for page := (Filter{Limit: 700}); ; {
		n, last := count(page)
		if seen += n; n < 700 {
			break
		}
		page.After = last
	}
	if seen != entries {
		t.Errorf("%d in pages", seen)
	}
}

// TestFilterMatches: any value of a field will do, all fields must be met, and a bound is a moment.
func TestFilterMatches(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 3, 41, 50, 500, time.UTC)
	entry := Entry{
		ID: newID(now, 1), Received: now, Reason: "schema", Type: "incomingCall", Message: "textMessage",
		Instance: "1101000001", Chat: "79001234568@c.us", Name: "default",
	}
	for name, value := range map[string]string{
		"id": entry.ID, "reason": "schema", "type": "incomingCall", "message": "textMessage", "instance": "1101000001", "chat": "79001234568@c.us", "name": "default",
	} {
		var f Filter
		if !IsFilterField(name) || !f.IsEmpty() {
			t.Errorf("%s is no field, or the zero filter is not empty", name)
		}
		f.Want(name, "other")
		if f.Matches(entry) || f.IsEmpty() {
			t.Errorf("%s: another value is chosen", name)
		}
		f.Want(name, value)
		if !f.Matches(entry) || !f.Wants(name, value) || !slices.Equal(f.Values(name), slices.Sorted(slices.Values([]string{"other", value}))) {
			t.Errorf("%s: one of two values is not chosen, values %q", name, f.Values(name))
		}
		other := "reason"
		if name == other {
			other = "type"
		}
		f.Want(other, "other")
		if f.Matches(entry) || len(f.Fields()) != 2 {
			t.Errorf("%s: chosen although another field has another value, fields %q", name, f.Fields())
		}
	}
	if IsFilterField("size") || IsFilterField("") {
		t.Error("a field that there is not")
	}
	unread := Entry{ID: entry.ID}
	for _, test := range []struct {
		name         string
		filter       Filter
		whole, plain bool // the entry, and one that cannot be read
	}{
		{"since then", Filter{Since: now}, true, false},
		{"since later", Filter{Since: now.Add(1)}, false, false},
		{"until then", Filter{Until: now}, false, false},
		{"until later", Filter{Until: now.Add(1)}, true, false},
		{"between", Filter{Since: now.Add(-1), Until: now.Add(1)}, true, false},
		{"kept before the next", Filter{KeptBefore: 2}, true, true},
		{"kept before itself", Filter{KeptBefore: 1}, false, false},
		{"everything", Filter{After: entry.ID, Limit: 1}, true, true},
	} {
		if got := test.filter.Matches(entry); got != test.whole {
			t.Errorf("%s: %v", test.name, got)
		}
		if got := test.filter.Matches(unread); got != test.plain {
			t.Errorf("%s: of an entry that cannot be read: %v", test.name, got)
		}
		if test.filter.IsEmpty() != (test.name == "everything") {
			t.Errorf("%s: empty: %v", test.name, test.filter.IsEmpty())
		}
	}
}

// TestFilterUnreadable: an entry that cannot be read is told of if the filter may choose it, and hides no other.
func TestFilterUnreadable(t *testing.T) {
	t.Parallel()
	s := openUnsynced(t, t.TempDir())
	now := time.Now()
	var ids []string
	for i := range 4 {
		e := Entry{Received: now.Add(time.Duration(i) * time.Hour), Instance: "1101000001", Body: []byte("{}")}
		ids = append(ids, mustPut(t, s, e))
	}
	odd := "odd" // an ID that says nothing of the time
	err := s.file.DB.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketEntries)
		return errors.Join(b.Put([]byte(ids[1]), []byte("damaged")), b.Put([]byte(odd), []byte("damaged")))
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name        string
		filter      Filter
		wanted      []string
		chosen, bad string
	}{
		{"everything", Filter{}, nil, "0 2 3", "1 odd"},
		{"since, to the millisecond", Filter{Since: now.Add(time.Hour)}, nil, "2 3", "1 odd"},
		{"since later", Filter{Since: now.Add(2 * time.Hour)}, nil, "2 3", "odd"},
		{"until then, to the millisecond", Filter{Until: now.Add(time.Hour)}, nil, "0", "1 odd"},
		{"until before", Filter{Until: now.Add(time.Hour - time.Millisecond)}, nil, "0", "odd"},
		{"another field", Filter{}, []string{"instance", "1101000001"}, "0 2 3", "1 odd"},
		{"kept before", Filter{KeptBefore: 2}, nil, "0", "odd"},
		{"by id", Filter{}, []string{"id", ids[0], ids[1]}, "0", "1"},
	} {
		var chosen, bad []string
		short := func(id string) string {
			if i := slices.Index(ids, id); i >= 0 {
				return fmt.Sprint(i)
			}
			return id
		}
		f := test.filter
		if test.wanted != nil {
			f.Want(test.wanted[0], test.wanted[1:]...)
		}
		f.Unreadable = func(id string, err error) error {
			if err == nil {
				t.Errorf("%s: %s without an error", test.name, id)
			}
			bad = append(bad, short(id))
			return nil
		}
		if err := f.Each(s, func(e Entry) error {
			chosen = append(chosen, short(e.ID))
			return nil
		}); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if strings.Join(chosen, " ") != test.chosen || strings.Join(bad, " ") != test.bad {
			t.Errorf("%s: chosen %q, want %q; unreadable %q, want %q", test.name, chosen, test.chosen, bad, test.bad)
		}
	}
	plain := 0
	if err := new(Filter).Each(s, func(e Entry) error {
		if e.Received.IsZero() {
			plain++
		}
		return nil
	}); err != nil || plain != 2 {
		t.Errorf("without Unreadable, %d of 2 came with nothing but their ID; error %v", plain, err)
	}
	stop := errors.New("stop")
	f := Filter{Unreadable: func(string, error) error { return stop }}
	if err := f.Each(s, func(Entry) error { return nil }); !errors.Is(err, stop) {
		t.Errorf("the error of Unreadable does not end it: %v", err)
	}
}

// TestNext: what is kept from now on has the number or a higher one, whenever it was received, and also after a restart.
func TestNext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openUnsynced(t, dir)
	next := func(want uint64) {
		t.Helper()
		got, err := s.Next()
		if err != nil || got != want {
			t.Errorf("next is %d, %v, want %d", got, err, want)
		}
		id := mustPut(t, s, Entry{Received: testTime.Add(-time.Duration(want) * time.Hour)})
		if number, ok := numberOf(id); number != want || !ok {
			t.Errorf("%s has number %d, %v, want %d", id, number, ok, want)
		}
		if want == 2 {
			if _, err := s.Delete(id); err != nil {
				t.Fatal(err)
			}
		}
	}
	next(1)
	next(2)
	next(3)
	s.Close()
	if _, err := s.Next(); !errors.Is(err, ErrClosed) {
		t.Errorf("of a closed store: %v", err)
	}
	s = openUnsynced(t, dir)
	next(4)
	for id, want := range map[string]uint64{newID(testTime, 1<<40): 1 << 40, newID(testTime, 1<<64-1): 1<<64 - 1} {
		if got, ok := numberOf(id); got != want || !ok {
			t.Errorf("%s: %d, %v", id, got, ok)
		}
	}
	for _, id := range []string{"", "odd", newID(testTime, 1)[:20], newID(testTime, 1<<64-1) + "0"} {
		if got, ok := numberOf(id); ok {
			t.Errorf("%q has number %d", id, got)
		}
	}
}

// TestFilterMissing: an entry that was deleted after it was seen is not missing.
func TestFilterMissing(t *testing.T) {
	t.Parallel()
	s := openUnsynced(t, t.TempDir())
	kept, deleted := mustPut(t, s, Entry{Name: "a", Body: []byte("{}")}), mustPut(t, s, Entry{Name: "a", Body: []byte("{}")})
	var f Filter
	f.Want("id", kept, deleted, "none", "another")
	f.Want("name", "b") // which neither has: they are seen all the same
	if err := f.Each(s, func(e Entry) error { return fmt.Errorf("%s is chosen", e.ID) }); err != nil {
		t.Error(err)
	}
	if _, err := s.Delete(deleted); err != nil {
		t.Fatal(err)
	}
	if got := f.Missing(s); !slices.Equal(got, []string{"another", "none"}) {
		t.Errorf("missing %q", got)
	}
	var fresh Filter
	fresh.Want("id", kept, deleted)
	if got := fresh.Missing(s); !slices.Equal(got, []string{deleted}) {
		t.Errorf("before Each: missing %q, want %q", got, deleted)
	}
}
