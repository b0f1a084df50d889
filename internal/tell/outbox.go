package tell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
)

// An outbox collects what one endpoint is to be sent, and posts it.
type outbox struct {
	to     Endpoint
	times  Times
	log    *zap.Logger
	client *http.Client

	history *history
	failing failing // guarded by its lock

	wake   chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{}

	mu       sync.Mutex
	groups   map[key]*group
	sent     map[key]time.Time
	troubles troubles
}

func newOutbox(to Endpoint, times Times, transport http.RoundTripper, log *zap.Logger) *outbox {
	e := &outbox{
		to: to, times: times, log: log, wake: make(chan struct{}, 1), ended: make(chan struct{}),
		groups: make(map[key]*group), sent: make(map[key]time.Time), failing: make(failing),
		client: &http.Client{
			Transport:     transport,
			Timeout:       alertTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

// stop ends run. The group that was being sent goes back to the others.
func (e *outbox) stop() {
	e.cancel()
	<-e.ended
}

func (e *outbox) add(n outcome.Note) {
	e.mu.Lock()
	defer e.mu.Unlock()
	k := key{n.Reason, n.Kind}
	g := e.groups[k]
	if g == nil {
		g = &group{key: k}
		e.groups[k] = g
	}
	g.add(n)
	if n.Trouble != "" {
		e.troubles.begin(n)
	}
	e.wakeUp()
}

func (e *outbox) wakeUp() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// run sends groups when they are due, until it is stopped.
func (e *outbox) run() {
	defer close(e.ended)
	pause := time.Duration(0)
	for {
		g, wait := e.next(time.Now())
		if g == nil {
			if !e.sleep(wait) {
				return
			}
			continue
		}
		err := e.post(e.ctx, g)
		if err == nil || e.ctx.Err() == nil {
			e.history.note(e.failing, e.to.Host, g, err, time.Now())
		}
		if err == nil {
			pause = 0
			continue
		}
		e.putBack(g)
		if e.ctx.Err() != nil {
			return
		}
		pause = min(max(2*pause, e.times.FirstPause), e.times.LongestPause)
		e.log.Warn("alert could not be sent", zap.String("endpoint", e.to.Host), zap.String("reason", string(g.reason)), zap.Duration("again_in", pause), zap.Error(err))
		select {
		case <-time.After(pause):
		case <-e.ctx.Done():
			return
		}
	}
}

// next takes a group that is due. If there is none, it returns how long to wait; 0 means until a note
// comes.
func (e *outbox) next(now time.Time) (*group, time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var wait time.Duration
	for k, g := range e.groups {
		due := g.first.Add(e.times.Gather)
		if k.reason == reason.UnlistedSender { // its alert has an address to paste, and queues stand still meanwhile
			due = g.first
		}
		if again := e.sent[k].Add(e.to.Every); again.After(due) {
			due = again
		}
		if !due.After(now) {
			return e.takeOut(k, now), 0
		}
		if wait == 0 || due.Sub(now) < wait {
			wait = due.Sub(now)
		}
	}
	g, due := e.nextRecovered(now)
	if g == nil && !due.IsZero() && (wait == 0 || due.Sub(now) < wait) {
		wait = due.Sub(now)
	}
	return g, wait
}

func (e *outbox) takeOut(k key, now time.Time) *group {
	g := e.groups[k]
	delete(e.groups, k)
	e.sent[k] = now
	return g
}

// putBack undoes next.
func (e *outbox) putBack(g *group) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.sent, g.key)
	if g.key == recovered {
		e.troubles.putBack(g)
	} else if newer := e.groups[g.key]; newer != nil {
		newer.merge(g)
	} else {
		e.groups[g.key] = g
	}
}

// sleep waits for a note, and no longer than d unless d is 0. It reports whether to go on.
func (e *outbox) sleep(d time.Duration) bool {
	var timer <-chan time.Time
	if d > 0 {
		timer = time.After(d)
	}
	select {
	case <-e.wake:
	case <-timer:
	case <-e.ctx.Done():
		return false
	}
	return true
}

func (e *outbox) post(ctx context.Context, g *group) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.to.URL, bytes.NewReader(e.to.Body.render(g)))
	if err != nil {
		return errors.New("invalid request")
	}
	r.Header = e.to.Header.Clone()
	response, err := e.client.Do(r)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // without the URL
		}
		return e.to.Hide(err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)) // so that the connection can be reused
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("answer %d", response.StatusCode)
	}
	return nil
}

// nextRecovered takes a group for troubles that have ended. Alerts about such a trouble that are still to
// be sent go first, regardless of the time between two alerts. It also returns when something is due; zero
// for never.
func (e *outbox) nextRecovered(now time.Time) (*group, time.Time) {
	if len(e.troubles.over) == 0 {
		return nil, time.Time{}
	}
	due := e.troubles.of[e.troubles.over[0]].end.At.Add(e.times.Gather)
	if again := e.sent[recovered].Add(e.to.Every); again.After(due) {
		due = again
	}
	if due.After(now) {
		return nil, due
	}
	for _, name := range e.troubles.over {
		one := e.troubles.of[name]
		for _, k := range one.under {
			if before := e.groups[k]; before != nil && !before.first.After(one.end.At) {
				return e.takeOut(k, now), due
			}
		}
	}
	e.sent[recovered] = now
	return e.troubles.take(), due
}
