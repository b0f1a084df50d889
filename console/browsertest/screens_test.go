package browsertest

import (
	"testing"
)

// screens are those that an edge without a queue has.
var screens = []string{"#/overview", "#/live", "#/quarantine", "#/handlers", "#/instances", "#/activity", "#/setup"}

// TestQuiet: on no screen, in no language, does the browser complain, or is another origin asked.
func TestQuiet(t *testing.T) {
	h := startHandler(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address())
	e.post(message(1101000001, "79001234501", "Hello"))
	e.post(rawMessage(1101000001, "79001234501", "5"))
	c, p := openConsole(t, e)
	for _, language := range []string{"en", "ru"} {
		p.keep("language", language)
		p.await("document.documentElement.lang === " + js(language))
		for _, screen := range screens {
			p.screen(screen)
		}
		p.await("document.querySelector('#connection').dataset.state === 'live'")
	}
	p.wantQuiet(c.origin)
}
