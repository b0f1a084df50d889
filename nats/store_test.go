package nats

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/greenapi-community/caddy-green-api/queue"
)

func testRecord(instance string, n int) *queue.Record {
	return &queue.Record{
		Block: "default", Received: time.Date(2026, 11, 27, 10, 0, 0, 5, time.UTC), Instance: instance, Chat: "79990000001@c.us",
		Type: "incomingMessageReceived", ID: fmt.Sprint(n), Kind: "incomingMessageReceived", Host: "hooks.example.com", URI: "/green-api/webhook",
		Header: map[string][]string{"Content-Type": {"application/json"}}, Body: fmt.Appendf(nil, `{"instance": %q, "n": %d}`, instance, n),
	}
}

func put(t *testing.T, s *Store, instance string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if duplicate, err := s.Put(ctx, testRecord(instance, n), 0); err != nil || duplicate {
		t.Fatalf("Put: duplicate %v, error %v", duplicate, err)
	}
}

// A taken is an item with the share that it came from.
type taken struct {
	queue.Item
	share queue.Share
	id    string
}

// A taker takes what a store hands out.
type taker struct {
	t    *testing.T
	stop context.CancelFunc
	over chan error
	each func(taken) // is called with each, if not nil

	mu     sync.Mutex
	items  []taken
	shares []queue.Share
}

func serve(t *testing.T, s *Store, each func(taken)) *taker {
	ctx, stop := context.WithCancel(context.Background())
	k := &taker{t: t, stop: stop, over: make(chan error, 1), each: each}
	go func() { k.over <- s.Serve(ctx, func(share queue.Share) { k.take(ctx, share) }) }()
	t.Cleanup(stop)
	return k
}

func (k *taker) take(ctx context.Context, share queue.Share) {
	k.mu.Lock()
	k.shares = append(k.shares, share)
	k.mu.Unlock()
	for {
		item, err := share.Next(ctx)
		if err != nil {
			return
		}
		r, err := share.Load(item.Seq)
		if err != nil {
			continue // lost meanwhile
		}
		one := taken{item, share, r.ID}
		k.mu.Lock()
		k.items = append(k.items, one)
		k.mu.Unlock()
		if k.each != nil {
			k.each(one)
		}
	}
}

// all returns what was taken, by instance.
func (k *taker) all() map[string][]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	got := make(map[string][]string)
	for _, one := range k.items {
		got[one.Instance] = append(got[one.Instance], one.id)
	}
	return got
}

func (k *taker) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.items)
}

// list returns what was taken of an instance.
func (k *taker) list(instance string) (list []taken) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, one := range k.items {
		if one.Instance == instance {
			list = append(list, one)
		}
	}
	return list
}

func (k *taker) end() {
	k.t.Helper()
	k.stop()
	select {
	case err := <-k.over:
		if err != nil {
			k.t.Errorf("Serve: %v", err)
		}
	case <-time.After(wait):
		k.t.Fatal("Serve goes on")
	}
}

func numbers(from, to int) (list []string) {
	for n := from; n < to; n++ {
		list = append(list, fmt.Sprint(n))
	}
	return list
}

