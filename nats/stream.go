package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// The sender comes again after 60 seconds at most, having waited 180.
	duplicateWindow = 5 * time.Minute
	maxAckPending   = 4096
	ackWait         = 24 * time.Hour
	pinTTL          = 10 * time.Second
	priorityGroup   = "edge"
)

// A configError is one that the operator must mend: waiting does not help.
type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

func wrong(format string, args ...any) error { return configError{fmt.Errorf(format, args...)} }

// Subjects: a record is published to STREAM.put.INSTANCE, and kept as STREAM.PARTITION.INSTANCE.
func (o *Options) putSubject(instance string) string { return o.Stream + ".put." + token(instance) }

func (o *Options) filter(partition int) string { return fmt.Sprintf("%s.%d.*", o.Stream, partition) }

func (o *Options) keptSubject(instance string) string { return o.Stream + ".*." + token(instance) }

func (o *Options) edgesSubject() string { return o.Stream + "_edges" }

func consumerName(partition int) string { return fmt.Sprintf("partition-%d", partition) }

func (o *Options) controlBucket() string { return o.Stream + "_control" }

// token returns an instance as a part of a subject.
func token(instance string) string {
	digits := instance != "" && len(instance) <= 32
	for i := range len(instance) {
		digits = digits && instance[i] >= '0' && instance[i] <= '9'
	}
	if digits {
		return instance
	}
	if len(instance) > 64 {
		return "h" + digest(instance, nil, "")
	}
	return fmt.Sprintf("x%x", instance)
}

// streamConfig returns the stream as it must be.
func (o *Options) streamConfig() jetstream.StreamConfig {
	maxBytes := o.MaxSize
	if maxBytes <= 0 {
		maxBytes = -1
	}
	return jetstream.StreamConfig{
		Name: o.Stream, Description: "green_api queue: do not add consumers",
		Subjects:         []string{o.Stream + ".put.*"},
		SubjectTransform: &jetstream.SubjectTransformConfig{Source: o.Stream + ".put.*", Destination: fmt.Sprintf("%s.{{partition(%d,1)}}.{{wildcard(1)}}", o.Stream, o.Partitions)},
		Retention:        jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage, Replicas: o.Replicas,
		Discard: jetstream.DiscardNew, DiscardNewPerSubject: true, MaxMsgsPerSubject: int64(o.MaxPerInstance), MaxBytes: maxBytes,
		MaxMsgs: -1, MaxMsgSize: -1, MaxConsumers: -1, Duplicates: duplicateWindow,
	}
}

// checkStream returns an error if a stream is not as it must be. fatal is false if what differs loses nothing.
func (o *Options) checkStream(got jetstream.StreamConfig) (err error, fatal bool) {
	want := o.streamConfig()
	transform := func(t *jetstream.SubjectTransformConfig) string {
		if t == nil {
			return "none"
		}
		return t.Source + " to " + t.Destination
	}
	var differs []string
	for _, setting := range []struct {
		name      string
		got, want any
		harmless  bool
	}{
		{"retention", got.Retention, want.Retention, false},
		{"discard", got.Discard, want.Discard, false},
		{"discard-per-subject", got.DiscardNewPerSubject, true, false},
		{"subjects", strings.Join(got.Subjects, " "), strings.Join(want.Subjects, " "), false},
		{"transform", transform(got.SubjectTransform), transform(want.SubjectTransform), false},
		{"storage", got.Storage, want.Storage, false},
		{"max-age", got.MaxAge, time.Duration(0), false},
		{"max-msgs", got.MaxMsgs, int64(-1), false},
		{"max-msg-size", got.MaxMsgSize, int32(-1), false},
		{"no-ack", got.NoAck, false, false},
		{"sealed", got.Sealed, false, false},
		{"allow-msg-ttl", got.AllowMsgTTL, false, false},
		{"mirror", got.Mirror != nil, false, false},
		{"sources", len(got.Sources), 0, false},
		{"replicas", got.Replicas, want.Replicas, got.Replicas > want.Replicas},
		{"dupe-window", got.Duplicates, want.Duplicates, got.Duplicates >= want.Duplicates},
		{"max-msgs-per-subject", got.MaxMsgsPerSubject, want.MaxMsgsPerSubject, got.MaxMsgsPerSubject > 0},
		{"max-bytes", got.MaxBytes, want.MaxBytes, true},
	} {
		if setting.got == setting.want {
			continue
		}
		differs = append(differs, fmt.Sprintf("%s is %v, want %v", setting.name, setting.got, setting.want))
		fatal = fatal || !setting.harmless
	}
	if differs == nil {
		return nil, false
	}
	return wrong("stream %s is not as the config has it: %s; want the config changed, or the stream, with 'nats stream edit %s', or a stream of another name", o.Stream, strings.Join(differs, ", "), o.Stream), fatal
}

func (o *Options) consumerConfig(partition int) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: consumerName(partition), FilterSubject: o.filter(partition), DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1, MaxAckPending: maxAckPending,
		PriorityPolicy: jetstream.PriorityPolicyPinned, PriorityGroups: []string{priorityGroup}, PinnedTTL: pinTTL,
		// In a cluster a consumer's state may be lost when all servers die at once: what was acknowledged is no longer
		// in the stream, and a takeover begins anew anyway. On disk, each record would take two more syncs.
		MemoryStorage: o.Replicas > 1,
	}
}

