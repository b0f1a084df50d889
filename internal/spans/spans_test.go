package spans

import (
	"testing"
	"time"
)

func TestClasses(t *testing.T) {
	for us := time.Duration(0); us < 10_000_000; us += 1 + us/7 {
		d := us * time.Microsecond
		class := classOf(d)
		if upTo(class) < d || class > 0 && upTo(class-1) >= d {
			t.Fatalf("%v is of class %d, up to %v", d, class, upTo(class))
		}
	}
	if class := classOf(24 * time.Hour); class == classes-1 || upTo(class) > 30*time.Hour {
		t.Errorf("a day is of class %d", class)
	}
	if class := classOf(100 * 24 * time.Hour); class != classes-1 {
		t.Errorf("a hundred days are of class %d", class)
	}
}

func TestPercentiles(t *testing.T) {
	began := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	var r Recent
	r.Add(time.Hour, began)
	for range 98 {
		r.Add(3*time.Millisecond, began.Add(4*time.Minute))
	}
	r.Add(40*time.Millisecond, began.Add(5*time.Minute))
	r.Add(40*time.Millisecond, began.Add(5*time.Minute)) // in the place of the hour
	for _, test := range []struct {
		after    time.Duration
		p50, p99 float64 // at least, and less than a quarter more
	}{
		{5 * time.Minute, 3, 40},
		{9*time.Minute + 14*time.Second, 40, 40},
		{10 * time.Minute, 0, 0},
		{time.Minute, 0, 0}, // the clock has been set back
	} {
		p50, p99 := r.Percentiles(began.Add(test.after))
		if p50 < test.p50 || p50 > 1.25*test.p50 || p99 < test.p99 || p99 > 1.25*test.p99 {
			t.Errorf("after %s: %v, %v; want %v, %v", test.after, p50, p99, test.p50, test.p99)
		}
	}
}
