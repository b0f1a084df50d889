package browsertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// openEntry shows an entry, and opens its body.
func (p *tab) openEntry(id string) {
	p.t.Helper()
	p.screen("#/quarantine/" + id)
	p.awaitOne("section[data-entry='" + id + "'] dl.facts")
	p.click("section[data-entry='" + id + "'] button[data-act=body]")
	p.awaitOne("section[data-entry='" + id + "'] pre.body, section[data-entry='" + id + "'] .tree")
	if p.count("pre.body") == 0 {
		p.click("button[data-act=raw]")
		p.awaitOne("pre.body")
	}
}

// confirm answers a dialog, once it lets one.
func (p *tab) confirm(dialog string) {
	p.t.Helper()
	p.click("dialog[data-dialog=" + dialog + "][open] button[data-act=confirm]")
}

// hostile are bodies that try to be more than text. alert stands for what a script of theirs would do.
func hostile() map[string]string {
	const alert = "window.owned = true"
	deep := strings.Repeat(`{"a":`, 100) + "5" + strings.Repeat("}", 100)
	return map[string]string{
		"markup":        rawMessage(1101000001, "79001234501", `{"a":"<img src=x onerror='`+alert+`'><script>`+alert+`<\/script><style>*{display:none}<\/style><iframe srcdoc='x'><\/iframe>"}`),
		"end of script": `{"typeWebhook":"</script><script>` + alert + `</script><svg onload='` + alert + `'>","timestamp":"<b id=theirs>"}`,
		"template":      rawMessage(1101000001, "79001234501", `{"b":"{{constructor.constructor('`+alert+`')()}} ${`+alert+`} javascript:`+alert+`"}`),
		"bidi":          rawMessage(1101000001, "79001234501", "[\"\u202egnp.exe\u202c\u2066\u200b\ufeff\u2028\"]"),
		"NUL":           "{\"typeWebhook\":\"a\x00b\x1b[31m\x7f\"}",
		"broken UTF-8":  "{\"typeWebhook\":\"\xff\xfe\xc0\xaf\xed\xa0\x80\",\"x\":1}",
		"1 MiB":         rawMessage(1101000001, "79001234501", `["`+strings.Repeat("<i id=theirs>x</i>", 55_000)+`"]`),
		"deep":          rawMessage(1101000001, "79001234501", deep),
		"number":        rawMessage(1101000001, "79001234501", strings.Repeat("9", 64)),
		"prototype":     rawMessage(1101000001, "79001234501", `{"__proto__":{"owned":true},"constructor":{"prototype":{"owned":true}},"toString":5,"hasOwnProperty":1}`),
		"names":         `{"__proto__":5,"typeWebhook":"__proto__","instanceData":{"idInstance":1101000001,"wid":"79001234567@c.us","typeInstance":"constructor"},"timestamp":1}`,
		"header":        `{"typeWebhook":"` + strings.Repeat("x", 3000) + `\u003cb\u003e\u202e"}`,
		"nothing":       "",
		"white":         " \t\r\n ",
	}
}

// TestHostileBodies: whatever a body is, it is shown as text, nothing of it is done, and the page goes on.
func TestHostileBodies(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address())
	c, p := openConsole(t, e)
	for name, body := range hostile() {
		before := e.entries()
		if status := e.post(body); status != http.StatusOK || e.entries() != before+1 {
			t.Errorf("%s: status %d, %d entries", name, status, e.entries())
			continue
		}
		p.openEntry(e.newest())
		check := func(view string) {
			if theirs := eval[[]string](p, `[...document.querySelectorAll('main :is(script, style, iframe, img, i#theirs, b#theirs, svg[onload], object, embed, link, base), #theirs, [onerror], [onload]')].map((e) => e.outerHTML.slice(0, 100))`); len(theirs) > 0 {
				t.Errorf("%s, %s: elements of theirs: %s", name, view, theirs)
			}
			if eval[bool](p, "window.owned === true || ({}).owned === true || typeof ({}).toString !== 'function'") {
				t.Errorf("%s, %s: it did something", name, view)
			}
			// What turns text around or cannot be seen is spelled out.
			if raw := eval[bool](p, `/[\u0000-\u0008\u000b-\u001f\u007f\u200b\u202a-\u202e\u2066-\u2069\ufeff]/.test(document.querySelector('section.detail').textContent)`); raw {
				t.Errorf("%s, %s: there are characters that nobody sees", name, view)
			}
		}
		// Each view of it, and all of it.
		for _, view := range eval[[]string](p, "[...document.querySelectorAll('section.detail [data-view]')].map((b) => b.dataset.view)") {
			p.click("section.detail [data-view=" + view + "]")
			p.awaitOne("section.detail [data-view=" + view + "][aria-pressed=true]")
			check(view)
		}
	}
	p.screen("#/quarantine")
	p.do(chromedp.Reload())
	p.await(fmt.Sprintf("document.querySelectorAll('main tr[data-id]').length === %d", e.entries()))
	for _, screen := range screens {
		p.screen(screen)
	}
	p.wantQuiet(c.origin)
}

