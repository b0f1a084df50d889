package deliver

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestExit: when the process is told to end, what only waits for a handler is answered at once, and
// what a handler works at is finished.
func TestExit(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	up := edgetest.NewUpstream(t, 0, func(http.ResponseWriter, *http.Request) {
		close(began)
		<-goOn
	})
	e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(t.TempDir(), "quarantine")}
	e.URL = "http://127.0.0.1:" + e.Port + "/green-api/webhook"
	p := edgetest.StartProcess(t, e, edgetest.SiteWith("", "green_api /green-api/webhook* {\n"+edgetest.Loopback+"reverse_proxy 127.0.0.1:"+edgetest.FreePort(t)+"\n}\n"+
		"green_api /busy {\nname busy\n"+edgetest.Loopback+"reverse_proxy "+up.Address+"\n}\nrespond 404\n"))
	answer, busy := make(chan int), make(chan int)
	go func() { answer <- e.Post(edgetest.TextMessage) }()
	go func() {
		busy <- e.Send(http.MethodPost, "http://127.0.0.1:"+e.Port+"/busy", strings.NewReader(edgetest.TextMessage)).StatusCode
	}()
	<-began
	select {
	case status := <-answer:
		t.Fatalf("answered %d, although no handler is there", status)
	case <-time.After(300 * time.Millisecond):
	}
	told := time.Now()
	p.Process.Signal(syscall.SIGTERM)
	if status := <-answer; status != 503 {
		t.Errorf("status %d, want 503", status)
	}
	if took := time.Since(told); took > 10*time.Second { // it would wait for minutes
		t.Errorf("answered %s after the end was told", took)
	}
	close(goOn)
	if status := <-busy; status != 200 {
		t.Errorf("the one at work: status %d", status)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("%v\n%s", err, p.Output)
	}
}

// TestExitAsksNobodyElse: once the process is told to end, no further handler is asked.
func TestExitAsksNobodyElse(t *testing.T) {
	began, goOn := make(chan struct{}), make(chan struct{})
	a := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-goOn
		w.WriteHeader(http.StatusInternalServerError)
	})
	b := edgetest.NewUpstream(t, 200, nil)
	e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(t.TempDir(), "quarantine")}
	e.URL = "http://127.0.0.1:" + e.Port + "/green-api/webhook"
	p := edgetest.StartProcess(t, e, edgetest.Site(edgetest.Loopback+"reverse_proxy "+a.Address+" "+b.Address+" {\nlb_policy first\n}"))
	answer := make(chan int)
	go func() { answer <- e.Post(edgetest.TextMessage) }()
	<-began
	p.Process.Signal(syscall.SIGTERM)
	edgetest.Eventually(t, "the end", func() bool { // its listeners are closed after those that wait were told
		conn, err := net.Dial("tcp", "127.0.0.1:"+e.Port)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	close(goOn)
	if status := <-answer; status != 502 {
		t.Errorf("status %d, want 502", status)
	}
	if n := len(b.Requests()); n > 0 {
		t.Errorf("the other handler was asked %d times", n)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("%v\n%s", err, p.Output)
	}
}
