package greenapi

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/notification"
)

// TestSlowHandler: a handler that lets a sender wait is told of while it does, and not again so soon.
func TestSlowHandler(t *testing.T) {
	answer := make(chan struct{})
	up := newUpstream(t, 0, func(http.ResponseWriter, *http.Request) { <-answer })
	e := start(t, site(loopback+"reverse_proxy "+up.address))
	const told = "handler is slow to answer, and the sender waits for it"
	first := make(chan int)
	go func() { first <- e.post(textMessage) }()
	eventually(t, "WARN", func() bool { return strings.Contains(e.logs.all(), told) })
	before, after, _ := strings.Cut(e.logs.all(), told)
	line := before[strings.LastIndex(before, "\n")+1:] + after
	line, _, _ = strings.Cut(line, "\n")
	close(answer)
	if status := <-first; status != 200 {
		t.Errorf("answered %d", status)
	}

	h := holdFleet(defaultName).newest.Load()
	defer releaseFleet(defaultName)
	v := &visit{n: new(notification.Notification)}
	for _, test := range []struct {
		handler string
		after   time.Duration
		want    int
	}{{up.address, 0, 1}, {"another:80", 0, 2}, {up.address, tellFailingEvery, 3}} {
		h.tellSlow(v, test.handler, time.Now().Add(test.after))
		if n := strings.Count(e.logs.all(), told); n != test.want {
			t.Errorf("%s, after %s: told %d times, want %d", test.handler, test.after, n, test.want)
		}
	}
	for _, want := range []string{`"level":"warn"`, `"handler":"` + up.address + `"`, `"instance":"1101000001"`} {
		if !strings.Contains(line, want) {
			t.Errorf("record %s, want %s", line, want)
		}
	}
}