// TestMarks: what is marked in a body is what is wrong with it, and it is in view.
func TestMarks(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address())
	c, p := openConsole(t, e)
	p.size(1440, 600)
	long := strings.Repeat(`{"name":"filler","value":"text"},`, 4000)
	for _, test := range []struct{ name, body, mark string }{
		{"a number for a text", rawMessage(1101000001, "79001234501", "5"), "5"},
		{"an object for a text", rawMessage(1101000001, "79001234501", `{"a":[1,2]}`), `{"a":[1,2]}`},
		{"behind a long list", `{"filler":[` + long + `{}],` + rawMessage(1101000001, "79001234501", "false")[1:], "false"},
		{"before a long list", strings.TrimSuffix(rawMessage(1101000001, "79001234501", "null"), "}") + `,"filler":[` + long + `{}]}`, "null"},
		{"a leading zero", rawMessage(1101000001, "79001234501", "007"), "0"},
		{"text behind the end", rawMessage(1101000001, "79001234501", `"a"`) + "x", "x"},
		{"behind Cyrillic and emoji", rawMessage(1101000001, "79001234501", `{"Привет 👋":"мир"}`), `{"Привет 👋":"мир"}`},
		{"on a line of its own", strings.ReplaceAll(rawMessage(1101000001, "79001234501", "5"), ",", ",\n\t"), "5"},
	} {
		if status := e.post(test.body); status != http.StatusOK {
			t.Errorf("%s: status %d", test.name, status)
			continue
		}
		id := e.newest()
		p.openEntry(id)
		marks := eval[[]string](p, "[...document.querySelectorAll('pre.body mark')].map((m) => m.textContent)")
		if !slices.ContainsFunc(marks, func(mark string) bool { return strings.HasPrefix(mark, test.mark) && len(mark) <= len(test.mark)+8 }) {
			t.Errorf("%s: marks %q, want %q", test.name, marks, test.mark)
			continue
		}
		// The page's mark is that of the edge, byte by byte.
		var entry struct {
			Marks []struct{ Start, End int }
		}
		if err := json.Unmarshal([]byte(eval[string](p, "fetch('api/quarantine/"+id+"').then((answer) => answer.text())")), &entry); err != nil || len(entry.Marks) == 0 {
			t.Errorf("%s: %v, %d marks of the edge", test.name, err, len(entry.Marks))
			continue
		}
		if m := entry.Marks[0]; test.body[m.Start:m.End] != marks[0] {
			t.Errorf("%s: the edge marks %q, the page %q", test.name, test.body[m.Start:m.End], marks[0])
		}
		p.await(`(() => { const m = document.querySelector('pre.body mark').getBoundingClientRect(), b = document.querySelector('pre.body').getBoundingClientRect();
			return m.top >= Math.max(0, b.top) - 1 && m.bottom <= Math.min(innerHeight, b.bottom) + 1 && m.left < b.right; })()`)
	}
	p.wantQuiet(c.origin)
}

