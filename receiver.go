package greenapi

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/vendorapi"
)

const (
	reasonWebhookURLSet  = "webhook_url_set"
	reasonAPIRefused     = "api_refused"
	reasonAPIUnavailable = "api_unavailable"
	reasonLock           = "lock_unavailable"
	reasonPanic          = "panic"
)

// viaHTTPAPI marks the records of what was received, not posted.
const viaHTTPAPI = "http_api"

// receiving says how a receiver goes about it. Tests have less time.
var receiving = struct {
	// How long the API may keep a request until something comes. It allows 60s; what is idle for
	// that long is cut on many a way.
	poll time.Duration
	// An empty answer that comes sooner is one that does not wait (a MAX instance with all switches
	// off does that): the next request is not made at once.
	soon time.Duration
	// The pause after a failure doubles from the first to the longest.
	firstPause, longestPause time.Duration
	// How long the API may be unavailable before the operator is told.
	patience time.Duration
	// How long it takes until somebody else is said to have the lock.
	standby time.Duration
}{
	poll: 30 * time.Second, soon: time.Second,
	firstPause: time.Second, longestPause: time.Minute,
	patience: time.Minute, standby: 3 * time.Second,
}

// receivers holds the receivers of the process by instance. Each outlives the config that began it,
// so that there is exactly one over reloads.
var receivers = caddy.NewUsagePool()

// receiverRuns are the receivers that have not yet come to an end.
var receiverRuns sync.WaitGroup

// A receiver polls the API for one instance.
type receiver struct {
	instance string
	config   atomic.Pointer[Receive] // the newest
	changed  chan struct{}           // there is a newer config
	ctx      context.Context         // over when it is told to stop
	stop     context.CancelFunc

	handled int64 // receipt of the last notification that need not be received again, 0 for none

	mu      sync.Mutex
	state   receiverState
	trouble trouble
}

// receiverState is what /green_api/status shows of a receiver.
type receiverState struct {
	Instance string    `json:"instance"`
	Name     string    `json:"name"`
	State    string    `json:"state"` // starting, standby, receiving or failing
	Reason   string    `json:"reason,omitempty"`
	Since    time.Time `json:"since"`
}

const (
	stateStarting  = "starting"
	stateStandby   = "standby" // another edge receives for this instance
	stateReceiving = "receiving"
	stateFailing   = "failing"
)

// trouble is a failure that lasts.
type trouble struct {
	reason string
	since  time.Time
	told   bool // at its level
}

// startReceivers lets the receivers of this config begin, or those that run go on with it.
func (a *App) startReceivers() {
	for id, c := range a.receives {
		shared, _, _ := receivers.LoadOrNew(id, func() (caddy.Destructor, error) { // never fails
			return newReceiver(c), nil
		})
		shared.(*receiver).use(c)
	}
	a.receiving = true
}

// stopReceivers gives them up. Those that no newer config has end with the notification in hand; the
// end of the process waits for that.
func (a *App) stopReceivers() error {
	if !a.receiving {
		return nil
	}
	a.receiving = false
	var err error
	for id := range a.receives {
		_, deleteErr := receivers.Delete(id)
		err = errors.Join(err, deleteErr)
	}
	if caddy.Exiting() {
		receiverRuns.Wait()
	}
	return err
}

func newReceiver(c *Receive) *receiver {
	r := &receiver{instance: c.Instance, changed: make(chan struct{}, 1)}
	r.config.Store(c)
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.enter(stateStarting, "")
	receiverRuns.Go(r.run)
	return r
}

