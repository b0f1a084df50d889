//go:build unix

package greenapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/standin"
)

// TestReceiveOtherQueue: the numbers of receipts begin again in another queue, which must not look
// like what was handled already. 0 is a number like any other.
func TestReceiveOtherQueue(t *testing.T) {
	const instance = "1101000001"
	one, two := edgetest.NewVendor(t, standin.Options{}, instance), edgetest.NewVendor(t, standin.Options{}, instance)
	handler := edgetest.NewUpstream(t, 200, nil)
	var failed atomic.Bool
	one.Fault(func(method, _ string) *standin.Fault {
		if method == "deleteNotification" { // so that it is remembered
			failed.Store(true)
			return &standin.Fault{Status: http.StatusForbidden}
		}
		return nil
	})
	var zero atomic.Bool
	two.Fault(func(method, _ string) *standin.Fault {
		if method == "receiveNotification" && zero.CompareAndSwap(false, true) {
			return &standin.Fault{Status: http.StatusOK, Body: `{"receiptId":0,"body":` + string(edgetest.NotificationOf(instance, 3)) + `}`}
		}
		return nil
	})
	want := edgetest.NoteAll(one, instance, 1)
	e := edgetest.Start(t, edgetest.Site(one.Receives(instance)+"reverse_proxy "+handler.Address))
	edgetest.Eventually(t, "a deletion that fails", failed.Load)
	two.Notify(instance, edgetest.NotificationOf(instance, 2)) // with the same number
	if err := e.Load(edgetest.Site(two.Receives(instance) + "reverse_proxy " + handler.Address)); err != nil {
		t.Fatal(err)
	}
	edgetest.Eventually(t, "the other to be received", func() bool { return two.Queued(instance) == 0 })
	handler.WantTaken(t, append(want, string(edgetest.NotificationOf(instance, 3)), string(edgetest.NotificationOf(instance, 2))))
}

// TestReceiveNotDeleted: an API that deletes nothing and says so is not asked all the time, and the
// operator is told.
func TestReceiveNotDeleted(t *testing.T) {
	const instance = "1101000001"
	v := edgetest.NewVendor(t, standin.Options{}, instance)
	v.Fault(func(method, _ string) *standin.Fault {
		if method == "deleteNotification" {
			return &standin.Fault{Status: http.StatusOK, Body: `{"result":false,"reason":"internal"}`}
		}
		return nil
	})
	want := edgetest.NoteAll(v, instance, 1)
	handler := edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Site(v.Receives(instance)+"reverse_proxy "+handler.Address))
	edgetest.Eventually(t, "it to be told", func() bool {
		return strings.Contains(e.Logs.All(), "deleteNotification: the notification is not deleted, and comes again")
	})
	before := v.Calls("receiveNotification")
	time.Sleep(2 * testTimes.LongestPause)
	if n := v.Calls("receiveNotification") - before; n > 12 {
		t.Errorf("asked %d times in %s", n, 2*testTimes.LongestPause)
	}
	handler.WantTaken(t, want)
}

// TestReceiveLateFailure: a config that fails after its apps have started leaves no receiver behind,
// and that of the config before goes on with its own handlers.
func TestReceiveLateFailure(t *testing.T) {
	const instance = "1101000001"
	v := edgetest.NewVendor(t, standin.Options{}, instance)
	good, bad := edgetest.NewUpstream(t, 200, nil), edgetest.NewUpstream(t, 200, nil)
	e := edgetest.Start(t, edgetest.Site(v.Receives(instance)+"reverse_proxy "+good.Address))
	text, err := edgetest.Adapt(strings.NewReplacer("PORT", e.Port, "DIR", e.Dir).Replace(edgetest.Site(v.Receives(instance) + "reverse_proxy " + bad.Address)))
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	// Caddy loads a config from elsewhere when all else has started.
	config["admin"] = map[string]any{"disabled": true, "config": map[string]any{"persist": false, "load": map[string]any{"module": "http", "url": "http://127.0.0.1:1/"}}}
	if text, err = json.Marshal(config); err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(text, true); err == nil {
		t.Fatal("loads")
	}
	want := edgetest.NoteAll(v, instance, 2)
	edgetest.Eventually(t, "both to be received", func() bool { return v.Queued(instance) == 0 })
	good.WantTaken(t, want)
	bad.WantTaken(t, nil)
	if err := e.Load(edgetest.Site(edgetest.Loopback)); err != nil {
		t.Fatal(err)
	}
	edgetest.Eventually(t, "the receiver to end", func() bool { now, _ := v.Polling(instance); return now == 0 && len(receivers.States()) == 0 })
}

// receivingEdge is a process that receives, with a storage that it shares with others.
func receivingEdge(t *testing.T, v *edgetest.Vendor, dir, name, handler string) *edgetest.Process {
	t.Helper()
	e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(dir, name)}
	p := edgetest.StartProcess(t, e, edgetest.SiteWith("grace_period 2s\nstorage file_system "+filepath.Join(dir, "storage"),
		"green_api {\n"+v.Receives("1101000001")+"reverse_proxy "+handler+"\n}\nrespond 404\n"))
	t.Cleanup(func() { _ = p.Process.Kill() })
	return p
}

