package queuetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/queue"
)

// Options say what is special about an engine.
type Options struct {
	// Durable means that a store has all records again after it was closed and opened.
	Durable bool

	// PerInstance is how many records of an instance a store may hold, if it has a limit of its own, above 100, in the
	// place of Put's.
	PerInstance int

	// Lags means that Stats come from elsewhere, and may be late, as may the room that Done makes.
	Lags bool
}

// An Open opens the store in a directory. maxSize limits its size in bytes; 0 means no limit. The test closes the
// store.
type Open func(t *testing.T, dir string, maxSize int64) queue.Store

// Run tests an engine.
func Run(t *testing.T, open Open, options Options) {
	for name, test := range map[string]func(*suite){
		"record": (*suite).record, "order": (*suite).order, "before and while it serves": (*suite).whileServing,
		"done out of order": (*suite).doneOutOfOrder, "done twice": (*suite).doneTwice, "full": (*suite).full,
		"instance full": (*suite).instanceFull, "too large": (*suite).tooLarge, "not a duplicate": (*suite).notDuplicate,
		"context that ends": (*suite).contextEnds, "next": (*suite).next, "serve again": (*suite).serveAgain,
		"control": (*suite).control, "stats": (*suite).stats, "close": (*suite).close, "close in the middle": (*suite).closeInTheMiddle,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(&suite{t, open, t.TempDir(), options})
		})
	}
	if !options.Durable {
		return
	}
	for name, test := range map[string]func(*suite){
		"opened again": (*suite).reopen, "duplicate of one found": (*suite).duplicateFound, "control opened again": (*suite).controlReopen,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(&suite{t, open, t.TempDir(), options})
		})
	}
}

// wait is how long a test waits for what must happen.
const wait = 20 * time.Second

type suite struct {
	*testing.T
	openStore Open
	dir       string
	options   Options
}

// open opens the store, and closes it in the end.
func (s *suite) open(maxSize int64) queue.Store {
	s.Helper()
	store := s.openStore(s.T, s.dir, maxSize)
	s.Cleanup(func() {
		if err := store.Close(); err != nil {
			s.Error(err)
		}
	})
	return store
}

// record returns the nth record of an instance.
func record(instance string, n int) *queue.Record {
	return &queue.Record{
		Block: "default", Received: time.Date(2026, 11, 27, 10, 0, n, 5, time.UTC), Instance: instance, Chat: fmt.Sprintf("7999000000%d@c.us", n%3),
		Type: "incomingMessageReceived", Message: "textMessage", ID: fmt.Sprint(n), Sent: 1795773600, Kind: "incomingMessageReceived",
		Client: "203.0.113.7", Host: "hooks.example.com", URI: "/green-api/webhook?a=b",
		Header: map[string][]string{"Content-Type": {"application/json"}}, Body: fmt.Appendf(nil, `{"instance": %q, "n": %d}`, instance, n),
	}
}

// put stores a record that nothing is wrong with.
func (s *suite) put(store queue.Store, r *queue.Record) {
	s.Helper()
	duplicate, err := store.Put(context.Background(), r, 0)
	if err != nil || duplicate {
		s.Fatalf("Put: duplicate %v, error %v", duplicate, err)
	}
}

// A holder takes what a store hands out, in a goroutine for each share.
type holder struct {
	s    *suite
	stop context.CancelFunc
	over chan error // what Serve returned

	mu     sync.Mutex
	shares map[uint64]queue.Share
	items  []queue.Item
	more   chan struct{}
}

func (s *suite) serve(store queue.Store) *holder {
	ctx, stop := context.WithCancel(context.Background())
	h := &holder{s: s, stop: stop, over: make(chan error, 1), shares: make(map[uint64]queue.Share), more: make(chan struct{}, 1)}
	go func() { h.over <- store.Serve(ctx, func(share queue.Share) { h.take(ctx, share) }) }()
	s.Cleanup(stop)
	return h
}

func (h *holder) take(ctx context.Context, share queue.Share) {
	for {
		item, err := share.Next(ctx)
		if err != nil {
			return
		}
		h.mu.Lock()
		h.items = append(h.items, item)
		h.shares[item.Seq] = share
		h.mu.Unlock()
		select {
		case h.more <- struct{}{}:
		default:
		}
	}
}

