package greenapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/backlog"
	"github.com/greenapi-community/caddy-green-api/internal/delivery"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/tell"
	"github.com/greenapi-community/caddy-green-api/queue"
)

const (
	defaultQueueKey       = queueByInstance
	defaultInFlight       = 256
	defaultMaxPerInstance = 1000
	defaultQueueMaxAge    = 24 * time.Hour
	defaultPutTimeout     = 5 * time.Second

	queueByInstance = "instance"
	queueByChat     = "chat"

	// With a queue, no sender waits for a handler.
	defaultQueuedAttemptTimeout = 5 * time.Minute
	maxQueuedAttemptTimeout     = 30 * time.Minute

	// roomTimeout is how long a notification waits for room in the queue: GREEN-API gives up 10 seconds later,
	// and a 503 would cost its instance 60.
	roomTimeout = defaultTimeout
)

func defaultRetry() []caddy.Duration {
	var retry []caddy.Duration
	for _, seconds := range []int{1, 2, 5, 15, 30, 60} {
		retry = append(retry, caddy.Duration(time.Duration(seconds)*time.Second))
	}
	return retry
}

// Queue answers a clean notification 200 as soon as it is durably stored, and delivers it from there. So a slow
// handler holds up one chat, or one instance, but no sender. In exchange, what has been answered and not yet delivered
// is kept by the edge, and no longer by GREEN-API.
//
// A handler may get a notification once more if the edge is killed between the handler's 2xx and the removal from the
// queue.
type Queue struct {
	// What is delivered one after another: the notifications of an `instance`, as GREEN-API does it, or those of
	// a `chat`. By chat, notifications of an instance without a chat are one more row. Default: `instance`.
	Key string `json:"key,omitempty"`

	// How many notifications may be with the handlers at once. Default: 256.
	InFlight int `json:"in_flight,omitempty"`

	// How many notifications of an instance may be in the queue. What comes after that waits for room, and is
	// answered 503 if there is none within 170 seconds. The engine `nats` has an option of its own for that. Default:
	// 1000.
	MaxPerInstance int `json:"max_per_instance,omitempty"`

	// The pauses after the first, the second … round of attempts in which no handler took a notification, each a
	// fifth longer or shorter. The last one repeats. A handler's `Retry-After` makes a pause longer. Default: 1s 2s
	// 5s 15s 30s 60s.
	Retry []caddy.Duration `json:"retry,omitempty"`

	// How long after its receipt a notification goes into the quarantine if no handler has taken it. `"off"`:
	// never. Default: 24h.
	MaxAge MaxAge `json:"max_age,omitempty"`

	// How long storing may take before the sender is answered 503. Default: 5s.
	PutTimeout caddy.Duration `json:"put_timeout,omitempty"`
}

func (q *Queue) provision() error {
	switch q.Key {
	case "":
		q.Key = defaultQueueKey
	case queueByInstance, queueByChat:
	default:
		return fmt.Errorf("key: invalid value %q; want instance or chat", q.Key)
	}
	for _, number := range []struct {
		name    string
		value   *int
		usually int
	}{{"in_flight", &q.InFlight, defaultInFlight}, {"max_per_instance", &q.MaxPerInstance, defaultMaxPerInstance}} {
		if *number.value < 0 {
			return fmt.Errorf("%s: %d is out of range; want a number above 0", number.name, *number.value)
		}
		*number.value = cmp.Or(*number.value, number.usually)
	}
	if len(q.Retry) == 0 {
		q.Retry = defaultRetry()
	}
	for _, pause := range q.Retry {
		if pause <= 0 || pause > caddy.Duration(time.Hour) {
			return fmt.Errorf("retry: %s is out of range; want pauses above 0s and at most 1h", time.Duration(pause))
		}
	}
	if q.MaxAge == 0 {
		q.MaxAge = MaxAge(defaultQueueMaxAge)
	}
	if q.PutTimeout == 0 {
		q.PutTimeout = caddy.Duration(defaultPutTimeout)
	}
	if q.PutTimeout < 0 || time.Duration(q.PutTimeout) >= roomTimeout {
		return fmt.Errorf("put_timeout: %s is out of range; want more than 0s and less than %s", time.Duration(q.PutTimeout), roomTimeout)
	}
	return nil
}

// options returns the options of the lanes.
func (q *Queue) options() queue.Options {
	o := queue.Options{ByChat: q.Key == queueByChat, InFlight: q.InFlight}
	for _, pause := range q.Retry {
		o.Retry = append(o.Retry, time.Duration(pause))
	}
	if q.MaxAge != maxAgeOff {
		o.MaxAge = time.Duration(q.MaxAge)
	}
	return o
}

var errNoProxyToQueue = errors.New("want a reverse_proxy in the same block, which delivers what is in the queue")

