package drain

import (
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

type servers []func(net.Conn, http.ConnState)

func (s *servers) RegisterConnState(f func(net.Conn, http.ConnState)) { *s = append(*s, f) }

// TestWatch: a server is watched once, also if it has two handlers.
func TestWatch(t *testing.T) {
	d, server := New(), new(servers)
	d.Watch(server)
	d.Watch(server)
	if len(*server) != 1 {
		t.Errorf("watched %d times", len(*server))
	}
}

// TestWait holds how long is waited for which connections.
func TestWait(t *testing.T) {
	type event struct {
		after time.Duration
		state http.ConnState
	}
	const never = time.Hour
	for _, test := range []struct {
		name  string
		age   time.Duration // of the connection when the drain begins
		first http.ConnState
		then  event
		rests bool
		want  time.Duration
	}{
		{"kept, ends at once", 0, http.StateIdle, event{0, http.StateClosed}, false, 0},
		{"kept, ends", 0, http.StateIdle, event{400 * time.Millisecond, http.StateClosed}, false, 400 * time.Millisecond},
		{"kept, stays", 0, http.StateIdle, event{never, http.StateClosed}, false, Period},
		{"kept, stays, at rest", 0, http.StateIdle, event{never, http.StateClosed}, true, Period},
		{"hijacked", 0, http.StateActive, event{400 * time.Millisecond, http.StateHijacked}, false, 400 * time.Millisecond},
		{"busy", 0, http.StateActive, event{never, http.StateClosed}, false, Period},
		{"new, ends", 0, http.StateNew, event{400 * time.Millisecond, http.StateClosed}, false, 400 * time.Millisecond},
		{"new, sends", 0, http.StateNew, event{1500 * time.Millisecond, http.StateActive}, false, 1500 * time.Millisecond},
		{"new, sends, at rest", 0, http.StateNew, event{4 * time.Second, http.StateActive}, true, 4 * time.Second},
		{"new, silent", 0, http.StateNew, event{never, http.StateActive}, false, Period + freshPeriod},
		{"new, silent, at rest", 0, http.StateNew, event{never, http.StateActive}, true, silent},
		{"silent for a while, at rest", 3 * time.Second, http.StateNew, event{never, http.StateActive}, true, silent - 3*time.Second},
		{"silent for long", time.Minute, http.StateNew, event{never, http.StateActive}, false, Period},
		{"silent for long, at rest", time.Minute, http.StateNew, event{never, http.StateActive}, true, Period},
	} {
		synctest.Test(t, func(t *testing.T) {
			d, conn := New(), &net.TCPConn{}
			d.rests = test.rests
			d.connState(conn, http.StateNew)
			if test.first != http.StateNew {
				d.connState(conn, http.StateActive)
				d.connState(conn, test.first)
			}
			time.Sleep(test.age)
			if d.Active() {
				t.Errorf("%s: drains before it is told to", test.name)
			}
			began := time.Now()
			event := time.AfterFunc(test.then.after, func() { d.connState(conn, test.then.state) })
			defer event.Stop()
			d.Wait()
			if took := time.Since(began); took < test.want || took > test.want+2*time.Millisecond {
				t.Errorf("%s: waits for %s, want %s", test.name, took, test.want)
			}
			if !d.Active() {
				t.Errorf("%s: does not drain", test.name)
			}
		})
	}
}

// TestWaitAmongNew: while new connections come all the time, as to a listener that cannot rest, the wait
// ends, if possible in a moment when none of them is about to send.
func TestWaitAmongNew(t *testing.T) {
	for _, rests := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			d := New()
			d.rests = rests
			done := make(chan struct{})
			var conns [2]net.TCPConn
			go func() {
				for n := 0; ; n++ { // one at least is new at all times
					d.connState(&conns[n%2], http.StateNew)
					select {
					case <-done:
						return
					case <-time.After(10 * time.Millisecond):
					}
					if n > 0 {
						d.connState(&conns[(n+1)%2], http.StateClosed)
					}
				}
			}()
			synctest.Wait()
			began := time.Now()
			d.Wait()
			close(done)
			want := Period + freshPeriod
			if rests {
				want = Period + silent
			}
			if took := time.Since(began); took < want || took > want+2*time.Millisecond {
				t.Errorf("rests %t: waits for %s, want %s", rests, took, want)
			}
		})
	}
}
