package nats

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/queue"
)

// BenchmarkPutDone has each record put, taken and removed.
func BenchmarkPutDone(b *testing.B) {
	for _, test := range []struct {
		name    string
		servers int
		extra   string
	}{{"one server", 1, ""}, {"three servers", 3, ""}, {"three servers, always", 3, always}} {
		b.Run(test.name, func(b *testing.B) {
			const writers = 256
			o := options(startServers(b, test.servers, test.extra), "BENCH")
			o.Partitions, o.MaxPerInstance = defaultPartitions, defaultMaxPerInstance
			s := openStore(b, o)
			ctx, stop := context.WithCancel(context.Background())
			defer stop()
			var done atomic.Int64
			served := make(chan error, 1)
			go func() {
				served <- s.Serve(ctx, func(h queue.Share) {
					for {
						item, err := h.Next(ctx)
						if err != nil {
							return
						}
						go func() {
							if _, err := h.Load(item.Seq); err != nil {
								return
							}
							if h.Done(item.Seq) == nil {
								done.Add(1)
							}
						}()
					}
				})
			}()
			var left atomic.Int64
			left.Store(int64(b.N))
			began := time.Now()
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					for n := left.Add(-1); n >= 0; n = left.Add(-1) {
						r := testRecord(fmt.Sprint(w), int(n))
						r.Body = append(r.Body, make([]byte, 460)...)
						for {
							if _, err := s.Put(context.Background(), r, 0); err == nil {
								break
							}
							time.Sleep(time.Millisecond)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "puts/s")
			for done.Load() < int64(b.N) {
				time.Sleep(time.Millisecond)
			}
			b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "puts+dones/s")
			stop()
			<-served
		})
	}
}
