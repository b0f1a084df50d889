// Package nats keeps the queue in a NATS JetStream stream that several edges share.
//
// The stream has a subject for each instance, and the instances are spread over partitions, each with one durable
// consumer. A consumer is pinned to one edge at a time, which holds what has not been acknowledged in memory, and
// delivers it. Whoever is pinned resets the consumer first, so that it begins with the earliest record that is left:
// otherwise those that an edge had when it died would come last.
package nats

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/queue"
)

var _ queue.SharedStore = (*Store)(nil)

const (
	connectTimeout = 2 * time.Second
	openTimeout    = 5 * time.Second
	setUpTimeout   = 10 * time.Second
	setUpAgain     = 2 * time.Second
	lookEvery      = 2 * time.Second
	verifyEvery    = time.Minute
	mendedAfter    = 5 * time.Second
	apiTimeout     = 3 * time.Second
)

// Options of a store.
type Options struct {
	Servers        []string
	Connect        []natsgo.Option // with the credentials
	Stream         string
	Replicas       int
	MaxSize        int64 // bytes, 0 for any number
	Partitions     int
	MaxPerInstance int
	Edge           string        // name of this edge
	GracePeriod    time.Duration // how long a partition that is given up is kept for the deliveries under way
	Logger         func() *zap.Logger

	// For tests.
	verifyEvery, idleTime time.Duration // in place of the constants, if above 0
	noReset               bool          // what happens without it
}

// Store is a queue.Store in a stream. Use Open to make one.
type Store struct {
	o    Options
	id   string // of this store among those of all edges
	nc   *natsgo.Conn
	js   jetstream.JetStream
	kv   jetstream.KeyValue // nil until ready
	born time.Time

	calls   sync.WaitGroup // in progress
	closing chan struct{}  // closed by Close, under mu
	stop    context.CancelFunc
	running sync.WaitGroup
	takes   sync.WaitGroup // of shares
	serving chan struct{}  // holds a token during Serve

	ready   chan struct{}         // closed when stream, consumers and bucket have been found sound once
	problem atomic.Pointer[error] // what is wrong with them now
	away    atomic.Pointer[error] // why the servers cannot be used before ready is closed

	mu        sync.Mutex
	last      map[string]uint64 // by instance, the last record whose Put returned nil
	stats     queue.Stats
	changes   int             // of stats, by calls
	skipped   int             // looks at the stream
	deleted   int             // gaps between its records
	link      context.Context // ends when the connection breaks
	unlink    context.CancelFunc
	control   queue.Control
	laneKey   []byte
	revisions [2]uint64            // of control and of draining
	changed   func()               // tells the dispatcher of a new control
	shares    map[int]*share       // by partition
	pins      map[int]string       // by partition, what this store was last pinned with
	done      []memory             // by partition
	edges     map[string]time.Time // others that are alive, and when they were last heard of
	balance   chan struct{}        // tells Serve that edges came or went
}

// Open connects, and makes what is missing. If the servers cannot be reached within 5 seconds, the store is opened all
// the same: until they can, its Puts fail and it serves nothing. What waiting cannot mend is an error.
func Open(o Options) (*Store, error) {
	s := &Store{
		o: o, id: o.Edge + "-" + rand.Text(), born: time.Now(),
		laneKey: queue.NewLaneKey(), closing: make(chan struct{}), serving: make(chan struct{}, 1), ready: make(chan struct{}),
		last: make(map[string]uint64), shares: make(map[int]*share), pins: make(map[int]string), done: make([]memory, o.Partitions), edges: make(map[string]time.Time), balance: make(chan struct{}, 1),
	}
	s.stats.MaxBytes = max(o.MaxSize, 0)
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.link, s.unlink = context.WithCancel(ctx)
	connected := make(chan struct{}, 1)
	nc, err := natsgo.Connect(strings.Join(o.Servers, ","), append(slices.Clone(o.Connect),
		natsgo.Name("green_api "+s.id), natsgo.Timeout(connectTimeout), natsgo.RetryOnFailedConnect(true), natsgo.IgnoreAuthErrorAbort(),
		natsgo.MaxReconnects(-1), natsgo.ReconnectWait(250*time.Millisecond), natsgo.ReconnectJitter(100*time.Millisecond, 200*time.Millisecond),
		natsgo.ReconnectBufSize(-1), // what was published late could overtake what the sender sent meanwhile by way of another edge
		natsgo.PingInterval(2*time.Second), natsgo.MaxPingsOutstanding(2),
		natsgo.ConnectHandler(func(*natsgo.Conn) { rouse(connected) }),
		natsgo.ReconnectHandler(func(nc *natsgo.Conn) {
			rouse(connected)
			s.log().Warn("the queue's servers are connected again", zap.String("server", nc.ConnectedUrlRedacted()))
		}),
		natsgo.DisconnectErrHandler(func(_ *natsgo.Conn, err error) {
			s.mu.Lock()
			s.unlink()
			s.link, s.unlink = context.WithCancel(ctx)
			s.mu.Unlock()
			if !s.isClosing() {
				s.log().Error("the connection with the queue's servers broke", zap.Error(err))
			}
		}),
		natsgo.ErrorHandler(func(_ *natsgo.Conn, _ *natsgo.Subscription, err error) {
			if !s.isClosing() {
				s.log().Warn("the queue's connection", zap.Error(err))
			}
		}))...)
	if err != nil {
		stop()
		return nil, fmt.Errorf("nats: %w", err)
	}
	s.nc = nc
	if s.js, err = jetstream.New(nc, jetstream.WithDefaultTimeout(apiTimeout)); err != nil {
		stop()
		nc.Close()
		return nil, err
	}
	if err := s.firstSetUp(connected); err != nil {
		stop()
		nc.Close()
		return nil, fmt.Errorf("%s: %w", s, err)
	}
	s.running.Go(func() { s.run(ctx) })
	return s, nil
}

