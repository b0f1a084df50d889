// Package sender sends notifications as GREEN-API does: one first-in-first-out queue per instance, whose
// first notification is sent again and again until it is answered 200.
//
// The rules are the vendor's: only 200 takes a notification off the queue. It waits 180 s for an answer.
// After any other answer or none, it pauses for 60 s and sends the same one again, while everything behind
// it waits. After 24 hours the notification is lost. It sends about 50 a second (GREEN-API docs, "Working
// with incoming webhooks" and "Webhook endpoint technology", read 2026-07). What the vendor does not say,
// such as how many notifications of one instance are in flight, is an option.
package sender

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The vendor's times.
const (
	DefaultPause   = 60 * time.Second
	DefaultTimeout = 180 * time.Second
	DefaultGiveUp  = 24 * time.Hour
)

// Options set where to send, and how. The zero value of each is its default.
type Options struct {
	// The webhook's URL, http or https. Required.
	URL string
	// The token as in the console, webhookUrlToken: bare or "Bearer x" is sent as "Bearer x", "Basic x" as
	// "Basic x". Default: none is sent.
	Token string

	// How long to wait before sending the same notification again. Default: 60s.
	Pause time.Duration
	// How long to wait for an answer. Default: 180s.
	Timeout time.Duration
	// How long after being queued a notification is given up, sent or not. Default: 24h.
	GiveUp time.Duration
	// The number of attempts after which a notification is given up. Default: no limit but GiveUp.
	Attempts int
	// Divides Pause, Timeout and GiveUp: with 1000, a pause of 60s takes 60ms. Default: 1.
	Scale float64

	// How many notifications of one instance may be in flight. Default: 1.
	InFlight int
	// How many notifications per second an instance starts at most. Default: as many as are answered.
	Rate float64

	// Opens a new connection for each attempt. Default: connections are kept alive.
	NewConnections bool
	// Accepts any certificate.
	Insecure bool
	// Makes the requests, in place of the two options above. Default: they go over the network.
	Transport http.RoundTripper

	// Called after each attempt, from several goroutines at once. Default: not called.
	OnAttempt func(Attempt)
}

// A Queue is the notifications of one instance, oldest first.
type Queue struct {
	// The instance's ID.
	Instance string
	// Its notifications. They are taken one by one as the queue moves on.
	Notifications iter.Seq[Notification]
}

// Notification is one body to send.
type Notification struct {
	Name string // for reports
	Body []byte
	// When it was queued. Default: when Run began or, with a Rate, when that allows it to start.
	Queued time.Time
}

// Attempt is one request and its result.
type Attempt struct {
	Instance     string
	Notification Notification
	Number       int       // 1 for the first
	First        time.Time // when the first began
	Began        time.Time
	Took         time.Duration
	Status       int   // 0 without an answer
	Err          error // why there is no answer
	Again        bool  // the notification will be sent again after the pause
}

// Acknowledged reports whether the notification is off the queue: only 200 takes it off.
func (a Attempt) Acknowledged() bool { return a.Status == http.StatusOK }

// Run sends all queues and returns when they are empty, or as soon as ctx ends. The error is about the
// options; the report says what became of the notifications.
func Run(ctx context.Context, options Options, queues ...Queue) (*Report, error) {
	s, err := newSender(options)
	if err != nil {
		return nil, err
	}
	defer s.client.CloseIdleConnections()
	s.report.Began = time.Now()
	var running sync.WaitGroup
	for _, queue := range queues {
		next, stop := iter.Pull(queue.Notifications)
		q := &instance{sender: s, id: queue.Instance, next: next, pace: s.pace(), queued: s.report.Began}
		running.Go(func() {
			defer stop()
			var slots sync.WaitGroup
			for range s.options.InFlight {
				slots.Go(func() { q.run(ctx) })
			}
			slots.Wait()
		})
	}
	running.Wait()
	s.report.Took = time.Since(s.report.Began)
	return &s.report, nil
}

type sender struct {
	options       Options
	authorization string
	client        *http.Client
	report        Report
}

