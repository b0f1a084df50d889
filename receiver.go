package greenapi

import (
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/vendorapi"
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
}{
	poll: 30 * time.Second, soon: time.Second,
	firstPause: time.Second, longestPause: time.Minute,
	patience: time.Minute,
}

// A receiver polls the API for one instance.
type receiver struct {
	instance string
	changed  chan struct{}   // the API is to be asked in another way
	ctx      context.Context // over when it is told to stop
	stop     context.CancelFunc

	// The last notification that need not be delivered again, while it is not known to be deleted.
	handled receipt
	lease   *lease

	mu      sync.Mutex
	configs []*Receive // that are in use: the last is the newest, and counts
	last    *Receive   // that counted
	state   receiverState
	trouble trouble
}

// A receipt is one notification of one queue. Numbers alone come again, in another queue.
type receipt struct {
	url string
	id  int64
	sum [sha256.Size]byte
}

func newReceiver(c *Receive) *receiver {
	r := &receiver{instance: c.Instance, changed: make(chan struct{}, 1), configs: []*Receive{c}, last: c}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.enter(stateStarting, "")
	receiverRuns.Go(r.run)
	return r
}

// use lets a newer config count, from the next request to the API on.
func (r *receiver) use(c *Receive) { r.change(func() { r.configs = append(r.configs, c) }) }

// drop lets a config go. If it was the newest it has failed, and the one before counts again.
func (r *receiver) drop(c *Receive) {
	r.change(func() { r.configs = slices.DeleteFunc(r.configs, func(used *Receive) bool { return used == c }) })
}

func (r *receiver) change(configs func()) {
	r.mu.Lock()
	before := r.last
	configs()
	if len(r.configs) > 0 { // the last one is for what is in hand
		r.last = r.configs[len(r.configs)-1]
	}
	other := *before.client != *r.last.client
	r.mu.Unlock()
	if other {
		select {
		case r.changed <- struct{}{}:
		default:
		}
	}
}

// config is the one that counts.
func (r *receiver) config() *Receive {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func (r *receiver) store() *sharedStore { return r.config().store }

// Destruct ends the receiver, without waiting for the notification in hand.
func (r *receiver) Destruct() error {
	r.end()
	return nil
}

func (r *receiver) end() { r.stop() }

// run receives as long as this edge has the instance's lease, until the receiver is told to stop.
func (r *receiver) run() {
	busy, _ := runsOf.LoadOrStore(notification.SameInstance(r.instance), make(chan struct{}, 1))
	select { // one that was told to stop may have a notification in hand
	case busy.(chan struct{}) <- struct{}{}:
	case <-r.ctx.Done():
		return
	}
	defer func() { <-busy.(chan struct{}) }()
	holdHeart(r)
	defer releaseHeart(r)
	r.lease = &lease{by: thisEdge, store: r.store(), instance: notification.SameInstance(r.instance)}
	defer func() { r.lease.drop() }()
	pauses := backOff{}
	r.pause(rand.N(receiving.firstPause), r.ctx.Done()) //nolint:gosec // not all at once
	for r.ctx.Err() == nil {
		if err := guarded(r.round); err != nil && r.ctx.Err() == nil {
			r.fail(reason.Storage, zapcore.ErrorLevel, err)
			r.pause(pauses.next(0), r.changed)
			continue
		}
		pauses = backOff{}
	}
}

// round gets the lease and receives while it is held. Its error is the storage's.
func (r *receiver) round() error {
	if mine, err := r.leads(); err != nil || !mine {
		if err == nil {
			r.standBy()
			r.pause(leasing.look, r.ctx.Done())
		}
		return err
	}
	r.works()
	return r.receiveWhileLeading()
}

// leads reports whether this edge has the lease, and takes it if nobody has.
func (r *receiver) leads() (bool, error) {
	if store := r.store(); r.lease.store != store {
		r.lease = r.lease.in(store)
	}
	if err := r.lease.by.stayAlive(r.lease.store); err != nil {
		return false, err
	}
	return r.lease.take(r.ctx)
}

// stillLeads reports whether the lease was not lost. A new config may have another storage, in which
// it is not ours, and nobody need wait for this edge in the old one.
func (r *receiver) stillLeads() (bool, error) {
	store := r.store()
	if err := r.lease.by.stayAlive(store); err != nil {
		return false, err
	}
	if r.lease.store != store {
		before := r.lease
		if r.lease = before.in(store); r.lease.led.IsZero() {
			before.drop()
		}
	}
	return r.lease.held()
}

// receiveWhileLeading polls the API as long as this edge has the lease.
func (r *receiver) receiveWhileLeading() error {
	pauses, idle := backOff{}, backOff{}
	for r.ctx.Err() == nil {
		if mine, err := r.stillLeads(); err != nil || !mine {
			return err
		}
		c := r.config()
		began := time.Now()
		got, err := r.poll(c)
		switch {
		case errors.Is(err, context.Canceled): // told to stop, or to ask in another way
		case err != nil:
			r.pauseAs(c, pauses.next(r.failedToCall(err)))
		case got == nil:
			r.works()
			pauses = backOff{}
			r.rest(&idle, time.Since(began))
		default:
			if mine, err := r.stillLeads(); err != nil || !mine {
				return err
			}
			if !r.take(c, got) { // it stays at the head of the queue
				r.pause(pauses.next(0), nil)
				continue
			}
			r.works()
			pauses, idle = backOff{}, backOff{}
		}
	}
	return nil
}

// pauseAs pauses unless there is a newer config, which asks in another way.
func (r *receiver) pauseAs(c *Receive, wait time.Duration) {
	if *c.client == *r.config().client {
		r.pause(wait, r.changed)
	}
}

// rest pauses after a poll that brought nothing, and did not wait for anything to come.
func (r *receiver) rest(idle *backOff, polled time.Duration) {
	if polled < receiving.soon {
		r.pause(idle.next(0), r.changed)
		idle.atMost(5 * receiving.firstPause)
	}
}

// poll asks for a notification. The end cuts it short, and a newer config that asks in another way:
// nothing is lost by that, what is not deleted comes again.
func (r *receiver) poll(c *Receive) (*vendorapi.Received, error) {
	ctx, cancel := context.WithCancel(r.ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-r.changed:
				if *r.config().client != *c.client {
					cancel()
				}
			case <-ctx.Done():
				return
			}
		}
	})
	got, err := c.client.ReceiveNotification(ctx, receiving.poll)
	if ctx.Err() != nil && err != nil {
		err = context.Canceled
	}
	cancel()
	watching.Wait()
	return got, err
}