// TestReplay: a handler gets the very bytes, and the row goes; one that fails is told, and the row stays.
func TestReplay(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address())
	c, p := openConsole(t, e)
	body := " " + rawMessage(1101000001, "79001234501", `[ "ü", 1.50, "\u00fc" ]`) + "\n"
	e.post(body)
	id := e.newest()

	h.status.Store(http.StatusInternalServerError)
	p.screen("#/quarantine/" + id)
	p.click("section.detail button[data-act=replay]")
	p.confirm("replay")
	p.awaitText("dialog[data-dialog=replay], section.detail", "500")
	p.keys(kb.Escape)
	p.awaitNone("dialog[open]")
	p.awaitText("section.detail", "500")
	if p.count("tr[data-id='"+id+"']") != 1 || e.entries() != 1 {
		t.Errorf("after a replay that failed: %d rows, %d entries", p.count("tr[data-id]"), e.entries())
	}

	h.status.Store(http.StatusOK)
	h.forget()
	p.click("section.detail button[data-act=replay]")
	p.confirm("replay")
	p.awaitNone("tr[data-id='" + id + "']")
	if got := h.got(); len(got) != 1 || got[0] != body {
		t.Errorf("the handler got %q, want %q", got, body)
	}
	if n := e.entries(); n != 0 {
		t.Errorf("%d entries are left", n)
	}
	if said := string(e.admin(http.MethodGet, "activity", nil)); !strings.Contains(said, `"replayed"`) || strings.Contains(said, "79001234501") {
		t.Errorf("activity: %s", said)
	}
	p.screen("#/activity")
	for _, act := range []string{"replay ended: failed 1", "replay ended: delivered 1", "login", "config loaded"} {
		p.awaitText("main table", act)
	}
	p.wantQuiet(c.origin)
}

// TestReplayAll: all that match means all, not those in view, and nothing that comes meanwhile.
func TestReplayAll(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	e := startEdge(t, strings.Replace(oneSite, "\tlog\n", "", 1), "HANDLERS", h.address(), "OPTIONS", "validate {\n\t\t\tdrift_guard off\n\t\t}")
	const all, others = 1204, 7
	e.load(0, func(i int) (string, bool) { return rawMessage(1101000001, "79001234501", fmt.Sprint(i)), i < all })
	e.load(0, func(i int) (string, bool) { return rawMessage(1101000002, "79001234502", fmt.Sprint(i)), i < others })
	c, p := openConsole(t, e)
	p.screen("#/quarantine?instance=1101000001")
	p.await("document.querySelectorAll('tr[data-id]').length === 100")
	p.click("[data-for=all] button[data-act=replay]")
	p.awaitText("dialog[data-dialog=replay][open]", "1,204")
	e.post(rawMessage(1101000001, "79001234501", "5")) // comes when all has been counted
	h.forget()
	p.confirm("replay")
	p.awaitOne("dialog [data-outcome=delivered]")
	p.await(fmt.Sprintf("Number(document.querySelector('dialog [data-outcome=delivered] b').textContent.replace(/\\D/g, '')) === %d", all))
	if got := h.got(); len(got) != all || slices.ContainsFunc(got, func(body string) bool { return !strings.Contains(body, "1101000001") }) {
		t.Errorf("the handler got %d, want %d of one instance", len(got), all)
	}
	if n := e.entries(); n != others+1 {
		t.Errorf("%d entries are left, want %d", n, others+1)
	}
	p.click("dialog button[data-act=close]")
	p.awaitNone("dialog[open]")

	// What is no notification is skipped, which is no failure.
	e.post(`{"typeWebhook":`)
	p.screen("#/quarantine")
	p.await("document.querySelectorAll('tr[data-id]').length === 9")
	p.click("[data-for=all] button[data-act=replay]")
	p.awaitText("dialog[data-dialog=replay][open]", "1 more is skipped")
	p.confirm("replay")
	p.awaitOne("dialog [data-outcome=skipped]")
	p.click("dialog button[data-act=close]")
	p.awaitText("tr[data-id]:only-child", "skipped")
	if seen := p.text("tr[data-id]"); strings.Contains(seen, "failed") || p.count("tr.is-bad") != 0 {
		t.Errorf("what was skipped is shown as %q", seen)
	}
	p.wantQuiet(c.origin)
}