// takeOver has one edge die with what it has taken, and returns what another one gets.
func takeOver(t *testing.T, noReset bool) (got, want map[string][]string) {
	const instances, each, later = 4, 20, 5
	servers := startServers(t, 1, "")
	o := options(servers, "TAKEOVER")
	first := openStore(t, o)
	for n := range each {
		for i := range instances {
			put(t, first, fmt.Sprint(i), n)
		}
	}
	k := serve(t, first, nil)
	until(t, "all records", func() bool { return k.count() == instances*each })
	want = make(map[string][]string)
	for i := range instances {
		name := fmt.Sprint(i)
		left := numbers(0, each)
		for _, n := range []int{0, i, 2 * i, 12} { // not only the first ones: lanes by chat are not in order
			one := k.list(name)[n]
			if err := one.share.Done(one.Seq); err != nil {
				t.Fatal(err)
			}
			left = slices.DeleteFunc(left, func(id string) bool { return id == one.id })
		}
		want[name] = append(left, numbers(each, each+later)...)
	}
	o.noReset = noReset
	second := openStore(t, o)
	first.nc.Close() // as a kill does: it gives nothing up
	k2 := serve(t, second, nil)
	for n := range later {
		for i := range instances {
			put(t, second, fmt.Sprint(i), each+n)
		}
	}
	enough := 0
	for _, list := range want {
		enough += len(list)
	}
	began := time.Now()
	if noReset {
		enough = 1
	}
	until(t, "the takeover", func() bool { return k2.count() >= enough })
	t.Logf("taken over after %s", time.Since(began).Round(100*time.Millisecond))
	return k2.all(), want
}

func TestTakeover(t *testing.T) {
	t.Parallel()
	got, want := takeOver(t, false)
	for name := range want {
		if !slices.Equal(got[name], want[name]) {
			t.Errorf("instance %s: got %v, want %v", name, got[name], want[name])
		}
	}
}

// TestTakeoverWithoutReset shows that TestTakeover sees what the reset is for.
func TestTakeoverWithoutReset(t *testing.T) {
	t.Parallel()
	got, want := takeOver(t, true)
	for name := range want {
		if len(got[name]) > 0 && got[name][0] != want[name][0] {
			t.Logf("instance %s begins with record %s, %s is left", name, got[name][0], want[name][0])
			return
		}
	}
	t.Errorf("without a reset the order is right: %v", got)
}

