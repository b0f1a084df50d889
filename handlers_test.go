package greenapi

import (
	"net/http"
	"strings"
	"testing"
)

// TestSlowHandler: who lets a sender wait is told of while it does, and once.
func TestSlowHandler(t *testing.T) {
	answer := make(chan struct{})
	up := newUpstream(t, 0, func(http.ResponseWriter, *http.Request) { <-answer })
	e := start(t, site(loopback+"reverse_proxy "+up.address))
	const told = "handler is slow to answer, and the sender waits for it"
	first := make(chan int)
	go func() { first <- e.post(textMessage) }()
	eventually(t, "WARN", func() bool { return strings.Contains(e.logs.all(), told) })
	second := make(chan int)
	go func() { second <- e.post(stateChanged) }()
	eventually(t, "second notification", func() bool { return len(up.requests()) == 2 })
	close(answer)
	if a, b := <-first, <-second; a != 200 || b != 200 {
		t.Errorf("answered %d and %d", a, b)
	}
	all := e.logs.all()
	if strings.Count(all, told) != 1 {
		t.Errorf("told %d times", strings.Count(all, told))
	}
	line := all[strings.LastIndex(all[:strings.Index(all, told)], "\n")+1:]
	line, _, _ = strings.Cut(line, "\n")
	for _, want := range []string{`"level":"warn"`, `"handler":"` + up.address + `"`, `"instance":"1101000001"`} {
		if !strings.Contains(line, want) {
			t.Errorf("record %s, want %s", line, want)
		}
	}
}
