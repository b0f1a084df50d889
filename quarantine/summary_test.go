package quarantine

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// labelOf is a short list of types.
func labelOf(typ string) string {
	if typ == "" || typ == "incomingMessageReceived" {
		return typ
	}
	return "other"
}

// checkSummary reports a summary that differs from what the entries say.
func checkSummary(t testing.TB, s *Store) {
	t.Helper()
	want, got := countAll(t, s), mustSummary(t, s)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("summary %+v, want %+v", got, want)
	}
}

func mustSummary(t testing.TB, s *Store) Summary {
	t.Helper()
	sum, err := s.Summary()
	if err != nil {
		t.Fatal(err)
	}
	for _, counts := range []Counts{sum.Reasons, sum.Types, sum.Instances, sum.Days} {
		slices.SortFunc(counts.Each, func(a, b Count) int { return strings.Compare(a.Name, b.Name) })
	}
	return sum
}

// countAll counts the entries one by one.
func countAll(t testing.TB, s *Store) Summary {
	t.Helper()
	reasons, types, instances, days := map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}
	var sum Summary
	err := new(Filter).Each(s, func(e Entry) error {
		sum.Entries++
		at, _ := TimeOf(e.ID)
		days[at.Format(time.DateOnly)]++
		if e.Received.IsZero() {
			sum.Unreadable++
			return nil
		}
		reasons[e.Reason]++
		instances[e.Instance]++
		if s.summary.label != nil {
			e.Type = s.summary.label(e.Type)
		}
		types[e.Type]++
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	sum.Reasons, sum.Types, sum.Instances, sum.Days = sortedCounts(reasons), sortedCounts(types), sortedCounts(instances), sortedCounts(days)
	return sum
}

func sortedCounts(entries map[string]int) Counts {
	counts := Counts{Each: []Count{}}
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		counts.Each = append(counts.Each, Count{name, entries[name]})
	}
	return counts
}

// TestSummary: whatever comes and goes, the summary is that of the entries, and is the same when they are counted anew.
func TestSummary(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openUnsynced(t, dir)
	checkSummary(t, s)
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	var ids []string
	for round := range 8 {
		for range 200 {
			ids = append(ids, mustPut(t, s, Entry{
				Received: testTime.Add(time.Duration(random.IntN(100)) * time.Hour), Reason: pick("schema", "malformed", "unknown_type"),
				Type: pick("", "incomingMessageReceived", "incomingCall", "x\"y"), Instance: pick("", "1101000001", "1101000002", "1101\\u0000"), Body: testBody(random.IntN(10_000)),
			}))
		}
		checkSummary(t, s)
		random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		gone := 150
		if round == 5 {
			gone = len(ids)
		}
		if n, err := s.Delete(append(slices.Clone(ids[:gone]), ids[0], "none")...); n != gone || err != nil {
			t.Fatalf("deleted %d of %d: %v", n, gone, err)
		}
		ids = ids[gone:]
		checkSummary(t, s)
		if round%3 == 0 {
			if err := s.Scrub(); err != nil {
				t.Fatal(err)
			}
			checkSummary(t, s)
		}
		if !s.summary.counted {
			t.Error("counted anew")
		}
	}
	x := Expiry{MaxAge: time.Hour, Clock: new(WallClock), Deleted: func(int) {}, Soon: func(int, Entry, time.Time) {}}
	if err := x.expire(s, testTime.Add(50*time.Hour), false); err != nil {
		t.Fatal(err)
	}
	checkSummary(t, s)
	before := mustSummary(t, s)
	s.Close()
	if _, err := s.Summary(); !errors.Is(err, ErrClosed) {
		t.Errorf("of a closed store: %v", err)
	}
	s.SummarizeBy(nil)
	s = openStore(t, dir)
	if after := mustSummary(t, s); !reflect.DeepEqual(after, before) || before.Entries == 0 {
		t.Errorf("opened again: %+v, want %+v", after, before)
	}
	s.SummarizeBy(nil)
	checkSummary(t, s)
}

// TestSummaryTogether: writers at the same time are all counted, and those who ask meanwhile get numbers that fit.
func TestSummaryTogether(t *testing.T) {
	t.Parallel()
	s := openUnsynced(t, t.TempDir())
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for i := range 50 {
				id := mustPut(t, s, Entry{Reason: "schema", Instance: fmt.Sprint(w)})
				if i%3 == 0 {
					if _, err := s.Delete(id); err != nil {
						t.Error(err)
					}
				}
				sum := mustSummary(t, s)
				total := 0
				for _, c := range sum.Instances.Each {
					total += c.Entries
				}
				if total != sum.Entries {
					t.Errorf("%d entries, %d by instance", sum.Entries, total)
				}
			}
		})
	}
	group.Wait()
	checkSummary(t, s)
}

// TestSummaryUnreadable: an entry that cannot be read is counted as such, and so is one that becomes so later.
func TestSummaryUnreadable(t *testing.T) {
	t.Parallel()
	s := openUnsynced(t, t.TempDir())
	id, other := mustPut(t, s, testEntry(nil)), mustPut(t, s, testEntry(nil))
	checkSummary(t, s)
	err := s.file.DB.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketEntries).Put([]byte(id), []byte("damaged")) })
	if err != nil {
		t.Fatal(err)
	}
	if sum := mustSummary(t, s); sum.Unreadable != 0 {
		t.Errorf("the file was read: %+v", sum)
	}
	if _, err := s.Delete(id); err != nil { // as unreadable, which it was not counted as
		t.Fatal(err)
	}
	checkSummary(t, s)
	err = s.file.DB.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketEntries).Put([]byte(other), []byte("damaged")) })
	if err != nil {
		t.Fatal(err)
	}
	s.summary.forget()
	checkSummary(t, s)
	if sum := mustSummary(t, s); sum.Entries != 1 || sum.Unreadable != 1 || len(sum.Days.Each) != 1 || len(sum.Reasons.Each) != 0 {
		t.Errorf("got %+v", sum)
	}
	if _, err := s.Delete(other); err != nil {
		t.Fatal(err)
	}
	checkSummary(t, s)
}

