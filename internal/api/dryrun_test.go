package api

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

func (b *bench) dryRun(method, target, body string) (run DryRun) {
	b.t.Helper()
	status, text := b.call(method, target, body+"&dry_run=true")
	if err := json.Unmarshal([]byte(text), &run); status != 200 || err != nil {
		b.t.Fatalf("%s %s %s: status %d, %v: %s", method, target, body, status, err, text)
	}
	return run
}

// TestDryRun: a dry run says what is meant and does nothing, and with its until nothing else is meant later.
func TestDryRun(t *testing.T) {
	t.Parallel()
	for _, call := range []struct{ method, target string }{{"DELETE", "quarantine"}, {"POST", "quarantine/replay"}} {
		b := newBench(t)
		now := time.Now().UTC().Truncate(time.Second)
		entry := func(name string, age time.Duration, why reason.Reason) quarantine.Entry {
			return quarantine.Entry{Name: "default", NotificationID: name, Received: now.Add(-age), Reason: string(why), Instance: "1101000001"}
		}
		ids := b.put(entry("A", 3*time.Hour, reason.Schema), entry("B", 2*time.Hour, reason.Schema), entry("C", time.Hour, reason.Malformed))
		all := b.dryRun(call.method, call.target, "all=true")
		count, newest, skipped := 3, now.Add(-time.Hour), 0
		if call.method == "POST" { // a malformed one has to be named
			count, newest, skipped = 2, now.Add(-2*time.Hour), 1
		}
		if all.Count != count || all.Skipped != skipped || !all.Oldest.Equal(now.Add(-3*time.Hour)) || !all.Newest.Equal(newest) {
			t.Errorf("%s: %+v", call.method, all)
		}
		if got := b.dryRun(call.method, call.target, "reason=schema&since=150m"); got.Count != 1 || !got.Oldest.Equal(got.Newest) {
			t.Errorf("%s: %+v", call.method, got)
		}
		if got := b.dryRun(call.method, call.target, "limit=2&reason=schema&reason=malformed"); got.Count != 2 || !got.Newest.Equal(now.Add(-2*time.Hour)) {
			t.Errorf("%s, the first two: %+v", call.method, got)
		}
		if got := b.dryRun(call.method, call.target, "id="+ids[1]+"&id=none"); got.Count != 1 || !slices.Equal(got.Missing, []string{"none"}) {
			t.Errorf("%s: %+v", call.method, got)
		}
		old := b.dryRun(call.method, call.target, "reason=schema&until=150m")
		if old.Count != 1 || !strings.HasPrefix(old.Until, now.Add(-150*time.Minute).Format("2006-01-02T15:04:")) {
			t.Errorf("%s: %+v", call.method, old)
		}
		none := b.dryRun(call.method, call.target, "type=none")
		if none.Count != 0 || !none.Oldest.IsZero() || none.Until == "" {
			t.Errorf("%s: %+v", call.method, none)
		}
		if left := b.left(); len(left) != 3 || b.logs.Len() != 0 {
			t.Errorf("%s: a dry run leaves %v, and logs %v", call.method, left, b.logs.All())
		}

		// What is kept afterwards may have been received before.
		b.put(entry("LATE", 4*time.Hour, reason.Schema), entry("NEW", 0, reason.Schema))
		if again := b.dryRun(call.method, call.target, "all=true&until="+url.QueryEscape(all.Until)); again.Count != count || again.Until != all.Until {
			t.Errorf("%s: with until: %+v, was %+v", call.method, again, all)
		}
		if got := b.dryRun(call.method, call.target, "all=true&until="+url.QueryEscape(none.Until)+"&reason=schema"); got.Count != 2 {
			t.Errorf("%s: %+v", call.method, got)
		}
		b.want("GET", "quarantine?until="+url.QueryEscape(old.Until), "", 200, ids[0])
		status, text := b.call(call.method, call.target, "all=true&until="+url.QueryEscape(all.Until))
		left := []string{"LATE", "NEW"}
		if call.method == "POST" {
			left = []string{"LATE", "C", "NEW"}
		}
		if got := b.left(); status != 200 || !slices.Equal(got, left) {
			t.Errorf("%s: left %v, want %v; %s", call.method, got, left, text)
		}
	}
	b := newBench(t)
	empty := b.dryRun("DELETE", "quarantine", "all=true")
	ids := b.put(quarantine.Entry{Received: time.Now().Add(-time.Hour)}, quarantine.Entry{Received: time.Now().Add(time.Hour)})
	if got := b.dryRun("DELETE", "quarantine", "until="+url.QueryEscape(empty.Until)); empty.Count != 0 || got.Count != 0 {
		t.Errorf("of an empty quarantine %+v, then %+v", empty, got)
	}
	ahead := b.dryRun("DELETE", "quarantine", "all=true")
	if got := b.dryRun("DELETE", "quarantine", "until="+url.QueryEscape(ahead.Until)); ahead.Count != 2 || got.Count != 2 {
		t.Errorf("by a clock that was set: %+v, then %+v", ahead, got)
	}
	if got := b.dryRun("DELETE", "quarantine/"+ids[0], ""); got.Count != 1 {
		t.Errorf("of one: %+v", got)
	}
	b.want("DELETE", "quarantine", "dry_run=true", 400, "nothing said of what to delete")
	b.want("POST", "quarantine/replay", "dry_run=true", 400, "nothing said of what to replay")
	b.want("DELETE", "quarantine", "all=true&dry_run=1", 400, "dry_run: invalid value")
	b.want("GET", "quarantine?dry_run=true", "", 400, "dry_run: unknown parameter")
	for _, until := range []string{"2026-11-21T15:04:05Z-", "2026-11-21T15:04:05Z-x", "2026-11-21T15:04:05Z-0", "Z-1", "2026-11-21T15:04:05Z-1-1"} {
		b.want("DELETE", "quarantine", "until="+until, 400, "until: invalid time")
	}
	if got := len(b.left()); got != 2 {
		t.Errorf("%d left of 2", got)
	}
}

// TestDryRunUnreadable: what cannot be read is not in the count, as with until it is neither replayed nor deleted.
func TestDryRunUnreadable(t *testing.T) {
	t.Parallel()
	b, ids := newSpoiltBench(t)
	for _, call := range []struct{ method, target string }{{"DELETE", "quarantine"}, {"POST", "quarantine/replay"}} {
		if run := b.dryRun(call.method, call.target, "all=true"); run.Count != 2 || run.Unreadable != 1 {
			t.Errorf("%s: %+v", call.method, run)
		}
	}
	run := b.dryRun("DELETE", "quarantine", "all=true")
	b.want("DELETE", "quarantine", "all=true&until="+url.QueryEscape(run.Until), 200, `{"deleted":2}`)
	b.want("DELETE", "quarantine", "id="+ids[1], 200, `{"deleted":1}`)
}
