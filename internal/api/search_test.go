package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// putTogether puts n entries at once: every hundredth is malformed, and each has a chat of its own.
func (b *bench) putTogether(n int) {
	b.t.Helper()
	then := time.Now().Add(-time.Duration(n) * time.Second)
	b.putTogetherAs(n, func(i int) quarantine.Entry {
		entry := quarantine.Entry{
			Received: then.Add(time.Duration(i) * time.Second), Name: "default", Reason: reason.Schema, Type: "incomingMessageReceived",
			Message: "textMessage", Instance: fmt.Sprint(1101000001 + i%100), Chat: fmt.Sprintf("7900%07d@c.us", i), NotificationID: fmt.Sprintf("3EB0%016X", i),
			Faults: []quarantine.Fault{{Pointer: "/messageData/textMessageData/textMessage", Keyword: "type"}}, Client: "192.0.2.10",
			Host: "hooks.example.com", URI: "/green-api", Header: map[string][]string{"Content-Type": {"application/json"}},
			Body: []byte(`{"typeWebhook":"incomingMessageReceived","messageData":{"typeMessage":"textMessage","textMessageData":{"textMessage":5}}}`),
		}
		if i%100 == 0 {
			entry.Reason, entry.Faults = reason.Malformed, nil
		}
		return entry
	})
}