// TestSummaryReplaced: after a write has failed, the file may be another one.
func TestSummaryReplaced(t *testing.T) {
	s := openStore(t, t.TempDir())
	for range 3 {
		mustPut(t, s, testEntry(nil))
	}
	checkSummary(t, s)
	s.writer <- struct{}{}
	err := s.update(0, func(tx *bolt.Tx) error { return errors.New("disk fails") })
	<-s.writer
	if err == nil || s.file.DB != nil {
		t.Fatalf("error %v; the file is open: %v", err, s.file.DB != nil)
	}
	other := openStore(t, t.TempDir())
	mustPut(t, other, Entry{Reason: "malformed"})
	other.Close()
	if err := os.Rename(other.path, s.path); err != nil {
		t.Fatal(err)
	}
	if sum := mustSummary(t, s); sum.Entries != 1 || sum.Reasons.Each[0].Name != "malformed" {
		t.Errorf("got %+v", sum)
	}
	mustPut(t, s, testEntry(nil))
	checkSummary(t, s)
}

// TestSummaryBounded: names that are made up fill no memory, and what they stand for is counted all the same.
func TestSummaryBounded(t *testing.T) {
	t.Parallel()
	tally := newTally(3)
	count := func(names string, n int) {
		for name := range strings.FieldsSeq(names) {
			tally.count([]byte(name), n)
		}
	}
	want := func(others int, text string) {
		t.Helper()
		var each []string
		for _, c := range tally.list().Each {
			each = append(each, fmt.Sprint(c.Name, c.Entries))
		}
		slices.Sort(each)
		if got := strings.Join(each, " "); got != text || tally.others != others || tally.wrong {
			t.Errorf("%q and %d others, want %q and %d; wrong: %v", got, tally.others, text, others, tally.wrong)
		}
	}
	count("a b c d e d a", 1)
	want(3, "a2 b1 c1")
	count("b", -1) // there is room, but d may not be in two places
	count("d b", 1)
	want(5, "a2 c1")
	count("d d b e", -1)
	want(1, "a2 c1")
	count("d", -1)
	count("d e", 1)
	want(1, "a2 c1 d1")
	count("a a c d e", -1)
	want(0, "")
	if tally.last != nil {
		t.Error("a name that is gone is remembered")
	}
	count("a", 1)
	want(0, "a1")
	count("a b", -1)
	if !tally.wrong {
		t.Error("more gone than were there, which is not noticed")
	}

	s := openUnsynced(t, t.TempDir())
	id := mustPut(t, s, Entry{Instance: strings.Repeat("1", mostName) + "2", Reason: "schema"})
	mustPut(t, s, Entry{Instance: strings.Repeat("1", mostName) + "3", Reason: "schema"})
	if each := mustSummary(t, s).Instances.Each; len(each) != 1 || each[0] != (Count{strings.Repeat("1", mostName), 2}) {
		t.Errorf("got %+v", each)
	}
	if _, err := s.Delete(id); err != nil {
		t.Fatal(err)
	}
	if each := mustSummary(t, s).Instances.Each; len(each) != 1 || each[0].Entries != 1 {
		t.Errorf("got %+v", each)
	}
}

// TestScanHead: what is found in a head without decoding it is what is in the entry.
func TestScanHead(t *testing.T) {
	t.Parallel()
	heads := []string{
		`{}`, `{"a":{"b":["}",{"reason":"inner"}],"type":"x"},"type":"y","c":[]}`, `{"size":1,"instance":"7"}`, `{"reason":"a\"b","type":"t"}`,
		`{"reason":"r","type":"\\","instance":"i"}`, `{"unadmitted":true,"faults":[{"pointer":"\"]","keyword":""}],"instance":"1","size":-15}`,
		`{"x":null,"reason":"","type":"é"}`, `{"cause":"ends in \\","reason":"r"}`,
		``, `{`, `[]`, `{"`, `{"a`, `{"a"`, `{"a":`, `{"a":"`, `{"a":"\`, `{"a":1`, `{"a":[`, `{"a":["`, `{"a":1,`, `{"a":1}}`, `{"a":1]`, `{"type":"x"`, `{"type":1}`,
	}
	for _, name := range []string{"plain", "<>&", "\x00\xff", "\"\\", "ü\u2028"} {
		e := testEntry(nil)
		e.Name, e.Reason, e.Type, e.Instance, e.Cause, e.Unadmitted = name, name, name, name, name, true
		e.Faults[0].Pointer = "/]}," + name
		for _, lacks := range []func(){func() {}, func() { e.Reason = "" }, func() { e.Type = "" }, func() { e.Instance = "" }} {
			lacks()
			head, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			heads = append(heads, string(head))
		}
	}
	known := 0
	for _, head := range heads {
		var got traits
		if !scanHead([]byte(head), &got) {
			continue
		}
		known++
		e, err := decodeEntry([]byte(head))
		if err != nil || string(got.reason) != e.Reason || string(got.typ) != e.Type || string(got.instance) != e.Instance {
			t.Errorf("%s: found %q, %q, %q in %+v, %v", head, got.reason, got.typ, got.instance, e, err)
		}
	}
	if known < 10 {
		t.Errorf("only %d of %d are known", known, len(heads))
	}
}