// use lets a newer config count, from the next request to the API on.
func (r *receiver) use(c *Receive) {
	if r.config.Swap(c) == c {
		return
	}
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// Destruct ends the receiver, without waiting for the notification in hand.
func (r *receiver) Destruct() error {
	r.stop()
	return nil
}

// run receives as long as this edge has the instance's lock, until the receiver is told to stop.
func (r *receiver) run() {
	pauses := backOff{}
	r.pause(rand.N(receiving.firstPause), r.ctx.Done()) // not all at once
	for r.ctx.Err() == nil {
		storage := r.config.Load().storage
		if err := r.lock(storage); err != nil {
			if r.ctx.Err() == nil {
				r.fail(reasonLock, zapcore.ErrorLevel, err)
				r.pause(pauses.next(0), r.changed)
			}
			continue
		}
		pauses = backOff{}
		r.works()
		r.receiveWhile(storage)
		// The process may end, or the storage have been closed with its config: whoever wants the
		// lock gets it when it is stale.
		_ = storage.Unlock(context.WithoutCancel(r.ctx), r.lockName())
	}
}

func (r *receiver) lockName() string { return "green_api_receive_" + sameInstance(r.instance) }

// lock waits for the instance's lock in Caddy's storage, which all edges of a cluster share. The
// storage gives it on when its holder dies.
func (r *receiver) lock(storage certmagic.Storage) error {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	standing := time.AfterFunc(receiving.standby, func() {
		r.enter(stateStandby, "")
		r.logger().Info("another edge receives for the instance, this one stands by", zap.String("instance", r.instance))
	})
	defer standing.Stop()
	got := make(chan error, 1)
	go func() { got <- storage.Lock(ctx, r.lockName()) }()
	for {
		select {
		case err := <-got:
			if err == nil && ctx.Err() != nil { // in the last moment
				_ = storage.Unlock(context.WithoutCancel(ctx), r.lockName())
				return ctx.Err()
			}
			return err
		case <-r.changed:
			if !sameStorage(storage, r.config.Load().storage) {
				cancel() // begin again with the new one
			}
		}
	}
}

// sameStorage tells whether a lock in one is a lock in the other. A config has a storage of its own,
// even if it is the same directory.
func sameStorage(a, b certmagic.Storage) bool {
	x, isFile := a.(*certmagic.FileStorage)
	y, isFileToo := b.(*certmagic.FileStorage)
	if isFile && isFileToo {
		return x.Path == y.Path
	}
	return a == b
}

// receiveWhile polls the API while the lock in that storage is the right one.
func (r *receiver) receiveWhile(storage certmagic.Storage) {
	pauses, idle := backOff{}, backOff{}
	for r.ctx.Err() == nil {
		c := r.config.Load()
		if !sameStorage(storage, c.storage) {
			return
		}
		began := time.Now()
		got, err := r.poll(c)
		c = r.config.Load() // whatever came, it is for the handlers of now
		switch {
		case errors.Is(err, context.Canceled): // told to stop, or to go on with another config
		case err != nil:
			r.pause(pauses.next(r.failedToCall(err)), r.changed)
		case got == nil:
			r.works()
			pauses = backOff{}
			if time.Since(began) < receiving.soon {
				r.pause(idle.next(0), r.changed)
				idle.atMost(5 * receiving.firstPause)
			}
		case r.take(c, got):
			r.works()
			pauses, idle = backOff{}, backOff{}
		default: // it stays at the head of the queue
			r.pause(pauses.next(0), nil)
		}
	}
}

// poll asks for a notification. The end cuts it short, and a newer config that asks in another way:
// nothing is lost by that, what is not deleted comes again.
func (r *receiver) poll(c *Receive) (*vendorapi.Received, error) {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	go func() {
		for {
			select {
			case <-r.changed:
				if newest := r.config.Load(); *newest.client != *c.client || !sameStorage(newest.storage, c.storage) {
					cancel()
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	got, err := c.client.ReceiveNotification(ctx, receiving.poll)
	if ctx.Err() != nil && err != nil {
		err = context.Canceled
	}
	return got, err
}

// take gives a notification to the handlers, and deletes it where a posted one would be answered
// 200. It returns false if it shall be received again.
func (r *receiver) take(c *Receive, got *vendorapi.Received) bool {
	if got.ReceiptID != r.handled {
		end := c.handler.receive(c, got.Body)
		if end.status != http.StatusOK {
			return false
		}
		r.handled = got.ReceiptID
	}
	pauses := backOff{}
	for {
		// The end of the process does not cut this short: it would be delivered twice.
		_, err := r.config.Load().client.DeleteNotification(context.WithoutCancel(r.ctx), got.ReceiptID)
		if err == nil {
			return true
		}
		after := r.failedToCall(err)
		switch {
		case errors.Is(err, vendorapi.ErrUnavailable), errors.Is(err, vendorapi.ErrTooManyRequests):
			if r.ctx.Err() != nil {
				return false
			}
			r.pause(pauses.next(after), nil)
		default: // polling knows what to say of it
			return false
		}
	}
}

// failedToCall tells of a call that failed, and returns how long the API wants to be left alone.
func (r *receiver) failedToCall(err error) time.Duration {
	var said *vendorapi.Error
	errors.As(err, &said)
	reason, level := reasonAPIRefused, zapcore.ErrorLevel
	switch {
	case errors.Is(err, vendorapi.ErrWebhookURLSet):
		reason = reasonWebhookURLSet
	case errors.Is(err, vendorapi.ErrUnavailable), errors.Is(err, vendorapi.ErrTooManyRequests):
		reason, level = reasonAPIUnavailable, zapcore.WarnLevel
	}
	r.fail(reason, level, err)
	if said == nil {
		return 0
	}
	return said.RetryAfter
}

// fail tells of a failure: once in the log, and again when it has outlasted all patience; and each
// time to the alerts, which group it.
func (r *receiver) fail(reason string, level zapcore.Level, err error) {
	now := time.Now()
	r.mu.Lock()
	if r.trouble.reason != reason {
		r.trouble = trouble{reason: reason, since: now}
	}
	first := r.trouble.since.Equal(now)
	if level == zapcore.WarnLevel && now.Sub(r.trouble.since) >= receiving.patience {
		level = zapcore.ErrorLevel
	}
	write := first || level == zapcore.ErrorLevel && !r.trouble.told
	r.trouble.told = level == zapcore.ErrorLevel
	since := r.trouble.since
	r.mu.Unlock()
	r.enter(stateFailing, reason)
	c := r.config.Load()
	if write {
		fields := []zap.Field{zap.String("instance", r.instance), zap.String("reason", reason), zap.String("api_url", c.client.URL), zap.Time("since", since), zap.Error(err)}
		if level == zapcore.ErrorLevel {
			r.logger().Error("notifications of the instance cannot be received", fields...)
		} else {
			r.logger().Warn("notifications of the instance cannot be received for now", fields...)
		}
	}
	if level == zapcore.ErrorLevel {
		c.handler.app.operator.alerts.tell(note{reason: reason, typ: typeNone, level: level, instance: r.instance, more: err.Error() + ".", at: now})
	}
}

// works ends a failure.
func (r *receiver) works() {
	r.mu.Lock()
	was := r.trouble
	r.trouble = trouble{}
	r.mu.Unlock()
	r.enter(stateReceiving, "")
	if was.reason != "" {
		r.logger().Info("notifications of the instance are received again",
			zap.String("instance", r.instance), zap.String("reason", was.reason), zap.Duration("after", time.Since(was.since)))
	}
}

func (r *receiver) enter(state, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Instance, r.state.Name = r.instance, r.config.Load().handler.Name
	if r.state.State != state || r.state.Reason != reason {
		r.state.State, r.state.Reason, r.state.Since = state, reason, time.Now()
	}
}

func (r *receiver) logger() *zap.Logger { return r.config.Load().handler.logger }

// pause waits; the end of the receiver, or what comes over a channel, cuts it short.
func (r *receiver) pause(d time.Duration, cut <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-cut:
	case <-r.ctx.Done():
	}
}

// backOff is a pause that doubles.
type backOff struct{ last time.Duration }

// next returns how long to pause, at least as long as the other side wishes, and not the same for
// all who wait for it.
func (b *backOff) next(wish time.Duration) time.Duration {
	b.last = min(max(2*b.last, receiving.firstPause), receiving.longestPause)
	wish = min(wish, maxWish)
	return max(b.last/2+rand.N(b.last/2+1), wish+rand.N(wish/10+1))
}

// atMost bounds the next pause.
func (b *backOff) atMost(most time.Duration) { b.last = min(b.last, most/2) }

// maxWish is the longest Retry-After that is respected: the queue is lost after 24 hours.
const maxWish = 15 * time.Minute

// receive takes a notification of the HTTP API the way of one that is posted.
func (h *Handler) receive(c *Receive, body []byte) (end *verdict) {
	v := h.madeVisit(c.URI, "", body)
	v.via, v.n.Instance = viaHTTPAPI, sameInstance(c.Instance) // whatever the body says, or does not
	v.r.Header.Set("Content-Type", "application/json; charset=utf-8")
	if token := h.Auth.headerFor(v.n.Instance); token != "" {
		v.r.Header.Set("Authorization", token)
	}
	defer func() {
		if p := recover(); p != nil {
			h.logger.Error("panic on the way of a notification", zap.String("instance", c.Instance), zap.Any("panic", p), zap.String("stack", string(debug.Stack())))
			end = &verdict{outcome: failed, reason: reasonPanic, status: http.StatusInternalServerError, level: zap.ErrorLevel, err: errGatePanic}
			h.record(v, end)
		}
	}()
	end = h.walk(v, h.received, noNext)
	h.record(v, end)
	return end
}

var errGatePanic = errors.New("panic in the gates of green_api")

// noNext is the next handler where there is no route.
var noNext caddyhttp.Handler = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })

// receiverStates are the states of all receivers, by instance.
func receiverStates() []receiverState {
	all := []receiverState{}
	receivers.Range(func(_, value any) bool {
		r := value.(*receiver)
		r.mu.Lock()
		defer r.mu.Unlock()
		all = append(all, r.state)
		return true
	})
	slices.SortFunc(all, func(a, b receiverState) int { return cmp.Compare(a.Instance, b.Instance) })
	return all
}

// countReceivers is how many are in a state.
func countReceivers(state string) (n int) {
	for _, r := range receiverStates() {
		if r.State == state {
			n++
		}
	}
	return n
}
