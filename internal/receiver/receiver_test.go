package receiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/greenapi-community/caddy-green-api/internal/lease"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/internal/standin"
	"github.com/greenapi-community/caddy-green-api/vendorapi"
)

const (
	instance = "1101000001"
	token    = "api-canary-d75b3a66374942c5b3c0"
	apiURL   = "http://api.example.com"
)

// world is what edges share: a storage, the API, and handlers that remember what they took.
type world struct {
	t   *testing.T
	api *standin.Server

	mu    sync.Mutex
	files map[string]string
	taken []string
	does  func(body string) bool // what a handler does; nil: it takes the notification
}

// inWorld runs a test in fake time.
func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, api: standin.New(standin.Options{NoLimits: true}), files: make(map[string]string)}
		defer w.api.Close()
		w.api.Add(instance, token)
		test(w)
	})
}

func body(n int) string { return fmt.Sprintf(`{"n":%d}`, n) }

// notify queues notifications.
func (w *world) notify(from, count int) {
	for n := range count {
		w.api.Notify(instance, []byte(body(from+n)))
	}
}

func (w *world) take(body []byte) bool {
	w.mu.Lock()
	w.taken = append(w.taken, string(body))
	does := w.does
	w.mu.Unlock()
	return does == nil || does(string(body))
}

// handle lets the handlers do something else from now on.
func (w *world) handle(does func(body string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.does = does
}

// wantTaken fails the test unless the handlers took exactly these, in this order.
func (w *world) wantTaken(want ...int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]string, len(want))
	for i, n := range want {
		all[i] = body(n)
	}
	if !slices.Equal(w.taken, all) {
		w.t.Errorf("the handlers took %q, want %q", w.taken, all)
	}
}

// within fails the test unless something becomes so within a time. It returns how long that took.
func (w *world) within(most time.Duration, what string, is func() bool) time.Duration {
	w.t.Helper()
	began := time.Now()
	for ; ; time.Sleep(10 * time.Millisecond) {
		synctest.Wait()
		if is() {
			return time.Since(began)
		}
		if time.Since(began) > most {
			w.t.Fatalf("%s: not within %s", what, most)
		}
	}
}

// empty reports whether nothing is queued.
func (w *world) empty() bool { return w.api.Queued(instance) == 0 }

// process is an edge: the receivers of one process, that can be stopped as by SIGSTOP or killed.
type process struct {
	*All
	w     *world
	edge  *lease.Edge
	logs  *observer.ObservedLogs
	log   *zap.Logger
	store *lease.Store
	http  *http.Client // of all its configs

	mu    sync.Mutex
	notes []outcome.Note
	goOn  chan struct{} // closed unless the process stands still
	fault error         // of the storage
}

func (w *world) process() *process {
	p := &process{w: w, edge: lease.NewEdge(lease.DefaultTimes()), goOn: make(chan struct{})}
	close(p.goOn)
	core, logs := observer.New(zapcore.DebugLevel)
	p.All, p.log, p.logs = New(DefaultTimes(), p.edge), zap.New(core), logs
	p.store, p.http = lease.NewStore(p), &http.Client{Transport: p}
	return p
}

// end lets a process end, as all must at the end of a test.
func (p *process) end() {
	p.End()
	p.runs.Wait()
}

// standStill stops the process until what it returns is called: nothing that it does gets anywhere, and
// no answer gets to it.
func (p *process) standStill() (goOn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	still := make(chan struct{})
	p.goOn = still
	return func() { close(still) }
}

func (p *process) moves() {
	p.mu.Lock()
	goOn := p.goOn
	p.mu.Unlock()
	<-goOn
}

// at does something to the files of the storage.
func (p *process) at(do func(files map[string]string) error) error {
	p.moves()
	p.mu.Lock()
	fault := p.fault
	p.mu.Unlock()
	if fault != nil {
		return fault
	}
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return do(p.w.files)
}

