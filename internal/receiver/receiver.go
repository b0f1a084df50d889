package receiver

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/lease"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/vendorapi"
)

// A receiver polls the API for one instance.
type receiver struct {
	instance string
	times    Times
	edge     *lease.Edge
	turn     chan struct{}      // held by the instance's receiver that is working
	changed  chan struct{}      // signals that the API has to be asked in another way
	ctx      context.Context    // ends when the receiver is told to stop
	end      context.CancelFunc // tells it to stop, without waiting for the notification in hand

	// The last notification that was handled but may not have been deleted.
	handled receipt
	lease   *lease.Lease

	mu      sync.Mutex
	configs []*Config // in use; the last one is the newest and in effect
	last    *Config   // the last one in effect
	state   State
	trouble trouble
}

// A receipt identifies one notification in one queue. Another queue may use the same numbers.
type receipt struct {
	url string
	id  int64
	sum [sha256.Size]byte
}

func newReceiver(c *Config, times Times, edge *lease.Edge, turn chan struct{}) *receiver {
	r := &receiver{instance: c.Client.Instance, times: times, edge: edge, turn: turn, changed: make(chan struct{}, 1), configs: []*Config{c}, last: c}
	r.ctx, r.end = context.WithCancel(context.Background())
	r.enter(Starting, "")
	return r
}

// change changes the configs in use, and returns how many are left.
func (r *receiver) change(configs func()) (left int) {
	r.mu.Lock()
	before := r.last
	configs()
	left = len(r.configs)
	if left > 0 { // otherwise the last one stays in effect for the notification in hand
		r.last = r.configs[left-1]
	}
	other := *before.Client != *r.last.Client
	r.mu.Unlock()
	if other {
		select {
		case r.changed <- struct{}{}:
		default:
		}
	}
	return left
}

// config returns the config in effect.
func (r *receiver) config() *Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// run receives as long as this edge holds the instance's lease, until the receiver is told to stop.
func (r *receiver) run() {
	select { // the previous receiver may still have a notification in hand
	case r.turn <- struct{}{}:
	case <-r.ctx.Done():
		return
	}
	defer func() { <-r.turn }()
	r.lease = r.edge.Claim(notification.SameInstance(r.instance), func() *lease.Store { return r.config().Store })
	defer r.lease.Release()
	pauses := r.backOff()
	r.pause(rand.N(r.times.FirstPause), nil) //nolint:gosec // spread them out
	for r.ctx.Err() == nil {
		if err := guarded(r.round); err != nil && r.ctx.Err() == nil {
			r.fail(reason.Storage, zapcore.ErrorLevel, err)
			r.pause(pauses.next(0), r.changed)
			continue
		}
		pauses = r.backOff()
	}
}

// guarded turns a panic into an error.
func guarded(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return do()
}

// round takes the lease and receives while it is held. It returns only errors of the storage.
func (r *receiver) round() error {
	if mine, err := r.lease.Take(r.ctx); err != nil || !mine {
		if err == nil {
			r.standBy()
			r.pause(r.edge.Times().Look, nil)
		}
		return err
	}
	r.leads()
	return r.receiveWhileLeading()
}

// receiveWhileLeading polls the API as long as this edge holds the lease.
func (r *receiver) receiveWhileLeading() error {
	pauses, idle := r.backOff(), r.backOff()
	for r.ctx.Err() == nil {
		if mine, err := r.lease.Held(); err != nil || !mine {
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
			pauses = r.backOff()
			r.rest(&idle, time.Since(began))
		default:
			if mine, err := r.lease.Held(); err != nil || !mine {
				return err
			}
			if !r.take(c, got) { // it stays at the head of the queue
				r.pause(pauses.next(0), nil)
				continue
			}
			r.works()
			pauses, idle = r.backOff(), r.backOff()
		}
	}
	return nil
}

// pauseAs pauses unless a newer config asks in another way.
func (r *receiver) pauseAs(c *Config, wait time.Duration) {
	if *c.Client == *r.config().Client {
		r.pause(wait, r.changed)
	}
}

// rest pauses after a poll that brought nothing and did not wait for anything to come.
func (r *receiver) rest(idle *backOff, polled time.Duration) {
	if polled < r.times.Soon {
		r.pause(idle.next(0), r.changed)
		idle.atMost(5 * r.times.FirstPause)
	}
}

// poll asks for a notification. It is cut short when the receiver is told to stop, or when a newer config
// asks in another way. Nothing is lost by that: a notification that is not deleted comes again.
func (r *receiver) poll(c *Config) (*vendorapi.Received, error) {
	ctx, cancel := context.WithCancel(r.ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-r.changed:
				if *r.config().Client != *c.Client {
					cancel()
				}
			case <-ctx.Done():
				return
			}
		}
	})
	got, err := c.Client.ReceiveNotification(ctx, r.times.Poll)
	if ctx.Err() != nil && err != nil {
		err = context.Canceled
	}
	cancel()
	watching.Wait()
	return got, err
}

// take hands a notification to the config in effect, and deletes it once that is done with it. It reports
// whether nothing is left to do; otherwise the notification is received again.
func (r *receiver) take(c *Config, got *vendorapi.Received) bool {
	this := receipt{c.Client.URL, got.ReceiptID, sha256.Sum256(got.Body)}
	again := r.handled == this
	if !again {
		r.works() // the API works
		if !r.config().Take(got.Body) {
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
	case again: // the API says that it does not exist, and yet delivers it again
		r.fail(reason.APIRefused, zapcore.ErrorLevel, errNotDeleted)
		return false
	}
	return true
}

var errNotDeleted = errors.New("deleteNotification: the notification is not deleted, and comes again")

// delete deletes a notification from the queue that it came from. It leaves errors to the next poll, which
// meets them, too.
func (r *receiver) delete(c *Config, id int64) (bool, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.ctx))
	defer cancel()
	defer context.AfterFunc(r.ctx, func() { time.AfterFunc(r.times.LastCall, cancel) })()
	pauses := r.backOff()
	for {
		deleted, err := c.Client.DeleteNotification(ctx, id)
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

// pause waits. It is cut short when the receiver is told to stop, or by a value from cut.
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
type backOff struct{ first, longest, last time.Duration }

func (r *receiver) backOff() backOff {
	return backOff{first: r.times.FirstPause, longest: r.times.LongestPause}
}

// next returns how long to pause: at least as long as the other side wishes, and varied, so that waiting
// receivers do not all come back at once.
func (b *backOff) next(wish time.Duration) time.Duration {
	b.last = min(max(2*b.last, b.first), b.longest)
	wish = min(wish, maxWish)
	return max(b.last/2+rand.N(b.last/2+1), wish+rand.N(wish/10+1)) //nolint:gosec // spread them out
}

// atMost limits the next pause.
func (b *backOff) atMost(most time.Duration) { b.last = min(b.last, most/2) }

// maxWish is the longest Retry-After that is respected: the queue is lost after 24 hours.
const maxWish = 15 * time.Minute