// end ends Serve and waits for that.
func (h *holder) end() {
	h.s.Helper()
	h.stop()
	select {
	case err := <-h.over:
		if err != nil && !errors.Is(err, context.Canceled) {
			h.s.Errorf("Serve: %v", err)
		}
	case <-time.After(wait):
		h.s.Fatal("Serve goes on after its context has ended")
	}
}

// take returns the first n items. There must not be more of them.
func (h *holder) first(n int) []queue.Item {
	h.s.Helper()
	late := time.After(wait)
	for {
		h.mu.Lock()
		items := slices.Clone(h.items)
		h.mu.Unlock()
		if len(items) > n {
			h.s.Fatalf("%d items, want %d", len(items), n)
		}
		if len(items) == n {
			return items
		}
		select {
		case <-h.more:
		case <-late:
			h.s.Fatalf("%d items, want %d", len(items), n)
		}
	}
}

func (h *holder) share(item queue.Item) queue.Share {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.shares[item.Seq]
}

func (h *holder) load(item queue.Item) (*queue.Record, error) { return h.share(item).Load(item.Seq) }

func (h *holder) done(item queue.Item) {
	h.s.Helper()
	if err := h.share(item).Done(item.Seq); err != nil {
		h.s.Fatalf("Done: %v", err)
	}
}

// checkOrder fails unless the records of each instance are those with the wanted numbers, in that order.
func (h *holder) checkOrder(items []queue.Item, want map[string][]string) {
	h.s.Helper()
	got := make(map[string][]string)
	last := make(map[string]uint64)
	for _, item := range items {
		r, err := h.load(item)
		if err != nil {
			h.s.Fatal(err)
		}
		if r.Instance != item.Instance {
			h.s.Errorf("item %+v has a record of instance %q", item, r.Instance)
		}
		if item.Seq <= last[item.Instance] {
			h.s.Errorf("instance %s: %d comes after %d", item.Instance, item.Seq, last[item.Instance])
		}
		last[item.Instance] = item.Seq
		got[item.Instance] = append(got[item.Instance], r.ID)
	}
	for instance := range want {
		if !slices.Equal(got[instance], want[instance]) {
			h.s.Errorf("instance %s: got %v, want %v", instance, got[instance], want[instance])
		}
	}
	if len(got) != len(want) {
		h.s.Errorf("%d instances, want %d", len(got), len(want))
	}
}

func (s *suite) checkStats(store queue.Store, entries int, put int64) {
	s.Helper()
	st := store.Stats()
	for late := time.Now().Add(wait); s.options.Lags && st.Entries != entries && time.Now().Before(late); st = store.Stats() {
		time.Sleep(10 * time.Millisecond)
	}
	if st.Entries != entries || st.Put != put {
		s.Errorf("%d entries of %d, want %d of %d", st.Entries, st.Put, entries, put)
	}
}

// record: what is loaded is what was put, whatever its size and its bytes.
func (s *suite) record() {
	store := s.open(0)
	h := s.serve(store)
	var want []*queue.Record
	for i, size := range []int{0, 1, 3000, 8 << 10, 8<<10 + 1, 40_000, 1 << 20} {
		r := record(fmt.Sprint(i), i)
		r.Body = bytes.Repeat([]byte{'a', 0, 0xff, byte(i)}, size/4+1)[:size]
		want = append(want, r)
	}
	want = append(want, &queue.Record{Body: []byte("{}")}) // with nothing known of it
	for _, r := range want {
		s.put(store, r)
	}
	for _, item := range h.first(len(want)) {
		r, err := h.load(item)
		if err != nil {
			s.Fatal(err)
		}
		i := slices.IndexFunc(want, func(w *queue.Record) bool { return w.Instance == r.Instance })
		w := *want[i]
		if !bytes.Equal(r.Body, w.Body) || !r.Received.Equal(w.Received) || fmt.Sprint(r.Header) != fmt.Sprint(w.Header) ||
			r.Chat != w.Chat || r.URI != w.URI || r.Kind != w.Kind || r.Sent != w.Sent || r.ID != w.ID {
			s.Errorf("record of %d bytes came back as %+v", len(w.Body), r)
		}
		asked := w.Item(item.Seq)
		if !item.Received.Equal(asked.Received) {
			s.Errorf("received at %s, want %s", item.Received, asked.Received)
		}
		if item.Received = asked.Received; item != asked {
			s.Errorf("item %+v, want %+v", item, asked)
		}
	}
}

