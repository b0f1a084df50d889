package browsertest

import (
	"net/http"
	"strings"
	"testing"
)

const (
	operatorToken = "token-of-the-operators-0001"
	supportToken  = "token-of-the-support-000002"
)

// sitePages are two consoles for the site of oneSite: one for those who operate the edge, one for those who look only.
const sitePages = `handle_path /console/* {
		green_api_console {
			auth {
				token ` + operatorToken + `
			}
		}
	}
	handle_path /support/* {
		green_api_console {
			auth {
				token ` + supportToken + `
			}
			read_only
			bodies off
		}
	}`

// logInAt logs in at a console of a site.
func (p *tab) logInAt(address, token string) {
	p.t.Helper()
	p.open(address)
	p.typeInto("form #token", token)
	p.keys("\r")
	p.awaitScreen("#/overview")
	p.forgive() // the login page is a 401
}

// TestSite: a console below a path of a site, with its login, its roles, and what ends a session.
func TestSite(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	e := startEdge(t, oneSite, "HANDLERS", h.address(), "SITE", sitePages)
	e.post(rawMessage(1101000001, "79001234501", "5"))
	page := e.origin + "/console/"

	p := newTab(t)
	p.open(page)
	p.typeInto("form #token", "a token that nobody has set")
	p.keys("\r")
	p.await("document.querySelector('#said').textContent.length > 10")
	e.output.await(t, "login to the console refused")
	if p.count("main[data-screen]") != 0 {
		t.Fatal("a wrong token lets in")
	}
	p.logInAt(page, operatorToken)
	for _, screen := range screens {
		p.screen(screen)
	}
	p.wantQuiet(e.origin)
	for _, k := range p.cookies() {
		if k.Path != "/console/" || !k.HTTPOnly || k.SameSite != "Strict" {
			t.Errorf("cookie %+v", k)
		}
	}
	if got := p.statusOf("GET", "/support/api/status"); got != http.StatusUnauthorized {
		t.Errorf("with the session of one console, the other answers %d", got)
	}

	looks := newTab(t)
	looks.logInAt(e.origin+"/support/", supportToken)
	for _, screen := range append([]string{"#/quarantine/" + e.newest()}, screens...) {
		looks.screen(screen)
		for _, act := range []string{"replay", "recheck", "delete", "export", "body", "phones", "pause-queue", "skip"} {
			if n := looks.count("button[data-act=" + act + "]"); n != 0 {
				t.Errorf("%s: who only looks has %d buttons for %s", screen, n, act)
			}
		}
	}
	for _, path := range []string{"api/quarantine/replay", "api/quarantine/export", "api/quarantine/" + e.newest() + "/body"} {
		if got := looks.statusOf("POST", path); got != http.StatusForbidden {
			t.Errorf("POST %s by who only looks: %d", path, got)
		}
	}
	if got := eval[int](looks, "fetch('api/phones', {method: 'POST', body: new URLSearchParams({show: 'true'})}).then((answer) => answer.status)"); got != http.StatusForbidden {
		t.Errorf("phone numbers for who only looks: %d", got)
	}
	if got := looks.statusOf("DELETE", "api/quarantine"); got != http.StatusForbidden {
		t.Errorf("DELETE by who only looks: %d", got)
	}
	looks.forgive()

	// A reload that changes nothing of the login ends no session; one that changes the token does.
	e.reload(strings.Replace(e.text(), "respond 404", "respond \"nothing here\" 404", 1))
	p.await(isHeard)
	if got := p.statusOf("GET", "api/me"); got != http.StatusOK {
		t.Errorf("after a reload: %d", got)
	}
	e.reload(strings.Replace(e.text(), operatorToken, operatorToken+"-new", 1))
	p.awaitOne("form #token")
	p.logInAt(page, operatorToken+"-new")

	p.click("button[data-act=logout]")
	p.awaitOne("form #token")
	if got := p.statusOf("GET", "api/me"); got != http.StatusUnauthorized {
		t.Errorf("after the logout: %d", got)
	}

	// Sessions are in memory only.
	e.stop()
	looks.await(isNotLive)
	e.start()
	looks.awaitOne("form #token")
}

// TestSiteTLS: with HTTPS, the cookie is bound to it.
func TestSiteTLS(t *testing.T) {
	t.Parallel()
	h := startHandler(t)
	e := startEdge(t, strings.Replace(strings.Replace(oneSite, "http://127.0.0.1:PORT", "https://localhost:PORT", 1), "auto_https off", "auto_https disable_redirects\n\tskip_install_trust", 1),
		"HANDLERS", h.address(), "GLOBAL", "", "SITE", "tls internal\n\tgreen_api_console {\n\t\tauth {\n\t\t\ttoken "+operatorToken+"\n\t\t}\n\t}")
	p := newTab(t)
	origin := strings.Replace(e.origin, "http://127.0.0.1", "https://localhost", 1)
	p.logInAt(origin+"/", operatorToken)
	p.await(isLive)
	for _, screen := range screens {
		p.screen(screen)
	}
	p.wantQuiet(origin)
	cookies := p.cookies()
	if len(cookies) != 1 {
		t.Fatalf("%d cookies", len(cookies))
	}
	if k := cookies[0]; !k.Secure || !k.HTTPOnly || k.SameSite != "Strict" || !strings.HasPrefix(k.Name, "__Host-") {
		t.Errorf("cookie %+v", k)
	}
}