func newSender(options Options) (*sender, error) {
	target, err := url.Parse(options.URL)
	if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
		shown := strconv.Quote(options.URL)
		if strings.ContainsAny(options.URL, "@?#") {
			shown = "(not shown, there may be a secret in it)"
		}
		return nil, fmt.Errorf("invalid URL %s; want one such as https://hooks.example.com/green-api/webhook", shown)
	}
	if err := options.complete(); err != nil {
		return nil, err
	}
	var transport http.RoundTripper = &http.Transport{
		DisableKeepAlives: options.NewConnections,
		MaxIdleConns:      0, // no limit: a connection for each instance
		// The vendor's sender is not known to unpack anything.
		DisableCompression:  true,
		MaxIdleConnsPerHost: 1 << 20,
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: options.Insecure}, //nolint:gosec // the user's choice
		ForceAttemptHTTP2:   false,
	}
	if options.Transport != nil {
		transport = options.Transport
	}
	return &sender{
		options: options, authorization: authorization(options.Token),
		client: &http.Client{
			Transport: transport, Timeout: options.Timeout,
			// A redirect is not a 200.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// complete checks the options and fills in the defaults.
func (o *Options) complete() error {
	for _, duration := range []struct {
		name  string
		value *time.Duration
		other time.Duration
	}{{"pause", &o.Pause, DefaultPause}, {"timeout", &o.Timeout, DefaultTimeout}, {"give up", &o.GiveUp, DefaultGiveUp}} {
		if *duration.value < 0 {
			return fmt.Errorf("invalid %s %s; want a duration above 0s", duration.name, *duration.value)
		}
		if *duration.value == 0 {
			*duration.value = duration.other
		}
		if o.Scale != 0 {
			*duration.value = time.Duration(float64(*duration.value) / o.Scale)
		}
	}
	if o.Scale < 0 || o.Rate < 0 || o.Attempts < 0 || o.InFlight < 0 {
		return errors.New("invalid scale, rate, attempts or in flight; want none below 0")
	}
	o.InFlight = max(o.InFlight, 1)
	return nil
}

// authorization returns the header that GREEN-API sends for a token (GREEN-API docs, "SetSettings", read
// 2026-07).
func authorization(token string) string {
	scheme, _, hasScheme := strings.Cut(token, " ")
	switch {
	case token == "":
		return ""
	case hasScheme && (strings.EqualFold(scheme, "Bearer") || strings.EqualFold(scheme, "Basic")):
		return token
	}
	return "Bearer " + token
}

// pace returns the minimum time between two starts in one instance.
func (s *sender) pace() time.Duration {
	if s.options.Rate == 0 {
		return 0
	}
	return time.Duration(float64(time.Second) / s.options.Rate)
}

// instance is a queue that is being sent.
type instance struct {
	sender *sender
	id     string
	pace   time.Duration

	mu     sync.Mutex
	next   func() (Notification, bool)
	begin  time.Time // when the next one may start
	queued time.Time // when the next one was queued
}

// run sends one notification after another.
func (i *instance) run(ctx context.Context) {
	for ctx.Err() == nil {
		n, wait, ok := i.take()
		if !ok || !sleep(ctx, wait) {
			return
		}
		i.send(ctx, n)
	}
}

// take takes the oldest notification and returns how long to wait before sending it.
func (i *instance) take() (n Notification, wait time.Duration, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if n, ok = i.next(); !ok {
		return n, 0, false
	}
	if n.Queued.IsZero() {
		n.Queued = i.queued
		i.queued = i.queued.Add(i.pace)
	}
	now := time.Now()
	if i.begin.Before(now) {
		i.begin = now
	}
	wait = i.begin.Sub(now)
	i.begin = i.begin.Add(i.pace)
	return n, wait, true
}

// send sends one notification until it is acknowledged or given up.
func (i *instance) send(ctx context.Context, n Notification) {
	s := i.sender
	first := time.Now()
	if first.Sub(n.Queued) >= s.options.GiveUp { // those before it used up its time
		s.report.lose()
		return
	}
	for number := 1; ; number++ {
		a := Attempt{Instance: i.id, Notification: n, Number: number, First: first, Began: first}
		if number > 1 {
			a.Began = time.Now()
		}
		a.Status, a.Err = s.post(ctx, n.Body)
		a.Took = time.Since(a.Began)
		if ctx.Err() != nil && !a.Acknowledged() { // told to stop
			s.report.stop(first)
			return
		}
		spent := time.Since(n.Queued) + s.options.Pause
		a.Again = !a.Acknowledged() && number != s.options.Attempts && spent < s.options.GiveUp
		s.report.add(a)
		if s.options.OnAttempt != nil {
			s.options.OnAttempt(a)
		}
		if !a.Again {
			return
		}
		if !sleep(ctx, s.options.Pause) {
			s.report.stop(first)
			return
		}
	}
}

// post makes one request. It ignores the answer's body.
func (s *sender) post(ctx context.Context, body []byte) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.options.URL, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	if s.authorization != "" {
		r.Header.Set("Authorization", s.authorization)
	}
	response, err := s.client.Do(r)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // without the URL, which may have a password in it
		}
		return 0, err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<20))
	_ = response.Body.Close()
	if err != nil {
		return 0, fmt.Errorf("answer %d broke off: %w", response.StatusCode, err)
	}
	return response.StatusCode, nil
}

// sleep waits, and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