func (p *process) Load(_ context.Context, key string) (value []byte, err error) {
	return value, p.at(func(files map[string]string) error {
		text, there := files[key]
		if value = []byte(text); !there {
			return fs.ErrNotExist
		}
		return nil
	})
}

func (p *process) Store(_ context.Context, key string, value []byte) error {
	return p.at(func(files map[string]string) error { files[key] = string(value); return nil })
}

func (p *process) Delete(_ context.Context, key string) error {
	return p.at(func(files map[string]string) error { delete(files, key); return nil })
}

// RoundTrip calls the API.
func (p *process) RoundTrip(r *http.Request) (*http.Response, error) {
	p.moves()
	response, err := p.w.api.Transport().RoundTrip(r)
	p.moves()
	return response, err
}

// tell remembers what the operator is told.
func (p *process) tell(n outcome.Note) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notes = append(p.notes, n)
}

// told returns the last thing that the operator was told, and how many there were.
func (p *process) told() (last outcome.Note, count int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.notes) > 0 {
		last = p.notes[len(p.notes)-1]
	}
	return last, len(p.notes)
}

// wantRecovered checks that the last thing that the operator was told is that the trouble is over; most is
// how many things there may be.
func (p *process) wantRecovered(most int, more string) {
	p.w.t.Helper()
	last, count := p.told()
	if count < 2 {
		p.w.t.Fatalf("told %+v", p.notes)
	}
	before := p.notes[count-2]
	if last.Reason != reason.Recovered || last.Instance != instance || last.More != more || last.Level != zapcore.InfoLevel ||
		count > most || before.Reason == reason.Recovered || last.Trouble == "" || last.Trouble != before.Trouble {
		p.w.t.Errorf("told %+v", p.notes)
	}
}

// config is a config of the process for the one instance.
func (p *process) config() *Config { return p.configOf(instance) }

func (p *process) configOf(id string) *Config {
	return &Config{
		Block: "default", APIURL: "{env.API}", Store: p.store, Take: p.w.take, Log: p.log, Tell: p.tell,
		Client: &vendorapi.Client{URL: apiURL, Instance: id, Token: token, HTTP: p.http},
		Hide:   func(err error) error { return errors.New(strings.ReplaceAll(err.Error(), "10.0.0.1", "{env.API}")) },
	}
}

// state is the state of the one instance, "" without a receiver.
func (p *process) state() string {
	for _, s := range p.States() {
		return strings.TrimSuffix(s.State+" "+string(s.Reason), " ")
	}
	return ""
}

// logged counts the messages in the log.
func (p *process) logged(level zapcore.Level, message string) int {
	return p.logs.FilterMessage(message).FilterLevelExact(level).Len()
}

const (
	cannot       = "notifications of the instance cannot be received"
	cannotForNow = cannot + " for now"
	again        = "notifications of the instance are received again"
	standsBy     = "another edge receives for the instance, this one stands by"
)

// TestReceive: notifications are taken in order and deleted, whatever their bytes are; and an empty queue
// is asked once for each wait.
func TestReceive(t *testing.T) {
	inWorld(t, func(w *world) {
		p := w.process()
		defer p.end()
		w.notify(0, 20)
		p.Use(p.config())
		if took := w.within(10*time.Second, "all to be deleted", w.empty); took < lease.DefaultTimes().Settle {
			t.Errorf("received after %s, before the lease has settled", took)
		}
		w.wantTaken(slices.Collect(upTo(20))...)
		w.api.Notify(instance, []byte(`{"a": "quote " in it"}`))
		w.within(time.Second, "it to be deleted", w.empty)
		if got := w.taken[len(w.taken)-1]; got != `{"a": "quote " in it"}` {
			t.Errorf("took %s", got)
		}
		before := w.api.Calls("receiveNotification")
		time.Sleep(10*DefaultTimes().Poll + time.Second)
		if n := w.api.Calls("receiveNotification") - before; n != 10 {
			t.Errorf("asked %d times in 10 waits", n)
		}
		if got := p.States(); len(got) != 1 || got[0].Instance != instance || got[0].Name != "default" || got[0].State != Receiving || p.Count(Receiving) != 1 || p.Count(Failing) != 0 {
			t.Errorf("%+v", got)
		}
		if _, count := p.told(); count > 0 || p.logs.Len() > 0 {
			t.Errorf("told %v, logged %v", p.notes, p.logs.All())
		}
	})
}

