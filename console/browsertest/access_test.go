package browsertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// A look is one of the ways in which the page can be shown.
type look struct {
	theme, language string
	width           int64
}

func (l look) String() string { return fmt.Sprintf("%s-%s-%d", l.theme, l.language, l.width) }

// looks returns those that are tried: with the full bars all of them, otherwise each value once at least.
func looks() []look {
	if !full() {
		return []look{{"light", "en", 1440}, {"dark", "ru", 390}, {"light", "rtl", 390}}
	}
	var all []look
	for _, language := range []string{"en", "ru", "rtl"} {
		for _, theme := range []string{"light", "dark"} {
			for _, width := range []int64{390, 1440} {
				all = append(all, look{theme, language, width})
			}
		}
	}
	return all
}

// show shows the page in a way.
func (p *tab) show(l look) {
	p.t.Helper()
	p.size(l.width, 900)
	p.do(command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: l.theme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}}))
	eval[bool](p, "(localStorage.setItem('theme', "+js(l.theme)+"), true)")
	p.keep("language", l.language)
	p.awaitOne("main[data-screen]")
	lang, dir := l.language, "ltr"
	if lang == "rtl" {
		lang, dir = "en", "rtl"
	}
	p.await(fmt.Sprintf("document.documentElement.lang === %s && document.documentElement.dir === %s && document.documentElement.dataset.theme === %s", js(lang), js(dir), js(l.theme)))
}

// axe returns the text of axe-core, which is no part of this project.
func axe(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", ".lint", "axe", "axe.min.js"))
	if err != nil {
		missing(t, "there is no axe-core here: make axe")
	}
	return string(text)
}

const runAxe = `axe.run(document, {resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}).then((found) =>
	found.violations.map((v) => v.id + ' (' + v.impact + '): ' + v.help + '\n' + v.nodes.slice(0, 3).map((n) => '    ' + n.target + ' ' + n.failureSummary.replaceAll('\n', ' ')).join('\n')))`

// TestBarriers: axe-core finds no barrier on any screen, and no screen is wider than its window.
func TestBarriers(t *testing.T) {
	t.Parallel()
	needBrowser(t)
	source := axe(t)
	e := startEverything(t)
	_, p := openConsole(t, e)
	for _, l := range looks() {
		p.show(l)
		eval[bool](p, source+"\n;true")
		for _, screen := range allScreens {
			p.screen(screen)
			for _, found := range eval[[]string](p, runAxe) {
				t.Errorf("%s %s: %s", l, screen, found)
			}
			if wide := eval[int64](p, "document.documentElement.scrollWidth"); wide > l.width {
				t.Errorf("%s %s is %d wide: %s", l, screen, wide, eval[string](p, widest))
			}
		}
	}
}

// widest names the elements that stick out.
const widest = `[...document.querySelectorAll('body *')].filter((e) => !e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth + 1).slice(0, 5)
	.map((e) => e.tagName + '.' + e.className + ' ' + Math.round(e.getBoundingClientRect().right)).join(', ')`

// TestPictures takes a picture of each screen in all ways, for people to look at.
func TestPictures(t *testing.T) {
	to := os.Getenv("GREEN_API_CONSOLE_PICTURES")
	if to == "" {
		t.Skip("GREEN_API_CONSOLE_PICTURES is not set")
	}
	t.Parallel()
	if err := os.MkdirAll(to, 0o755); err != nil { //nolint:gosec // pictures
		t.Fatal(err)
	}
	e := startEverything(t)
	entry := "#/quarantine/" + e.newest()
	_, p := openConsole(t, e)
	for _, language := range []string{"en", "ru"} {
		for _, theme := range []string{"light", "dark"} {
			for _, width := range []int64{1440, 390} {
				l := look{theme, language, width}
				p.show(l)
				for _, screen := range append([]string{entry}, allScreens...) {
					p.screen(screen)
					name := strings.Trim(strings.ReplaceAll(strings.TrimPrefix(screen, "#/"), "/", "-"), "-")
					if screen == entry {
						name = "entry"
					}
					p.picture(filepath.Join(to, name+"-"+l.String()+".png"))
				}
			}
		}
	}
}

