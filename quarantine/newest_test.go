package quarantine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// putMany puts n entries a minute apart: every tenth is malformed, and there are 7 instances.
func putMany(t testing.TB, s *Store, n int) {
	t.Helper()
	for from := 0; from < n; from += 1000 {
		var batch []*put
		for i := from; i < min(n, from+1000); i++ {
			e := testEntry([]byte(`{"typeWebhook":"incomingMessageReceived","messageData":{"typeMessage":5}}`))
			e.Received = testTime.Add(time.Duration(i) * time.Minute)
			e.Instance = fmt.Sprint(1101000001 + i%7)
			e.Chat = fmt.Sprintf("7900%07d@c.us", i)
			if i%10 == 0 {
				e.Reason, e.Type, e.Message = "malformed", "", ""
			}
			p := &put{received: e.Received, done: make(chan struct{})}
			var err error
			if p.record, p.parts, err = encodeRecord(e); err != nil {
				t.Fatal(err)
			}
			batch = append(batch, p)
		}
		s.writer <- struct{}{}
		s.writeBatch(s.refuseFull(batch))
		<-s.writer
		if err := batch[0].err; err != nil {
			t.Fatal(err)
		}
	}
}

// pages walks to the end, and returns the IDs and how many entries were looked at.
func pages(t *testing.T, s *Store, f *Filter, scan Scan) (ids []string, lookedAt int) {
	t.Helper()
	for {
		page, err := f.Newest(s, scan)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			if e.Body != nil || e.ID == "" {
				t.Fatalf("got %+v", e)
			}
			ids = append(ids, e.ID)
		}
		lookedAt += page.LookedAt
		if page.More == "" {
			return ids, lookedAt
		}
		if page.LookedAt == 0 || scan.Before != "" && page.More >= scan.Before {
			t.Fatalf("no progress: %d looked at, on before %q, then before %q", page.LookedAt, scan.Before, page.More)
		}
		scan.Before = page.More
	}
}

// TestNewest: in pages of any size, newest first is what oldest first selects, backwards, and each entry is looked at once.
func TestNewest(t *testing.T) {
	t.Parallel()
	s := openUnsynced(t, t.TempDir())
	if page, err := new(Filter).Newest(s, Scan{Time: 1}); len(page.Entries) > 0 || page.LookedAt > 0 || page.More != "" || err != nil {
		t.Errorf("of an empty store: %+v, %v", page, err)
	}
	const entries = 1300
	putMany(t, s, entries)
	odd := testEntry(nil)
	odd.Chat, odd.Name, odd.Type = "<\"ü&\\/>", "", "x\x01"
	oddID := mustPut(t, s, odd)
	noon := testTime.Add(1000 * time.Minute)
	for _, test := range []struct {
		name     string
		filter   Filter
		want     []string // field, values
		lookedAt int
	}{
		{"everything", Filter{}, nil, entries + 1},
		{"a reason", Filter{}, []string{"reason", "malformed"}, entries + 1},
		{"one of two", Filter{}, []string{"instance", "1101000002", "1101000003"}, entries + 1},
		{"nothing", Filter{}, []string{"chat", "79000000000@g.us"}, entries + 1},
		{"a chat", Filter{}, []string{"chat", "79000000100@c.us"}, entries + 1},
		{"what JSON escapes", Filter{}, []string{"chat", odd.Chat}, entries + 1},
		{"control character", Filter{}, []string{"type", odd.Type, "incomingCall"}, entries + 1},
		{"without a name", Filter{}, []string{"name", ""}, entries + 1},
		{"an id", Filter{}, []string{"id", oddID, "none"}, entries + 1},
		{"many values", Filter{}, []string{"type", "1", "2", "3", "4", "5", "6", "7", "8", "incomingMessageReceived"}, entries + 1},
		{"since", Filter{Since: noon}, nil, entries - 1000},
		{"since a nanosecond later", Filter{Since: noon.Add(1)}, nil, entries - 1000},
		{"until", Filter{Until: noon}, nil, 1002},
		{"until a nanosecond later", Filter{Until: noon.Add(1)}, nil, 1002},
		{"between", Filter{Since: noon, Until: noon.Add(time.Hour)}, []string{"reason", "schema"}, 61},
		{"no year of an id", Filter{Since: time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC), Until: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, nil, entries + 1},
		{"after an id", Filter{After: oddID}, nil, entries - 1},
	} {
		f := test.filter
		if test.want != nil {
			f.Want(test.want[0], test.want[1:]...)
		}
		var want []string
		if err := f.Each(s, func(e Entry) error { want = append(want, e.ID); return nil }); err != nil {
			t.Fatal(err)
		}
		slices.Reverse(want)
		for _, scan := range []Scan{{}, {Most: 1}, {Most: 999}, {Most: 1000}, {Time: 1}} {
			got, lookedAt := pages(t, s, &f, scan)
			if !slices.Equal(got, want) {
				t.Errorf("%s, %+v: %d entries, want %d", test.name, scan, len(got), len(want))
			}
			if lookedAt != test.lookedAt {
				t.Errorf("%s, %+v: looked at %d, want %d", test.name, scan, lookedAt, test.lookedAt)
			}
		}
		f.Limit = 7
		if got, _ := pages(t, s, &f, Scan{}); !slices.Equal(got, want) {
			t.Errorf("%s, 7 at once: %d entries, want %d", test.name, len(got), len(want))
		}
	}
}

