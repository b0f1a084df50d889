package browsertest

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestRebinding: a name of a stranger that points to this machine leads nowhere.
func TestRebinding(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address())
	c, p := openConsole(t, e)
	evil := strings.Replace(c.origin, "127.0.0.1", "evil.test", 1)
	stranger := p.another()
	for _, path := range []string{"/", "/api/status", "/api/me", "/assets/app.js", "/login"} {
		response, err := chromedp.Run(stranger.ctx, chromedp.NavigateResponse(evil+path))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if response.Status < 400 || response.Status == 401 {
			t.Errorf("%s: status %d, with\n%s", path, response.Status, stranger.text("body"))
		}
		if stranger.count("form, main, script") != 0 {
			t.Errorf("%s shows %s", path, stranger.text("body"))
		}
	}
	// The name does point here, and what refused is the name.
	if response, err := chromedp.Run(stranger.ctx, chromedp.NavigateResponse(c.origin+"/")); err != nil || response.Status != 200 {
		t.Errorf("by its own name: %v %v", response, err)
	}
}

// attack is what a page of a stranger tries. It returns what worked.
const attack = `(async () => {
	const victim = %s, worked = [];
	const within = (promise) => Promise.race([promise, new Promise((_, no) => setTimeout(no, 5000, 'no answer'))]);
	const tries = async (name, promise) => { try { if (await within(promise)) worked.push(name); } catch {} };
	const form = (fields) => new URLSearchParams(fields);
	for (const path of ['/', '/api/me', '/api/status', '/api/live', '/api/quarantine/summary']) {
		await tries('read ' + path, fetch(victim + path, {credentials: 'include'}).then(() => true));
	}
	for (const [path, fields] of [['/api/quarantine/replay', {all: 'true'}], ['/api/quarantine/search', {}], ['/api/quarantine/export', {all: 'true'}],
		['/api/phones', {show: 'true'}], ['/api/queue/pause', {}], ['/logout', {}], ['/login', {token: 'a'}]]) {
		// These may be sent: nobody is asked before. They must do nothing.
		await tries('', fetch(victim + path, {method: 'POST', mode: 'no-cors', credentials: 'include', body: form(fields)}).then(() => false));
		await tries('read the answer of POST ' + path, fetch(victim + path, {method: 'POST', credentials: 'include', body: form(fields)}).then(() => true));
	}
	await tries('DELETE', fetch(victim + '/api/quarantine', {method: 'DELETE', credentials: 'include', body: form({all: 'true'})}).then(() => true));
	await tries('EventSource', new Promise((yes, no) => {
		const source = new EventSource(victim + '/api/live', {withCredentials: true});
		source.onopen = source.onmessage = () => yes(true);
		source.onerror = () => { source.close(); no(); };
	}));
	const element = (name, attributes) => new Promise((yes, no) => {
		const e = document.createElement(name);
		e.onload = () => yes(true);
		e.onerror = no;
		Object.assign(e, attributes);
		document.body.append(e);
	});
	for (const path of %s) {
		await tries('script ' + path, element('script', {src: victim + path}));
		await tries('module ' + path, element('script', {type: 'module', src: victim + path}));
		await tries('style ' + path, element('link', {rel: 'stylesheet', href: victim + path}));
		await tries('img ' + path, element('img', {src: victim + path}));
	}
	// A frame loads in any case, if only with the browser's own page. What is in it must not be the page.
	for (const name of ['frame-a', 'frame-b']) {
		const frame = document.createElement('iframe');
		frame.name = name;
		if (name === 'frame-a') frame.src = victim + '/';
		const loaded = new Promise((yes) => (frame.onload = yes));
		document.body.append(frame);
		await within(loaded).catch(() => {});
		try { if (frame.contentDocument?.querySelector('form, main')) worked.push('frame'); } catch {}
		if (name === 'frame-a') {
			try { if (frame.contentWindow.length > 0) worked.push('frames in the frame'); } catch {}
		}
	}
	for (const [path, fields] of [['/api/quarantine/replay', {all: 'true'}], ['/api/phones', {show: 'true'}], ['/logout', {}]]) {
		const f = document.createElement('form');
		Object.assign(f, {method: 'post', action: victim + path, target: 'frame-b'});
		for (const [name, value] of Object.entries(fields)) f.append(Object.assign(document.createElement('input'), {name, value}));
		document.body.append(f);
		const loaded = new Promise((yes) => (document.querySelector('[name=frame-b]').onload = yes));
		f.submit();
		await within(loaded).catch(() => {});
	}
	return worked;
})()`

// TestStrangers: a page of another origin reads nothing and changes nothing, also if it is of the same site, as another
// port of this machine is, to which a browser sends the cookie.
func TestStrangers(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address())
	for range 3 {
		e.post(rawMessage(1101000001, "79001234501", "5"))
	}
	c := startConsole(t, e)
	victim := newTab(t)
	victim.logIn(c)
	assets := eval[[]string](victim, "[...document.querySelectorAll('script[src], link[rel=stylesheet]')].map((e) => new URL(e.src ?? e.href, location).pathname)")
	assets = append(assets, "/api/status", "/api/me")

	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<!doctype html><title>stranger</title><body>")
	}))
	defer page.Close()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(page.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := json.Marshal(assets)
	if err != nil {
		t.Fatal(err)
	}
	before := string(e.admin(http.MethodGet, "activity", nil))
	for _, name := range []string{"evil.test", "127.0.0.1"} {
		stranger := victim.another()
		stranger.open("http://" + name + ":" + port + "/")
		for _, what := range eval[[]string](stranger, fmt.Sprintf(attack, js(c.origin), list)) {
			t.Errorf("a page of %s: %s worked", name, what)
		}
	}
	if n := e.entries(); n != 3 {
		t.Errorf("%d entries are left of 3", n)
	}
	if got := h.got(); len(got) != 0 {
		t.Errorf("%d notifications were replayed", len(got))
	}
	if after := string(e.admin(http.MethodGet, "activity", nil)); after != before {
		t.Errorf("activity: %s", after)
	}
	me := eval[map[string]any](victim, "fetch('api/me').then((answer) => answer.json())")
	if me["phones"] != false || me["role"] != "operator" {
		t.Errorf("afterwards, the session is %v", me)
	}
	if got := victim.statusOf("GET", "api/status"); got != 200 {
		t.Errorf("afterwards, the session is worth %d", got)
	}
	// The attack is one: the page itself may do all this.
	if got := eval[int](victim, "fetch('api/phones', {method: 'POST', body: new URLSearchParams({show: 'true'})}).then((answer) => answer.status)"); got != 200 && got != 204 {
		t.Errorf("the page itself: %d", got)
	}
}