// firstSetUp returns an error if waiting does not help.
func (s *Store) firstSetUp(connected <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	err := s.awaitConnection(ctx, connected)
	if refused(err) {
		return err
	}
	for err == nil {
		if err = s.setUp(ctx); err == nil {
			close(s.ready)
			if s.o.Replicas < 2 {
				s.log().Warn("the queue's stream has one replica: a disk that dies takes what it holds along", zap.String("stream", s.o.Stream))
			}
			return nil
		}
		var config configError
		if errors.As(err, &config) {
			return err
		}
		if ctx.Err() == nil {
			sleep(ctx, 200*time.Millisecond)
			err = nil
		}
	}
	s.away.Store(&err)
	s.log().Error("the queue's servers cannot be used, notifications are answered 503 until they can", zap.Error(err))
	return nil
}

// awaitConnection returns why there is no connection when ctx ends.
func (s *Store) awaitConnection(ctx context.Context, connected <-chan struct{}) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	why := natsgo.ErrNoServers
	for !s.nc.IsConnected() {
		select {
		case <-connected:
			return nil
		case <-ctx.Done():
			return why
		case <-ticker.C:
			if err := s.nc.LastError(); err != nil && !refused(why) { // which the next try overwrites
				why = err
			}
		}
	}
	return nil
}

// refused reports whether a server does not let this edge log in. The client has such errors only as texts.
func refused(err error) bool {
	if err == nil {
		return false
	}
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "authorization") || strings.Contains(text, "authentication") || strings.Contains(text, "nkeys not supported")
}

// run keeps the store in touch with the stream until ctx ends.
func (s *Store) run(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	verified := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		if !s.isReady() {
			s.setUpLate(ctx)
			continue
		}
		try, cancel := context.WithTimeout(ctx, apiTimeout)
		s.lookAtStream(try)
		if err := s.readControl(try); err != nil && ctx.Err() == nil && s.nc.IsConnected() {
			s.log().Warn("the queue's orders cannot be read", zap.Error(err))
		}
		cancel()
		every := cmp.Or(s.o.verifyEvery, verifyEvery)
		if s.problem.Load() != nil {
			every = min(every, mendedAfter)
		}
		if time.Since(verified) >= every {
			verified = time.Now()
			s.verifyAndTell(ctx)
		}
	}
}

// setUpLate tries once more what firstSetUp could not do.
func (s *Store) setUpLate(ctx context.Context) {
	if !s.nc.IsConnected() {
		return
	}
	try, cancel := context.WithTimeout(ctx, setUpTimeout)
	defer cancel()
	err := s.setUp(try)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		s.tellControl() // before anything is handed out
		close(s.ready)
		s.log().Info("the queue's servers can be used", zap.String("server", s.nc.ConnectedUrlRedacted()))
		return
	}
	s.away.Store(&err)
	s.log().Error("the queue's servers cannot be used yet, notifications are answered 503 until they can", zap.Error(err))
}

// verifyAndTell checks the stream. While something is wrong with it, nothing is put there.
func (s *Store) verifyAndTell(ctx context.Context) {
	try, cancel := context.WithTimeout(ctx, setUpTimeout)
	defer cancel()
	err := s.verify(try)
	var config configError
	switch {
	case errors.As(err, &config):
		s.problem.Store(&err)
		s.log().Error("the queue's stream is not as it must be, notifications are answered 503", zap.Error(err))
	case err == nil && s.problem.Swap(nil) != nil:
		s.log().Info("the queue's stream is as it must be again")
	case err != nil && ctx.Err() == nil:
		s.log().Warn("the queue's stream cannot be checked", zap.Error(err))
	}
	s.warn()
}

