package sender

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// numbered is a queue of n bodies, "ID 0" and so on.
func numbered(id string, n int) Queue {
	return Queue{Instance: id, Notifications: func(yield func(Notification) bool) {
		for i := range n {
			body := fmt.Sprintf("%s %d", id, i)
			if !yield(Notification{Name: body, Body: []byte(body)}) {
				return
			}
		}
	}}
}

// receiver is a webhook that remembers what came, in order.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	got  []string
	when []time.Time
}

func newReceiver(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, body string)) *receiver {
	t.Helper()
	rc := new(receiver)
	rc.Server = httptest.NewServer(rc.handler(t, answer))
	t.Cleanup(rc.Close)
	return rc
}

func (rc *receiver) handler(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, body string)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		rc.mu.Lock()
		rc.got = append(rc.got, string(body))
		rc.when = append(rc.when, time.Now())
		rc.mu.Unlock()
		if answer != nil {
			answer(w, r, string(body))
		}
	})
}

// newNearReceiver returns a receiver without a network between, and its transport. Times pass by the clock of a
// bubble, which a network would keep from going on.
func newNearReceiver(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, body string)) (*receiver, http.RoundTripper) {
	t.Helper()
	rc := new(receiver)
	handler := rc.handler(t, answer)
	return rc, near(func(r *http.Request) (*http.Response, error) {
		answered := make(chan *http.Response, 1)
		go func() {
			w := httptest.NewRecorder()
			if r.Body == nil { // as of the GET after a redirect
				r.Body = http.NoBody
			}
			handler.ServeHTTP(w, r)
			answered <- w.Result()
		}()
		select {
		case response := <-answered:
			return response, nil
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	})
}

const nearURL = "http://hooks.example.com/"

type near func(*http.Request) (*http.Response, error)

func (n near) RoundTrip(r *http.Request) (*http.Response, error) { return n(r) }

func run(t *testing.T, options Options, queues ...Queue) *Report {
	t.Helper()
	report, err := Run(t.Context(), options, queues...)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// TestOrder: each queue is in order, one at a time, and queues do not wait for each other.
func TestOrder(t *testing.T) {
	var mu sync.Mutex
	busy := make(map[string]bool)
	rc := newReceiver(t, func(_ http.ResponseWriter, _ *http.Request, body string) {
		id, _, _ := strings.Cut(body, " ")
		mu.Lock()
		if busy[id] {
			t.Errorf("%s: two in flight", id)
		}
		busy[id] = true
		mu.Unlock()
		time.Sleep(time.Millisecond)
		mu.Lock()
		busy[id] = false
		mu.Unlock()
	})
	report := run(t, Options{URL: rc.URL}, numbered("A", 20), numbered("B", 20), numbered("C", 20))
	if report.Sent != 60 || report.Acknowledged != 60 || report.Resent != 0 || report.Stalled != 0 || report.Answers["200"] != 60 {
		t.Errorf("%+v", report)
	}
	next := make(map[string]int)
	for _, body := range rc.got {
		id, _, _ := strings.Cut(body, " ")
		if want := fmt.Sprintf("%s %d", id, next[id]); body != want {
			t.Fatalf("got %s, want %s", body, want)
		}
		next[id]++
	}
}

// TestResend: at anything but exactly 200 the very same one comes again after the pause, before
// what is behind it.
func TestResend(t *testing.T) {
	for _, status := range []int{201, 202, 204, 301, 400, 401, 404, 422, 500, 502, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rc, transport := newNearReceiver(t, refuseTwice(func(w http.ResponseWriter) {
					w.Header().Set("Location", "/elsewhere")
					w.WriteHeader(status)
				}))
				resend(t, rc, Options{URL: nearURL, Transport: transport}, DefaultPause, status)
				if again := rc.when[2].Sub(rc.when[1]); again != DefaultPause {
					t.Errorf("pause of %s", again)
				}
			})
		})
	}
	t.Run("hung up", func(t *testing.T) {
		rc := newReceiver(t, refuseTwice(func(http.ResponseWriter) { panic(http.ErrAbortHandler) }))
		resend(t, rc, Options{URL: rc.URL, Scale: 1000}, DefaultPause/1000, 0)
	})
}

// refuseTwice refuses the second and the third request.
func refuseTwice(refuse func(http.ResponseWriter)) func(http.ResponseWriter, *http.Request, string) {
	var asked atomic.Int64
	return func(w http.ResponseWriter, _ *http.Request, _ string) {
		if n := asked.Add(1); n == 2 || n == 3 {
			refuse(w)
		}
	}
}

