package browsertest

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// statusOf returns the status that the page gets for a request to its own origin.
func (p *tab) statusOf(method, path string) int {
	p.t.Helper()
	return eval[int](p, fmt.Sprintf("fetch(%s, {method: %s}).then((answer) => answer.status)", js(path), js(method)))
}

func (p *tab) cookies() []*network.Cookie {
	p.t.Helper()
	found, err := chromedp.Run(p.ctx, func(ctx context.Context, target *chromedp.Target) (network.GetCookiesResult, error) {
		return cdp.Call(ctx, target, network.GetCookies, network.GetCookiesParams{})
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return found.Cookies
}

// TestLogin: who has the token gets in, once; who is out sees nothing; a session ends with its console.
func TestLogin(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address())
	port := freePort(t)
	c := startConsole(t, e, "--address", "127.0.0.1:"+port)
	p := newTab(t)

	p.open(c.origin + "/")
	p.awaitOne("form #token")
	if p.count("main[data-screen]") != 0 {
		t.Error("the page shows a screen without a login")
	}
	for _, path := range []string{"api/status", "api/me", "api/live", "api/%73tatus", "%61pi/status", "assets/app.js", "nothing"} {
		if got := p.statusOf("GET", path); got != 401 {
			t.Errorf("GET %s without a session: %d", path, got)
		}
	}

	p.typeInto("#token", "no-token-of-this-console")
	p.keys("\r")
	p.await("document.querySelector('#said').textContent.length > 10 && !document.querySelector('button').disabled")
	if p.count("form #token") != 1 || len(p.cookies()) != 0 {
		t.Errorf("a wrong token: %d cookies, page:\n%s", len(p.cookies()), p.text("body"))
	}

	p.open("about:blank") // another fragment would not load the page again
	p.logIn(c)
	if at := eval[string](p, "location.href"); at != c.origin+"/#/overview" && at != c.origin+"/" {
		t.Errorf("after the login, the address is %s", at)
	}
	cookies := p.cookies()
	if len(cookies) != 1 {
		t.Fatalf("%d cookies", len(cookies))
	}
	if k := cookies[0]; !k.HTTPOnly || k.SameSite != "Strict" || k.Path != "/" || !k.Session || len(k.Value) < 43 {
		t.Errorf("cookie %+v", k)
	}
	if seen := eval[string](p, "document.cookie"); seen != "" {
		t.Errorf("scripts see the cookie %s", seen)
	}
	token := c.url[strings.Index(c.url, "=")+1:]
	for _, asked := range p.asked() {
		if u, err := url.Parse(asked); err != nil || strings.Contains(u.RequestURI(), token) {
			t.Errorf("the token is in the request for %s", asked)
		}
	}

	second := newTab(t)
	second.open(c.url)
	second.await("document.querySelector('#said')?.textContent.length > 10")
	if second.count("main[data-screen]") != 0 {
		t.Error("a token that was used lets in again")
	}

	// The console begins anew at the same place: it knows no session, and the page notices. A login leads back.
	p.screen("#/handlers")
	c.stop()
	p.await("document.querySelector('#connection').dataset.state === 'lost'")
	c = startConsole(t, e, "--address", "127.0.0.1:"+port)
	p.awaitText("#said", "A restart ends all sessions")
	p.typeInto("#token", c.url[strings.Index(c.url, "=")+1:])
	p.keys("\r")
	p.awaitScreen("#/handlers")
}

// TestLogout: logging out ends the session and its streams.
func TestLogout(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address())
	_, p := openConsole(t, e)
	p.await(isLive)
	// Beside the page, which would leave at once: a document of the same origin that only has a stream.
	other := p.another()
	other.open(eval[string](p, "document.querySelector('link[rel=stylesheet]').href"))
	eval[bool](other, `(async () => {
		const answer = await fetch('/api/live', {headers: {Accept: 'text/event-stream'}});
		const reader = answer.body.getReader();
		await reader.read();
		window.streamEnded = false;
		(async () => { try { while (!(await reader.read()).done); } catch {} window.streamEnded = true; })();
		return true;
	})()`)
	if eval[bool](other, "window.streamEnded") {
		t.Fatal("the stream ends by itself")
	}
	eval[bool](p, "fetch('logout', {method: 'POST'}).then(() => true)")
	other.await("window.streamEnded")
	p.awaitOne("form #token")
	if got := p.statusOf("GET", "api/me"); got != 401 {
		t.Errorf("after the logout: %d", got)
	}
}

// TestGuessing: many wrong tokens are slowed down and told, and do not use up the right one.
func TestGuessing(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address())
	c := startConsole(t, e)
	p := newTab(t)
	p.open(c.origin + "/")
	p.awaitOne("form #token")
	const guess = `Promise.all(Array.from({length: 60}, (_, i) => fetch('login', {method: 'POST', headers: {Accept: 'application/json'},
		body: new URLSearchParams({token: 'a guess that is wrong, number ' + i})}).then((answer) => answer.status)))`
	counts := make(map[int]int)
	for range 5 { // on a machine that stands still for a second, a round may take several
		for _, status := range eval[[]int](p, guess) {
			counts[status]++
		}
		if counts[429] > 0 {
			break
		}
	}
	if counts[429] == 0 || counts[401] == 0 || len(counts) != 2 {
		t.Errorf("answers by status: %v", counts)
	}
	c.output.await(t, "does not have the token")
	p.await("fetch('login', {method: 'POST', headers: {Accept: 'application/json'}, body: new URLSearchParams({token: " +
		js(c.url[strings.Index(c.url, "=")+1:]) + "})}).then((answer) => answer.status === 204)")
	p.open(c.origin + "/")
	p.awaitScreen("#/overview")
}