// TestBalance: edges that come and go share the partitions, and what one gives up, another has at once.
func TestBalance(t *testing.T) {
	t.Parallel()
	servers := startServers(t, 1, "")
	o := options(servers, "BALANCE")
	o.Partitions = 16
	first, second := openStore(t, o), openStore(t, o)
	mine := func(s *Store) (n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.shares)
	}
	k := serve(t, first, nil)
	until(t, "all partitions", func() bool { return mine(first) == 16 && first.Stats().Shares == 16 })
	const instances, each = 40, 10
	want := make(map[string][]string)
	for i := range instances {
		for n := range each {
			put(t, second, fmt.Sprint(i), n)
		}
		want[fmt.Sprint(i)] = numbers(0, each)
	}
	until(t, "all records", func() bool { return k.count() == instances*each })
	for i := range instances {
		for _, one := range k.list(fmt.Sprint(i))[:each] {
			if err := one.share.Done(one.Seq); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range instances {
		for n := range each {
			put(t, second, fmt.Sprint(i), each+n)
		}
		want[fmt.Sprint(i)] = numbers(each, 2*each)
	}
	until(t, "all records", func() bool { return k.count() == 2*instances*each })
	k2 := serve(t, second, nil)
	until(t, "a share of the partitions", func() bool { return mine(second) > 0 && mine(first)+mine(second) == 16 })
	until(t, "what both say of that", func() bool {
		return first.Stats().Shares == mine(first) && second.Stats().Shares == mine(second) && second.Stats().Gained > 0
	})
	began := time.Now()
	k.end()
	until(t, "what the first has given up", func() bool { return k2.count() == instances*each })
	if took := time.Since(began); took > 9*time.Second { // 10 s, if it were not said
		t.Errorf("took %s", took)
	}
	until(t, "what both say of that", func() bool { return first.Stats().Shares == 0 && second.Stats().Shares == 16 })
	for name, got := range k2.all() {
		if !slices.Equal(got, want[name]) {
			t.Errorf("instance %s: got %v, want %v", name, got, want[name])
		}
	}
}

// TestDuplicate: what an edge gets that another one has stored is known, if it is still there.
func TestDuplicate(t *testing.T) {
	t.Parallel()
	servers := startServers(t, 1, "")
	o := options(servers, "DUPLICATE")
	first, second := openStore(t, o), openStore(t, o)
	for _, step := range []struct {
		s    *Store
		n    int
		want bool
	}{
		{first, 0, false},
		{second, 0, true},  // the 200 of the first edge got lost
		{second, 0, false}, // it has answered 200 itself
		{first, 0, true},
		{first, 1, false},
		{second, 0, false}, // no longer the latest
		{second, 0, false},
	} {
		duplicate, err := step.s.Put(context.Background(), testRecord("1", step.n), 0)
		if err != nil || duplicate != step.want {
			t.Errorf("record %d: duplicate %v, error %v, want %v", step.n, duplicate, err, step.want)
		}
	}
	k := serve(t, first, nil)
	want := []string{"0", "0", "1", "0", "0"}
	until(t, "the records", func() bool { return k.count() >= len(want) })
	if got := k.all()["1"]; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestFull: an instance that is full is told apart from a stream that is.
func TestFull(t *testing.T) {
	t.Parallel()
	servers := startServers(t, 1, "")
	o := options(servers, "FULL")
	o.MaxPerInstance, o.MaxSize = 5, 1<<20
	s := openStore(t, o)
	large := func(instance string, n int) error {
		r := testRecord(instance, n)
		r.Body = append(r.Body, make([]byte, 20_000)...)
		_, err := s.Put(context.Background(), r, 0)
		return err
	}
	for n := range 5 {
		if err := large("1", n); err != nil {
			t.Fatal(err)
		}
	}
	if err := large("1", 5); !errors.Is(err, queue.ErrInstanceFull) || errors.Is(err, queue.ErrFull) {
		t.Errorf("sixth of an instance: %v", err)
	}
	for n := range 100 {
		err := large(fmt.Sprint(2+n/5), n)
		if errors.Is(err, queue.ErrFull) && !errors.Is(err, queue.ErrInstanceFull) {
			if n < 30 {
				t.Errorf("full after %d", n)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("never full")
}

// putAll puts records of an instance one after another, each until it is stored, until stop is closed. It returns how
// many there are.
func putAll(t *testing.T, s *Store, instance string, stop <-chan struct{}) (n int) {
	for ; ; n++ {
		for {
			select {
			case <-stop:
				return n
			default:
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, err := s.Put(ctx, testRecord(instance, n), 0)
			cancel()
			if err == nil {
				break
			}
			if errors.Is(err, queue.ErrInstanceFull) {
				time.Sleep(10 * time.Millisecond)
			} else if !errors.Is(err, queue.ErrUnavailable) {
				t.Errorf("Put: %v", err)
			}
		}
	}
}

// TestServerKilled: whatever was stored is handed out, in order, though the server is killed again and again.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	servers := startServers(t, 1, "")
	s := openStore(t, options(servers, "KILLED"))
	k := serve(t, s, func(one taken) { go func() { _ = one.share.Done(one.Seq) }() })
	stop := make(chan struct{})
	var puts sync.WaitGroup
	counts := make([]int, 8)
	for i := range counts {
		puts.Go(func() { counts[i] = putAll(t, s, fmt.Sprint(i), stop) })
	}
	for round := 1; round <= 3; round++ {
		until(t, "records", func() bool { return k.count() > 500*round })
		servers[0].kill()
		servers[0].start()
	}
	until(t, "records", func() bool { return k.count() > 2500 })
	close(stop)
	puts.Wait()
	for i, n := range counts {
		name := fmt.Sprint(i)
		until(t, "the last record", func() bool {
			list := k.list(name)
			return len(list) > 0 && slices.ContainsFunc(list, func(one taken) bool { return one.id == fmt.Sprint(n-1) })
		})
		checkFirsts(t, name, k.all()[name], n)
	}
	until(t, "an empty stream", func() bool { return s.Stats().Entries == 0 })
	t.Logf("records %v", counts)
}

// checkFirsts fails unless all records of an instance come for the first time in order. Some come again.
func checkFirsts(t *testing.T, name string, got []string, n int) {
	t.Helper()
	next := 0
	for _, id := range got {
		var have int
		_, _ = fmt.Sscan(id, &have)
		if have > next {
			t.Errorf("instance %s: record %d comes before %d", name, have, next)
			return
		}
		if have == next {
			next++
		}
	}
	if next < n {
		t.Errorf("instance %s: %d of %d records", name, next, n)
	}
}

// TestNoQuorum: with two servers of three down, Put fails when its context ends, and nothing that was stored is lost.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a cluster")
	}
	servers := startServers(t, 3, "")
	s := openStore(t, options(servers, "QUORUM"))
	for n := range 20 {
		put(t, s, "1", n)
	}
	servers[1].kill()
	put(t, s, "1", 20)
	servers[2].kill()
	for n := range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		began := time.Now()
		_, err := s.Put(ctx, testRecord("2", n), 0)
		cancel()
		if took := time.Since(began); !errors.Is(err, queue.ErrUnavailable) || took > 5*time.Second {
			t.Errorf("after %s: %v", took, err)
		}
	}
	servers[1].start()
	servers[2].start()
	put(t, s, "1", 21)
	k := serve(t, s, nil)
	until(t, "all records", func() bool { return len(k.all()["1"]) >= 22 })
	if got := k.all()["1"]; !slices.Equal(got, numbers(0, 22)) {
		t.Errorf("got %v", got)
	}
	for _, one := range k.list("1")[:10] {
		if err := one.share.Done(one.Seq); err != nil {
			t.Error(err)
		}
	}
	// All of them at once: consumers are in memory only.
	for _, server := range servers {
		server.kill()
	}
	for _, server := range servers {
		server.start()
	}
	put(t, s, "1", 22)
	until(t, "the last record", func() bool {
		list := k.list("1")
		return list[len(list)-1].id == "22"
	})
	if again := k.all()["1"][22:]; !slices.Equal(again[len(again)-13:], numbers(10, 23)) {
		t.Errorf("after all servers were killed: %v", again)
	}
}

// TestAway: a store whose servers are away opens, refuses what it gets, and works when they are there.
func TestAway(t *testing.T) {
	t.Parallel()
	servers := startServers(t, 1, "")
	servers[0].kill()
	o, logs := watched(options(servers, "AWAY"))
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.nc.Close() })
	if logs.FilterMessageSnippet("cannot be used").Len() == 0 {
		t.Error("nothing was logged")
	}
	told := make(chan struct{}, 1)
	s.Changed(func() { rouse(told) })
	k := serve(t, s, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.Put(ctx, testRecord("1", 0), 0); !errors.Is(err, queue.ErrUnavailable) {
		t.Errorf("Put: %v", err)
	}
	stopped := serve(t, s, nil)
	stopped.end()
	servers[0].start()
	put(t, s, "1", 0)
	until(t, "the record", func() bool { return k.count() == 1 })
	ended, end := context.WithCancel(context.Background())
	end()
	k.end()
	for range 20 {
		if err := s.Serve(ended, func(queue.Share) {}); err != nil {
			t.Error(err)
		}
	}
	select {
	case <-told:
	default:
		t.Error("a record was handed out before the orders were known")
	}
	closed := make(chan struct{})
	go func() {
		_ = s.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(wait):
		t.Fatal("Close waits for ever")
	}
}

// TestStream: a stream that would lose something is refused, when the store is opened and later.
func TestStream(t *testing.T) {
	t.Parallel()
	servers := startServers(t, 1, "")
	js := admin(t, servers)
	ctx := context.Background()
	for name, change := range map[string]func(*jetstream.StreamConfig){
		"retention is Limits": func(c *jetstream.StreamConfig) { c.Retention = jetstream.LimitsPolicy },
		"discard is DiscardOld": func(c *jetstream.StreamConfig) {
			c.Discard, c.DiscardNewPerSubject = jetstream.DiscardOld, false
		},
		"max-age is 1h0m0s": func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour },
		"transform is none": func(c *jetstream.StreamConfig) { c.SubjectTransform = nil },
		"{{partition(8,1)}}": func(c *jetstream.StreamConfig) {
			c.SubjectTransform.Destination = c.Name + ".{{partition(8,1)}}.{{wildcard(1)}}"
		},
		"max-msgs is 10":            func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 },
		"max-msgs-per-subject is 7": func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 7 },
		"dupe-window is 1m0s":       func(c *jetstream.StreamConfig) { c.Duplicates = time.Minute },
		"storage is Memory":         func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage },
	} {
		o := options(servers, "S"+digest(name, nil, "")[:8])
		config := o.streamConfig()
		change(&config)
		if _, err := js.CreateStream(ctx, config); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s, err := Open(o)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want %s, got %v", name, err)
		}
	}

	o, logs := watched(options(servers, "EDITED"))
	o.verifyEvery = 100 * time.Millisecond
	s := openStore(t, o)
	put(t, s, "1", 0)
	config := o.streamConfig()
	config.Discard, config.DiscardNewPerSubject = jetstream.DiscardOld, false
	if _, err := js.UpdateStream(ctx, config); err != nil {
		t.Fatal(err)
	}
	tryPut := func() error {
		_, err := s.Put(ctx, testRecord("2", 0), 0)
		return err
	}
	until(t, "a refusal", func() bool { return errors.Is(tryPut(), queue.ErrUnavailable) })
	if err := tryPut(); err == nil || !strings.Contains(err.Error(), "discard is DiscardOld, want DiscardNew") {
		t.Errorf("Put: %v", err)
	}
	if _, err := js.UpdateStream(ctx, o.streamConfig()); err != nil {
		t.Fatal(err)
	}
	until(t, "a stored record", func() bool { return tryPut() == nil })
	if err := js.DeleteConsumer(ctx, o.Stream, "partition-1"); err != nil {
		t.Fatal(err)
	}
	until(t, "the consumer", func() bool {
		_, err := js.Consumer(ctx, o.Stream, "partition-1")
		return err == nil
	})
	if logs.FilterMessageSnippet("is as it must be again").Len() == 0 {
		t.Error("the end was not logged")
	}
}

