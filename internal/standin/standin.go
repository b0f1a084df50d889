// Package standin replaces GREEN-API in tests: its HTTP API, as far as vendorapi calls it, and its sender
// to webhook URLs.
//
// It does what the vendor documents (GREEN-API docs: "HTTP API technology", "SetSettings" and the pages of
// the methods, read 2026-07). Where the vendor says nothing it is strict, so that mistakes in the tested
// code show up: it refuses unknown settings, wrong verbs and waits out of bounds.
package standin

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// The vendor's times and rates.
const (
	settingsDelay = 5 * time.Minute // until settings take effect
	minWait       = 5 * time.Second // of receiveNotification
	maxWait       = 60 * time.Second
	queueRate     = 100 // per second, for receiveNotification and for deleteNotification
	otherRate     = 1   // for getSettings and setSettings
	messageRate   = 50  // for sendMessage
	// The length of the second in which calls are counted. It is a little less, because two calls that
	// leave a second apart may arrive closer.
	rateWindow = 950 * time.Millisecond
)

// firstReceipt is beyond what a float64 can count, so that a client that reads one fails.
const firstReceipt = 1<<53 + 1

// Options set how a Server differs from the vendor. The zero value of each is its default.
type Options struct {
	// Divides the vendor's times: 5 min until settings take effect, 60 s of pause and 180 s of wait at a
	// webhook URL, and receiveTimeout. Rates are not scaled. Default: 1.
	Scale float64
	// Allows any number of calls.
	NoLimits bool
	// Calls the webhook URLs. Default: over the network.
	Webhooks http.RoundTripper
}

// Server plays the vendor. It is safe for concurrent use.
type Server struct {
	options Options
	ctx     context.Context // ends when the Server is closed
	close   context.CancelFunc
	senders sync.WaitGroup

	mu        sync.Mutex
	instances map[string]*instance
	calls     map[string]int
	fault     func(method, instance string) *Fault
	messages  []Message
	receipt   int64 // of the next notification
}

// Fault is what a call gets instead of its answer.
type Fault struct {
	Status     int    // 0: the call is answered as usual, after Delay
	Body       string // of the answer
	RetryAfter string // the header; none if empty
	Drop       bool   // close the connection instead of answering
	Delay      time.Duration
}

// Message is what sendMessage got.
type Message struct {
	Instance, Chat, Text string
	ID                   string // its idMessage
}

// New returns a vendor without instances. Close it at the end.
func New(options Options) *Server {
	if options.Scale == 0 {
		options.Scale = 1
	}
	s := &Server{options: options, instances: make(map[string]*instance), calls: make(map[string]int), receipt: firstReceipt}
	s.ctx, s.close = context.WithCancel(context.Background())
	return s
}

// Close stops sending to webhook URLs, and ends calls that wait for a notification.
func (s *Server) Close() {
	s.mu.Lock()
	s.close() // locked, so that no sender starts after it
	s.mu.Unlock()
	s.senders.Wait()
}

// Add adds an instance: authorized, with all switches at "no" and no webhookUrl. It replaces one with the
// same ID.
func (s *Server) Add(id, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instances[id] = newInstance(id, token)
}

// Switch gives an instance a switch, or removes it (""). Which switches exist depends on messenger and
// version.
func (s *Server) Switch(instance, name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	settings := s.known(instance).settings
	settings[name] = value
	if value == "" {
		delete(settings, name)
	}
}

// Notify queues a notification, regardless of the instance's switches.
func (s *Server) Notify(instance string, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.known(instance)
	i.queue = append(i.queue, queued{receipt: s.receipt, body: slices.Clone(body)})
	s.receipt++
	i.wake()
}

// Queued returns how many notifications are in the instance's queue.
func (s *Server) Queued(instance string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.known(instance).queue)
}

// Deleted returns what was taken off the instance's queue, by deleteNotification or by a webhook's 200, in
// that order.
func (s *Server) Deleted(instance string) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.known(instance).deleted)
}

// Calls returns how often a method was called for any known instance, including faults and wrong tokens.
func (s *Server) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

// Polling returns how many calls of receiveNotification are in progress for the instance, and the maximum
// so far.
func (s *Server) Polling(instance string) (now, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.known(instance)
	return i.polling, i.mostPolling
}

// Settings returns the instance's settings that are in effect.
func (s *Server) Settings(instance string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.known(instance).settings)
}

// Fault makes calls fail: it is called for each, and returns nil for no fault. Fault(nil) ends that.
func (s *Server) Fault(fault func(method, instance string) *Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// Messages returns what sendMessage got.
func (s *Server) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// known returns an instance. A test that asks for an unknown one is wrong.
func (s *Server) known(id string) *instance {
	i := s.instances[id]
	if i == nil {
		panic("standin: no instance " + id)
	}
	return i
}

// scaled scales a time of the vendor's.
func (s *Server) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) / s.options.Scale)
}

// ServeHTTP serves the API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := parse(w, r)
	if c == nil {
		return
	}
	s.mu.Lock()
	c.instance = s.instances[c.id]
	fault := s.fault
	if c.instance != nil {
		s.calls[c.method]++
	}
	s.mu.Unlock()
	if c.instance == nil {
		c.forbid()
		return
	}
	if c.method == "receiveNotification" {
		defer s.poll(c.instance)()
	}
	if fault != nil && s.suffer(c, fault(c.method, c.id)) {
		return
	}
	do := methods[c.method]
	switch {
	case c.token == "":
		c.refuse("Parameter apiTokenInstance not define")
	case c.token != c.instance.token:
		w.WriteHeader(http.StatusUnauthorized)
	case !s.allowed(c.instance, c.method, do.rate):
		http.Error(w, "Too Many Requests", http.StatusTooManyRequests)
	default:
		do.answer(s, c)
	}
}

// poll counts a call of receiveNotification until done is called.
func (s *Server) poll(i *instance) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i.polling++
	i.mostPolling = max(i.mostPolling, i.polling)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		i.polling--
	}
}

// suffer answers a call with a fault, and reports whether it did.
func (s *Server) suffer(c *call, f *Fault) bool {
	if f == nil {
		return false
	}
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.r.Context().Done():
			return true
		case <-s.ctx.Done():
		}
	}
	if f.Drop {
		panic(http.ErrAbortHandler)
	}
	if f.Status == 0 {
		return false
	}
	if f.RetryAfter != "" {
		c.w.Header().Set("Retry-After", f.RetryAfter)
	}
	if strings.HasPrefix(f.Body, "{") {
		c.w.Header().Set("Content-Type", "application/json")
	}
	c.w.WriteHeader(f.Status)
	_, _ = c.w.Write([]byte(f.Body))
	return true
}

// allowed counts a call, and reports whether the instance may make it now.
func (s *Server) allowed(i *instance, method string, rate int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	recent := slices.DeleteFunc(i.recent[method], func(at time.Time) bool { return now.Sub(at) >= rateWindow })
	i.recent[method] = recent
	if len(recent) >= rate && !s.options.NoLimits {
		return false
	}
	i.recent[method] = append(recent, now)
	return true
}