// picture takes a picture of the whole page.
func (p *tab) picture(file string) {
	p.t.Helper()
	height := eval[int64](p, "Math.min(3000, document.documentElement.scrollHeight)")
	width := eval[int64](p, "innerWidth")
	p.size(width, max(900, height))
	eval[bool](p, "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(() => drawn(true))))")
	text, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	p.size(width, 900)
	if err := os.WriteFile(file, text, 0o644); err != nil { //nolint:gosec // a picture
		p.t.Fatal(err)
	}
}

// TestKeyboard does with the keyboard alone what can be done on the screens that all edges have.
func TestKeyboard(t *testing.T) {
	t.Parallel()
	e := startEverything(t)
	c, p := openConsole(t, e)

	// To every link of the navigation by Tab, with a focus that can be seen.
	reached := make(map[string]bool)
	for range 60 {
		p.keys(kb.Tab)
		at := eval[map[string]string](p, `(() => { const e = document.activeElement, s = getComputedStyle(e);
			return {href: e.getAttribute('href') ?? '', act: e.dataset?.act ?? '', outline: s.outlineStyle === 'none' && s.boxShadow === 'none' ? '' : s.outlineStyle, name: e.outerHTML.slice(0, 80)}; })()`)
		reached[at["href"]], reached[at["act"]] = true, true
		if at["outline"] == "" && !strings.HasPrefix(at["name"], "<body") {
			t.Errorf("no focus can be seen at %s", at["name"])
		}
	}
	for _, want := range append([]string{"language", "theme", "zone"}, allScreens...) {
		if !reached[want] {
			t.Errorf("Tab does not lead to %s", want)
		}
	}

	// The link to the content, the help and its end.
	p.open(c.origin + "/#/instances")
	p.awaitScreen("#/instances")
	p.keys("?")
	p.awaitOne("dialog[data-dialog=help][open]")
	p.keys(kb.Escape)
	p.awaitNone("dialog[open]")

	// From row to row, and into one.
	p.await("[...document.querySelectorAll('main tr[data-id]')].map((row) => row.dataset.id).slice(0, 4).sort().join() === '1101000007,1101000008,1101000031,1101000032'") // they move up after seconds
	p.awaitText("tr[data-id='1101000032']", "silent for")
	eval[bool](p, "(document.activeElement.blur(), true)")
	row := func() string { return eval[string](p, "document.activeElement.closest('tr')?.dataset.id ?? ''") }
	p.keys("j")
	first := row()
	p.keys("j")
	second := row()
	if first == "" || second == "" || first == second {
		t.Errorf("j leads to the rows %q and %q", first, second)
	}
	p.keys("k")
	if got := row(); got != first {
		t.Errorf("k leads to %q, want %q", got, first)
	}
	p.keys(kb.Enter)
	p.await("location.hash.startsWith('#/quarantine')")

	// A row takes the focus along when it moves: each of these instances in its turn to a place above the other. Not all
	// browsers can move an element that keeps it.
	eval[bool](p, "delete Element.prototype.moveBefore")
	p.screen("#/instances")
	p.await("document.activeElement.matches('main h1')") // a screen that is drawn takes the focus, a moment later
	p.awaitOne("main tr[data-id='1101000001']")
	p.awaitOne("main tr[data-id='1101000002']")
	eval[bool](p, "document.querySelector(\"main tr[data-id='1101000002']\").focus(), true")
	for _, above := range []struct{ instance, other int64 }{{1101000001, 1101000002}, {1101000002, 1101000001}, {1101000001, 1101000002}} {
		e.post(rawMessage(int(above.instance), "79001234501", "5"))
		p.keys("r")
		p.await(fmt.Sprintf("document.querySelector(\"tr[data-id='%d'] ~ tr[data-id='%d']\")", above.instance, above.other))
		if got := row(); got != "1101000002" {
			t.Fatalf("the focus went from the row of 1101000002 to %q", got)
		}
	}

	// The filter.
	p.keys("/")
	p.await("document.activeElement.matches('input[type=search], select')")
	p.keys("1101000007")
	p.await("document.querySelectorAll('main tr[data-id]').length === 1")
	p.keys(kb.Escape)
	p.await("!document.activeElement.matches('input')")

	// The pause of the screen Live.
	p.screen("#/live")
	p.await("document.activeElement.matches('main h1')")
	p.keys(" ")
	p.awaitOne("button[data-act=pause][aria-pressed=true]")
	p.keys(" ")
	p.awaitOne("button[data-act=pause][aria-pressed=false]")
}