// order: the records of each instance come in the order of their Puts, while others are put at the same time.
func (s *suite) order() {
	const instances, each = 40, 25
	store := s.open(0)
	h := s.serve(store)
	want := make(map[string][]string)
	var wg sync.WaitGroup
	for i := range instances {
		name := fmt.Sprint(1101000000 + i)
		for n := range each {
			want[name] = append(want[name], fmt.Sprint(n))
		}
		wg.Go(func() {
			for n := range each {
				if duplicate, err := store.Put(context.Background(), record(name, n), 0); err != nil || duplicate {
					s.Errorf("Put: duplicate %v, error %v", duplicate, err)
				}
			}
		})
	}
	wg.Wait()
	h.checkOrder(h.first(instances*each), want)
	s.checkStats(store, instances*each, instances*each)
}

// whileServing: items from before Serve come first, those that are put later after them.
func (s *suite) whileServing() {
	store := s.open(0)
	for n := range 3 {
		s.put(store, record("1", n))
	}
	h := s.serve(store)
	h.first(3)
	for n := range 3 {
		s.put(store, record("1", 3+n))
		h.first(4 + n)
	}
	h.checkOrder(h.first(6), map[string][]string{"1": {"0", "1", "2", "3", "4", "5"}})
}

func (s *suite) doneOutOfOrder() {
	store := s.open(0)
	h := s.serve(store)
	for n := range 60 {
		s.put(store, record(fmt.Sprint(n%3), n))
	}
	items := h.first(60)
	kept := map[string][]string{}
	var gone []queue.Item
	for _, item := range items {
		r, err := h.load(item)
		if err != nil {
			s.Fatal(err)
		}
		if n := len(kept[item.Instance]); n > 0 && len(gone) < 50 || item.Instance == "2" {
			gone = append(gone, item)
		} else {
			kept[item.Instance] = append(kept[item.Instance], r.ID)
		}
	}
	rand.Shuffle(len(gone), func(i, j int) { gone[i], gone[j] = gone[j], gone[i] })
	var wg sync.WaitGroup
	for part := range slices.Chunk(gone, 7) {
		wg.Go(func() {
			for _, item := range part {
				if err := h.share(item).Done(item.Seq); err != nil {
					s.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, item := range gone {
		if _, err := h.load(item); !errors.Is(err, queue.ErrNotFound) {
			s.Errorf("Load of one that is done: %v", err)
		}
	}
	s.checkStats(store, 60-len(gone), 60)
	h.end()
	again := s.serve(store)
	again.checkOrder(again.first(60-len(gone)), kept)
}

// doneTwice: Done does nothing for an item that is done, nor for one that never was.
func (s *suite) doneTwice() {
	store := s.open(0)
	h := s.serve(store)
	s.put(store, record("1", 0))
	s.put(store, record("1", 1))
	item := h.first(2)[0]
	h.done(item)
	h.done(item)
	if err := h.share(item).Done(item.Seq + 1000); err != nil {
		s.Errorf("Done of one that never was: %v", err)
	}
	s.checkStats(store, 1, 2)
}

// full: Put refuses before the limit is passed, and what is done makes room.
func (s *suite) full() {
	const maxSize = 1 << 20
	store := s.open(maxSize)
	h := s.serve(store)
	n := 0
	fill := func() (added int) {
		for {
			r := record(fmt.Sprint(n%7), n)
			r.Body = append(r.Body, bytes.Repeat([]byte("x"), 15_000)...)
			duplicate, err := store.Put(context.Background(), r, 0)
			if st := store.Stats(); st.Bytes > maxSize || st.MaxBytes != maxSize {
				s.Fatalf("%d bytes in use, %d are said to be allowed, %d are", st.Bytes, st.MaxBytes, maxSize)
			}
			if errors.Is(err, queue.ErrFull) {
				return added
			}
			if err != nil || duplicate {
				s.Fatalf("duplicate %v, error %v", duplicate, err)
			}
			n++
			added++
		}
	}
	first := fill()
	if first < 20 || first > maxSize/15_000 {
		s.Errorf("%d records of 15,000 bytes fit into %d", first, maxSize)
	}
	s.checkStats(store, first, int64(first))
	for _, item := range h.first(first) {
		h.done(item)
	}
	again := fill()
	for late := time.Now().Add(wait); s.options.Lags && again < first*3/4 && time.Now().Before(late); {
		again += fill()
	}
	if again < first*3/4 {
		s.Errorf("%d records fit after %d were done", again, first)
	}
}

// instanceFull: the limit of an instance is its own, and what is done makes room.
func (s *suite) instanceFull() {
	store := s.open(0)
	h := s.serve(store)
	put := func(instance string, n, perInstance int) error {
		duplicate, err := store.Put(context.Background(), record(instance, n), perInstance)
		if duplicate {
			s.Error("duplicate")
		}
		return err
	}
	most := cmp.Or(s.options.PerInstance, 3)
	for n := range most {
		if err := put("1", n, most); err != nil {
			s.Fatal(err)
		}
	}
	if err := put("1", most, most); !errors.Is(err, queue.ErrInstanceFull) {
		s.Errorf("one more than %d: %v", most, err)
	}
	if err := put("2", 0, most); err != nil {
		s.Errorf("of another instance: %v", err)
	}
	for _, item := range h.first(most + 1) {
		if item.Instance == "1" {
			h.done(item)
			break
		}
	}
	err := put("1", most+1, most)
	for late := time.Now().Add(wait); s.options.Lags && errors.Is(err, queue.ErrInstanceFull) && time.Now().Before(late); {
		err = put("1", most+1, most)
	}
	if err != nil {
		s.Errorf("after one was done: %v", err)
	}
	if err := put("1", most+2, most); !errors.Is(err, queue.ErrInstanceFull) {
		s.Errorf("full again: %v", err)
	}
	want := most + 1
	if s.options.PerInstance == 0 {
		if err := put("1", most+3, 0); err != nil {
			s.Errorf("without a limit: %v", err)
		}
		want++
	}
	s.checkStats(store, want, int64(want+1))
}

// tooLarge: what would not fit into an empty store is told apart from what has to wait.
func (s *suite) tooLarge() {
	store := s.open(1 << 20)
	r := record("1", 0)
	r.Body = make([]byte, 2<<20)
	if _, err := store.Put(context.Background(), r, 0); !errors.Is(err, queue.ErrTooLarge) || errors.Is(err, queue.ErrFull) {
		s.Errorf("2 MiB into 1 MiB: %v", err)
	}
	s.checkStats(store, 0, 0)
	s.put(store, record("1", 1))
}

// notDuplicate: a body that comes again after its Put has returned nil is another notification.
func (s *suite) notDuplicate() {
	store := s.open(0)
	h := s.serve(store)
	for range 3 {
		s.put(store, record("1", 0))
	}
	s.put(store, record("2", 0))
	s.put(store, record("1", 0))
	h.checkOrder(h.first(5), map[string][]string{"1": {"0", "0", "0", "0"}, "2": {"0"}})
}

// contextEnds: whoever repeats a Put that failed with its context has the record once, in its place.
func (s *suite) contextEnds() {
	const instances, each = 12, 12
	store := s.open(0)
	h := s.serve(store)
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := store.Put(over, record("x", 0), 0); !errors.Is(err, queue.ErrUnavailable) && err != nil {
		s.Errorf("context has ended: %v", err)
	} else if err != nil {
		again, err := store.Put(context.Background(), record("x", 0), 0)
		if err != nil {
			s.Fatal(err)
		}
		s.Logf("the record was stored with its context over: %v", again)
	}
	want := map[string][]string{"x": {"0"}}
	var wg sync.WaitGroup
	for i := range instances {
		name := fmt.Sprint(i)
		for n := range each {
			want[name] = append(want[name], fmt.Sprint(n))
		}
		wg.Go(func() {
			for n := range each {
				s.putStubbornly(store, record(name, n))
			}
		})
	}
	wg.Wait()
	h.checkOrder(h.first(1+instances*each), want)
}

// putStubbornly puts a record again and again, with little time each, until it is stored.
func (s *suite) putStubbornly(store queue.Store, r *queue.Record) {
	for most := 100 * time.Microsecond; ; most *= 2 {
		ctx, cancel := context.WithTimeout(context.Background(), rand.N(most))
		_, err := store.Put(ctx, r, 0)
		cancel()
		if err == nil {
			return
		}
		if !errors.Is(err, queue.ErrUnavailable) {
			s.Errorf("Put: %v", err)
			return
		}
	}
}

// next waits until its context ends, or Serve's.
func (s *suite) next() {
	store := s.open(0)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	served := make(chan error, 1)
	lost := make(chan struct{})
	var shares sync.WaitGroup
	var first, ended sync.Once
	go func() {
		served <- store.Serve(ctx, func(share queue.Share) {
			short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
			defer cancel()
			if item, err := share.Next(short); err == nil {
				s.Errorf("an item of an empty store: %+v", item)
			}
			select {
			case <-share.Lost():
				if ctx.Err() == nil {
					s.Error("lost while Serve goes on")
				}
			default:
			}
			first.Do(func() { shares.Go(stop) })
			if item, err := share.Next(ctx); err == nil {
				s.Errorf("an item of an empty store: %+v", item)
			}
			ended.Do(func() { close(lost) })
		})
	}()
	select {
	case <-lost:
	case <-time.After(wait):
		s.Fatal("Next waits for ever")
	}
	shares.Wait()
	<-served
}

// serveAgain: a Serve after another one has ended begins with all that is left.
func (s *suite) serveAgain() {
	store := s.open(0)
	h := s.serve(store)
	for n := range 5 {
		s.put(store, record("1", n))
	}
	h.done(h.first(5)[0])
	h.end()
	s.put(store, record("1", 5))
	h = s.serve(store)
	h.done(h.first(5)[1])
	s.put(store, record("1", 6))
	h.first(6)
	h.end()
	h = s.serve(store)
	h.checkOrder(h.first(5), map[string][]string{"1": {"1", "3", "4", "5", "6"}})
}

var orders = queue.Control{
	Draining: true, Paused: []queue.Target{{}, {Block: "default", Instance: "1101000001"}}, Moves: []queue.Move{{From: "old", To: "default", UpTo: 7}},
}

func (s *suite) checkControl(store queue.Store, want queue.Control) {
	s.Helper()
	if got := store.Control(); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		s.Errorf("control is %+v, want %+v", got, want)
	}
}

// control is what was set last, and whoever has it cannot change it.
func (s *suite) control() {
	store := s.open(0)
	s.checkControl(store, queue.Control{})
	if err := store.SetControl(orders); err != nil {
		s.Fatal(err)
	}
	s.checkControl(store, orders)
	store.Control().Paused[1].Instance = "changed"
	s.checkControl(store, orders)
	if err := store.SetControl(queue.Control{}); err != nil {
		s.Fatal(err)
	}
	s.checkControl(store, queue.Control{})
}

func (s *suite) controlReopen() {
	store := s.open(0)
	key := store.LaneKey()
	if err := store.SetControl(orders); err != nil {
		s.Fatal(err)
	}
	s.put(store, record("1", 0))
	store = s.again(store)
	s.checkControl(store, orders)
	if got := store.LaneKey(); len(got) < 16 || !bytes.Equal(got, key) {
		s.Errorf("key of lanes is %x, was %x", got, key)
	}
}

// again closes a store and opens it.
func (s *suite) again(store queue.Store) queue.Store {
	s.Helper()
	if err := store.Close(); err != nil {
		s.Fatal(err)
	}
	return s.open(0)
}

// stats: all that was put is in the store or done, and LastSeq is that of the last record.
func (s *suite) stats() {
	store := s.open(0)
	h := s.serve(store)
	empty := store.Stats()
	if empty.Entries != 0 || empty.Put != 0 {
		s.Errorf("empty: %+v", empty)
	}
	for n := range 20 {
		s.put(store, record(fmt.Sprint(n%2), n))
	}
	full := store.Stats()
	items := h.first(20)
	last := slices.MaxFunc(items, func(a, b queue.Item) int { return int(int64(a.Seq) - int64(b.Seq)) })
	if full.Bytes <= empty.Bytes || full.LastSeq != last.Seq {
		s.Errorf("%+v with an item %+v, before that %+v", full, last, empty)
	}
	for i, item := range items {
		h.done(item)
		s.checkStats(store, 19-i, 20)
	}
	if st := store.Stats(); st.LastSeq != last.Seq {
		s.Errorf("all are done: %+v", st)
	}
}

// close: each method says that the store is closed.
func (s *suite) close() {
	store := s.open(0)
	h := s.serve(store)
	s.put(store, record("1", 0))
	item := h.first(1)[0]
	share := h.share(item)
	if err := errors.Join(store.Close(), store.Close()); err != nil {
		s.Error(err)
	}
	select {
	case <-h.over:
	case <-time.After(wait):
		s.Fatal("Serve goes on after Close")
	}
	select {
	case <-share.Lost():
	default:
		s.Error("the share is not lost")
	}
	_, errPut := store.Put(context.Background(), record("1", 1), 0)
	_, errLoad := share.Load(item.Seq)
	_, errNext := share.Next(context.Background())
	errServe := store.Serve(context.Background(), func(queue.Share) { s.Error("a share of a closed store") })
	for name, err := range map[string]error{
		"Put": errPut, "Load": errLoad, "Done": share.Done(item.Seq), "Next": errNext, "Serve": errServe, "SetControl": store.SetControl(orders),
	} {
		if !errors.Is(err, queue.ErrClosed) {
			s.Errorf("%s after Close: %v", name, err)
		}
	}
	_ = store.Stats()
	_ = store.Control()
}

// closeInTheMiddle: each call ends, and either has done its work or says that it has not.
func (s *suite) closeInTheMiddle() {
	store := s.open(0)
	h := s.serve(store)
	for n := range 10 {
		s.put(store, record("0", n))
	}
	var wg sync.WaitGroup
	for i, item := range h.first(10) {
		wg.Go(func() {
			if err := h.share(item).Done(item.Seq); err != nil && !errors.Is(err, queue.ErrClosed) {
				s.Errorf("Done: %v", err)
			}
		})
		wg.Go(func() {
			for n := range 100 {
				_, err := store.Put(context.Background(), record(fmt.Sprint(1+i), n), 0)
				if err != nil && !errors.Is(err, queue.ErrClosed) {
					s.Errorf("Put: %v", err)
				}
			}
		})
	}
	time.Sleep(2 * time.Millisecond)
	if err := store.Close(); err != nil {
		s.Error(err)
	}
	wg.Wait()
	select {
	case <-h.over:
	case <-time.After(wait):
		s.Fatal("Serve goes on after Close")
	}
}

// reopen: what is not done is there again, in order, and sequence numbers go on.
func (s *suite) reopen() {
	store := s.open(0)
	h := s.serve(store)
	for n := range 10 {
		s.put(store, record("1", n))
	}
	items := h.first(10)
	for _, i := range []int{9, 0, 4} {
		h.done(items[i])
	}
	last := store.Stats().LastSeq
	store = s.again(store)
	s.checkStats(store, 7, 7)
	if st := store.Stats(); st.LastSeq < last {
		s.Errorf("last sequence number is %d, was %d", st.LastSeq, last)
	}
	s.put(store, record("1", 10))
	h = s.serve(store)
	items = h.first(8)
	h.checkOrder(items, map[string][]string{"1": {"1", "2", "3", "5", "6", "7", "8", "10"}})
	if items[7].Seq <= last {
		s.Errorf("sequence number %d comes again", items[7].Seq)
	}
}

// duplicateFound: the latest record of an instance that is found may be one that the sender has had no answer for.
func (s *suite) duplicateFound() {
	store := s.open(0)
	for n := range 2 {
		s.put(store, record("1", n))
		s.put(store, record("2", n))
		s.put(store, record("3", n))
	}
	store = s.again(store)
	put := func(instance string, n int, want bool) {
		s.Helper()
		duplicate, err := store.Put(context.Background(), record(instance, n), 0)
		if err != nil || duplicate != want {
			s.Errorf("record %d of %s: duplicate %v, error %v", n, instance, duplicate, err)
		}
	}
	put("1", 1, true)
	put("1", 1, false) // its Put has returned nil now
	put("2", 0, false) // not the latest
	put("2", 1, false) // no longer the latest
	s.checkStats(store, 9, 9)
	h := s.serve(store)
	for _, item := range h.first(9) {
		if r, err := h.load(item); err == nil && r.Instance == "3" && r.ID == "1" {
			h.done(item)
		}
	}
	put("3", 1, false) // not in the store any more
}