// TestNewestStops: a page says where to go on, whether or not the entry there still exists; what comes later is not in the way.
func TestNewestStops(t *testing.T) {
	t.Parallel()
	s := openUnsynced(t, t.TempDir())
	putMany(t, s, 30)
	all, _ := pages(t, s, new(Filter), Scan{})
	f := Filter{Limit: 10}
	first, err := f.Newest(s, Scan{})
	if err != nil || len(first.Entries) != 10 || first.LookedAt != 10 || first.More != all[9] {
		t.Fatalf("first page: %d entries, %d looked at, more %q, %v", len(first.Entries), first.LookedAt, first.More, err)
	}
	mustPut(t, s, Entry{Received: testTime.Add(time.Hour)})
	if _, err := s.Delete(all[9], all[10]); err != nil {
		t.Fatal(err)
	}
	rest, _ := pages(t, s, &f, Scan{Before: first.More})
	if !slices.Equal(rest, all[11:]) {
		t.Errorf("the rest: %d entries, want %d", len(rest), len(all[11:]))
	}
	last, err := f.Newest(s, Scan{Before: all[19]})
	if err != nil || len(last.Entries) != 10 || last.More != "" {
		t.Errorf("the last page is full: %d entries, more %q, %v", len(last.Entries), last.More, err)
	}
	for _, before := range []string{"0", all[29]} {
		if none, err := f.Newest(s, Scan{Before: before}); err != nil || none.LookedAt != 0 || none.More != "" {
			t.Errorf("before %q: %+v, %v", before, none, err)
		}
	}
	if page, err := f.Newest(s, Scan{Before: "Z", Most: 3}); err != nil || len(page.Entries) != 3 || page.LookedAt != 3 {
		t.Errorf("before an id beyond all: %+v, %v", page, err)
	}
	s.Close()
	if _, err := f.Newest(s, Scan{}); !errors.Is(err, ErrClosed) {
		t.Errorf("of a closed store: %v", err)
	}
}

// TestNewestBytes: entries with long heads come in shorter pages.
func TestNewestBytes(t *testing.T) {
	s := openUnsynced(t, t.TempDir())
	for range 12 {
		mustPut(t, s, Entry{NotificationID: strings.Repeat("x", 1<<20)})
	}
	page, err := new(Filter).Newest(s, Scan{})
	if err != nil || len(page.Entries) > 5 || page.More == "" {
		t.Errorf("%d MiB at once, more %q, error %v", len(page.Entries), page.More, err)
	}
	if ids, _ := pages(t, s, new(Filter), Scan{}); len(ids) != 12 {
		t.Errorf("%d of 12", len(ids))
	}
}

