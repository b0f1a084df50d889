package browsertest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// A tab is a window of the browser with cookies and a store of its own, and all that it has complained about.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string // what a console of a browser shows in red
	urls     []string // that were asked for, with those of the page
}

// newTab opens a tab until the test ends.
func newTab(t *testing.T) *tab {
	t.Helper()
	needBrowser(t)
	ctx, end := chromedp.NewContext(shared.browser, chromedp.WithNewBrowserContext())
	t.Cleanup(end)
	return listen(t, ctx)
}

// another opens a tab that shares the cookies and the store of this one.
func (p *tab) another() *tab {
	p.t.Helper()
	ctx, end := chromedp.NewContext(p.ctx)
	p.t.Cleanup(end)
	return listen(p.t, ctx)
}

func listen(t *testing.T, ctx context.Context) *tab {
	t.Helper()
	p := &tab{t: t, ctx: ctx}
	if err := chromedp.Listen(ctx, p.hear); err != nil {
		t.Fatal(err)
	}
	p.do(
		command(network.Enable, network.EnableParams{}),
		command(log.Enable, cdp.Empty{}),
		command(audits.Enable, cdp.Empty{}),
		command(emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true}),
	)
	p.size(1440, 900)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the page complained of: %s", strings.Join(p.complaints(), "\n"))
		}
	})
	return p
}

// share gives this tab the session of another one.
func (p *tab) share(of *tab) {
	p.t.Helper()
	for _, k := range of.cookies() {
		p.do(chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			_, err := cdp.Call(ctx, target, network.SetCookie, network.SetCookieParams{
				Name: k.Name, Value: k.Value, Domain: k.Domain, Path: k.Path, HTTPOnly: new(k.HTTPOnly), SameSite: k.SameSite,
			})
			return err
		}))
	}
}

// command is an action that sends a command of the protocol.
func command[P, R any](what cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, what, params)
		return err
	})
}

func (p *tab) hear(event any) {
	problem := ""
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		p.mu.Lock()
		p.urls = append(p.urls, e.Request.URL)
		p.mu.Unlock()
	case *runtime.EventExceptionThrown:
		problem = "exception: " + e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			problem += " " + e.ExceptionDetails.Exception.Description
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "warning" || e.Type == "assert" {
			problem = "console." + string(e.Type) + ":"
			for _, arg := range e.Args {
				problem += " " + string(arg.Value) + arg.Description
			}
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == "error" || e.Entry.Level == "warning" {
			problem = fmt.Sprintf("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	case *audits.EventIssueAdded:
		switch e.Issue.Code {
		case "ContentSecurityPolicyIssue", "MixedContentIssue", "CorsIssue", "DeprecationIssue":
			details, err := json.Marshal(e.Issue.Details)
			problem = fmt.Sprintf("%s: %s %v", e.Issue.Code, details, err)
		}
	}
	if problem != "" {
		p.mu.Lock()
		p.problems = append(p.problems, problem)
		p.mu.Unlock()
	}
}

// complaints returns what the browser has complained about so far.
func (p *tab) complaints() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.problems...)
}

// forgive forgets the complaints, such as those about a login that was meant to fail.
func (p *tab) forgive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = nil
}

// asked returns the URLs that were asked for.
func (p *tab) asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.urls...)
}

// wantQuiet fails the test if the browser has complained, or has asked another origin than this one.
func (p *tab) wantQuiet(origin string) {
	p.t.Helper()
	for _, problem := range p.complaints() {
		p.t.Errorf("the browser complains of: %.600s", problem)
	}
	for _, asked := range p.asked() {
		u, err := url.Parse(asked)
		if err != nil || u.Scheme+"://"+u.Host != origin {
			if !strings.HasPrefix(asked, "about:") {
				p.t.Errorf("the page asked for %.200s", asked)
			}
		}
	}
}

