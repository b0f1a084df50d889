package nats

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/queue"
)

const (
	pullEvery   = 2 * time.Second // while pinned; the server forgets a pin after pinTTL without one
	pullExpires = 5 * time.Second
	heartbeat   = time.Second
	pullBatch   = 500
	lookAtPins  = 2 * time.Second

	// Between two attempts to get a partition.
	shortestPause = 50 * time.Millisecond
	longestPause  = 5 * time.Second

	// How long a partition may have records that its consumer does not send.
	idleTime = time.Minute

	headerPin = "Nats-Pin-Id"
)

var (
	errPinLost = errors.New("another edge is pinned")
	errBroken  = errors.New("the connection broke")
)

// hold serves a partition until ctx ends.
func (s *Store) hold(ctx context.Context, p int, take func(queue.Share)) {
	pause := shortestPause
	for ctx.Err() == nil && !s.isClosing() {
		h := s.newShare(p)
		s.mu.Lock()
		s.shares[p] = h
		s.mu.Unlock()
		taken := make(chan struct{})
		s.takes.Go(func() {
			defer close(taken)
			take(h)
		})
		c := &session{share: h, stream: s.o.Stream, consumer: consumerName(p), taken: taken}
		began := time.Now()
		err := c.run(ctx)
		h.lose(err)
		if ctx.Err() != nil || s.isClosing() {
			c.giveUp()
		} else {
			level := zap.WarnLevel
			if errors.Is(err, errBroken) { // which is logged once for all of them
				level = zap.DebugLevel
			}
			s.log().Log(level, "a partition of the queue is lost, and asked for again", zap.Int("partition", p), zap.Error(err))
			if pause = min(2*pause, longestPause); time.Since(began) > longestPause {
				pause = shortestPause
			}
			sleep(ctx, pause)
		}
	}
	s.mu.Lock()
	delete(s.shares, p)
	s.mu.Unlock()
}

// A session is the way of a share: it asks to be pinned, resets the consumer, and takes what comes from its
// beginning, for as long as nothing is missing.
type session struct {
	*share
	stream, consumer string

	pin    string          // "" before
	first  *natsgo.Msg     // what came with it
	taken  <-chan struct{} // closed when no delivery is under way
	broken <-chan struct{}
	in     chan *natsgo.Msg
	pulls  map[*natsgo.Subscription]*pull
	next   uint64 // the consumer's sequence number of the next record; 0 for any
	active time.Time
}

// A pull asks the server for records.
type pull struct {
	sent time.Time
	left int
}

// run returns why the share must be lost.
func (c *session) run(ctx context.Context) (err error) {
	s := c.s
	s.mu.Lock()
	c.broken = s.link.Done()
	s.mu.Unlock()
	for !s.nc.IsConnected() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	c.active = time.Now()
	if c.pin, err = c.seek(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	s.pins[c.p] = c.pin
	s.mu.Unlock()
	c.mine.Store(true)
	if s.o.noReset {
		if c.first != nil {
			_ = c.record(c.first)
		}
		return c.take(ctx)
	}
	if err := c.reset(ctx, 0); err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	c.next = 1
	return c.take(ctx)
}

func (c *session) reset(ctx context.Context, seq uint64) (err error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	if seq == 0 {
		_, err = c.s.js.ResetConsumer(ctx, c.stream, c.consumer)
	} else {
		_, err = c.s.js.ResetConsumerToSequence(ctx, c.stream, c.consumer, seq)
	}
	return err
}

// pullRequest is the body of a pull.
type pullRequest struct {
	Batch     int           `json:"batch"`
	Expires   time.Duration `json:"expires"`
	Heartbeat time.Duration `json:"idle_heartbeat"`
	Group     string        `json:"group"`
	ID        string        `json:"id,omitempty"`
}

func (c *session) send(reply string, batch int) error {
	text, err := json.Marshal(pullRequest{Batch: batch, Expires: pullExpires, Heartbeat: heartbeat, Group: priorityGroup, ID: c.pin})
	if err != nil {
		return err
	}
	return c.s.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+c.stream+"."+c.consumer, reply, text)
}

