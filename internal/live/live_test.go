package live

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/spans"
	"github.com/greenapi-community/caddy-green-api/notification"
)

var began = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func ofInstance(instance string) *outcome.Case {
	return &outcome.Case{Kind: "incomingMessageReceived", Started: began, N: &notification.Notification{Instance: instance, Timestamp: began.Unix() - 3}}
}

func add(f *Feed, instance string, end *outcome.Verdict) {
	c := ofInstance(instance)
	c.Handler, c.Attempts = "10.0.0.1:8080", 1
	f.Add(c, end, "default", began.Add(1500*time.Microsecond))
}

var (
	delivered = &outcome.Verdict{Outcome: outcome.Delivered, Status: 200}
	schema    = &outcome.Verdict{Outcome: outcome.Quarantined, Reason: "schema", Status: 200, Level: zap.ErrorLevel, Faults: []notification.Fault{{Pointer: "/timestamp", Keyword: "type"}}}
)

// seqs are the rows' numbers from the first one of the feed.
func seqs(f *Feed, v View) string {
	var text strings.Builder
	for _, row := range v.Rows {
		fmt.Fprintf(&text, "%d ", row.Seq-f.first)
	}
	return strings.TrimSpace(text.String())
}

func TestRow(t *testing.T) {
	f := New(began)
	c := ofInstance("1101000001")
	c.Client, c.QuarantineID, c.Via, c.Attempts, c.Handler = "203.0.113.9", "20261101-1", "api", 2, "10.0.0.1:8080"
	f.Add(c, schema, "sales", began.Add(1500*time.Microsecond))
	want := Row{
		Seq: began.UnixMicro(), At: began.UnixMilli() + 1, Outcome: outcome.Quarantined, Reason: "schema", Status: 200, Type: "incomingMessageReceived",
		Instance: "1101000001", Name: "sales", Via: "api", Handler: "10.0.0.1:8080", Attempts: 2, Milliseconds: 1.5, Age: 3,
		Pointer: "/timestamp", Keyword: "type", QuarantineID: "20261101-1", bad: true,
	}
	if got := f.Since(Newest, 10).Rows[0]; got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	f.Add(c, &outcome.Verdict{Outcome: outcome.Refused, Reason: "bad_token", Status: 401}, "sales", began)
	if got := f.Since(Newest, 10).Rows[1]; got.Client != "203.0.113.9" {
		t.Errorf("a refused request comes from %q", got.Client)
	}
}

func TestSince(t *testing.T) {
	f := New(began)
	if v := f.Since(Newest, 3); v.Seq != f.first-1 || v.Of != 0 || v.Gap != nil || v.Rows == nil {
		t.Errorf("of nothing: %+v", v)
	}
	for n := range 10 {
		end := delivered
		if n == 2 || n == 5 {
			end = schema
		}
		add(f, "1101000001", end)
	}
	for _, test := range []struct {
		name  string
		since int64
		most  int
		want  string
		of    int
		gap   bool
	}{
		{"the newest", Newest, 3, "7 8 9", 3, false},
		{"all", f.first - 1, 20, "0 1 2 3 4 5 6 7 8 9", 10, false},
		{"what is wrong first", f.first - 1, 4, "2 5 8 9", 10, false},
		{"the newest of what is wrong", f.first - 1, 1, "5", 10, false},
		{"after the third", f.first + 2, 20, "3 4 5 6 7 8 9", 7, false},
		{"nothing new", f.first + 9, 20, "", 0, false},
		{"from before a restart", f.first - 1000, 2, "2 5", 10, true},
		{"from the future", f.first + 1000, 2, "8 9", 2, false},
	} {
		v := f.Since(test.since, test.most)
		if got := seqs(f, v); got != test.want || v.Of != test.of || (v.Gap != nil) != test.gap || v.Seq != f.first+9 {
			t.Errorf("%s: %s of %d, gap %v; want %s of %d, gap %v", test.name, got, v.Of, v.Gap, test.want, test.of, test.gap)
		}
	}
	for range kept {
		add(f, "1101000001", delivered)
	}
	v := f.Since(f.first+5, kept)
	if v.Of != kept || v.Gap == nil || v.Gap.From != f.first+6 || v.Gap.To != f.first+9 || v.Rows[0].Seq != f.first+10 {
		t.Errorf("%d of %d, gap %v, from %d", len(v.Rows), v.Of, v.Gap, v.Rows[0].Seq-f.first)
	}
}