// TestDelete: many are deleted once their number is typed, Esc leaves, and what is deleted is gone.
func TestDelete(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address())
	for range 3 {
		e.post(rawMessage(1101000001, "79001234501", `{"secret":"zebra-in-the-file"}`))
	}
	_, p := openConsole(t, e)
	p.screen("#/quarantine")
	p.click("[data-for=all] button[data-act=delete]")
	const field, button = "dialog[data-dialog=delete][open] input", "dialog[data-dialog=delete][open] button[data-act=confirm]"
	p.awaitOne(field)
	disabled := func() bool { return eval[bool](p, "document.querySelector("+js(button)+").disabled") }
	if !disabled() {
		t.Error("they can be deleted without a number")
	}
	p.typeInto(field, "33")
	if !disabled() {
		t.Error("they can be deleted with another number")
	}
	p.keys(kb.Enter)
	p.keys(kb.Escape)
	p.awaitNone("dialog[open]")
	if n := e.entries(); n != 3 {
		t.Fatalf("after Esc: %d entries", n)
	}
	// Half-way, the edge fails: what is gone by then goes from the list.
	p.await("document.querySelectorAll('tr[data-id]').length === 3")
	eval[bool](p, `(() => { const real = window.fetch; window.fetch = async (to, how) => {
		if (how?.method !== 'DELETE' || String(how.body).includes('dry_run')) return real(to, how);
		window.fetch = real;
		await real(to, { ...how, body: new URLSearchParams({ id: document.querySelector('tr[data-id]').dataset.id }) });
		return new Response('{"error":"disk full"}', { status: 500 });
	}; return true; })()`)
	p.click("[data-for=all] button[data-act=delete]")
	p.typeInto(field, "3")
	p.confirm("delete")
	p.awaitText("dialog[open]", "disk full")
	p.await("document.querySelectorAll('tr[data-id]').length === 2")
	p.click("dialog button[data-act=close]")
	p.awaitNone("dialog[open]")

	p.click("[data-for=all] button[data-act=delete]")
	p.typeInto(field, "2")
	p.confirm("delete")
	p.awaitNone("tr[data-id]")
	if n := e.entries(); n != 0 {
		t.Errorf("%d entries are left", n)
	}
	e.stop() // its file is its own before that
	files, err := filepath.Glob(filepath.Join(e.dir, "quarantine", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("zebra-in-the-file")) {
			t.Errorf("%s still has bytes of what was deleted", filepath.Base(file))
		}
	}
}

// TestFilters: filters outlive a reload and lead back; a phone number is in no URL, no title and no log.
func TestFilters(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address())
	const phone = "79001234599"
	for i := range 4 {
		e.post(rawMessage(1101000001+i%2, phone, "5"))
	}
	e.post(rawMessage(1101000001, "79001234500", "5"))
	e.post(`{"typeWebhook":`)
	c, p := openConsole(t, e)
	rows := func(n int) {
		t.Helper()
		p.await(fmt.Sprintf("document.querySelectorAll('main[data-screen=quarantine][data-state=ready] tr[data-id]').length === %d", n))
	}
	p.screen("#/quarantine")
	rows(6)
	choose := func(name, value string) {
		t.Helper()
		p.awaitOne("select[name=" + name + "] option[value='" + value + "']")
		eval[bool](p, fmt.Sprintf("(() => { const s = document.querySelector('select[name=%s]'); s.value = %s; s.dispatchEvent(new Event('change', {bubbles: true})); return true; })()", name, js(value)))
	}
	choose("reason", "schema")
	rows(5)
	choose("instance", "1101000002")
	rows(2)
	p.do(chromedp.Reload())
	rows(2)
	p.screen("#/handlers")
	eval[bool](p, "(history.back(), true)")
	rows(2)
	choose("instance", "")
	rows(5)

	p.typeInto("input[name=chat]", phone)
	p.keys(kb.Enter)
	rows(4)
	if shown := p.text("main table"); strings.Contains(shown, phone) || !strings.Contains(shown, "7900") {
		t.Errorf("the list shows\n%s", shown)
	}
	p.click("button[data-act=phones]")
	p.awaitText("main table", phone)
	p.click("main tr[data-id]")
	p.awaitOne("section.detail dl.facts")
	titles := eval[string](p, "document.title + ' ' + location.href + ' ' + JSON.stringify(history.state) + ' ' + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
	if strings.Contains(titles, phone) {
		t.Errorf("the number is in %s", titles)
	}
	for _, asked := range p.asked() {
		if strings.Contains(asked, phone) || strings.Contains(asked, "chat") {
			t.Errorf("the page asked for %s", asked)
		}
	}
	e.output.await(t, "phones shown")
	for _, line := range append(e.output.lines("console action"), e.output.lines("received request")...) {
		if strings.Contains(line, phone) {
			t.Errorf("the number is in the log: %s", line)
		}
	}
	p.wantQuiet(c.origin)
}
