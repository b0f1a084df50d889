package quarantine

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func BenchmarkPut(b *testing.B) {
	for _, c := range []struct {
		name          string
		writers, body int
	}{{"1 writer", 1, 2000}, {"64 writers", 64, 2000}, {"1 writer of 1 MiB", 1, 1 << 20}} {
		b.Run(c.name, func(b *testing.B) {
			s := openStore(b, b.TempDir())
			e := testEntry(testBody(c.body))
			var left atomic.Int64
			left.Store(int64(b.N))
			var slowest atomic.Int64
			b.ResetTimer()
			var wg sync.WaitGroup
			for range c.writers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						start := time.Now()
						if _, err := s.Put(e, 0); err != nil {
							b.Error(err)
							return
						}
						took := int64(time.Since(start))
						for was := slowest.Load(); took > was && !slowest.CompareAndSwap(was, took); was = slowest.Load() {
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
			b.ReportMetric(float64(slowest.Load())/1e6, "slowest-ms")
			b.ReportMetric(float64(b.N)/float64(transactions(s)), "puts/commit")
		})
	}
}

// BenchmarkOpen opens a file of 100,000 entries; counting says how much of that SummarizeBy takes.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s, err := Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	s.file.DB.NoSync = true
	putMany(b, s, 100_000)
	s.Close()
	opening, counting, answering := time.Hour, time.Hour, time.Hour
	for b.Loop() {
		begun := time.Now()
		s, err := Open(dir)
		if err != nil {
			b.Fatal(err)
		}
		opening = min(opening, time.Since(begun))
		begun = time.Now()
		s.SummarizeBy(func(typ string) string { return typ })
		counting = min(counting, time.Since(begun))
		begun = time.Now()
		if _, err := s.Summary(); err != nil {
			b.Fatal(err)
		}
		answering = min(answering, time.Since(begun))
		s.Close()
	}
	b.ReportMetric(opening.Seconds()*1e3, "least-ms-opening")
	b.ReportMetric(counting.Seconds()*1e3, "least-ms-counting")
	b.ReportMetric(answering.Seconds()*1e3, "least-ms-summary")
}