// TestNewestUnreadable: an entry that cannot be read is told of if the filter may select it, and hides no other.
func TestNewestUnreadable(t *testing.T) {
	t.Parallel()
	s := openUnsynced(t, t.TempDir())
	putMany(t, s, 20)
	all, _ := pages(t, s, new(Filter), Scan{})
	bad := all[4]
	err := s.file.DB.Update(func(tx *bolt.Tx) error {
		record := slices.Clone(tx.Bucket(bucketEntries).Get([]byte(bad)))
		record[prefixLen+3] ^= 1
		return tx.Bucket(bucketEntries).Put([]byte(bad), record)
	})
	if err != nil {
		t.Fatal(err)
	}
	received, _ := TimeOf(bad)
	for _, test := range []struct {
		name        string
		filter      Filter
		want        []string
		told        bool
		entries     int // that are told of as unreadable excluded
		withoutTold int // without Unreadable
	}{
		{"everything", Filter{}, nil, true, 19, 20},
		{"another field", Filter{}, []string{"reason", "malformed"}, true, 2, 2},
		{"by id", Filter{}, []string{"id", bad}, true, 0, 1},
		{"by another id", Filter{}, []string{"id", all[0]}, false, 1, 1},
		{"since then", Filter{Since: received}, nil, true, 4, 4},
		{"until then", Filter{Until: received}, nil, false, 15, 15},
	} {
		f := test.filter
		if test.want != nil {
			f.Want(test.want[0], test.want[1:]...)
		}
		if got, _ := pages(t, s, &f, Scan{}); len(got) != test.withoutTold {
			t.Errorf("%s: %d entries without Unreadable, want %d", test.name, len(got), test.withoutTold)
		}
		told := false
		f.Unreadable = func(id string, err error) error {
			if told || id != bad || !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), id) {
				t.Errorf("%s: told of %q: %v", test.name, id, err)
			}
			told = true
			_, _ = s.Get(id) // may be called
			return nil
		}
		if got, _ := pages(t, s, &f, Scan{Most: 3}); len(got) != test.entries || told != test.told {
			t.Errorf("%s: %d entries, want %d; told %v", test.name, len(got), test.entries, told)
		}
	}
	stop := errors.New("stop")
	f := Filter{Unreadable: func(string, error) error { return stop }}
	if _, err := f.Newest(s, Scan{}); !errors.Is(err, stop) {
		t.Errorf("the error of Unreadable does not end it: %v", err)
	}
}

// TestNewestAmongWrites: a walk over a store in use misses nothing that was there all the time, and repeats nothing.
func TestNewestAmongWrites(t *testing.T) {
	t.Parallel()
	s := openUnsynced(t, t.TempDir())
	putMany(t, s, 3000)
	all, _ := pages(t, s, new(Filter), Scan{})
	stays := func(id string) bool { return id[len(id)-1]%2 == 0 }
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for random := rand.New(rand.NewPCG(1, 2)); ; {
			select {
			case <-stop:
				return
			default:
			}
			if id := all[random.IntN(len(all))]; !stays(id) {
				if _, err := s.Delete(id); err != nil {
					t.Error(err)
				}
			}
			if _, err := s.Put(Entry{Reason: "new"}, 0); err != nil {
				t.Error(err)
			}
		}
	}()
	f := Filter{Limit: 50}
	f.Want("reason", "schema", "malformed")
	got, _ := pages(t, s, &f, Scan{Most: 70})
	close(stop)
	<-done
	if !slices.IsSortedFunc(got, func(a, b string) int { return strings.Compare(b, a) }) || len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Error("out of order, or twice")
	}
	for _, id := range all {
		if stays(id) && !slices.Contains(got, id) {
			t.Fatalf("lacks %s", id)
		}
	}
}

func BenchmarkNewest(b *testing.B) {
	s := openUnsynced(b, b.TempDir())
	putMany(b, s, 100_000)
	for _, bench := range []struct {
		name string
		want []string
		time time.Duration
	}{
		{"first page", nil, 50 * time.Millisecond},
		{"a reason", []string{"reason", "malformed"}, 50 * time.Millisecond},
		{"a chat that is not there", []string{"chat", "79000000000@g.us"}, 50 * time.Millisecond},
		{"a chat that is not there, to the end", []string{"chat", "79000000000@g.us"}, 0},
		{"values that need decoding", []string{"chat", "é"}, 50 * time.Millisecond},
	} {
		b.Run(bench.name, func(b *testing.B) {
			f := Filter{Limit: 100}
			if bench.want != nil {
				f.Want(bench.want[0], bench.want[1:]...)
			}
			looked := 0
			for b.Loop() {
				page, err := f.Newest(s, Scan{Time: bench.time})
				if err != nil {
					b.Fatal(err)
				}
				looked = page.LookedAt
			}
			b.ReportMetric(float64(looked), "looked-at")
		})
	}
}