// provisionQueue prepares the block's queue.
func (h *Handler) provisionQueue(caddy.Context) error {
	h.rounds = h.hooks
	h.rounds.Slow = func(*outcome.Case, string) {} // no sender waits for it
	h.rounds.Waits = func(*outcome.Case) {}
	if h.Queue == nil {
		return nil
	}
	if h.ReverseProxy == nil {
		return errNoProxyToQueue
	}
	h.app.queued = true
	return h.Queue.provision()
}

// enqueue stores the notification in the queue and returns the verdict. It is durable when enqueue returns a 200.
func (h *Handler) enqueue(v *visit) *outcome.Verdict {
	return h.fleet.Accept(v.r.Context(), &v.Case, &h.limits, func() *outcome.Verdict {
		began := time.Now()
		end := h.put(v.r.Context(), &v.Case)
		h.reporter.QueuePut(time.Since(began))
		return end
	})
}

// put stores a notification, and waits for room if it has to.
func (h *Handler) put(sender context.Context, c *outcome.Case) *outcome.Verdict {
	record := backlog.RecordOf(h.Name, c)
	deadline := c.Started.Add(roomTimeout)
	for pause := firstRoomPause; ; pause = min(2*pause, longestRoomPause) {
		duplicate, err := h.putOnce(record)
		switch {
		case err == nil && duplicate:
			return &outcome.Verdict{Outcome: outcome.Dropped, Reason: reason.Duplicate, Status: http.StatusOK, Level: zap.DebugLevel}
		case err == nil:
			return &outcome.Verdict{Outcome: outcome.Queued, Status: http.StatusOK, Level: zap.DebugLevel}
		case errors.Is(err, queue.ErrTooLarge):
			return h.keep(c, outcome.ToQuarantine(reason.TooLarge))
		}
		why := whyNotStored(err)
		full := why == reason.QueueFull || why == reason.InstanceFull
		if full && pause == firstRoomPause {
			h.logger.Warn("notification waits for room in the queue", append(tell.NotificationFields(c), zap.String("reason", string(why)),
				zap.String("fix", "see what stands still: caddy green-api queue list; or raise max_per_instance of the block or max_size of the queue"))...)
			h.reporter.Waits(c, why)
		}
		if !full || !h.waitForRoom(sender, pause, deadline) {
			return &outcome.Verdict{Outcome: outcome.Failed, Reason: why, Status: http.StatusServiceUnavailable, Level: zap.ErrorLevel, Err: h.app.hideQueue(err)}
		}
	}
}

const (
	firstRoomPause   = 50 * time.Millisecond
	longestRoomPause = time.Second
)

func (h *Handler) putOnce(record *queue.Record) (duplicate bool, err error) {
	d, err := h.app.openedQueue()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(h.Queue.PutTimeout))
	defer cancel()
	return d.Put(ctx, record, h.Queue.MaxPerInstance)
}

func whyNotStored(err error) reason.Reason {
	switch {
	case errors.Is(err, queue.ErrFull):
		return reason.QueueFull
	case errors.Is(err, queue.ErrInstanceFull):
		return reason.InstanceFull
	case errors.Is(err, queue.ErrDraining):
		return reason.Draining
	}
	return reason.QueueUnavailable
}

// waitForRoom waits, and reports whether to try again: nobody has hung up, and there is time.
func (h *Handler) waitForRoom(sender context.Context, pause time.Duration, deadline time.Time) bool {
	if time.Until(deadline) < pause {
		return false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-sender.Done():
	case <-exiting:
	}
	return false
}

// waitForOlder waits until the queue has nothing left of the notification's instance, if the block had a queue
// before. It returns nil if the notification may then be delivered directly.
func (h *Handler) waitForOlder(v *visit) *outcome.Verdict {
	d, _ := h.app.openedQueue() // it has been said if it cannot be opened
	if d == nil {
		return nil
	}
	deadline := v.Started.Add(roomTimeout / 2) // the rest is for the delivery
	for d.Holds(h.Name, v.N.Instance) {
		if !h.waitForRoom(v.r.Context(), longestRoomPause, deadline) {
			return &outcome.Verdict{Outcome: outcome.Failed, Reason: reason.Draining, Status: http.StatusServiceUnavailable, Level: zap.WarnLevel, Err: errOlder}
		}
	}
	return nil
}

var errOlder = errors.New("earlier notifications of the instance are still in the queue that the block had before")

