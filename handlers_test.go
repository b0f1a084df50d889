package greenapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/notification"
)

// TestSlowHandler: a handler that lets a sender wait is told of while it does, and not again so soon.
func TestSlowHandler(t *testing.T) {
	answer := make(chan struct{})
	up := edgetest.NewUpstream(t, 0, func(http.ResponseWriter, *http.Request) { <-answer })
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	warnSoon()
	const told = "handler is slow to answer, and the sender waits for it"
	first := make(chan int)
	go func() { first <- e.Post(edgetest.TextMessage) }()
	edgetest.Eventually(t, "WARN", func() bool { return strings.Contains(e.Logs.All(), told) })
	before, after, _ := strings.Cut(e.Logs.All(), told)
	line := before[strings.LastIndex(before, "\n")+1:] + after
	line, _, _ = strings.Cut(line, "\n")
	close(answer)
	if status := <-first; status != 200 {
		t.Errorf("answered %d", status)
	}

	h := holdFleet(defaultName).newest.Load()
	defer releaseFleet(defaultName)
	c := &outcome.Case{N: new(notification.Notification)}
	for _, test := range []struct {
		handler string
		after   time.Duration
		want    int
	}{{up.Address, 0, 1}, {"another:80", 0, 2}, {up.Address, 5 * time.Minute, 3}} {
		h.tellSlow(c, test.handler, time.Now().Add(test.after))
		if n := strings.Count(e.Logs.All(), told); n != test.want {
			t.Errorf("%s, after %s: told %d times, want %d", test.handler, test.after, n, test.want)
		}
	}
	for _, want := range []string{`"level":"warn"`, `"handler":"` + up.Address + `"`, `"instance":"1101000001"`} {
		if !strings.Contains(line, want) {
			t.Errorf("record %s, want %s", line, want)
		}
	}
}

// TestHandlerFails: a handler that others stand in for is named once, and when it is well again.
func TestHandlerFails(t *testing.T) {
	quickAlerts(t)
	in := edgetest.NewInbox(t, nil)
	sick, well := edgetest.Script(t, "503", "503", "503", "200"), edgetest.Script(t, "200")
	e := edgetest.Start(t, edgetest.Alerting(in.URL, "", edgetest.Loopback+"reverse_proxy "+sick.Address+" "+well.Address+" {\nlb_policy first\n}"))
	for i := range 3 {
		if status := e.Post(edgetest.Numbered(fmt.Sprint("N", i))); status != 200 {
			t.Errorf("status %d", status)
		}
		e.WantRecord("outcome", "delivered", "level", "info", "handler", well.Address, "attempts", "2", "tried", "["+sick.Address+": 503]")
	}
	e.Post(edgetest.Numbered("WELL"))
	logs := e.Logs.All()
	if n := strings.Count(logs, "handler fails, others are asked if there are any"); n != 1 {
		t.Errorf("told %d times", n)
	}
	if !strings.Contains(logs, `"msg":"handler takes notifications again","handler":"`+sick.Address+`"`) {
		t.Error("not told that it is well again")
	}
	const over = `"reason":"recovered"`
	edgetest.Eventually(t, "alerts", func() bool { return strings.Contains(strings.Join(in.All(), ""), over) })
	if got := in.All(); len(got) != 2 || !strings.Contains(got[0], "Handler "+sick.Address+": not_now.") ||
		!strings.Contains(got[1], "Handler "+sick.Address+" takes notifications again.") || !strings.Contains(got[1], `"level":"info"`) {
		t.Errorf("told %q", got)
	}
}
