package nats

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/greenapi-community/caddy-green-api/queue"
)

const (
	// headRoom is how much smaller than the server's max_payload a body must be: a record has a head.
	headRoom = 8 << 10
	// How long one try to publish may take. Then the same is published again: a server may have died with it.
	publishTimeout = 2 * time.Second
	publishAgain   = 100 * time.Millisecond
)

// digest returns the id of a record, by which the server knows one that comes again.
func digest(instance string, body []byte, salt string) string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%d\x00%s\x00%s\x00", len(instance), instance, salt)
	_, _ = h.Write(body)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Put stores a record; see queue.Store. perInstance is not used: the limit is the stream's, for all edges.
func (s *Store) Put(ctx context.Context, r *queue.Record, _ int) (duplicate bool, err error) {
	if err := s.begin(); err != nil {
		return false, err
	}
	defer s.calls.Done()
	if ctx.Err() != nil {
		return false, fmt.Errorf("%s: %w: nothing was stored: %w", s, queue.ErrUnavailable, context.Cause(ctx))
	}
	if err := s.awaitReady(ctx); err != nil {
		return false, err
	}
	text := r.Encode()
	if most := s.largest(); int64(len(r.Body)) > most || int64(len(text)) > most+headRoom/2 {
		return false, fmt.Errorf("%s: %w: body of %d bytes, at most %d", s, queue.ErrTooLarge, len(r.Body), most)
	}
	// An id that the server knows is that of a record whose Put was not answered, or of one that was and has the
	// very same body. The latter is another notification, and gets an id of its own.
	salt := ""
	for {
		ack, first, err := s.publish(ctx, r.Instance, text, digest(r.Instance, r.Body, salt))
		if err != nil {
			return false, err
		}
		if !ack.Duplicate || !first {
			s.stored(r.Instance, ack.Sequence, len(text))
			return false, nil
		}
		latest, err := s.isLatest(ctx, r.Instance, ack.Sequence)
		if err != nil {
			return false, err
		}
		known := s.lastOf(r.Instance)
		if latest && ack.Sequence > known {
			s.stored(r.Instance, ack.Sequence, 0)
			return true, nil
		}
		salt = fmt.Sprint(max(known, ack.Sequence))
	}
}

// largest returns how large a body may be.
func (s *Store) largest() int64 {
	most := s.nc.MaxPayload() - headRoom
	if s.o.MaxSize > 0 {
		most = min(most, s.o.MaxSize-headRoom)
	}
	return most
}

// publish publishes a record until the server has answered, or ctx ends. first is whether it was published once only.
func (s *Store) publish(ctx context.Context, instance string, text []byte, id string) (ack *jetstream.PubAck, first bool, err error) {
	first = true
	for {
		if why := s.problem.Load(); why != nil {
			return nil, false, fmt.Errorf("%s: %w: %w", s, queue.ErrUnavailable, *why)
		}
		try, cancel := context.WithTimeout(ctx, publishTimeout)
		msg := &natsgo.Msg{Subject: s.o.putSubject(instance), Data: text}
		ack, err = s.js.PublishMsg(try, msg, jetstream.WithMsgID(id), jetstream.WithExpectStream(s.o.Stream), jetstream.WithRetryAttempts(0))
		cancel()
		if err == nil {
			return ack, first, nil
		}
		if refused := refusal(err); refused != nil {
			return nil, false, fmt.Errorf("%s: %w", s, refused)
		}
		first = first && neverSent(err)
		select {
		case <-ctx.Done():
			return nil, false, fmt.Errorf("%s: %w: the notification may have been stored: %w", s, queue.ErrUnavailable, err)
		case <-s.closing:
			return nil, false, s.errClosed()
		case <-time.After(publishAgain):
		}
	}
}

// refusal returns what a server has to say that refuses a record, nil if it may take it another time.
func refusal(err error) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, natsgo.ErrMaxPayload):
		return fmt.Errorf("%w: %w", queue.ErrTooLarge, err)
	case !errors.As(err, &api):
		return nil
	case strings.Contains(api.Description, "per subject exceeded"):
		return fmt.Errorf("%w: %w", queue.ErrInstanceFull, err)
	case strings.Contains(api.Description, "maximum bytes exceeded"), strings.Contains(api.Description, "maximum messages exceeded"):
		return fmt.Errorf("%w: %w", queue.ErrFull, err)
	}
	return nil
}

// neverSent reports whether nothing of a try can be in the stream.
func neverSent(err error) bool {
	return errors.Is(err, natsgo.ErrReconnectBufExceeded) || errors.Is(err, natsgo.ErrConnectionReconnecting) || errors.Is(err, jetstream.ErrNoStreamResponse)
}

// isLatest reports whether a record is in the stream, and the latest of its instance.
func (s *Store) isLatest(ctx context.Context, instance string, seq uint64) (bool, error) {
	try, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	stream, err := s.js.Stream(try, s.o.Stream)
	if err == nil {
		var msg *jetstream.RawStreamMsg
		if msg, err = stream.GetLastMsgForSubject(try, s.o.keptSubject(instance)); err == nil {
			return msg.Sequence == seq, nil
		}
	}
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	return false, fmt.Errorf("%s: %w: %w", s, queue.ErrUnavailable, err)
}

// stored notes a record whose Put returns nil.
func (s *Store) stored(instance string, seq uint64, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last[instance] = max(s.last[instance], seq)
	s.stats.LastSeq = max(s.stats.LastSeq, seq)
	if size > 0 {
		s.stats.Put++
		s.stats.Entries++
		s.stats.Bytes += int64(size)
		s.changes++
	}
}

func (s *Store) lastOf(instance string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[instance]
}