// round makes one round for a notification from the queue. The token comes from the config, because the original is
// not kept.
func (h *Handler) round(d queue.Delivery) (result queue.Result) {
	if !h.isFor(d.Instance) { // the name now belongs to another block
		return queue.Result{Why: reason.NoHandler}
	}
	queuedFor := zap.Duration("queued_for", time.Since(d.Received))
	var v *visit
	var end *outcome.Verdict
	var last delivery.Answer
	if h.survive(func() {
		v = h.queued(d)
		defer v.way.Close()
		end, last = h.fleet.Round(&v.Case, h.wayOf(v, noNext), &h.limits, &h.rounds)
	}) {
		return queue.Result{Why: reason.Panic}
	}
	end.Fields = append(end.Fields, queuedFor, zap.Int("round", d.Round))
	h.survive(func() { h.recordRound(v, end, d) })
	switch end.Outcome {
	case outcome.Delivered:
		return queue.Result{Outcome: queue.Delivered}
	case outcome.Quarantined:
		return queue.Result{Outcome: queue.Quarantined}
	}
	heard := slices.ContainsFunc(v.Answers, func(a outcome.Attempt) bool { return a.Status != 0 })
	return queue.Result{
		Why: string(end.Reason), RetryAfter: last.RetryAfter, Unreachable: last.Result == delivery.NotNow && !heard, Answers: backlog.AnswersOf(&v.Trail),
	}
}

// queued returns the visit that brought a notification that is in the queue.
func (h *Handler) queued(d queue.Delivery) *visit {
	v := h.made(backlog.CaseOf(d))
	if token := h.Auth.headerFor(d.Instance); token != "" {
		v.Header.Set("Authorization", token)
	}
	v.Header.Set(deliveryHeader, strconv.Itoa(d.Round))
	v.placeholders()
	return v
}

// recordRound reports how a round ended. A notification that stays in the queue has not ended.
func (h *Handler) recordRound(v *visit, end *outcome.Verdict, d queue.Delivery) {
	if end.Outcome != outcome.Failed {
		v.ended(end.Outcome, end.Reason)
		if v.N.Instance != "" {
			h.app.operator.seen.Add(v.N.Instance, end.Outcome, v.Started)
		}
		if end.Outcome == outcome.Delivered {
			h.reporter.QueueWait(time.Since(v.Started))
		}
		h.reporter.Record(&v.Case, end, nil)
		return
	}
	level := zap.DebugLevel
	if v.Round == 1 {
		level = zap.WarnLevel
	}
	if entry := h.logger.Check(level, "no handler took a notification, it stays in the queue"); entry != nil {
		fields := append(tell.NotificationFields(&v.Case), zap.String("lane", d.LaneID()), zap.String("reason", string(end.Reason)))
		fields = append(fields, tell.AttemptFields(&v.Case)...)
		entry.Write(append(fields, end.Fields...)...)
	}
}

// unmarshalCaddyfile sets up the block's queue from Caddyfile tokens. Syntax:
//
//	queue {
//	    key              instance|chat
//	    in_flight        <notifications>
//	    max_per_instance <notifications>
//	    retry            <durations...>
//	    max_age          <duration>|off
//	    put_timeout      <duration>
//	}
func (q *Queue) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Err("queue takes no argument here; want a block with one option a line, such as 'key chat', or the line alone. An engine is named in the global option 'green_api'")
	}
	return eachOption(d, "queue", []option{
		{name: "key", parse: func() error { return choiceArg(d, &q.Key, queueByInstance, queueByChat) }},
		{name: "in_flight", parse: func() error { return numberArg(d, &q.InFlight, 1, "a number above 0, such as 256") }},
		{name: "max_per_instance", parse: func() error { return numberArg(d, &q.MaxPerInstance, 1, "a number above 0, such as 1000") }},
		{name: "retry", parse: func() error {
			var texts []string
			if err := listArgs(d, &texts); err != nil {
				return err
			}
			for _, text := range texts {
				pause, err := caddy.ParseDuration(text)
				if err != nil || pause <= 0 {
					return d.Errf("invalid retry '%s'; want pauses such as 1s 5s 30s", text)
				}
				q.Retry = append(q.Retry, caddy.Duration(pause))
			}
			return nil
		}},
		{name: "max_age", parse: func() error {
			if offInstead(d) {
				q.MaxAge = maxAgeOff
				return nil
			}
			return durationArg(d, (*caddy.Duration)(&q.MaxAge))
		}},
		{name: "put_timeout", parse: func() error { return durationArg(d, &q.PutTimeout) }},
	})
}

// MaxAge is a duration. In JSON it is one above 0, or "off".
type MaxAge caddy.Duration

const maxAgeOff = MaxAge(off)

// MarshalJSON writes "off" or nanoseconds.
func (a MaxAge) MarshalJSON() ([]byte, error) { return marshalOrOff(caddy.Duration(a)) }

// UnmarshalJSON reads "off" or a duration above 0.
func (a *MaxAge) UnmarshalJSON(text []byte) error {
	return unmarshalOrOff("max_age", text, (*caddy.Duration)(a))
}