// TestLogin: an edge that may not log in does not start, and no error has a secret.
func TestLogin(t *testing.T) {
	t.Parallel()
	const secret = "correct-horse"
	servers := startServers(t, 1, "authorization { token: "+secret+" }")
	for _, token := range []string{secret + "-wrong", ""} {
		q := &Queue{Servers: urls(servers), Token: token, Replicas: 1}
		if err := q.provision(); err != nil {
			t.Fatal(err)
		}
		_, err := q.Open()
		if err == nil || strings.Contains(err.Error(), "horse") || !strings.Contains(err.Error(), "uthoriz") {
			t.Errorf("token %q: %v", token, err)
		}
	}
	q := &Queue{Servers: urls(servers), Token: secret, Replicas: 1}
	if err := q.provision(); err != nil {
		t.Fatal(err)
	}
	s, err := q.Open()
	if err != nil {
		t.Fatal(err)
	}
	put(t, s.(*Store), "1", 0)
	_ = s.Close()
}

// TestControl: pauses hold for all edges, draining for one.
func TestControl(t *testing.T) {
	t.Parallel()
	servers := startServers(t, 1, "")
	o := options(servers, "CONTROL")
	o2 := o
	o2.Edge = "another"
	first, second := openStore(t, o), openStore(t, o2)
	if key := first.LaneKey(); len(key) == 0 || !bytes.Equal(key, second.LaneKey()) {
		t.Error("the edges have different IDs for a lane")
	}
	told := make(chan struct{}, 1)
	second.Changed(func() { rouse(told) })
	paused := []queue.Target{{Instance: "1"}}
	if err := first.SetControl(queue.Control{Draining: true, Paused: paused}); err != nil {
		t.Fatal(err)
	}
	err := second.SetControl(queue.Control{Paused: []queue.Target{{Instance: "2"}}})
	if err == nil {
		t.Error("an order was overwritten that was not known")
	}
	select {
	case <-told:
	case <-time.After(wait):
		t.Fatal("the other edge does not notice")
	}
	if got := second.Control(); got.Draining || !slices.Equal(got.Paused, paused) {
		t.Errorf("other edge: %+v", got)
	}
	if err := second.SetControl(queue.Control{}); err != nil {
		t.Error(err)
	}
	until(t, "the end of the pause", func() bool { return len(first.Control().Paused) == 0 })
	if !first.Control().Draining {
		t.Error("the other edge's order ended the draining of this one")
	}
}

