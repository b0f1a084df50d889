package delivery

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/spans"
)

func TestFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, to, limits := NewFleet(nil), new(told), usual()
		s := newScript([]string{"500", "slow", "slow", "down", "hang"}, []string{"200"})
		shows := func(n int) string {
			got := f.Figures(s.handlers[n].Address)
			text := fmt.Sprintf("%d in hand, taken %d, not %v", got.InHand, got.Taken, got.NotTaken)
			if got.Fault != nil {
				text += fmt.Sprintf(", %s %d %s %s ago", got.Fault.Reason, got.Fault.Status, got.Fault.Error, time.Since(got.Fault.At))
			}
			if !got.Until.IsZero() {
				text += fmt.Sprintf(", alone for %s: %s", time.Until(got.Until), got.Why)
			}
			return text
		}
		want := func(when string, n int, want string) {
			t.Helper()
			if got := shows(n); got != want {
				t.Errorf("%s: %s\nwant %s", when, got, want)
			}
		}
		want("at first", 0, "0 in hand, taken 0, not map[]")
		f.Deliver(t.Context(), caseOf("A"), s, limits, to.hooks())
		want("an error", 0, "0 in hand, taken 0, not map[handler_error:1], handler_error 500  0s ago")
		want("the other", 1, "0 in hand, taken 1, not map[]")
		for _, body := range []string{"B", "C"} {
			go f.Deliver(t.Context(), caseOf(body), s, limits, to.hooks())
		}
		time.Sleep(time.Second)
		want("in hand", 0, "2 in hand, taken 0, not map[handler_error:1], handler_error 500  1s ago")
		time.Sleep(10 * time.Second)
		want("taken", 0, "0 in hand, taken 2, not map[handler_error:1], handler_error 500  11s ago")
		if got := f.Figures(s.handlers[0].Address); got.P50 < 10_000 || got.P50 > 12_500 || got.P99 != got.P50 {
			t.Errorf("p50 %v, p99 %v", got.P50, got.P99)
		}
		f.Deliver(t.Context(), caseOf("D"), s, limits, to.hooks())
		want("not reachable", 0, "0 in hand, taken 2, not map[handler_error:1 not_now:1], not_now 0 handler could not be connected to: refused 0s ago")
		if got := f.Figures(s.handlers[0].Address); got.P50 < 10_000 {
			t.Errorf("p50 %v with a connection that failed", got.P50)
		}
		s.steps[0] = []string{"hang"}
		f.Deliver(t.Context(), caseOf("E"), s, limits, to.hooks())
		want("time ran out", 0, "0 in hand, taken 2, not map[attempt_timeout:1 handler_error:1 not_now:1], attempt_timeout 0 handler did not answer in time 0s ago, alone for 5s: attempt_timeout")
		time.Sleep(5 * time.Second)
		want("later", 0, "0 in hand, taken 2, not map[attempt_timeout:1 handler_error:1 not_now:1], attempt_timeout 0 handler did not answer in time 5s ago")
		time.Sleep(5 * time.Minute)
		if got := f.Figures(s.handlers[0].Address); got.P50 != 0 || got.Taken != 2 {
			t.Errorf("five minutes later: %+v", got)
		}
	})
}

// TestFiguresBounded: handlers whose addresses come and go do not fill the memory.
func TestFiguresBounded(t *testing.T) {
	f, began := NewFleet(nil), time.Now()
	for n := range maxFigures + 10 {
		f.count(fmt.Sprint(n), &Answer{Ended: began.Add(time.Duration(n))}, 0)
	}
	if len(f.figures) != maxFigures || f.Figures("9").Taken != 0 || f.Figures("10").Taken != 1 {
		t.Errorf("%d handlers", len(f.figures))
	}
}

// TestTrend: each slot has what was taken and what was not, and is empty a quarter of an hour later.
func TestTrend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Now().Truncate(spans.SlotLength).Add(spans.SlotLength)))
		f := NewFleet(nil)
		count := func(result Result) { f.count("A", &Answer{Result: result, Ended: time.Now()}, 0) }
		shows := func(at int, taken, notTaken uint32) {
			t.Helper()
			got := f.Figures("A").Trend
			if got == nil || got.Slot != spans.SlotLength || len(got.Taken) != spans.Slots || len(got.NotTaken) != spans.Slots || got.Taken[at] != taken || got.NotTaken[at] != notTaken {
				t.Errorf("slot %d: %+v", at, got)
			} else if left := time.Until(time.Unix(got.Until, 0)); left <= 0 || left > spans.SlotLength {
				t.Errorf("ends in %s", left)
			}
		}
		if got := f.Figures("A").Trend; got != nil {
			t.Errorf("at first: %+v", got)
		}
		count(Taken)
		count(Taken)
		count(TimedOut)
		count(BrokenOff)
		count(NotNow)
		shows(spans.Slots-1, 2, 3)
		time.Sleep(spans.SlotLength)
		count(Taken)
		shows(spans.Slots-2, 2, 3)
		shows(spans.Slots-1, 1, 0)
		time.Sleep((spans.Slots - 2) * spans.SlotLength)
		shows(0, 2, 3)
		shows(1, 1, 0)
		time.Sleep(spans.SlotLength) // in which the place of the first one is used again
		count(TimedOut)
		shows(0, 1, 0)
		shows(spans.Slots-1, 0, 1)
		time.Sleep(spans.Slots * spans.SlotLength)
		if got := f.Figures("A").Trend; got != nil {
			t.Errorf("at the end: %+v", got)
		}
	})
}

// BenchmarkCount is what an attempt pays for the figures.
func BenchmarkCount(b *testing.B) {
	f := NewFleet(nil)
	got := &Answer{Handler: "10.0.0.1:8080", Ended: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		f.count(got.Handler, got, 3*time.Millisecond)
	}
}