func upTo(n int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

// TestComesAgain: a notification that is not done with comes again, after pauses that grow; one that
// could not be deleted is not taken again.
func TestComesAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		p := w.process()
		defer p.end()
		var at []time.Time
		w.handle(func(string) bool {
			at = append(at, time.Now())
			return len(at) > 9
		})
		w.notify(0, 1)
		p.Use(p.config())
		w.within(10*time.Minute, "it to be deleted", w.empty)
		w.wantTaken(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		for i, most := range []int{1, 2, 4, 8, 16, 32, 60, 60, 60} {
			longest := time.Duration(most) * time.Second
			if pause := at[i+1].Sub(at[i]); pause < longest/2 || pause > longest {
				t.Errorf("pause %d: %s, want %s to %s", i, pause, longest/2, longest)
			}
		}
		faults := []*standin.Fault{{Status: 502}, {Drop: true}, {Status: 401}, {Status: 429, RetryAfter: "0"}}
		w.api.Fault(func(method, _ string) (f *standin.Fault) {
			if method == "deleteNotification" && len(faults) > 0 {
				f, faults = faults[0], faults[1:]
			}
			return f
		})
		w.handle(nil)
		w.taken = nil
		w.notify(1, 2)
		w.within(time.Minute, "both to be deleted", w.empty)
		w.wantTaken(1, 2)
	})
}

// TestTrouble: the log says once what keeps an instance from being received, the operator hears of it,
// and nobody of the token.
func TestTrouble(t *testing.T) {
	for _, test := range []struct {
		fault  standin.Fault
		reason reason.Reason
		level  zapcore.Level // at first
	}{
		{standin.Fault{Status: 401}, reason.APIRefused, zapcore.ErrorLevel},
		{standin.Fault{Status: 403, Body: "<html>403</html>"}, reason.APIRefused, zapcore.ErrorLevel},
		{standin.Fault{Status: 466, Body: `{"message":"quota"}`}, reason.APIRefused, zapcore.ErrorLevel},
		{standin.Fault{Status: 400, Body: `{"message":"Message cannot be received because custom webhook url is set"}`}, reason.WebhookURLSet, zapcore.ErrorLevel},
		{standin.Fault{Status: 503, Body: "no way to 10.0.0.1"}, reason.APIUnavailable, zapcore.WarnLevel},
		{standin.Fault{Drop: true}, reason.APIUnavailable, zapcore.WarnLevel},
		{standin.Fault{Status: 429, RetryAfter: "0", Body: token}, reason.APIUnavailable, zapcore.WarnLevel},
	} {
		t.Run(fmt.Sprintf("%d %t", test.fault.Status, test.fault.Drop), func(t *testing.T) {
			inWorld(t, func(w *world) {
				p := w.process()
				defer p.end()
				w.api.Fault(func(string, string) *standin.Fault { return &test.fault })
				w.notify(0, 1)
				began := time.Now()
				p.Use(p.config())
				w.within(5*time.Second, "it to fail", func() bool { return p.state() == "failing "+string(test.reason) })
				if test.level == zapcore.WarnLevel {
					if _, told := p.told(); told > 0 || p.logged(zapcore.WarnLevel, cannotForNow) != 1 {
						t.Errorf("told %d times, logged %v", told, p.logs.All())
					}
				}
				time.Sleep(5 * time.Minute)
				last, told := p.told()
				if told < 2 {
					t.Fatalf("told %d times", told)
				}
				if last.Reason != test.reason || last.Instance != instance || last.Level != zapcore.ErrorLevel || last.Kind != "none" {
					t.Errorf("told %+v", last)
				}
				if first := p.notes[0].At.Sub(began); test.level == zapcore.WarnLevel && first < time.Minute || test.level == zapcore.ErrorLevel && first > 5*time.Second {
					t.Errorf("told after %s", first)
				}
				w.api.Fault(nil)
				w.within(2*time.Minute, "it to be received", w.empty)
				time.Sleep(5 * time.Minute)
				p.wantRecovered(told+1, "Notifications are received again.")
				if p.logged(zapcore.ErrorLevel, cannot) != 1 || p.logged(zapcore.InfoLevel, again) != 1 || p.state() != Receiving {
					t.Errorf("state %s, logged %v", p.state(), p.logs.All())
				}
				for _, entry := range p.logs.FilterMessage(cannot).All() {
					fields := entry.ContextMap()
					if fields["instance"] != instance || fields["reason"] != string(test.reason) || fields["api_url"] != "{env.API}" || fields["error"] == nil {
						t.Errorf("logged %v", fields)
					}
				}
				if text := fmt.Sprint(p.logs.All(), p.notes); strings.Contains(text, token) || strings.Contains(text, "10.0.0.1") {
					t.Errorf("a secret is shown: %s", text)
				}
			})
		})
	}
}