// TestStuckConsumer: what a consumer passes over is found.
func TestStuckConsumer(t *testing.T) {
	t.Parallel()
	servers := startServers(t, 1, "")
	js := admin(t, servers)
	o, logs := watched(options(servers, "STUCK"))
	o.Partitions, o.idleTime = 1, time.Second
	s := openStore(t, o)
	for n := range 3 {
		put(t, s, "1", n)
	}
	if _, err := js.ResetConsumerToSequence(context.Background(), o.Stream, consumerName(0), 1000); err != nil {
		t.Fatal(err)
	}
	k := serve(t, s, nil)
	until(t, "the records", func() bool { return k.count() == 3 })
	if logs.FilterMessageSnippet("does not send").Len() == 0 {
		t.Error("nothing was logged")
	}
	if got := k.all()["1"]; !slices.Equal(got, numbers(0, 3)) {
		t.Errorf("got %v", got)
	}
}

// A proxy stands between an edge and a server. While it is cut, nothing gets through, and no connection ends.
type proxy struct {
	net.Listener
	to  string
	mu  sync.Mutex
	cut chan struct{} // closed when it is whole
}

func startProxy(t *testing.T, to *server) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l, to: strings.TrimPrefix(to.url, "nats://"), cut: make(chan struct{})}
	close(p.cut)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go p.carry(in)
		}
	}()
	return p
}

