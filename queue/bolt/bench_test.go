package bolt

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/greenapi-community/caddy-green-api/quarantine"
	"github.com/greenapi-community/caddy-green-api/queue"
)

func testBody(n int) []byte {
	body := make([]byte, n)
	for i := range body {
		body[i] = 'a' + byte((i+n)%26)
	}
	return body
}

func testRecord(instance string, body []byte) *queue.Record {
	return &queue.Record{
		Block: "default", Received: time.Date(2026, 11, 27, 10, 0, 0, 5, time.UTC), Instance: instance, Chat: "79990000001@c.us",
		Type: "incomingMessageReceived", Message: "textMessage", ID: "A1", Sent: 1795773600, Kind: "incomingMessageReceived",
		Client: "203.0.113.7", Host: "hooks.example.com", URI: "/green-api/webhook",
		Header: map[string][]string{"Content-Type": {"application/json"}}, Body: body,
	}
}

// together calls do n times in all, from that many goroutines, and returns how long that took.
func together(b *testing.B, writers, n int, do func(writer int) error) time.Duration {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	began := time.Now()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := do(w); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// transactions returns how many write transactions the file has had.
func transactions(s *Store) (n int) {
	_ = s.file.View(func(tx *bolt.Tx) error { n = tx.ID(); return nil })
	return n
}

// BenchmarkPut compares the queue with the quarantine: they take turns on the same disk, which is never the same for
// long.
func BenchmarkPut(b *testing.B) {
	for _, writers := range []int{1, 32, 256} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			const turn = 20 // Puts of each writer
			s := openStore(b, b.TempDir(), 0)
			q, err := quarantine.Open(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			defer q.Close()
			body := testBody(500)
			var ours, theirs time.Duration
			puts := 0
			before := transactions(s)
			for b.Loop() {
				puts += writers * turn
				ours += together(b, writers, writers*turn, func(w int) error {
					_, err := s.Put(context.Background(), testRecord(fmt.Sprint(w), body), 0)
					return err
				})
				theirs += together(b, writers, writers*turn, func(w int) error {
					_, err := q.Put(testEntry(fmt.Sprint(w), body), 0)
					return err
				})
			}
			b.ReportMetric(float64(puts)/ours.Seconds(), "puts/s")
			b.ReportMetric(float64(puts)/theirs.Seconds(), "quarantine-puts/s")
			b.ReportMetric(float64(puts)/float64(transactions(s)-before), "puts/commit")
		})
	}
}

func testEntry(instance string, body []byte) quarantine.Entry {
	return quarantine.Entry{
		Name: "default", Received: time.Date(2026, 11, 27, 10, 0, 0, 5, time.UTC), Instance: instance, Chat: "79990000001@c.us",
		Type: "incomingMessageReceived", Message: "textMessage", NotificationID: "A1",
		Client: "203.0.113.7", Host: "hooks.example.com", URI: "/green-api/webhook",
		Header: map[string][]string{"Content-Type": {"application/json"}}, Body: body,
	}
}

// BenchmarkPutDone compares Puts alone with those whose records are also removed, by turns. Reading them takes the CPU
// longer than anything else.
func BenchmarkPutDone(b *testing.B) {
	for _, writers := range []int{32, 256} {
		for _, load := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d, load %v", writers, load), func(b *testing.B) { benchPutDone(b, writers, load) })
		}
	}
}

func benchPutDone(b *testing.B, writers int, load bool) {
	const turn = 20 // Puts of each writer
	plain, served := openStore(b, b.TempDir(), 0), openStore(b, b.TempDir(), 0)
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error)
	done := make(chan struct{}, writers*turn)
	go func() { over <- served.Serve(ctx, func(h queue.Share) { takeAll(ctx, b, h, load, done) }) }()
	body := testBody(500)
	put := func(s *Store) time.Duration {
		return together(b, writers, writers*turn, func(w int) error {
			_, err := s.Put(context.Background(), testRecord(fmt.Sprint(w), body), 0)
			return err
		})
	}
	var alone, both time.Duration
	n := 0
	before := transactions(served)
	for b.Loop() {
		n += writers * turn
		alone += put(plain)
		began := time.Now()
		put(served)
		for range writers * turn {
			<-done
		}
		both += time.Since(began)
	}
	b.ReportMetric(float64(n)/alone.Seconds(), "puts/s")
	b.ReportMetric(float64(n)/both.Seconds(), "puts+dones/s")
	b.ReportMetric(2*float64(n)/float64(transactions(served)-before), "jobs/commit")
	stop()
	<-over
}

// takeAll removes each item in a goroutine of its own, as lanes do.
func takeAll(ctx context.Context, b *testing.B, h queue.Share, load bool, done chan<- struct{}) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		item, err := h.Next(ctx)
		if err != nil {
			return
		}
		wg.Go(func() {
			if load {
				if _, err := h.Load(item.Seq); err != nil {
					b.Error(err)
				}
			}
			if err := h.Done(item.Seq); err != nil {
				b.Error(err)
			}
			done <- struct{}{}
		})
	}
}

// BenchmarkOpen opens a file with half a million records.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	const records = 500_000
	s := openStore(b, dir, 0)
	s.file.DB.NoSync = true
	body := testBody(500)
	var wg sync.WaitGroup
	for w := range 500 {
		wg.Go(func() {
			for range records / 500 {
				if _, err := s.Put(context.Background(), testRecord(fmt.Sprint(w), body), 0); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := Open(dir, 0)
		if err != nil {
			b.Fatal(err)
		}
		if n := s.Stats().Entries; n != records {
			b.Fatal(n)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkNewPut is what a Put does before it waits for the writer.
func BenchmarkNewPut(b *testing.B) {
	r := testRecord("1101000001", testBody(500))
	r.Header = map[string][]string{
		"Content-Type": {"application/json; charset=utf-8"}, "User-Agent": {"GREEN-API"}, "Accept-Encoding": {"gzip"}, "Content-Length": {"500"},
	}
	b.ReportAllocs()
	for b.Loop() {
		newPut(r, 1000)
	}
}

// BenchmarkLoad reads a record that was put last, and one that is only in the file.
func BenchmarkLoad(b *testing.B) {
	for _, recently := range []bool{true, false} {
		b.Run(fmt.Sprintf("recently %v", recently), func(b *testing.B) {
			s := openStore(b, b.TempDir(), 0)
			h := &share{store: s}
			seq := mustPut(b, s, testRecord("1", testBody(500)))
			if !recently {
				s.recent = newRecent()
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.Load(seq); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