// do runs actions.
func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 2*patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// tryEval evaluates JavaScript and returns what it is, which may be a promise.
func tryEval[T any](p *tab, script string) (T, error) {
	ctx, cancel := context.WithTimeout(p.ctx, 2*patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
}

// eval is tryEval for what must not fail.
func eval[T any](p *tab, script string) T {
	p.t.Helper()
	v, err := tryEval[T](p, script)
	if err != nil {
		p.t.Fatalf("%s: %v", script, err)
	}
	return v
}

// await waits until JavaScript is true.
func (p *tab) await(condition string) {
	p.t.Helper()
	if !p.comes(condition, patience) {
		p.t.Fatalf("does not become true: %s\nat %s the page shows:\n%s", condition, eval[string](p, "location.href"), p.text("body"))
	}
}

// comes reports whether JavaScript becomes true within a time.
func (p *tab) comes(condition string, within time.Duration) bool {
	p.t.Helper()
	for end := time.Now().Add(within); ; {
		is, err := tryEval[bool](p, "(async () => Boolean(await ("+condition+")))()")
		if err == nil && is { // an error may be that of a page that just goes
			return true
		}
		if time.Now().After(end) {
			return false
		}
		select {
		case <-time.After(40 * time.Millisecond):
		case <-p.ctx.Done():
			p.t.Fatal(p.ctx.Err())
		}
	}
}

// js is a value as JavaScript.
func js(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// text returns the text of the first element that matches a selector, "" if there is none.
func (p *tab) text(selector string) string {
	p.t.Helper()
	return eval[string](p, "document.querySelector("+js(selector)+")?.innerText ?? ''")
}

// count returns how many elements match.
func (p *tab) count(selector string) int {
	p.t.Helper()
	return eval[int](p, "document.querySelectorAll("+js(selector)+").length")
}

// awaitOne waits for an element.
func (p *tab) awaitOne(selector string) {
	p.t.Helper()
	p.await("document.querySelector(" + js(selector) + ")")
}

// awaitNone waits until there is no such element.
func (p *tab) awaitNone(selector string) {
	p.t.Helper()
	p.await("!document.querySelector(" + js(selector) + ")")
}

// awaitText waits until the text of an element has a part.
func (p *tab) awaitText(selector, part string) {
	p.t.Helper()
	p.await("(document.querySelector(" + js(selector) + ")?.innerText ?? '').includes(" + js(part) + ")")
}

// click waits for an element that can be used, and clicks it.
func (p *tab) click(selector string) {
	p.t.Helper()
	p.await("(() => { const e = document.querySelector(" + js(selector) + "); return e && !e.disabled && e.getClientRects().length > 0; })()")
	eval[bool](p, "(document.querySelector("+js(selector)+").click(), true)")
}

// typeInto waits for a field, and types into it with the keyboard.
func (p *tab) typeInto(selector, text string) {
	p.t.Helper()
	p.awaitOne(selector)
	eval[bool](p, "(() => { const e = document.querySelector("+js(selector)+"); e.focus(); e.select?.(); return true; })()")
	p.keys(text)
}

// keys presses keys.
func (p *tab) keys(keys string) {
	p.t.Helper()
	for _, r := range keys {
		var down *input.DispatchKeyEventParams
		for _, event := range kb.Encode(r) {
			switch event.Type {
			case kb.KeyChar: // goes with what was pressed, so that a page may prevent it
				down.Text, down.UnmodifiedText = event.Text, event.UnmodifiedText
			case kb.KeyUp:
				p.do(command(input.DispatchKeyEvent, *down), command(input.DispatchKeyEvent, *event))
			default:
				event.Type = kb.KeyDown
				down = event
			}
		}
	}
}

// open opens a URL.
func (p *tab) open(address string) {
	p.t.Helper()
	p.do(chromedp.Navigate(address))
}

// size sets the size of the window.
func (p *tab) size(width, height int64) {
	p.t.Helper()
	p.do(command(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 600}))
}

// screen goes to a screen, and waits until it has what there is.
func (p *tab) screen(hash string) {
	p.t.Helper()
	eval[bool](p, "(location.hash = "+js(hash)+", true)")
	p.awaitScreen(hash)
}

// awaitScreen waits until a screen has what there is.
func (p *tab) awaitScreen(hash string) {
	p.t.Helper()
	name := strings.FieldsFunc(hash, func(r rune) bool { return strings.ContainsRune("#/?", r) })[0]
	p.await(fmt.Sprintf(`document.querySelector('main[data-screen=%s]:is([data-state=ready], [data-state=empty])')`, name))
}

// keep sets what the browser keeps for the page, such as its language, and loads the page again.
func (p *tab) keep(name, value string) {
	p.t.Helper()
	eval[bool](p, "(localStorage.setItem("+js(name)+", "+js(value)+"), true)")
	p.do(chromedp.Reload())
}

// logIn opens a console with the URL that the command has printed, and waits for the page.
func (p *tab) logIn(c *consoleProcess) {
	p.t.Helper()
	p.open(c.url)
	p.awaitScreen("#/overview")
	p.forgive() // the login page is a 401
}

// openConsole starts the console of an edge, and opens it in a tab that is logged in.
func openConsole(t *testing.T, e *edge) (*consoleProcess, *tab) {
	t.Helper()
	c := startConsole(t, e)
	p := newTab(t)
	p.logIn(c)
	return c, p
}