func (p *proxy) carry(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer out.Close()
	go func() {
		_, _ = io.Copy(p.gate(out), in)
		_ = out.Close()
	}()
	_, _ = io.Copy(p.gate(in), out)
}

// gate returns a writer that waits while the proxy is cut.
func (p *proxy) gate(w io.Writer) io.Writer {
	return writer(func(b []byte) (int, error) {
		p.mu.Lock()
		cut := p.cut
		p.mu.Unlock()
		<-cut
		return w.Write(b)
	})
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

func (p *proxy) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cut {
		p.cut = make(chan struct{})
	} else {
		close(p.cut)
	}
}

// TestCutOff: an edge that no server answers loses its share before another one has it, and does not come in the
// other's way when it is back.
func TestCutOff(t *testing.T) {
	t.Parallel()
	servers := startServers(t, 1, "")
	between := startProxy(t, servers[0])
	o := options(servers, "CUT")
	o.Partitions = 1
	cut := o
	cut.Servers = []string{"nats://" + between.Addr().String()}
	first, second := openStore(t, cut), openStore(t, o)
	k := serve(t, first, nil)
	for n := range 10 {
		put(t, second, "1", n)
	}
	until(t, "the records", func() bool { return k.count() == 10 })
	one := k.list("1")[0]
	between.setCut(true)
	began := time.Now()
	var gained time.Time
	k2 := serve(t, second, func(one taken) {
		if gained.IsZero() {
			gained = time.Now()
		}
	})
	select {
	case <-one.share.Lost():
	case <-time.After(wait):
		t.Fatal("the share is not lost")
	}
	lost := time.Since(began)
	if k2.count() > 0 {
		t.Error("the other edge had the share first")
	}
	if _, err := one.share.Load(one.Seq); err == nil {
		t.Error("a lost share loads a record")
	}
	until(t, "the records", func() bool { return k2.count() == 10 })
	if lost, gained := first.Stats(), second.Stats(); lost.Shares != 0 || gained.Shares != 1 || gained.Gained != 1 {
		t.Errorf("%+v and %+v", lost, gained)
	}
	t.Logf("lost after %s, gained after %s", lost.Round(10*time.Millisecond), gained.Sub(began).Round(10*time.Millisecond))
	between.setCut(false)
	put(t, first, "1", 10)
	until(t, "a record after that", func() bool { return k.count()+k2.count() > 20 })
	checkFirsts(t, "1", k2.all()["1"], 10)
}

