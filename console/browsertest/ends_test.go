package browsertest

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	isLive      = "document.querySelector('#connection')?.dataset.state === 'live'"
	isNotLive   = "document.querySelector('#connection')?.dataset.state !== 'live'"
	isHeard     = "document.querySelector('#connection')?.dataset.state !== 'lost'" // by a stream, or by asking again and again
	unreachable = "document.querySelector('main[data-state=unreachable]')"
)

// TestReload: eight pages that are open do not hold up a reload, and each goes on.
func TestReload(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address())
	c := startConsole(t, e)
	first := newTab(t)
	first.logIn(c)
	pages := []*tab{first}
	for range 7 {
		// Each has a profile of its own: a browser has six connections to a server, however many tabs there are.
		p := newTab(t)
		p.share(first)
		p.open(c.origin + "/#/live")
		pages = append(pages, p)
	}
	for _, p := range pages {
		p.await(isLive)
	}
	took := e.reload(strings.Replace(e.text(), "respond 404", "respond \"nothing here\" 404", 1))
	t.Logf("with %d open pages, a reload takes %.1f s", len(pages), took.Seconds())
	if most := 3 * time.Second; full() && took > most {
		t.Errorf("a reload takes %v, want at most %v", took, most)
	}
	if took > 10*time.Second { // longer than the grace period: something holds the old config
		t.Errorf("a reload takes %v", took)
	}
	e.post(message(1101000003, "79001234503", "after the reload"))
	first.screen("#/live")
	for _, p := range pages {
		p.await(isLive)
		p.awaitText("main[data-screen=live] tbody", "1101000003")
	}
}

// TestEdgeEnds: the page says that the edge is gone, and comes back with it.
func TestEdgeEnds(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address())
	_, p := openConsole(t, e)
	p.await(isLive)
	e.post(message(1101000003, "79001234503", "before"))
	p.await(sentence("All is well"))

	e.stop()
	p.await(isNotLive)
	p.await(unreachable)
	p.awaitText("main [role=alert]", "cannot be reached")
	e.start()
	p.appears("the page, after a restart", "!"+unreachable)
	p.appears("what ends, after a restart", isHeard)
	e.post(message(1101000004, "79001234504", "after"))
	p.screen("#/live")
	p.awaitText("tbody", "1101000004")

	// The edge stands still, as does the line of a laptop that sleeps: nothing is closed, nothing comes.
	if err := e.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.await(unreachable)
	if err := e.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	p.await("!" + unreachable)
	p.await(isHeard)
	e.post(message(1101000005, "79001234505", "awake"))
	p.awaitText("tbody", "1101000005")
}