// take gives a notification to the handlers of the newest config, and deletes it where a posted one
// would be answered 200. It returns false if it shall be received again.
func (r *receiver) take(c *Receive, got *vendorapi.Received) bool {
	this := receipt{c.client.URL, got.ReceiptID, sha256.Sum256(got.Body)}
	again := r.handled == this
	if !again {
		r.works() // the API does
		newest := r.config()
		if end := newest.handler.receive(newest, got.Body); end.Status != http.StatusOK {
			return false
		}
		r.handled = this
	}
	deleted, err := r.delete(c, got.ReceiptID)
	switch {
	case err != nil:
		return false
	case deleted:
		r.handled = receipt{}
	case again: // it says that it is not there, and hands it out
		r.fail(reason.APIRefused, zapcore.ErrorLevel, errNotDeleted)
		return false
	}
	return true
}

var errNotDeleted = errors.New("deleteNotification: the notification is not deleted, and comes again")

// lastCall is how long a deletion may take once the receiver is told to stop. Without it the
// notification would be delivered twice.
const lastCall = 5 * time.Second

// delete takes a notification off the queue that it came from. An error is one that polling will
// meet, too.
func (r *receiver) delete(c *Receive, id int64) (bool, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.ctx))
	defer cancel()
	defer context.AfterFunc(r.ctx, func() { time.AfterFunc(lastCall, cancel) })()
	pauses := backOff{}
	for {
		deleted, err := c.client.DeleteNotification(ctx, id)
		if err == nil {
			return deleted, nil
		}
		if r.ctx.Err() != nil {
			return false, err
		}
		after := r.failedToCall(err)
		if !errors.Is(err, vendorapi.ErrUnavailable) && !errors.Is(err, vendorapi.ErrTooManyRequests) {
			return false, err
		}
		r.pause(pauses.next(after), nil)
	}
}

func (r *receiver) logger() *zap.Logger { return r.config().handler.logger }

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
	return max(b.last/2+rand.N(b.last/2+1), wish+rand.N(wish/10+1)) //nolint:gosec // not all at once
}

// atMost bounds the next pause.
func (b *backOff) atMost(most time.Duration) { b.last = min(b.last, most/2) }

// maxWish is the longest Retry-After that is respected: the queue is lost after 24 hours.
const maxWish = 15 * time.Minute

// receive takes a notification of the HTTP API the way of one that is posted.
func (h *Handler) receive(c *Receive, body []byte) (end *outcome.Verdict) {
	v := h.madeVisit(c.URI, "", body)
	v.Via, v.N.Instance = viaHTTPAPI, notification.SameInstance(c.Instance) // unless the body says another
	v.Admitted = true                                                       // the instance's own token fetched it
	v.r.Header.Set("Content-Type", notification.ContentType)
	if token := h.Auth.headerFor(v.N.Instance); token != "" {
		v.r.Header.Set("Authorization", token)
	}
	if h.survive(func() { end = h.walk(v, h.received, noNext) }) {
		end = &outcome.Verdict{Outcome: outcome.Failed, Reason: reason.Panic, Status: http.StatusInternalServerError, Level: zap.ErrorLevel, Err: errGatePanic}
	}
	h.survive(func() { h.record(v, end) }) // what was delivered stays so
	return end
}

var errGatePanic = errors.New("panic in the gates of green_api")

// noNext is the next handler where there is no route.
var noNext caddyhttp.Handler = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