func checkConsumer(got, want jetstream.ConsumerConfig) error {
	if got.FilterSubject != want.FilterSubject || got.AckPolicy != want.AckPolicy || got.AckWait != want.AckWait || got.MaxDeliver != want.MaxDeliver ||
		got.MaxAckPending != want.MaxAckPending || got.PriorityPolicy != want.PriorityPolicy || got.PinnedTTL != want.PinnedTTL ||
		got.DeliverPolicy != want.DeliverPolicy || got.MemoryStorage != want.MemoryStorage || got.InactiveThreshold != 0 || got.HeadersOnly || len(got.BackOff) > 0 || got.PauseUntil != nil && got.PauseUntil.After(time.Now()) {
		return wrong("consumer %s is not as this program makes it; want it deleted, it is made again at once", want.Durable)
	}
	return nil
}

// setUp makes the stream and its consumers unless they are there, and checks them. The error is a configError if
// waiting does not help.
func (s *Store) setUp(ctx context.Context) error {
	if err := checkVersion(s.nc.ConnectedServerVersion()); err != nil {
		return err
	}
	stream, err := s.js.Stream(ctx, s.o.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = s.js.CreateStream(ctx, s.o.streamConfig())
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // by another edge, just now
			stream, err = s.js.Stream(ctx, s.o.Stream)
		}
	}
	if err != nil {
		return setUpError("stream "+s.o.Stream, err)
	}
	if err, _ := s.o.checkStream(stream.CachedInfo().Config); err != nil {
		return err
	}
	if err := s.setUpConsumers(ctx, stream); err != nil {
		return err
	}
	s.kv, err = s.js.KeyValue(ctx, s.o.controlBucket())
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		s.kv, err = s.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: s.o.controlBucket(), Replicas: s.o.Replicas, Description: "green_api queue: what the operator has ordered"})
		if errors.Is(err, jetstream.ErrBucketExists) {
			s.kv, err = s.js.KeyValue(ctx, s.o.controlBucket())
		}
	}
	if err != nil {
		return setUpError("bucket "+s.o.controlBucket(), err)
	}
	if err := s.setUpLaneKey(ctx); err != nil {
		return fmt.Errorf("bucket %s: %w", s.o.controlBucket(), err)
	}
	if err := s.readControl(ctx); err != nil {
		return fmt.Errorf("bucket %s: %w", s.o.controlBucket(), err)
	}
	s.look(stream.CachedInfo(), true)
	return nil
}

// setUpConsumers makes the consumers that are missing, and checks the others.
func (s *Store) setUpConsumers(ctx context.Context, stream jetstream.Stream) error {
	found := make(map[string]jetstream.ConsumerConfig)
	var others []string
	lister := stream.ListConsumers(ctx)
	for info := range lister.Info() {
		found[info.Name] = info.Config
	}
	if err := lister.Err(); err != nil {
		return setUpError("consumers", err)
	}
	var mu sync.Mutex
	var problems []error
	var wg sync.WaitGroup
	places := make(chan struct{}, 8)
	for p := range s.o.Partitions {
		want := s.o.consumerConfig(p)
		if got, ok := found[want.Durable]; ok {
			delete(found, want.Durable)
			if err := checkConsumer(got, want); err != nil {
				mu.Lock()
				problems = append(problems, err)
				mu.Unlock()
			}
			continue
		}
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			if _, err := s.js.CreateConsumer(ctx, s.o.Stream, want); err != nil && !errors.Is(err, jetstream.ErrConsumerExists) {
				mu.Lock()
				problems = append(problems, setUpError("consumer "+want.Durable, err))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for name := range found {
		others = append(others, name)
	}
	if len(others) > 0 {
		problems = append(problems, wrong("stream %s has consumers that are not this program's: %s; want them deleted, they take notifications away", s.o.Stream, strings.Join(others, " ")))
	}
	if len(problems) > 0 {
		return problems[0]
	}
	return nil
}

// hopeless are the server's errors that waiting does not mend.
var hopeless = map[jetstream.ErrorCode]bool{
	10002: true, // limits of the account
	10027: true, // maximum number of streams
	10039: true, // no JetStream for the account
	10047: true, // less disk than max_size
	10052: true, // invalid config
	10065: true, // subjects overlap with another stream
	10074: true, // replicas without a cluster
	10120: true, // no limits that the account has fit
}

// setUpError says whether waiting helps.
func setUpError(what string, err error) error {
	err = fmt.Errorf("%s: %w", what, err)
	var api *jetstream.APIError
	if errors.As(err, &api) && hopeless[api.ErrorCode] {
		return configError{err}
	}
	return err
}

// checkVersion returns an error if a server cannot reset a consumer.
func checkVersion(version string) error {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d.", &major, &minor); err != nil || major > 2 || major == 2 && minor >= 14 {
		return nil
	}
	return wrong("nats-server %s is too old; want 2.14 or newer, better 2.15", version)
}

// verify checks stream and consumers while they are in use.
func (s *Store) verify(ctx context.Context) error {
	stream, err := s.js.Stream(ctx, s.o.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return wrong("stream %s is gone, with all that was in it; want it restored, or this program started again", s.o.Stream)
	}
	if err != nil {
		return err
	}
	err, fatal := s.o.checkStream(stream.CachedInfo().Config)
	if fatal {
		return err
	}
	if err != nil {
		s.log().Warn("the queue's stream was changed", zapError(err))
	}
	return s.setUpConsumers(ctx, stream)
}
