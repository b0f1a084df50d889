package api

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

func (b *bench) summarize() (s Summary) {
	b.t.Helper()
	status, text := b.call("GET", "quarantine/summary", "")
	if err := json.Unmarshal([]byte(text), &s); status != 200 || err != nil {
		b.t.Fatalf("status %d, %v: %.300s", status, err, text)
	}
	return s
}

// TestSummary: what is kept is counted, and what is too long to list is counted together.
func TestSummary(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.want("GET", "quarantine/summary", "", 200, `{"entries":0,"reasons":{},"types":{},"instances":[],"other_instances":0,"days":[]}`)
	b.want("POST", "quarantine/summary", "", 405, "method POST not allowed")
	at := time.Date(2026, 11, 21, 23, 59, 59, 0, time.UTC)
	ids := b.put(
		quarantine.Entry{Received: at, Reason: reason.Schema, Type: "incomingCall", Instance: "1101000002"},
		quarantine.Entry{Received: at.Add(time.Second), Reason: reason.Schema, Type: "incomingCall", Instance: "1101000002"},
		quarantine.Entry{Received: at.Add(time.Second), Reason: reason.Malformed},
	)
	b.want("GET", "quarantine/summary", "", 200, `{"entries":3,"reasons":{"malformed":1,"schema":2},"types":{"":1,"incomingCall":2},`+
		`"instances":[{"instance":"1101000002","entries":2},{"instance":"","entries":1}],"other_instances":0,`+
		`"days":[{"day":"2026-11-22","entries":2},{"day":"2026-11-21","entries":1}]}`)
	b.want("DELETE", "quarantine", "id="+ids[1], 200, `{"deleted":1}`)
	for i := range mostInstances + mostDays {
		b.put(quarantine.Entry{Received: at.AddDate(0, 0, -i), Reason: reason.Schema, Instance: fmt.Sprint(1102000000 + i)})
	}
	s := b.summarize()
	if len(s.Instances) != mostInstances || s.OtherInstances != 402 || len(s.Days) != mostDays || s.OtherDays != 51 || s.Entries != 452 {
		t.Errorf("%d instances and %d others, %d days and %d others, %d entries", len(s.Instances), s.OtherInstances, len(s.Days), s.OtherDays, s.Entries)
	}
	if newest := (DayCount{"2026-11-22", 1}); s.Days[0] != newest {
		t.Errorf("first day %+v, want %+v", s.Days[0], newest)
	}
	many := byName(quarantine.Counts{Each: []quarantine.Count{{Name: "other", Entries: 2}, {Name: "a", Entries: 1}}, Others: 3})
	if many["other"] != 5 || many["a"] != 1 {
		t.Errorf("got %v", many)
	}
	b.store.Close()
	b.want("GET", "quarantine/summary", "", 500, "is closed")
}

// TestFastSummary measures the answer for a quarantine with 100,000 entries of 20,000 instances.
func TestFastSummary(t *testing.T) {
	if os.Getenv("GREEN_API_PROOFS") != "1" {
		t.Skip("make proofs runs it")
	}
	b := newBench(t)
	b.store.SummarizeBy(func(typ string) string { return typ })
	b.putTogether(80_000)
	b.putTogetherAs(20_000, func(i int) quarantine.Entry {
		return quarantine.Entry{Reason: reason.Schema, Instance: fmt.Sprint(1102000000 + i)}
	})
	var took []time.Duration
	for range 21 {
		begun := time.Now()
		if s := b.summarize(); s.Entries != 100_000 || len(s.Instances) != mostInstances {
			t.Fatalf("%d entries, %d instances", s.Entries, len(s.Instances))
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	t.Logf("median %s, slowest %s", took[10], took[20])
	if took[10] > 5*time.Millisecond {
		t.Errorf("median %s, want at most 5ms", took[10])
	}
}
