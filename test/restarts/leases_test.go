//go:build unix

package restarts

import (
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/standin"
)

const instance = "1101000001"

// site is edges that share a storage and a handler.
type site struct {
	t       *testing.T
	vendor  *edgetest.Vendor
	dir     string
	handler *edgetest.Upstream
}

func newSite(t *testing.T, handler func(http.ResponseWriter, *http.Request)) *site {
	t.Helper()
	t.Parallel()
	return &site{t, edgetest.NewVendor(t, standin.Options{Scale: 1}, instance), t.TempDir(), edgetest.NewUpstream(t, 200, handler)}
}

// edge starts one, which receives or stands by.
func (s *site) edge(name string) *edgetest.Process {
	s.t.Helper()
	e := &edgetest.Edge{T: s.t, Port: edgetest.FreePort(s.t), Dir: filepath.Join(s.dir, name)}
	p := edgetest.StartProcess(s.t, e, edgetest.SiteWith("grace_period 2s\nstorage file_system "+filepath.Join(s.dir, "storage"),
		"green_api {\n"+s.vendor.Receives(instance)+"reverse_proxy "+s.handler.Address+"\n}\nrespond 404\n"))
	s.t.Cleanup(func() { _ = p.Process.Kill() })
	return p
}

// two starts two edges, of which the first receives, and the second has seen that it is alive.
func (s *site) two() (first, second *edgetest.Process) {
	s.t.Helper()
	first = s.edge("first")
	within(s.t, 20*time.Second, "the first to receive", func() bool { return s.vendor.Calls("receiveNotification") > 0 })
	second = s.edge("second")
	within(s.t, 20*time.Second, "the second to show itself", func() bool {
		signs, _ := os.ReadDir(filepath.Join(s.dir, "storage", "green_api", "edges"))
		return len(signs) == 2
	})
	time.Sleep(time.Second) // as one look at the first takes
	return first, second
}

// takeover is how long the second may take to receive when the first is gone without a word: what
// docs/receiving.md says, and more on a machine that has a lot to do.
const takeover = 60 * time.Second

// within waits for what happens on its own.
func within(t *testing.T, most time.Duration, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(most); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, most)
		}
	}
}

func (s *site) empty() bool { return s.vendor.Queued(instance) == 0 }

// TestKill: of two edges that share a storage one receives. When it is killed the other takes over, and
// what was not deleted comes again; when that is told to stop it ends with the notification in hand.
func TestKill(t *testing.T) {
	edgetest.Proof(t)
	const count = 40
	var slow atomic.Bool
	began := make(chan struct{}, 100)
	s := newSite(t, func(http.ResponseWriter, *http.Request) {
		if slow.Load() {
			began <- struct{}{}
			time.Sleep(300 * time.Millisecond)
		}
	})
	first, second := s.two()
	slow.Store(true)
	want := edgetest.NoteAll(s.vendor, instance, count)
	<-began
	if err := first.Process.Kill(); err != nil { // with one in hand
		t.Fatal(err)
	}
	_ = first.Wait()
	within(t, takeover, "the second to take over", func() bool { return len(began) > 0 })
	<-began
	if _, most := s.vendor.Polling(instance); most != 1 {
		t.Errorf("%d requests at once, want 1", most)
	}
	slow.Store(false)
	within(t, 20*time.Second, "the second to receive", func() bool { return len(s.vendor.Deleted(instance)) > count/2 })
	slow.Store(true)
	for len(began) > 0 {
		<-began
	}
	edgetest.NoteAll(s.vendor, instance, 2)
	<-began
	if err := second.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := second.Wait(); err != nil {
		t.Errorf("the second edge ended with %v", err)
	}
	got := s.handler.Requests()
	if deleted := len(s.vendor.Deleted(instance)); deleted != len(got)-1 {
		t.Errorf("%d deleted, %d handled, want one more: that of the edge that was killed", deleted, len(got))
	}
	for i, body := range append([]string{want[0]}, want[:min(len(want), len(got)-1)]...) {
		if got[i].Body != body {
			t.Fatalf("%d is %s, want %s", i, got[i].Body, body)
		}
	}
}

// TestStandstill: an edge that stood still has lost its lease, and learns it.
func TestStandstill(t *testing.T) {
	edgetest.Proof(t)
	s := newSite(t, nil)
	first, _ := s.two()
	want := edgetest.NoteAll(s.vendor, instance, 1)
	within(t, 20*time.Second, "the first to receive", s.empty)
	if err := first.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus // the signal alone leaves it time to take the next one in hand
	if _, err := syscall.Wait4(first.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("not stopped: %v, %v", status, err)
	}
	want = append(want, edgetest.NoteAll(s.vendor, instance, 1)...)
	within(t, takeover, "the second to receive", s.empty)
	if err := first.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		s.vendor.Notify(instance, edgetest.NotificationOf(instance, i))
		want = append(want, string(edgetest.NotificationOf(instance, i)))
		time.Sleep(20 * time.Millisecond) // so that the first has time to ask
	}
	within(t, takeover, "all to be received", s.empty)
	s.handler.WantTaken(t, want)
}

// TestStopBounded: the end of the process waits for what is in hand as long as grace_period says, and for
// the API some seconds.
func TestStopBounded(t *testing.T) {
	edgetest.Proof(t)
	for name, hangs := range map[string]string{"the handler hangs": "handler", "the API hangs": "deleteNotification"} {
		t.Run(name, func(t *testing.T) {
			var inHand atomic.Bool
			s := newSite(t, func(_ http.ResponseWriter, r *http.Request) {
				if hangs == "handler" {
					inHand.Store(true)
					<-r.Context().Done()
				}
			})
			s.vendor.Fault(func(method, _ string) *standin.Fault {
				if method == hangs {
					inHand.Store(true)
					return &standin.Fault{Delay: time.Minute}
				}
				return nil
			})
			p := s.edge("edge")
			edgetest.NoteAll(s.vendor, instance, 1)
			within(t, 20*time.Second, "it to be in hand", inHand.Load)
			began := time.Now()
			if err := p.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			_ = p.Wait()
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %s, with a grace_period of 2s", took)
			}
		})
	}
}