// seek asks for one record until the server pins this edge by sending it. The record is left to what comes after the
// reset.
func (c *session) seek(ctx context.Context) (pin string, err error) {
	in := make(chan *natsgo.Msg, 64)
	sub, err := c.s.nc.ChanSubscribe(c.s.nc.NewInbox(), in)
	if err != nil {
		return "", err
	}
	defer func() { _ = sub.Unsubscribe() }()
	look := time.NewTimer(0)
	defer look.Stop()
	var heard time.Time
	for asks := true; ; {
		if asks || time.Since(heard) > 3*heartbeat {
			if err := c.send(sub.Subject, 1); err != nil {
				return "", err
			}
			asks, heard = false, time.Now()
		}
		select {
		case msg := <-in:
			heard = time.Now()
			switch status(msg) {
			case "":
				c.first = msg
				return msg.Header.Get(headerPin), nil
			case "100":
			case "408":
				asks = true
			default:
				asks = true
				sleep(ctx, 100*time.Millisecond)
			}
		case <-look.C:
			if pin, err := c.lookAtPin(ctx); pin != "" || err != nil {
				return pin, err
			}
			look.Reset(lookAtPins)
		case <-c.broken:
			return "", errBroken
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

func status(msg *natsgo.Msg) string {
	if len(msg.Data) > 0 {
		return ""
	}
	return msg.Header.Get("Status")
}

// lookAtPin looks whether this edge is still pinned, and whether nobody is while the records that an edge had are
// left: the server pins an edge only when it has something to send, and would keep those back for ackWait.
func (c *session) lookAtPin(ctx context.Context) (pin string, err error) {
	s := c.s
	try, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	consumer, err := s.js.Consumer(try, c.stream, c.consumer)
	if err != nil {
		return "", nil //nolint:nilerr // asked again
	}
	info := consumer.CachedInfo()
	for _, group := range info.PriorityGroups {
		pin = group.PinnedClientID
	}
	s.mu.Lock()
	mine := s.pins[c.p]
	s.mu.Unlock()
	c.mine.Store(pin == "" || pin == mine)
	switch {
	case pin != "" && pin == mine:
		return pin, nil
	case pin != "" || s.o.noReset:
		c.active = time.Now()
		return "", nil
	case info.NumAckPending > 0:
		return "", c.reset(ctx, 0)
	case info.NumPending == 0 && c.isStuck(try):
		return "", c.unstick(ctx)
	}
	return "", nil
}

// isStuck reports whether the stream has had something of the partition for some time that the consumer does not
// send.
func (c *session) isStuck(ctx context.Context) bool {
	most := cmp.Or(c.s.o.idleTime, idleTime)
	if time.Since(c.active) < most {
		return false
	}
	c.active = time.Now().Add(-most * 3 / 4) // looked at again after a while
	return c.s.hasOld(ctx, c.p, most)
}

func (s *Store) hasOld(ctx context.Context, p int, age time.Duration) bool {
	stream, err := s.js.Stream(ctx, s.o.Stream)
	if err != nil {
		return false
	}
	msg, err := stream.GetLastMsgForSubject(ctx, s.o.filter(p))
	return err == nil && time.Since(msg.Time) > age
}

// unstick begins with the first record of the stream.
func (c *session) unstick(ctx context.Context) error {
	c.s.log().Error("a partition of the queue has notifications that its consumer does not send, the consumer is reset", zap.Int("partition", c.p))
	return c.reset(ctx, 1)
}

// take takes what the server sends, until something is missing.
func (c *session) take(ctx context.Context) error {
	c.in, c.pulls = make(chan *natsgo.Msg, 8192), make(map[*natsgo.Subscription]*pull)
	defer func() {
		for sub := range c.pulls {
			_ = sub.Unsubscribe()
		}
	}()
	if err := c.pull(); err != nil {
		return err
	}
	c.s.gained()
	c.extend(time.Now())
	ticker := time.NewTicker(pullEvery)
	defer ticker.Stop()
	lease := time.NewTimer(c.left())
	defer lease.Stop()
	stuck := make(chan bool, 1)
	looking := false
	// A partition that is given up stays pinned until deliveries under way have ended.
	over, lost := ctx.Done(), (<-chan struct{})(c.lost)
	var taken <-chan struct{}
	var late <-chan time.Time
	for {
		var err error
		select {
		case msg := <-c.in:
			err = c.got(msg)
		case <-ticker.C:
			err = c.pull()
			if !looking && c.size() == 0 && time.Since(c.active) > cmp.Or(c.s.o.idleTime, idleTime) {
				looking = true
				go func() {
					try, cancel := context.WithTimeout(ctx, apiTimeout)
					defer cancel()
					stuck <- c.isStuck(try)
				}()
			}
		case isStuck := <-stuck:
			looking = false
			if isStuck && c.size() == 0 {
				err = cmp.Or(c.unstick(ctx), errStuck)
			}
		case <-lease.C:
			left := c.left()
			if left <= 0 {
				err = errStood
			}
			lease.Reset(max(left, 0))
		case err = <-c.failed:
		case <-c.broken:
			err = errBroken
		case <-lost: // Load has seen that the lease is over
			err = errStood
		case <-over:
			c.lose(context.Cause(ctx))
			over, lost, taken = nil, nil, c.taken
			late = time.After(c.s.o.GracePeriod)
		case <-taken:
			err = context.Cause(ctx)
		case <-late:
			err = context.Cause(ctx)
		case <-c.s.closing:
			err = c.s.errClosed()
		}
		if err != nil {
			return err
		}
	}
}

func (s *Store) gained() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Gained++
}

var errStuck = errors.New("the consumer sends nothing")

// pull asks for more records, and keeps the pin.
func (c *session) pull() error {
	sub, err := c.s.nc.ChanSubscribe(c.s.nc.NewInbox(), c.in)
	if err != nil {
		return err
	}
	c.pulls[sub] = &pull{sent: time.Now(), left: pullBatch}
	for sub, p := range c.pulls {
		if time.Since(p.sent) > 2*pullExpires { // its end got lost
			c.end(sub)
		}
	}
	return c.send(sub.Subject, pullBatch)
}

func (c *session) end(sub *natsgo.Subscription) {
	delete(c.pulls, sub)
	_ = sub.Unsubscribe()
}

// got takes a record, or learns how a pull is doing.
func (c *session) got(msg *natsgo.Msg) error {
	p := c.pulls[msg.Sub]
	if p == nil {
		p = new(pull)
	}
	switch code := status(msg); code {
	case "":
		if err := c.record(msg); err != nil {
			return err
		}
		c.extend(p.sent)
		if p.left--; p.left == 0 {
			c.end(msg.Sub)
		}
		left := 0
		for _, p := range c.pulls {
			left += p.left
		}
		if left < pullBatch/2 {
			return c.pull()
		}
	case "100":
		c.extend(p.sent)
	case "408":
		c.extend(p.sent)
		c.end(msg.Sub)
	case "404", "503":
		c.end(msg.Sub)
	case "423":
		return errPinLost
	default:
		return fmt.Errorf("server says %s %s", code, msg.Header.Get("Description"))
	}
	return nil
}

func (c *session) record(msg *natsgo.Msg) error {
	if pin := msg.Header.Get(headerPin); pin != c.pin {
		return errPinLost
	}
	meta, err := msg.Metadata()
	if err != nil {
		return err
	}
	if c.next != 0 && meta.Sequence.Consumer != c.next {
		return fmt.Errorf("record %d of the consumer comes in the place of %d", meta.Sequence.Consumer, c.next)
	}
	if c.next != 0 {
		c.next++
	}
	c.active = time.Now()
	if c.s.wasDone(c.p, meta.Sequence.Stream) {
		go func() { _ = c.s.acknowledge(msg.Reply, ackTries) }()
		return nil
	}
	c.add(meta.Sequence.Stream, msg, meta.NumPending)
	return nil
}

// giveUp lets another edge have the partition at once, with all that is left.
func (c *session) giveUp() {
	if c.pin == "" || c.left() <= 0 || !c.s.nc.IsConnected() {
		return
	}
	c.finish(time.After(ackTimeout))
	ctx, cancel := context.WithTimeout(context.Background(), apiTimeout)
	defer cancel()
	if !c.s.o.noReset {
		_ = c.reset(ctx, 0) // whoever is pinned next does it, too
	}
	consumer, err := c.s.js.Stream(ctx, c.stream)
	if err == nil {
		err = consumer.UnpinConsumer(ctx, c.consumer, priorityGroup)
	}
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) && !c.s.isClosing() {
		c.s.log().Warn("a partition of the queue was given up without notice, another edge has it after 10 seconds", zap.Int("partition", c.p), zap.Error(err))
	}
}