// TestRetryAfter: the API is left alone for as long as it asks for, but not until the queue is lost; also
// across reloads that change nothing about how it is asked. Another token is tried at once.
func TestRetryAfter(t *testing.T) {
	for wish, want := range map[string]time.Duration{"100": 100 * time.Second, "86400": 15 * time.Minute} {
		inWorld(t, func(w *world) {
			p := w.process()
			defer p.end()
			var mu sync.Mutex
			var at []time.Time
			calls := func() int {
				mu.Lock()
				defer mu.Unlock()
				return len(at)
			}
			w.api.Fault(func(string, string) *standin.Fault {
				mu.Lock()
				defer mu.Unlock()
				at = append(at, time.Now())
				return &standin.Fault{Status: 429, RetryAfter: wish, Delay: 2 * time.Second} // a reload comes before the answer
			})
			c := p.config()
			p.Use(c)
			w.within(10*time.Second, "a call", func() bool { return calls() == 1 })
			for range 5 {
				next := p.config()
				p.Use(next)
				p.Drop(c)
				c = next
				time.Sleep(time.Second)
			}
			w.within(time.Hour, "another", func() bool { return calls() == 2 })
			if pause := at[1].Sub(at[0]) - 2*time.Second; pause < want || pause > want*11/10 {
				t.Errorf("Retry-After %s: asked again after %s, want %s to a tenth more", wish, pause, want)
			}
			w.api.Fault(nil)
			w.api.Add(instance, "another-token")
			w.notify(0, 1)
			other := p.config()
			other.Client.Token = "another-token"
			p.Use(other)
			if took := w.within(time.Minute, "it to be received", w.empty); took > time.Second {
				t.Errorf("received after %s", took)
			}
		})
	}
}

// TestNoWait: an API that does not wait for a notification is not asked all the time.
func TestNoWait(t *testing.T) {
	inWorld(t, func(w *world) {
		p := w.process()
		defer p.end()
		w.api.Fault(func(string, string) *standin.Fault { return &standin.Fault{Status: http.StatusOK, Body: "null"} })
		p.Use(p.config())
		time.Sleep(time.Minute)
		before := w.api.Calls("receiveNotification")
		time.Sleep(time.Minute)
		if n := w.api.Calls("receiveNotification") - before; n < 12 || n > 24 {
			t.Errorf("asked %d times in a minute, want once in 2.5s to 5s", n)
		}
	})
}

