package quarantine

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestEachSince: what was received since a time and kept for one reason, oldest first, and no more than is asked for.
func TestEachSince(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for age := 10; age > 0; age-- { // received in another order than the reasons alternate in
		reason := []string{"schema", "unknown_type"}[age%2]
		e := Entry{Received: now.Add(-time.Duration(age) * time.Hour), Reason: reason, Type: fmt.Sprint(age), Body: []byte(`"reason":"unknown_type"`)}
		if _, err := s.Put(e, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		since time.Duration
		most  int
		want  []string
	}{
		{100 * time.Hour, 100, []string{"9", "7", "5", "3", "1"}},
		{5 * time.Hour, 100, []string{"5", "3", "1"}},
		{4 * time.Hour, 100, []string{"3", "1"}},
		{time.Minute, 100, nil},
		{100 * time.Hour, 4, []string{"3", "1"}},
		{100 * time.Hour, 1, []string{"1"}},
	} {
		var got []string
		err := s.EachSince(now.Add(-test.since), "unknown_type", test.most, func(e Entry) {
			if e.ID == "" || e.Body != nil {
				t.Errorf("entry %+v", e)
			}
			got = append(got, e.Type)
		})
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("since %s, at most %d: %v, %v, want %v", test.since, test.most, got, err, test.want)
		}
	}
	s.Close()
	if err := s.EachSince(now, "unknown_type", 1, func(Entry) {}); err == nil {
		t.Error("of a closed store")
	}
}