func TestCounts(t *testing.T) {
	f := New(began)
	add(f, "1101000001", delivered)
	add(f, "1101000002", delivered)
	add(f, "1101000001", schema)
	if got, want := fmt.Sprint(f.Since(Newest, 1).Counts), "[{delivered  2} {quarantined schema 1}]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(f.Totals()), "map[delivered:2 dropped:0 failed:0 quarantined:1 refused:0]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTrend(t *testing.T) {
	f := New(began)
	at := func(after, took time.Duration, end *outcome.Verdict) {
		c := ofInstance("1101000001")
		c.Started = began.Add(after - took)
		f.Add(c, end, "default", began.Add(after))
	}
	at(0, time.Hour, delivered) // before the five minutes
	at(14*time.Minute, 0, schema)
	for range 98 {
		at(14*time.Minute+50*time.Second, 3*time.Millisecond, delivered)
	}
	at(14*time.Minute+50*time.Second, 40*time.Millisecond, delivered)
	at(14*time.Minute+50*time.Second, 40*time.Millisecond, delivered)
	got := f.Trend(began.Add(14*time.Minute + 59*time.Second))
	if n := len(got.Slots); n != spans.Slots || got.Seconds != 15 || got.Until != began.Unix()+15*60 {
		t.Fatalf("%d slots of %d s until %d", n, got.Seconds, got.Until)
	}
	for i, want := range map[int]string{0: "map[delivered:1]", 1: "map[]", 56: "map[quarantined:1]", 59: "map[delivered:100]"} {
		if shown := fmt.Sprint(got.Slots[i]); shown != want {
			t.Errorf("slot %d: %s, want %s", i, shown, want)
		}
	}
	if got.P50 < 3 || got.P50 > 3.7 || got.P99 < 40 || got.P99 > 50 {
		t.Errorf("p50 %v, p99 %v", got.P50, got.P99)
	}
	if got := f.Trend(began.Add(time.Hour)); got.P50 != 0 || fmt.Sprint(got.Slots[59], got.Slots[0]) != "map[] map[]" {
		t.Errorf("an hour later: %+v", got)
	}
}

// TestHoldsNoBody: what is kept of a notification does not keep its body in memory.
func TestHoldsNoBody(t *testing.T) {
	f := New(began)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for n := range 2 * kept {
		body := strings.Repeat("x", 16<<10) + fmt.Sprint(1101000000+n)
		c := ofInstance(body[len(body)-10:])
		c.Client = body[:20]
		end := &outcome.Verdict{Outcome: outcome.Refused, Reason: reason.Reason("schema"), Faults: []notification.Fault{{Pointer: body[:200], Keyword: "type"}}}
		f.Add(c, end, "default", began)
	}
	if grown := int64(heap()) - int64(before); grown > 2<<20 {
		t.Errorf("%d bytes more", grown)
	}
	runtime.KeepAlive(f)
}

func BenchmarkNow(b *testing.B) {
	for b.Loop() {
		_ = time.Now()
	}
}

func BenchmarkAdd(b *testing.B) {
	f := New(began)
	c := ofInstance("1101000001")
	c.Handler, c.Attempts = "10.0.0.1:8080", 1
	b.ReportAllocs()
	for b.Loop() {
		f.Add(c, delivered, "default", time.Now())
	}
}