// TestReload: across reloads there is one receiver with one call at a time. The newest config takes what
// comes, and one whose load has failed leaves nothing behind.
func TestReload(t *testing.T) {
	inWorld(t, func(w *world) {
		p := w.process()
		defer p.end()
		var by []int
		with := func(n int) *Config {
			c := p.config()
			c.Take = func(body []byte) bool {
				by = append(by, n)
				return w.take(body)
			}
			return c
		}
		first, second := with(1), with(2)
		p.Use(first)
		w.within(10*time.Second, "a call", func() bool { return w.api.Calls("receiveNotification") == 1 })
		p.Use(second)
		w.notify(0, 1)
		w.within(time.Second, "it to be received", w.empty)
		p.Drop(second)
		w.notify(1, 1)
		w.within(time.Second, "it to be received", w.empty)
		if !slices.Equal(by, []int{2, 1}) {
			t.Errorf("taken by %v", by)
		}
		if now, most := w.api.Polling(instance); now != 1 || most != 1 {
			t.Errorf("%d calls, %d at most", now, most)
		}
		p.Drop(second) // again
		p.Drop(first)
		synctest.Wait()
		if now, _ := w.api.Polling(instance); now != 0 || p.state() != "" {
			t.Errorf("%d calls, state %q", now, p.state())
		}
		p.Use(first)
		w.notify(2, 1)
		w.within(10*time.Second, "it to come back", w.empty)
		w.wantTaken(0, 1, 2)
		w.api.Add(instance, "another-token") // while a call waits
		w.notify(3, 1)
		other := with(3)
		other.Client.Token = "another-token"
		p.Use(other)
		w.within(time.Second, "it to be received", w.empty)
	})
}

// TestOneAtATime: a receiver begins only when the one before, which was told to stop, has nothing in hand
// any longer.
func TestOneAtATime(t *testing.T) {
	inWorld(t, func(w *world) {
		p := w.process()
		defer p.end()
		began, goOn := make(chan struct{}, 2), make(chan struct{})
		w.handle(func(string) bool {
			began <- struct{}{}
			<-goOn
			return true
		})
		w.notify(0, 2)
		c := p.config()
		p.Use(c)
		<-began
		p.Drop(c)
		p.Use(p.config())
		time.Sleep(time.Hour)
		w.wantTaken(0)
		close(goOn)
		w.within(10*time.Second, "both to be received", w.empty)
		w.wantTaken(0, 1)
	})
}

// TestOtherQueue: the numbers of receipts begin again in another queue, which must not look like what was
// handled already. 0 is a number like any other.
func TestOtherQueue(t *testing.T) {
	inWorld(t, func(w *world) {
		p := w.process()
		defer p.end()
		var failed atomic.Bool
		w.api.Fault(func(method, _ string) *standin.Fault {
			if method == "deleteNotification" { // so that it is remembered
				failed.Store(true)
				return &standin.Fault{Status: http.StatusForbidden}
			}
			return nil
		})
		w.notify(1, 1)
		p.Use(p.config())
		w.within(10*time.Second, "a deletion that fails", failed.Load)
		other := standin.New(standin.Options{NoLimits: true})
		defer other.Close()
		other.Add(instance, token)
		var zero atomic.Bool
		other.Fault(func(method, _ string) *standin.Fault {
			if method == "receiveNotification" && other.Queued(instance) == 0 && zero.CompareAndSwap(false, true) {
				return &standin.Fault{Status: http.StatusOK, Body: `{"receiptId":0,"body":{"n":3}}`}
			}
			return nil
		})
		other.Notify(instance, []byte(body(1))) // with the same number
		c := p.config()
		c.Client.URL, c.Client.HTTP = "http://other.example.com", &http.Client{Transport: other.Transport()}
		p.Use(c)
		w.within(10*time.Second, "the other to be received", func() bool { return other.Queued(instance) == 0 && zero.Load() })
		w.wantTaken(1, 1, 3)
	})
}

