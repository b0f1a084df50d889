package browsertest

import (
	"strings"
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

	// What is drawn while the words of another language come is in that language once they are there.
	eval[bool](p, `(() => { const real = window.fetch; window.fetch = async (...what) => {
		const answer = await real(...what), words = answer.json.bind(answer);
		if (String(what[0]).includes('/lang/')) answer.json = () => new Promise((come) => { window.letWordsCome = () => come(words()); });
		return answer;
	}; return true; })()`)
	p.click("button[data-act=language]")
	p.await("window.letWordsCome")
	p.screen("#/handlers")
	p.awaitText("main tbody", "мс")
	eval[bool](p, "(window.letWordsCome(), true)")
	p.await("document.documentElement.lang === 'en'")
	p.awaitText("main tbody", "ms")
	if seen := p.text("main tbody"); strings.Contains(seen, "мс") {
		t.Errorf("in English, it shows %s", seen)
	}
	p.wantQuiet(c.origin)
}
