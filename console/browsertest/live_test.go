package browsertest

import (
	"fmt"
	"testing"

	"github.com/chromedp/cdproto/input"
)

// TestLiveHolds: as long as somebody reads a row, by pointer, keyboard or finger, no other one takes its place.
func TestLiveHolds(t *testing.T) {
	t.Parallel()
	const (
		drawn   = "document.querySelectorAll('main[data-screen=live] tbody tr')"
		entryOf = ".querySelector('a').getAttribute('href')"
		inFocus = "document.activeElement.closest('tr')?.querySelector('a').getAttribute('href') ?? ''"
	)
	h := startHandler(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address())
	_, p := openConsole(t, e)
	sent := 0
	post := func(n int) {
		for range n {
			sent++
			e.post(fmt.Sprintf("{%d", sent))
		}
	}
	post(80)
	type place struct {
		X, Y  float64
		Entry string
	}
	placeOf := func(row int) place {
		return eval[place](p, fmt.Sprintf("(() => { const row = %s[%d], at = row.getBoundingClientRect(); return {X: at.left + 40, Y: at.top + at.height / 2, Entry: row%s} })()", drawn, row, entryOf))
	}
	under := func(at place) string {
		return eval[string](p, fmt.Sprintf("document.elementFromPoint(%f, %f).closest('tr')%s", at.X, at.Y, entryOf))
	}
	pointTo := func(x, y float64) {
		p.do(command(input.DispatchMouseEvent, input.DispatchMouseEventParams{Type: input.DispatchMouseEventTypeMouseMoved, X: x, Y: y}))
	}
	// comes posts one, and waits until the page has it: what is held is said with how many have come.
	comes := func() {
		post(1)
		p.await("document.querySelector('.pace').textContent.includes('new')")
	}
	begin := func() {
		p.screen("#/setup")
		p.screen("#/live")
		pointTo(5, 5)
		p.await(drawn + ".length >= 30 && document.activeElement.matches('main h1')")
	}

	begin()
	for range 4 {
		p.keys("j")
	}
	at := placeOf(8)
	pointTo(at.X, at.Y)
	pointTo(5, 5) // the pointer leaves, the focus stays
	focused := eval[string](p, inFocus)
	eval[bool](p, "window.dispatchEvent(new Event('resize'))")
	comes()
	if got := eval[string](p, inFocus); got != focused {
		t.Errorf("keyboard: the focus was on %s and is on %s", focused, got)
	}
	p.keys("\r")
	p.await(fmt.Sprintf("location.hash === %s", js(focused)))

	begin()
	at = placeOf(8)
	pointTo(at.X, at.Y)
	eval[bool](p, "window.scrollBy(0, 58), true")
	p.await("window.scrollY === 58")
	before := under(at)
	comes()
	if got := under(at); got != before {
		t.Errorf("pointer: after a scroll, %s was under it, and then %s", before, got)
	}
	eval[bool](p, "window.scrollTo(0, 0), true")

	begin()
	at = placeOf(5)
	touch := func(what input.DispatchTouchEventType, points ...*input.TouchPoint) {
		p.do(command(input.DispatchTouchEvent, input.DispatchTouchEventParams{Type: what, TouchPoints: points}))
	}
	touch(input.DispatchTouchEventTypeTouchStart, &input.TouchPoint{X: at.X, Y: at.Y})
	comes()
	touch(input.DispatchTouchEventTypeTouchEnd)
	p.await("location.hash.startsWith('#/quarantine/')")
	if got := eval[string](p, "location.hash"); got != at.Entry {
		t.Errorf("finger: pressed %s, opened %s", at.Entry, got)
	}
}