// resend sends three notifications, of which the second is answered twice with a status, 0 for no answer.
func resend(t *testing.T, rc *receiver, options Options, pause time.Duration, status int) {
	t.Helper()
	var attempts []Attempt
	options.OnAttempt = func(a Attempt) { attempts = append(attempts, a) }
	report := run(t, options, numbered("A", 3))
	if want := []string{"A 0", "A 1", "A 1", "A 1", "A 2"}; !slices.Equal(rc.got, want) {
		t.Fatalf("got %q, want %q", rc.got, want)
	}
	for i := range 2 {
		if paused := rc.when[i+2].Sub(rc.when[i+1]); paused < pause {
			t.Errorf("pause of %s", paused)
		}
	}
	if report.Resent != 2 || report.Acknowledged != 3 || report.Lost != 0 || report.Stalled < 2*pause || report.LongestStall != report.Stalled {
		t.Errorf("%+v", report)
	}
	if a := attempts[2]; a.Number != 2 || a.Status != status || (a.Err == nil) == (status == 0) || !a.Again || a.Instance != "A" {
		t.Errorf("%+v", a)
	}
	if wait := report.Quantile(1); wait < 2*pause || report.Quantile(0.5) > wait/2 {
		t.Errorf("waited %s at most, %s in the middle", wait, report.Quantile(0.5))
	}
}

// TestGiveUp: after its time or its attempts a notification is lost, and the next one's turn.
func TestGiveUp(t *testing.T) {
	for _, test := range []struct {
		name    string
		options Options
		asked   int // how often the first is
		took    time.Duration
	}{
		{"attempts", Options{Attempts: 3}, 3, 2 * DefaultPause},
		{"time", Options{GiveUp: 250 * time.Second, Pause: 100 * time.Second}, 3, 200 * time.Second},
		{"by default", Options{}, 24 * 60, 24*time.Hour - DefaultPause},
		{"scaled time", Options{GiveUp: 250 * time.Second, Pause: 100 * time.Second, Scale: 1000}, 3, 200 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rc, transport := newNearReceiver(t, func(w http.ResponseWriter, _ *http.Request, body string) {
					if body == "A 0" {
						w.WriteHeader(500)
					}
				})
				test.options.URL, test.options.Transport = nearURL, transport
				queue := Queue{Instance: "A", Notifications: func(yield func(Notification) bool) {
					for n := range numbered("A", 2).Notifications {
						if n.Queued = time.Now(); !yield(n) { // the second when the first is lost
							return
						}
					}
				}}
				report := run(t, test.options, queue)
				if report.Lost != 1 || report.Acknowledged != 1 || report.Sent != 2 || len(rc.got) != test.asked+1 || report.Took != test.took {
					t.Errorf("%+v, asked %d times", report, len(rc.got))
				}
			})
		})
	}
}

// TestGiveUpQueued: what stands behind has its time from when it was queued, too, and can be lost before
// its turn.
func TestGiveUpQueued(t *testing.T) {
	for _, test := range []struct {
		name                      string
		rate                      float64
		queued                    time.Duration // of all, against the beginning; 0 for the default
		sent, resent, lost, taken int
	}{
		{"all at once", 0, 0, 1, 1, 3, 0},
		{"one after the other", 4, 0, 3, 1, 1, 2}, // 250ms apart
		{"a while before", 0, -250 * time.Millisecond, 1, 0, 3, 0},
		{"a day before", 0, -24 * time.Hour, 0, 0, 3, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, transport := newNearReceiver(t, func(w http.ResponseWriter, _ *http.Request, body string) {
					if body == "A 0" {
						time.Sleep(200 * time.Millisecond)
						w.WriteHeader(500)
					}
				})
				queue := numbered("A", 3)
				if test.queued != 0 {
					began, all := time.Now(), queue.Notifications
					queue.Notifications = func(yield func(Notification) bool) {
						for n := range all {
							n.Queued = began.Add(test.queued)
							if !yield(n) {
								return
							}
						}
					}
				}
				report := run(t, Options{URL: nearURL, Transport: transport, GiveUp: 400 * time.Millisecond, Pause: 100 * time.Millisecond, Rate: test.rate}, queue)
				if report.Sent != test.sent || report.Resent != test.resent || report.Lost != test.lost || report.Acknowledged != test.taken || report.Unfinished != 0 {
					t.Errorf("%+v", report)
				}
			})
		})
	}
}

// TestTimeout: no answer in time is a failure.
func TestTimeout(t *testing.T) {
	var asked atomic.Int64
	rc := newReceiver(t, func(_ http.ResponseWriter, r *http.Request, _ string) {
		if asked.Add(1) == 1 {
			<-r.Context().Done()
		}
	})
	report := run(t, Options{URL: rc.URL, Timeout: 50 * time.Millisecond, Pause: time.Millisecond}, numbered("A", 1))
	if report.Resent != 1 || report.Acknowledged != 1 || report.Answers[NoAnswer] != 1 {
		t.Errorf("%+v", report)
	}
}