// warn tells of what will become a trouble if it goes on.
func (s *Store) warn() {
	s.mu.Lock()
	deleted, shares := s.deleted, maps.Clone(s.shares)
	s.mu.Unlock()
	for p, h := range shares {
		if n := h.waiting(); n > maxAckPending/2 {
			s.log().Warn("instances that stand still fill a partition of the queue, and will stop it for others",
				zap.Int("partition", p), zap.Int("entries", n), zap.Int("at_most", maxAckPending), zap.String("fix", "let their handlers take them, or 'caddy green-api queue skip'"))
		}
	}
	if deleted > manyDeleted {
		s.log().Warn("one that stands still keeps the stream of the queue from being cleaned up, its servers will take long to start",
			zap.Int("gaps", deleted), zap.String("fix", "let the oldest notification be taken, or 'caddy green-api queue skip'"))
	}
}

// manyDeleted is half of how many gaps a server writes the index of.
const manyDeleted = 500_000

// lookAtStream brings Stats up to date.
func (s *Store) lookAtStream(ctx context.Context) {
	s.mu.Lock()
	before := s.changes
	s.mu.Unlock()
	stream, err := s.js.Stream(ctx, s.o.Stream)
	if err != nil {
		return
	}
	s.mu.Lock()
	// What this edge has counted meanwhile may be missing. On a busy one that is always so, and does not matter.
	skip := before != s.changes && s.skipped < 5
	s.skipped++
	if !skip {
		s.skipped = 0
	}
	s.mu.Unlock()
	if !skip {
		s.look(stream.CachedInfo(), false)
	}
}

func (s *Store) look(info *jetstream.StreamInfo, opened bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Entries = int(info.State.Msgs)  //nolint:gosec // a count
	s.stats.Bytes = int64(info.State.Bytes) //nolint:gosec // on a disk
	s.stats.LastSeq = max(s.stats.LastSeq, info.State.LastSeq)
	s.deleted = info.State.NumDeleted
	s.stats.MaxBytes = max(info.Config.MaxBytes, 0)
	// Another stream of the name, on other servers, was not made at the very same moment.
	s.stats.Place = fmt.Sprintf("%s %d", info.Config.Name, info.Created.UnixNano())
	if opened {
		s.stats.Put = int64(s.stats.Entries)
	}
}

// Stats says how full the stream is, as it was up to two seconds ago. Put counts what was there when the store was
// opened and what this edge has put.
func (s *Store) Stats() queue.Stats {
	s.mu.Lock()
	stats := s.stats
	shares := slices.Collect(maps.Values(s.shares))
	s.mu.Unlock()
	mine := 0
	for _, h := range shares {
		mine += h.size()
		if h.serves() {
			stats.Shares++
		}
	}
	stats.Others = max(0, stats.Entries-mine)
	stats.Away = !s.isReady() || !s.nc.IsConnected() || s.problem.Load() != nil
	return stats
}

// awaitReady waits until the stream has been found sound, or ctx ends.
func (s *Store) awaitReady(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	default:
	}
	select {
	case <-s.ready:
		return nil
	case <-s.closing:
		return s.errClosed()
	case <-ctx.Done():
		why := context.Cause(ctx)
		if away := s.away.Load(); away != nil {
			why = *away
		}
		return fmt.Errorf("%s: %w: nothing was stored: %w", s, queue.ErrUnavailable, why)
	}
}

func (s *Store) isReady() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// Close gives up all shares, waits for the calls in progress and disconnects. Closing a closed store does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	first := !s.isClosing()
	if first {
		close(s.closing)
	}
	s.mu.Unlock()
	s.calls.Wait()
	if first {
		s.stop()
		s.running.Wait()
		s.nc.Close()
	}
	return nil
}

// begin keeps Close waiting until calls.Done is called, unless it returns an error.
func (s *Store) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosing() {
		return s.errClosed()
	}
	s.calls.Add(1)
	return nil
}

func (s *Store) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

func (s *Store) String() string { return "stream " + s.o.Stream }

func (s *Store) errClosed() error { return fmt.Errorf("%s: %w", s, queue.ErrClosed) }

func (s *Store) log() *zap.Logger { return s.o.Logger() }

func zapError(err error) zap.Field { return zap.Error(err) }

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// rouse tells a goroutine something, unless it has been told already.
func rouse(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
