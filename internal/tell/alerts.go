package tell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

type key struct {
	reason reason.Reason
	typ    string
}

// A group is what has gathered for one alert.
type group struct {
	key
	level       zapcore.Level
	count       int
	first, last time.Time
	instances   []string // the first maxInstances
	others      bool     // there are more
	example     string
	more        string
	ends        []outcome.Note // of troubles, for Recovered
}

const maxInstances = 20

func (g *group) add(n outcome.Note) {
	if g.count == 0 {
		g.first = n.At
	}
	g.count++
	g.last = n.At
	g.level = max(g.level, n.Level)
	if n.Instance != "" && !slices.Contains(g.instances, n.Instance) {
		if len(g.instances) < maxInstances {
			g.instances = append(g.instances, n.Instance)
		} else {
			g.others = true
		}
	}
	if g.example == "" {
		g.example = n.Example
	}
	if n.More != "" {
		g.more = n.More
	}
}

// merge adds what had gathered before.
func (g *group) merge(older *group) {
	newer := *g
	*g = *older
	g.count += newer.count
	g.level = max(older.level, newer.level)
	if newer.last.After(g.last) {
		g.last = newer.last
	}
	for _, instance := range newer.instances {
		if !slices.Contains(g.instances, instance) && len(g.instances) < maxInstances {
			g.instances = append(g.instances, instance)
		}
	}
	g.others = older.others || newer.others
	if g.example == "" {
		g.example = newer.example
	}
	if newer.more != "" {
		g.more = newer.more
	}
}

// values returns what the placeholders of a body stand for.
func (g *group) values() map[string]string {
	instances := strings.Join(g.instances, ", ")
	if g.others {
		instances += ", …"
	}
	host, _ := os.Hostname()
	return map[string]string{
		"{alert.text}": g.text(host, instances), "{alert.reason}": string(g.reason), "{alert.type}": g.typ, "{alert.level}": g.level.String(),
		"{alert.count}": strconv.Itoa(g.count), "{alert.first}": g.first.UTC().Format(time.RFC3339), "{alert.last}": g.last.UTC().Format(time.RFC3339),
		"{alert.instances}": instances, "{alert.example}": g.example, "{alert.host}": host,
	}
}

func (g *group) text(host, instances string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "GREEN-API edge %s: %s (%s", host, g.reason.Sentence(), g.reason)
	if g.typ != notification.KindNone && g.typ != "" {
		text.WriteString(", " + g.typ)
	}
	fmt.Fprintf(&text, "), %d times since %s", g.count, g.first.UTC().Format("2006-01-02 15:04:05 MST"))
	if instances != "" {
		text.WriteString(", instance " + instances)
	}
	text.WriteString(".")
	if g.more != "" {
		text.WriteString(" " + g.more)
	}
	if g.example != "" {
		text.WriteString(" An example is in the quarantine: " + g.example)
	}
	return text.String()
}

const alertTimeout = 10 * time.Second

// Times are how long alerts wait.
type Times struct {
	Gather time.Duration // the first alert of a reason and type waits so long for others

	// The pause before a failed alert is sent again doubles from FirstPause to LongestPause.
	FirstPause, LongestPause time.Duration

	Flush time.Duration // the end of the process waits so long
}

// DefaultTimes returns the times for an operator, who wants to know soon and not to be flooded.
func DefaultTimes() Times {
	return Times{Gather: 2 * time.Second, FirstPause: time.Second, LongestPause: time.Minute, Flush: 5 * time.Second}
}

// alerts gathers notes and sends them. Taking one down takes no longer than adding to a group: other
// goroutines wait for the network. There are as many groups as there are reasons and types.
type alerts struct {
	times     Times
	transport http.RoundTripper

	inTrouble atomic.Bool // it is set under the lock

	mu     sync.Mutex
	outbox []*outbox
}

// Configure replaces the endpoints of alerts. Unsent alerts move to the new endpoint with the same URL
// and body.
func (d *Desk) Configure(endpoints []Endpoint, log *zap.Logger) {
	a := &d.alerts
	a.mu.Lock()
	defer a.mu.Unlock()
	old := slices.Clone(a.outbox)
	for _, before := range old {
		before.stop()
	}
	a.outbox = nil
	for _, endpoint := range endpoints {
		e := newOutbox(endpoint, a.times, a.transport, log)
		same := func(before *outbox) bool {
			return before.to.URL == endpoint.URL && before.to.Body.text == endpoint.Body.text
		}
		if at := slices.IndexFunc(old, same); at >= 0 { // each goes over to one
			e.groups, e.sent, e.troubles = old[at].groups, old[at].sent, old[at].troubles
			old = slices.Delete(old, at, at+1)
		}
		a.outbox = append(a.outbox, e)
		go e.run()
	}
}

// Tell takes down a note for the operator. With the reason Recovered it goes to those only who know of the
// trouble.
func (d *Desk) Tell(n outcome.Note) {
	d.alerts.mu.Lock()
	defer d.alerts.mu.Unlock()
	if n.Reason == reason.Recovered {
		d.alerts.over(n)
		return
	}
	if n.Trouble != "" && len(d.alerts.outbox) > 0 {
		d.alerts.inTrouble.Store(true)
	}
	for _, e := range d.alerts.outbox {
		if n.Silence == 0 || n.Silence == e.to.Silence {
			e.add(n)
		}
	}
}

// Pending returns how many alerts are to be sent.
func (d *Desk) Pending() (n int) {
	d.alerts.mu.Lock()
	defer d.alerts.mu.Unlock()
	for _, e := range d.alerts.outbox {
		e.mu.Lock()
		n += len(e.groups)
		if len(e.troubles.over) > 0 {
			n++
		}
		e.mu.Unlock()
	}
	return n
}

// close sends what is left, to all endpoints at a time.
func (a *alerts) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	var flushing sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), a.times.Flush)
	defer cancel()
	for _, e := range a.outbox {
		e.stop()
		flushing.Go(func() {
			left := slices.Collect(maps.Values(e.groups))
			if g := e.troubles.take(); g != nil {
				left = append(left, g)
			}
			for _, g := range left {
				if err := e.post(ctx, g); err != nil {
					e.log.Error("alert could not be sent before the end", zap.String("endpoint", e.to.Host), zap.String("reason", string(g.reason)), zap.Error(err))
				}
			}
		})
	}
	flushing.Wait()
	a.outbox = nil
}

// An outbox gathers what one endpoint is to be told, and posts it.
type outbox struct {
	to     Endpoint
	times  Times
	log    *zap.Logger
	client *http.Client

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
		groups: make(map[key]*group), sent: make(map[key]time.Time),
		client: &http.Client{
			Transport:     transport,
			Timeout:       alertTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

// stop ends run. The group that it was sending goes back to the others.
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

// run sends what is due, until it is stopped.
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

// next takes a group that is due. Without one it returns how long to wait; 0 means until a note comes.
func (e *outbox) next(now time.Time) (*group, time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var wait time.Duration
	for k, g := range e.groups {
		due := g.first.Add(e.times.Gather)
		if k.reason == reason.UnlistedSender { // an address to paste, while queues stand still
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

// sleep waits for a note; unless d is 0, no longer than d. It reports whether to go on.
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
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)) // so that the connection can be used again
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("answer %d", response.StatusCode)
	}
	return nil
}