// TestNotDeleted: an API that deletes nothing and says so is not asked all the time, and the operator
// hears of it.
func TestNotDeleted(t *testing.T) {
	inWorld(t, func(w *world) {
		p := w.process()
		defer p.end()
		w.api.Fault(func(method, _ string) *standin.Fault {
			if method == "deleteNotification" {
				return &standin.Fault{Status: http.StatusOK, Body: `{"result":false,"reason":"internal"}`}
			}
			return nil
		})
		w.notify(0, 1)
		p.Use(p.config())
		w.within(time.Minute, "it to be told", func() bool { last, _ := p.told(); return strings.Contains(last.More, errNotDeleted.Error()) })
		time.Sleep(10 * time.Minute)
		before := w.api.Calls("receiveNotification")
		time.Sleep(10 * time.Minute)
		if n := w.api.Calls("receiveNotification") - before; n > 20 {
			t.Errorf("asked %d times in 10 minutes", n)
		}
		if n := p.logged(zapcore.ErrorLevel, cannot); n != 1 {
			t.Errorf("logged %d times", n)
		}
		w.wantTaken(0)
	})
}

// TestStorage: without a lease nothing is received, and the operator hears of it.
func TestStorage(t *testing.T) {
	inWorld(t, func(w *world) {
		p := w.process()
		defer p.end()
		w.notify(0, 1)
		p.mu.Lock()
		p.fault = errors.New("disk on fire")
		p.mu.Unlock()
		p.Use(p.config())
		w.within(10*time.Second, "it to be told", func() bool { last, _ := p.told(); return last.Reason == reason.Storage })
		time.Sleep(10 * time.Minute)
		if n := w.api.Calls("receiveNotification"); n != 0 || p.state() != "failing "+string(reason.Storage) || p.logged(zapcore.ErrorLevel, cannot) != 1 {
			t.Errorf("%d calls without a lease, state %s, logged %v", n, p.state(), p.logs.All())
		}
		p.mu.Lock()
		p.fault = nil
		p.mu.Unlock()
		w.within(DefaultTimes().LongestPause+lease.DefaultTimes().Settle, "it to be received", w.empty)
		w.wantTaken(0)
		p.wantRecovered(1000, "Notifications are received again.")
	})
}

// TestRecoveredBoth: that the storage works again is no recovery while the API fails.
func TestRecoveredBoth(t *testing.T) {
	inWorld(t, func(w *world) {
		p := w.process()
		defer p.end()
		w.api.Fault(func(string, string) *standin.Fault { return &standin.Fault{Status: 401} })
		p.Use(p.config())
		tells := func(why reason.Reason) {
			w.t.Helper()
			w.within(time.Minute, "it to be told", func() bool { last, _ := p.told(); return last.Reason == why })
		}
		breaks := func(fault error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.fault = fault
		}
		tells(reason.APIRefused)
		breaks(errors.New("disk on fire"))
		tells(reason.Storage)
		breaks(nil)
		tells(reason.APIRefused)
		w.api.Fault(func(string, string) *standin.Fault { return &standin.Fault{Status: 503} }) // for less than is told of
		w.within(2*time.Minute, "it to fail so", func() bool { return p.state() == "failing "+string(reason.APIUnavailable) })
		w.api.Fault(nil)
		w.notify(0, 1)
		w.within(2*time.Minute, "it to be received", w.empty)
		time.Sleep(time.Hour)
		p.wantRecovered(1000, "Notifications are received again.")
		for _, n := range p.notes[:len(p.notes)-1] {
			if n.Reason == reason.Recovered {
				t.Errorf("told %+v", p.notes)
			}
		}
	})
}

// TestMany: hundreds of instances are received by one process, each in its order.
func TestMany(t *testing.T) {
	inWorld(t, func(w *world) {
		p := w.process()
		defer p.end()
		const many = 500
		for n := range many {
			id := fmt.Sprint(1102000000 + n)
			w.api.Add(id, token)
			for i := range 3 {
				w.api.Notify(id, []byte(body(i)))
			}
			p.Use(p.configOf(id))
		}
		w.within(10*time.Second, "all to be received", func() bool {
			for n := range many {
				if w.api.Queued(fmt.Sprint(1102000000+n)) > 0 {
					return false
				}
			}
			return true
		})
		if len(w.taken) != 3*many || len(w.files) != many+1 || p.Count(Receiving) != many {
			t.Errorf("%d taken, %d leases and signs of life, %d receivers", len(w.taken), len(w.files), p.Count(Receiving))
		}
	})
}