// TestReceiveProcesses: of two edges that share a storage one receives. When it is killed the other
// takes over, and what was not deleted comes again; when that is told to stop it ends with the
// notification in hand.
func TestReceiveProcesses(t *testing.T) {
	const instance, count = "1101000001", 40
	v := edgetest.NewVendor(t, standin.Options{}, instance)
	var slow atomic.Bool
	began := make(chan struct{}, 100)
	handler := edgetest.NewUpstream(t, 0, func(http.ResponseWriter, *http.Request) {
		if slow.Load() {
			began <- struct{}{}
			time.Sleep(300 * time.Millisecond)
		}
	})
	dir := t.TempDir()
	first := receivingEdge(t, v, dir, "first", handler.Address)
	edgetest.Eventually(t, "the first to receive", func() bool { return v.Calls("receiveNotification") > 0 })
	second := receivingEdge(t, v, dir, "second", handler.Address)
	polls := v.Calls("receiveNotification")
	edgetest.Eventually(t, "some requests", func() bool { return v.Calls("receiveNotification") > polls+3 })

	slow.Store(true)
	want := edgetest.NoteAll(v, instance, count)
	<-began
	if err := first.Process.Kill(); err != nil { // with one in hand
		t.Fatal(err)
	}
	_ = first.Wait()
	<-began // the second has it
	if _, most := v.Polling(instance); most != 1 {
		t.Errorf("%d requests at once, want 1", most)
	}
	slow.Store(false)
	edgetest.Eventually(t, "the second to receive", func() bool { return len(v.Deleted(instance)) > count/2 })
	slow.Store(true)
	for len(began) > 0 {
		<-began
	}
	edgetest.NoteAll(v, instance, 2)
	<-began
	if err := second.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := second.Wait(); err != nil {
		t.Errorf("the second edge ended with %v", err)
	}
	got := handler.Requests()
	if deleted := len(v.Deleted(instance)); deleted != len(got)-1 {
		t.Errorf("%d deleted, %d handled, want one more: that of the edge that was killed", deleted, len(got))
	}
	for i, body := range append([]string{want[0]}, want[:min(len(want), len(got)-1)]...) {
		if got[i].Body != body {
			t.Fatalf("%d is %s, want %s", i, got[i].Body, body)
		}
	}
}

// TestReceiveStandstill: an edge that stood still has lost its lease, and learns it.
func TestReceiveStandstill(t *testing.T) {
	const instance = "1101000001"
	v := edgetest.NewVendor(t, standin.Options{}, instance)
	handler := edgetest.NewUpstream(t, 200, nil)
	dir := t.TempDir()
	first := receivingEdge(t, v, dir, "first", handler.Address)
	want := edgetest.NoteAll(v, instance, 1)
	edgetest.Eventually(t, "the first to receive", func() bool { return v.Queued(instance) == 0 })
	receivingEdge(t, v, dir, "second", handler.Address)
	if err := first.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus // the signal alone leaves it time to take the next one in hand
	if _, err := syscall.Wait4(first.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("not stopped: %v, %v", status, err)
	}
	want = append(want, edgetest.NoteAll(v, instance, 1)...)
	edgetest.Eventually(t, "the second to receive", func() bool { return v.Queued(instance) == 0 })
	if err := first.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		v.Notify(instance, edgetest.NotificationOf(instance, i))
		want = append(want, string(edgetest.NotificationOf(instance, i)))
		time.Sleep(20 * time.Millisecond) // so that the first has time to ask
	}
	edgetest.Eventually(t, "all to be received", func() bool { return v.Queued(instance) == 0 })
	handler.WantTaken(t, want)
}

// TestReceiveStopBounded: the end of the process waits for what is in hand as long as grace_period
// says, and for the API some seconds.
func TestReceiveStopBounded(t *testing.T) {
	const instance = "1101000001"
	for name, hangs := range map[string]string{"the handler hangs": "handler", "the API hangs": "deleteNotification"} {
		t.Run(name, func(t *testing.T) {
			v := edgetest.NewVendor(t, standin.Options{}, instance)
			var inHand atomic.Bool
			v.Fault(func(method, _ string) *standin.Fault {
				if method == hangs {
					inHand.Store(true)
					return &standin.Fault{Delay: time.Minute}
				}
				return nil
			})
			handler := edgetest.NewUpstream(t, 0, func(_ http.ResponseWriter, r *http.Request) {
				if hangs == "handler" {
					inHand.Store(true)
					<-r.Context().Done()
				}
			})
			p := receivingEdge(t, v, t.TempDir(), "edge", handler.Address)
			edgetest.NoteAll(v, instance, 1)
			edgetest.Eventually(t, "it to be in hand", inHand.Load)
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

// TestReceivePauseOverReload: what GREEN-API asked for holds over reloads that change nothing about it.
func TestReceivePauseOverReload(t *testing.T) {
	const instance = "1101000001"
	v := edgetest.NewVendor(t, standin.Options{}, instance)
	handler := edgetest.NewUpstream(t, 200, nil)
	v.Fault(func(string, string) *standin.Fault { return &standin.Fault{Status: 429, RetryAfter: "600"} })
	config := func(n int) string {
		return edgetest.Site(fmt.Sprintf("deliver {\ntimeout %ds\n}\n", 100+n) + v.Receives(instance) + "reverse_proxy " + handler.Address)
	}
	e := edgetest.Start(t, config(0))
	edgetest.Eventually(t, "a request", func() bool { return v.Calls("receiveNotification") == 1 })
	for i := range 5 {
		if err := e.Load(config(i + 1)); err != nil {
			t.Fatal(err)
		}
	}
	if n := v.Calls("receiveNotification"); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	// Another token is tried at once.
	v.Fault(nil)
	v.Add(instance, "another-token")
	edgetest.NoteAll(v, instance, 1)
	if err := e.Load(strings.ReplaceAll(config(0), edgetest.APIToken, "another-token")); err != nil {
		t.Fatal(err)
	}
	edgetest.Eventually(t, "it to be received", func() bool { return v.Queued(instance) == 0 })
}