// TestPermissions: an edge needs no more than the docs say.
func TestPermissions(t *testing.T) {
	t.Parallel()
	servers := startServers(t, 1, `authorization { users: [ { user: edge, password: invented, permissions: {
	publish: [ "GREEN_API.put.*", "GREEN_API_edges", "$JS.API.>", "$JS.ACK.>", "$KV.GREEN_API_control.>" ], subscribe: [ "GREEN_API_edges", "_INBOX.>" ] } } ] }`)
	o, logs := watched(options(servers, "GREEN_API"))
	o.Connect, o.Replicas = []natsgo.Option{natsgo.UserInfo("edge", "invented")}, 1
	s := openStore(t, o)
	put(t, s, "1", 0)
	k := serve(t, s, nil)
	until(t, "the record", func() bool { return k.count() == 1 })
	if err := k.items[0].share.Done(k.items[0].Seq); err != nil {
		t.Error(err)
	}
	if err := s.SetControl(queue.Control{Draining: true, Paused: []queue.Target{{}}}); err != nil {
		t.Error(err)
	}
	k.end()
	for _, entry := range logs.All() {
		if strings.Contains(entry.Message, "one replica") {
			continue
		}
		t.Errorf("logged: %s %v", entry.Message, entry.ContextMap())
	}
}

// TestGracePeriod: a partition that another edge is to serve is kept until the deliveries under way have ended, but no
// longer than grace_period.
func TestGracePeriod(t *testing.T) {
	t.Parallel()
	servers := startServers(t, 1, "")
	for name, test := range map[string]struct {
		period time.Duration
		kept   bool
	}{"LONG": {wait, true}, "SHORT": {time.Second, false}} {
		o := options(servers, name)
		o.Partitions, o.GracePeriod = 1, test.period
		first, second := openStore(t, o), openStore(t, o)
		put(t, first, "1", 0)
		delivering, delivered := make(chan queue.Share), make(chan struct{})
		ctx, stop := context.WithCancel(context.Background())
		over := make(chan error, 1)
		go func() {
			over <- first.Serve(ctx, func(share queue.Share) {
				item, err := share.Next(ctx)
				if err != nil {
					return
				}
				delivering <- share
				<-delivered
				if err := share.Done(item.Seq); test.kept && err != nil {
					t.Error(err)
				}
			})
		}()
		share := <-delivering
		k := serve(t, second, nil)
		stop()
		<-share.Lost()
		lost := time.Now()
		put(t, second, "1", 1)
		want := []string{"1"}
		if test.kept {
			time.Sleep(3 * time.Second) // nothing happens: there is nothing to wait for
			if n := k.count(); n > 0 {
				t.Errorf("%s: another edge has %d", name, n)
			}
			close(delivered)
		} else {
			want = []string{"0", "1"}
		}
		until(t, name, func() bool { return k.count() == len(want) })
		if got := k.all()["1"]; !slices.Equal(got, want) {
			t.Errorf("%s: another edge got %v, want %v", name, got, want)
		}
		if took := time.Since(lost); !test.kept {
			if took > 20*time.Second {
				t.Errorf("%s: another edge has the partition after %s", name, took)
			}
			close(delivered)
		}
		if err := <-over; err != nil {
			t.Error(err)
		}
	}
}
