package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/doctor"
	"github.com/greenapi-community/caddy-green-api/internal/judge"
	"github.com/greenapi-community/caddy-green-api/notification"
	"github.com/greenapi-community/caddy-green-api/sender"
)

// TestPauseFor: a pause takes as long as it is told to, or until its context ends.
func TestPauseFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if !pauseFor(t.Context(), 5*time.Second) || time.Since(began) != 5*time.Second {
			t.Errorf("paused for %s", time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if pauseFor(ctx, time.Minute) || time.Since(began) != 6*time.Second {
			t.Errorf("ended after %s", time.Since(began))
		}
	})
}

// TestSendAsks: without --admin, only an edge on this machine is asked.
func TestSendAsks(t *testing.T) {
	for target, want := range map[string]bool{
		"http://127.0.0.1:8080/x": true, "http://localhost/x": true, "http://LOCALHOST:80": true, "https://[::1]:8443/": true, "http://127.9.9.9": true,
		"http://[::ffff:127.0.0.1]/": true, "https://hooks.example.com/": false, "http://10.0.0.1/": false, "http://localhost.example.com/": false, "%": false,
	} {
		if got := onLoopback(target); got != want {
			t.Errorf("%s: %v, want %v", target, got, want)
		}
	}
	if got := watchEnds("https://hooks.example.com/", "").end(t.Context(), &sender.Report{Acknowledged: 1}, nil); got.known || !errors.Is(got.why, errNobodyAsked) {
		t.Errorf("%+v", got)
	}
	if got := watchEnds("http://127.0.0.1:1/", "").address; got != caddy.DefaultAdminListen {
		t.Errorf("asks %q", got)
	}
}

// TestSendStopsWaiting: an interrupt ends the wait for the edge's queue.
func TestSendStopsWaiting(t *testing.T) {
	var asked atomic.Int64
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			fmt.Fprint(w, `{"outcomes": {}}`)
			return
		}
		fmt.Fprint(w, `{"outcomes": {}, "waiting": 0, "queue": {"entries": 3, "put_total": 3}}`)
	}))
	defer admin.Close()
	w := watchEnds("http://127.0.0.1:1/", admin.Listener.Addr().String())
	ctx, interrupt := context.WithCancel(t.Context())
	w.wait, w.onWait = time.Hour, func(int) {
		if asked.Load() == 4 {
			interrupt()
		}
	}
	if got := w.end(ctx, &sender.Report{Acknowledged: 3}, nil); got.known || got.handled != 0 || got.left != 3 || asked.Load() != 4 {
		t.Errorf("asked %d times, %+v", asked.Load(), got)
	}
}

// TestChatID: the chats that send invents are of the kind of the example's.
func TestChatID(t *testing.T) {
	for _, test := range []struct{ example, first, third, last string }{
		{"79007654321@c.us", "70000000001@c.us", "70000000003@c.us", "70001000000@c.us"},
		{"120363000000000001@g.us", "120363000000000001@g.us", "120363000000000021@g.us", "120363000009999991@g.us"},
		{"10000002", "10000002", "10000022", "19999992"},
		{"-1001000000001", "-1001000000001", "-1001000000021", "-1001009999991"},
		{"odd", "odd", "odd", "odd"},
	} {
		if first, third, last := chatID(test.example, 0), chatID(test.example, 2), chatID(test.example, maxChats-1); first != test.first || third != test.third || last != test.last {
			t.Errorf("%s: %s, %s, %s", test.example, first, third, last)
		}
	}
}

// TestReadmeSends: the README's line of what send prints is what it prints: .ci/run compares them.
func TestReadmeSends(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	plan := sendPlan{instances: 1}
	if _, err := plan.queues(); err != nil {
		t.Fatal(err)
	}
	n := plan.total()
	var line bytes.Buffer
	if err := printReport(&line, &sender.Report{Sent: n, Acknowledged: n}, ends{why: errOthersCame}, n, formatText); err != nil {
		t.Fatal(err)
	}
	if want, _, _ := strings.Cut(line.String(), " in "); !strings.Contains(string(readme), "```text\n"+want+"\n```") {
		t.Errorf("README.md lacks %q", want)
	}
}

// TestPrintable: nothing in a finding or an error steers the terminal.
func TestPrintable(t *testing.T) {
	const steering = "\u007f\u009b\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
	clean := func(what, text string) {
		t.Helper()
		if text == "" || strings.ContainsAny(text, steering+"\x1b") {
			t.Errorf("%s: %q", what, text)
		}
	}
	var out bytes.Buffer
	c := &checker{out: &out, stderr: &out}
	found := finding{File: steering, Type: steering, Errors: []notification.Fault{{Pointer: steering, Keyword: steering}}}
	if err := c.print(found); err != nil {
		t.Error(err)
	}
	clean("check of an export", out.String())
	out.Reset()
	c = &checker{rules: judge.Rules{MaxBody: 1}, out: &out, stderr: &out, json: true}
	if err := c.printOne(steering, []byte(`{"receiptId":1,"body":{}}`)); err != nil {
		t.Error(err)
	}
	clean("check of an answer", out.String())
	out.Reset()
	if err := (ends{why: errors.New(steering)}).print(&out); err != nil {
		t.Error(err)
	}
	clean("how it ended", out.String())
}

// TestDoctorWell: of a config and a machine in which nothing is wrong, it says so, and ends with 0; an info does not change that.
func TestDoctorWell(t *testing.T) {
	file := filepath.Join(t.TempDir(), "edge.json")
	if err := os.WriteFile(file, []byte(`{"admin": {"disabled": true}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for container, want := range map[string]string{"": "nothing found in " + file + "\n", "podman": "info   stop_time_not_seen  podman\n"} {
		var out bytes.Buffer
		cmd := doctorCommand(Config{
			Examine: func([]byte) (doctor.Config, error) {
				return doctor.Config{Blocks: []doctor.Block{{Name: "default"}}}, nil
			},
			Machine: func(string) doctor.Machine { return doctor.Machine{Container: container} },
		})
		cmd.SetOut(&out)
		cmd.SetArgs([]string{"--config", file})
		if err := cmd.Execute(); err != nil || !strings.HasPrefix(out.String(), want) {
			t.Errorf("%q: %v, %s", container, err, out.String())
		}
	}
}

// TestDemoAdmin: the admin API of a demo is a socket, unless its path would be too long for one.
func TestDemoAdmin(t *testing.T) {
	for dir, want := range map[string]string{
		"/tmp/green-api-demo-1":                    "unix/" + filepath.Join("/tmp/green-api-demo-1", "admin.sock"),
		"/" + strings.Repeat("a", longestSocket-1): "127.0.0.1:",
	} {
		if got, err := demoAdmin(dir); err != nil || !strings.HasPrefix(got, want) || strings.HasSuffix(got, ":0") {
			t.Errorf("%s: %s, %v", dir, got, err)
		}
	}
}
