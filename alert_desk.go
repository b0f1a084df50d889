package greenapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

type alertKey struct {
	reason reason.Reason
	typ    string
}

// alertGroup is what has gathered for one alert.
type alertGroup struct {
	alertKey
	level       zapcore.Level
	count       int
	first, last time.Time
	instances   []string // the first maxAlertInstances
	others      bool     // and there are more
	example     string
	more        string
}

const maxAlertInstances = 20

func (g *alertGroup) add(n outcome.Note) {
	if g.count == 0 {
		g.first = n.At
	}
	g.count++
	g.last = n.At
	g.level = max(g.level, n.Level)
	if n.Instance != "" && !slices.Contains(g.instances, n.Instance) {
		if len(g.instances) < maxAlertInstances {
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

// merge adds what was gathered before.
func (g *alertGroup) merge(older *alertGroup) {
	newer := *g
	*g = *older
	g.count += newer.count
	g.level = max(older.level, newer.level)
	if newer.last.After(g.last) {
		g.last = newer.last
	}
	for _, instance := range newer.instances {
		if !slices.Contains(g.instances, instance) && len(g.instances) < maxAlertInstances {
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

// values are the placeholders of an alert's body.
func (g *alertGroup) values() map[string]string {
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

func (g *alertGroup) text(host, instances string) string {
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

// alertDesk gathers notes and sends them. Taking one down takes no longer than adding to a group:
// the network is waited for elsewhere. There are as many groups as there are reasons and types.
type alertDesk struct {
	mu        sync.Mutex
	endpoints []*alertEndpoint
}

// configure replaces the endpoints. What one of the same URL
// and body has not yet told goes over.
func (d *alertDesk) configure(alerts []*Alert, logger *zap.Logger) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := slices.Clone(d.endpoints)
	for _, e := range old {
		e.stop()
	}
	d.endpoints = nil
	for _, alert := range alerts {
		e := newAlertEndpoint(alert, logger)
		same := func(before *alertEndpoint) bool {
			return before.alert.url == alert.url && before.alert.body == alert.body
		}
		if at := slices.IndexFunc(old, same); at >= 0 { // each goes over to one
			e.groups, e.sent = old[at].groups, old[at].sent
			old = slices.Delete(old, at, at+1)
		}
		d.endpoints = append(d.endpoints, e)
		go e.run()
	}
}

func (d *alertDesk) tell(n outcome.Note) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.endpoints {
		if n.Silence == 0 || n.Silence == time.Duration(e.alert.Silence) {
			e.add(n)
		}
	}
}

// pending is how many alerts are to be sent.
func (d *alertDesk) pending() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.endpoints {
		e.mu.Lock()
		n += len(e.groups)
		e.mu.Unlock()
	}
	return n
}

// close sends what is left, all endpoints at a time.
func (d *alertDesk) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	var flushing sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), alertFlush)
	defer cancel()
	for _, e := range d.endpoints {
		e.stop()
		flushing.Go(func() {
			for _, g := range e.groups {
				if err := e.post(ctx, g); err != nil {
					e.logger.Error("alert could not be sent before the end", zap.String("endpoint", e.host), zap.String("reason", string(g.reason)), zap.Error(err))
				}
			}
		})
	}
	flushing.Wait()
	d.endpoints = nil
}

// alertEndpoint sends to one URL.
type alertEndpoint struct {
	alert  *Alert
	logger *zap.Logger
	host   string
	client *http.Client

	wake   chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{}

	mu     sync.Mutex
	groups map[alertKey]*alertGroup
	sent   map[alertKey]time.Time
}

func newAlertEndpoint(alert *Alert, logger *zap.Logger) *alertEndpoint {
	e := &alertEndpoint{
		alert: alert, logger: logger, wake: make(chan struct{}, 1), ended: make(chan struct{}),
		groups: make(map[alertKey]*alertGroup), sent: make(map[alertKey]time.Time),
		client: &http.Client{
			Timeout:       alertTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	e.host = hostOf(alert.URL) // as the config says it; the rest may be a secret
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

// stop ends run. What it was sending goes back to the others.
func (e *alertEndpoint) stop() {
	e.cancel()
	<-e.ended
}

func (e *alertEndpoint) add(n outcome.Note) {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := alertKey{n.Reason, n.Kind}
	g := e.groups[key]
	if g == nil {
		g = &alertGroup{alertKey: key}
		e.groups[key] = g
	}
	g.add(n)
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// run sends what is due, until it is stopped.
func (e *alertEndpoint) run() {
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
		pause = min(max(2*pause, firstAlertPause), longestAlertPause)
		e.logger.Warn("alert could not be sent", zap.String("endpoint", e.host), zap.String("reason", string(g.reason)), zap.Duration("again_in", pause), zap.Error(err))
		select {
		case <-time.After(pause):
		case <-e.ctx.Done():
			return
		}
	}
}

// next takes a group that is due, or tells how long to wait: 0 for until there is one.
func (e *alertEndpoint) next(now time.Time) (*alertGroup, time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var wait time.Duration
	for key, g := range e.groups {
		due := g.first.Add(alertGather)
		if key.reason == reason.UnlistedSender { // an address to paste, while queues stand still
			due = g.first
		}
		if again := e.sent[key].Add(time.Duration(e.alert.Every)); again.After(due) {
			due = again
		}
		if !due.After(now) {
			delete(e.groups, key)
			e.sent[key] = now
			return g, 0
		}
		if wait == 0 || due.Sub(now) < wait {
			wait = due.Sub(now)
		}
	}
	return nil, wait
}

// putBack undoes next.
func (e *alertEndpoint) putBack(g *alertGroup) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if newer := e.groups[g.alertKey]; newer != nil {
		newer.merge(g)
	} else {
		e.groups[g.alertKey] = g
	}
	delete(e.sent, g.alertKey)
}

// sleep waits for a note, and at most that long if that is not 0.
func (e *alertEndpoint) sleep(d time.Duration) bool {
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

func (e *alertEndpoint) post(ctx context.Context, g *alertGroup) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.alert.url, bytes.NewReader(e.alert.render(g)))
	if err != nil {
		return errors.New("invalid request")
	}
	r.Header = e.alert.header.Clone()
	response, err := e.client.Do(r)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // without the URL
		}
		return hideURL(err, e.alert.URL, e.alert.url)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10)) // so that the connection can be used again
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("answer %d", response.StatusCode)
	}
	return nil
}