// TestRequest has what is sent, for each form of the token.
func TestRequest(t *testing.T) {
	for token, want := range map[string]string{
		"": "", "abc": "Bearer abc", "Bearer abc": "Bearer abc", "bearer abc": "bearer abc", "Basic dXNlcjpwYXNz": "Basic dXNlcjpwYXNz",
	} {
		rc := newReceiver(t, func(_ http.ResponseWriter, r *http.Request, body string) {
			if got := r.Header.Get("Authorization"); got != want {
				t.Errorf("token %q: Authorization %q, want %q", token, got, want)
			}
			if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json; charset=utf-8" || r.URL.Path != "/hook" || r.ContentLength != int64(len(body)) {
				t.Errorf("%s %s, %v", r.Method, r.URL, r.Header)
			}
		})
		run(t, Options{URL: rc.URL + "/hook", Token: token}, numbered("A", 1))
	}
}

// TestConnections: connections are kept, one for an instance, or opened for each attempt.
func TestConnections(t *testing.T) {
	for newConnections, want := range map[bool]int64{false: 2, true: 100} {
		var opened atomic.Int64
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				opened.Add(1)
			}
		}
		server.StartTLS()
		run(t, Options{URL: server.URL, NewConnections: newConnections, Insecure: true}, numbered("A", 50), numbered("B", 50))
		server.Close()
		// The next attempt may begin just before the transport has its connection back; and one instance may
		// be done before the other begins.
		if got := opened.Load(); got < 1 || got > want+30 || newConnections && got != want {
			t.Errorf("new connections %t: %d, want %d", newConnections, got, want)
		}
	}
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	server.Config.ErrorLog = nil
	if report := run(t, Options{URL: server.URL, Attempts: 1}, numbered("A", 1)); report.Answers[NoAnswer] != 1 {
		t.Errorf("a certificate nobody signed: %+v", report)
	}
}

// TestInFlight: as many as are allowed, and no more.
func TestInFlight(t *testing.T) {
	var now, most atomic.Int64
	all := make(chan struct{})
	rc := newReceiver(t, func(http.ResponseWriter, *http.Request, string) {
		n := now.Add(1)
		if n > most.Load() {
			most.Store(n)
		}
		if n == 3 {
			close(all)
		}
		<-all
		now.Add(-1)
	})
	if report := run(t, Options{URL: rc.URL, InFlight: 3}, numbered("A", 3)); report.Acknowledged != 3 || most.Load() != 3 {
		t.Errorf("%+v, %d at once", report, most.Load())
	}
}

// TestRate: an instance begins with no more than the rate allows.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, transport := newNearReceiver(t, nil)
		began := time.Now()
		run(t, Options{URL: nearURL, Transport: transport, Rate: 100}, numbered("A", 11), numbered("B", 11))
		if took := time.Since(began); took != 100*time.Millisecond {
			t.Errorf("11 at 100 a second took %s", took)
		}
	})
}

// TestLastAcknowledged: the last 200 counts, not what was given up after it.
func TestLastAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, transport := newNearReceiver(t, func(w http.ResponseWriter, _ *http.Request, body string) {
			time.Sleep(time.Second)
			if body == "A 2" {
				w.WriteHeader(500)
			}
		})
		began := time.Now()
		report := run(t, Options{URL: nearURL, Transport: transport, Attempts: 2}, numbered("A", 3), numbered("B", 1))
		if report.LastAcknowledged != 2*time.Second || report.Took != 4*time.Second+DefaultPause || !report.Began.Equal(began) {
			t.Errorf("%+v", report)
		}
	})
}

// TestStop: a sender that is told to stop does so, and says how far it came.
func TestStop(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	rc := newReceiver(t, func(w http.ResponseWriter, _ *http.Request, body string) {
		if body == "A 1" {
			w.WriteHeader(503)
		}
	})
	began := time.Now()
	report, err := Run(ctx, Options{URL: rc.URL, OnAttempt: func(a Attempt) {
		if a.Again {
			stop()
		}
	}}, numbered("A", 5))
	if err != nil || report.Sent != 2 || report.Acknowledged != 1 || report.Lost != 0 || time.Since(began) > 10*time.Second {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestOptionsRefused(t *testing.T) {
	for _, options := range []Options{
		{},
		{URL: "hooks.example.com"},
		{URL: "ftp://hooks.example.com"},
		{URL: "http://"},
		{URL: "http://x", Pause: -1},
		{URL: "http://x", Rate: -1},
		{URL: "http://x", InFlight: -1},
		{URL: "http://x", Attempts: -1},
		{URL: "http://x", Scale: -1},
	} {
		if _, err := Run(t.Context(), options); err == nil {
			t.Errorf("%+v: no error", options)
		}
	}
}