// putTogetherAs puts n entries at once, so that they share their syncs.
func (b *bench) putTogetherAs(n int, entryOf func(i int) quarantine.Entry) {
	b.t.Helper()
	const writers = 500
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for i := w; i < n; i += writers {
				if _, err := b.store.Put(entryOf(i), 0); err != nil {
					b.t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

// find searches once.
func (b *bench) find(query string) (found Found) {
	b.t.Helper()
	status, text := b.call("POST", "quarantine/search", query)
	if err := json.Unmarshal([]byte(text), &found); status != 200 || err != nil || found.Entries == nil {
		b.t.Fatalf("%s: status %d, %v: %.300s", query, status, err, text)
	}
	return found
}

// findAll searches until there is no more, and returns the NotificationIDs and how many entries were looked at.
func (b *bench) findAll(query string) (names []string, lookedAt int) {
	b.t.Helper()
	for before := ""; ; {
		found := b.find(query + before)
		for _, entry := range found.Entries {
			if len(entry.Bytes()) > 0 {
				b.t.Fatalf("with a body: %+v", entry)
			}
			names = append(names, entry.NotificationID)
		}
		if lookedAt += found.LookedAt; found.More == "" {
			return names, lookedAt
		}
		if found.LookedAt == 0 {
			b.t.Fatalf("%s: no progress: %+v", query+before, found)
		}
		before = "&before=" + found.More
	}
}

// TestSearch: the newest come first, in pages, with the filters of a list.
func TestSearch(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if found := b.find(""); len(found.Entries) != 0 || found.More != "" || found.LookedAt != 0 {
		t.Errorf("of an empty quarantine: %+v", found)
	}
	now := time.Now()
	ids := b.put(
		quarantine.Entry{NotificationID: "A", Received: now.Add(-3 * time.Hour), Reason: reason.Schema, Chat: "79001234568@c.us"},
		quarantine.Entry{NotificationID: "B", Received: now.Add(-2 * time.Hour), Reason: reason.Malformed, Instance: "1101000001"},
		quarantine.Entry{NotificationID: "C", Received: now.Add(-time.Hour), Reason: reason.Schema, Instance: "1101000001"},
	)
	for _, test := range []struct{ query, want, more string }{
		{"", "C B A", ""},
		{"limit=1", "C", ids[2]},
		{"limit=2&before=" + ids[2], "B A", ""},
		{"limit=3", "C B A", ""},
		{"before=" + ids[0], "", ""},
		{"reason=schema", "C A", ""},
		{"reason=schema&limit=1", "C", ids[2]},
		{"reason=schema&instance=1101000001", "C", ""},
		{"chat=79001234568%40c.us", "A", ""},
		{"id=" + ids[1], "B", ""},
		{"since=150m", "C B", ""},
		{"until=150m", "A", ""},
		{"type=none", "", ""},
	} {
		found := b.find(test.query)
		var names []string
		for _, entry := range found.Entries {
			names = append(names, entry.NotificationID)
		}
		if got := strings.Join(names, " "); got != test.want || found.More != test.more {
			t.Errorf("%s: %q, more %q, want %q, %q", test.query, got, found.More, test.want, test.more)
		}
	}
	b.want("POST", "quarantine/search?limit=1", "", 200, `"more":"`+ids[2]+`","looked_at":1}`)
	b.want("POST", "quarantine/search", "type=none", 200, `{"entries":[],"looked_at":3}`)
	b.want("POST", "quarantine/search", "limit=501", 400, "limit: want at most 500")
	b.want("POST", "quarantine/search", "limit=0", 400, "limit: want 1 or more")
	b.want("POST", "quarantine/search", "after="+ids[0], 400, "want before")
	b.want("POST", "quarantine/search", "before=", 400, "before: empty")
	b.want("POST", "quarantine/search", "before=x", 400, `before: invalid id "x"; want the more of an earlier answer`)
	b.want("POST", "quarantine/search", "body=true", 400, "body: unknown parameter")
	b.want("POST", "quarantine/search", "reason=shcema", 400, "unknown reason")
	b.want("GET", "quarantine/search", "", 405, "method GET not allowed")
	b.want("GET", "quarantine?before="+ids[0], "", 400, "before: unknown parameter")
}

// newSpoiltBench has three entries, of which the second cannot be read.
func newSpoiltBench(t *testing.T) (b *bench, ids []string) {
	t.Helper()
	dir := t.TempDir()
	store, err := quarantine.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ONE", "SPOILT", "THREE"} {
		id, err := store.Put(quarantine.Entry{Name: "default", NotificationID: name, Reason: reason.Schema}, 0)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	store.Close()
	file := filepath.Join(dir, quarantine.FileName)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(content), "SPOILT", "spoilt")), 0o600); err != nil {
		t.Fatal(err)
	}
	if store, err = quarantine.Open(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	b = newBench(t)
	b.store = store
	b.Quarantine = func() (*quarantine.Store, func(), error) { return store, func() {}, nil }
	return b, ids
}

// TestSearchUnreadable: an entry that cannot be read is named, and hides no other.
func TestSearchUnreadable(t *testing.T) {
	t.Parallel()
	b, ids := newSpoiltBench(t)
	found := b.find("reason=schema")
	if len(found.Entries) != 2 || len(found.Unreadable) != 1 || found.Unreadable[0].Entry != ids[1] || !strings.Contains(found.Unreadable[0].Error, "checksum") {
		t.Errorf("found %+v", found)
	}
}

// TestSearchMany: whatever is asked for, answers come in pages that together are all.
func TestSearchMany(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const entries = 10_000
	b.putTogether(entries)
	for _, test := range []struct {
		query string
		want  int
	}{
		{"limit=500", entries},
		{"reason=malformed", entries / 100},
		{"instance=1101000007", entries / 100},
		{"chat=79000000077%40c.us", 1},
		{"chat=" + url.QueryEscape("é"), 0},
		{"since=1h", 3600},
	} {
		names, lookedAt := b.findAll(test.query)
		sorted := slices.Clone(names)
		slices.Sort(sorted)
		slices.Reverse(sorted)
		if got := len(slices.Compact(sorted)); got != len(names) || !slices.Equal(names, sorted) {
			t.Errorf("%s: out of order, or twice", test.query)
		}
		if diff := len(names) - test.want; diff > 0 || diff < 0 && !strings.HasPrefix(test.query, "since") || lookedAt > entries {
			t.Errorf("%s: %d entries, want %d; %d looked at", test.query, len(names), test.want, lookedAt)
		}
	}
}

// TestFastSearch measures answers of a quarantine with 100,000 entries.
func TestFastSearch(t *testing.T) {
	if os.Getenv("GREEN_API_PROOFS") != "1" {
		t.Skip("make proofs runs it")
	}
	b := newBench(t)
	b.putTogether(100_000)
	for _, test := range []struct {
		query string
		most  time.Duration
	}{
		{"", 50 * time.Millisecond},
		{"limit=500", 50 * time.Millisecond},
		{"reason=malformed", 100 * time.Millisecond},
		{"instance=1101000007", 100 * time.Millisecond},
		{"chat=79000000000%40g.us", 100 * time.Millisecond},
		{"chat=" + url.QueryEscape("é"), 100 * time.Millisecond},
		{"until=20h", 100 * time.Millisecond},
	} {
		var took []time.Duration
		var found Found
		for range 9 {
			begun := time.Now()
			found = b.find(test.query)
			took = append(took, time.Since(begun))
		}
		slices.Sort(took)
		if median := took[len(took)/2]; median > test.most {
			t.Errorf("%q: %s, want at most %s", test.query, median, test.most)
		}
		begun, pages, lookedAt := time.Now(), 0, 0
		for query := test.query; strings.Contains(test.query, "chat"); {
			page := b.find(query)
			pages, lookedAt = pages+1, lookedAt+page.LookedAt
			if page.More == "" {
				break
			}
			query = test.query + "&before=" + page.More
		}
		t.Logf("%q: median %s, slowest %s; %d entries, %d looked at; to the end: %d pages, %d looked at, %s",
			test.query, took[len(took)/2], took[len(took)-1], len(found.Entries), found.LookedAt, pages, lookedAt, time.Since(begun))
	}
}
