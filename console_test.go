package greenapi

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

const consoleToken = "an-invented-console-token"

// consoleSite returns a config with a console at this address of a site, beside a green_api block.
func consoleSite(site, options string) string {
	return edgetest.Site(edgetest.Loopback) + site + " {\nhandle_path /console/* {\ngreen_api_console {\n" + options + "\n}\n}\nrespond 404\n}\n"
}

// TestConsoleLoads: what would let everybody in does not load.
func TestConsoleLoads(t *testing.T) {
	t.Setenv("GREEN_API_TEST_SHORT", "short")
	for _, test := range []struct{ name, site, options, want string }{
		{"token", "http://edge.test:PORT1", "auth {\ntoken " + consoleToken + "\n}", ""},
		{"no auth", "http://edge.test:PORT1", "read_only", "auth: who may see it? want 'token', 'user', or 'auth off'"},
		{"an empty block", "http://edge.test:PORT1", "auth {\n}", "auth: who may see it?"},
		{"a short token", "http://edge.test:PORT1", "auth {\ntoken short\n}", "token: 5 characters are too short; want at least 22"},
		{"a short token from outside", "http://edge.test:PORT1", "auth {\ntoken {env.GREEN_API_TEST_SHORT}\n}", "token: 5 characters"},
		{"no token outside", "http://edge.test:PORT1", "auth {\ntoken {env.GREEN_API_TEST_UNSET}\n}", "token: placeholder {env.GREEN_API_TEST_UNSET} is not set"},
		{"the same user for all", "http://edge.test:PORT1", "auth {\nuser anna\n}", `user: "anna" is the same for everybody`},
		{"the same user for all, from outside", "http://edge.test:PORT1", "auth {\nuser {env.GREEN_API_TEST_SHORT}\n}", "is the same for everybody"},
		{"token and user", "http://edge.test:PORT1", "auth {\nuser {http.auth.user.id}\ntoken " + consoleToken + "\n}", "want one of 'token', 'user' and off"},
		{"off for all", "http://127.0.0.1:PORT1", "auth off", "off: others than this machine reach"},
		{"off for this machine and others", "http://edge.test:PORT1", "auth off\n}\n}\nbind 127.0.0.1 0.0.0.0\nhandle_path /b/* {\ngreen_api_console {\nauth off", "off: others than this machine reach 0.0.0.0"},
		{"any name", "http://:PORT1", "auth {\ntoken " + consoleToken + "\n}", "its site takes any name; want 'host NAME'"},
		{"any name, one of which is said", "http://:PORT1", "auth {\ntoken " + consoleToken + "\n}\nhost edge.test", ""},
		{"a name of any kind", "http://*:PORT1", "auth {\ntoken " + consoleToken + "\n}", "want 'host NAME'"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := edgetest.Start(t, edgetest.Site(edgetest.Loopback))
			err := e.Load(consoleSite(test.site, test.options))
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
	t.Run("off for this machine", func(t *testing.T) {
		e := edgetest.Start(t, edgetest.Site(edgetest.Loopback))
		if err := e.Load(edgetest.Site(edgetest.Loopback) + "http://:PORT1 {\nbind 127.0.0.1 ::1\ngreen_api_console {\nauth off\n}\n}\n"); err != nil {
			t.Error(err)
		}
	})
}

// TestConsoleSixth: a site whose name is an address of IPv6, which stands in brackets in the header Host only.
func TestConsoleSixth(t *testing.T) {
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback)+"http://[::1]:PORT1 {\nbind 127.0.0.1\ngreen_api_console {\nauth off\n}\n}\n")
	if status, text := comeTo(e, "[::1]:"+e.More[0], "/").ask("GET", "", nil); status != 200 || !strings.Contains(text, "assets/") {
		t.Errorf("%d %s", status, text)
	}
}

// a visitor of a console has a browser's cookies.
type visitor struct {
	*edgetest.Edge
	base   string // ends in a slash
	host   string
	user   string // of basic_auth
	client *http.Client
}

func (e visitor) ask(method, path string, form url.Values) (status int, text string) {
	e.T.Helper()
	response := e.open(method, path, form)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		e.T.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// open asks, and leaves the answer open.
func (e visitor) open(method, path string, form url.Values) *http.Response {
	e.T.Helper()
	r, err := http.NewRequestWithContext(e.T.Context(), method, e.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		e.T.Fatal(err)
	}
	r.Host = cmp.Or(e.host, r.Host)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if path == "api/live" {
		r.Header.Set("Accept", "text/event-stream")
	}
	if e.user != "" {
		r.SetBasicAuth(e.user, "hiccup")
	}
	response, err := e.client.Do(r)
	if err != nil {
		e.T.Fatal(err)
	}
	return response
}

func comeTo(e *edgetest.Edge, host, path string) visitor {
	jar, _ := cookiejar.New(nil) // never fails
	return visitor{Edge: e, host: host, base: "http://127.0.0.1:" + e.More[0] + path, client: &http.Client{
		Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// newest returns the ID of what was kept last.
func (e visitor) newest() string {
	e.T.Helper()
	status, text := e.ask("POST", "api/quarantine/search", url.Values{"limit": {"1"}})
	var found struct{ Entries []struct{ ID string } }
	if err := json.Unmarshal([]byte(text), &found); err != nil || len(found.Entries) != 1 {
		e.T.Fatalf("search: %d %s", status, text)
	}
	return found.Entries[0].ID
}

// wantLogged reports a line that the log lacks: one with all these parts.
func wantLogged(e *edgetest.Edge, parts ...string) {
	e.T.Helper()
	for line := range strings.Lines(e.Logs.All()) {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			return
		}
	}
	e.T.Errorf("not logged: %q", parts)
}

// TestConsole: a team's console below a path, from the login to what is done there.
func TestConsole(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	in := edgetest.NewInbox(t, nil)
	config := edgetest.Alerting(in.URL, "", edgetest.Loopback+"reverse_proxy "+up.Address) +
		"http://127.0.0.1:PORT1 {\nbind 127.0.0.1\nredir /console /console/\nhandle_path /console/* {\ngreen_api_console {\nauth {\ntoken " + consoleToken + "\n}\n}\n}\nrespond 404\n}\n"
	e := edgetest.Start(t, config)
	if status := e.Post(edgetest.Broken("BROKEN")); status != 200 {
		t.Fatal(status)
	}
	v := comeTo(e, "", "/console/")
	for _, test := range []struct {
		host, path string
		want       int
	}{
		{"", "", 401},
		{"", "api/status", 401},
		{"", "%61pi/status", 401},
		{"", "assets/app.js", 401},
		{"", "../console/api/status", 401},
		{"evil.test", "", 200},
		{"127.0.0.1.:" + e.More[0], "", 200}, // Caddy's empty answer
	} {
		stranger := comeTo(e, test.host, "/console/")
		if status, text := stranger.ask("GET", test.path, nil); status != test.want || strings.Contains(text, "quarantine") {
			t.Errorf("%q%q without a login: %d", test.host, test.path, status)
		}
	}
	if status, _ := v.ask("POST", "login", url.Values{"token": {"a wrong token, of the same length"}}); status != 401 {
		t.Errorf("a wrong token: %d", status)
	}
	edgetest.Eventually(t, "alert", func() bool {
		return len(in.All()) > 0 && strings.Contains(strings.Join(in.All(), ""), `"console_refused"`)
	})
	wantLogged(e, `"level":"warn"`, `"msg":"login to the console refused","client_ip":"127.0.0.1"}`)
	response := v.open("POST", "login", url.Values{"token": {consoleToken}})
	response.Body.Close()
	if cookie := response.Header.Get("Set-Cookie"); response.StatusCode != 303 || !strings.Contains(cookie, "Path=/console/; ") || !strings.Contains(cookie, "HttpOnly; SameSite=Strict") {
		t.Fatalf("login: %d %s", response.StatusCode, cookie)
	}
	if status, text := v.ask("GET", "", nil); status != 200 || !strings.Contains(text, "assets/") {
		t.Errorf("page: %d %s", status, text)
	}
	if status, text := v.ask("GET", "api/status", nil); status != 200 || !strings.Contains(text, `"standing":[]`) {
		t.Errorf("status: %d %s", status, text)
	}
	id := v.newest()
	if status, text := v.ask("GET", "api/quarantine/"+id, nil); status != 200 || strings.Contains(text, `"body"`) || !strings.Contains(text, `"marks":[{"pointer":"/`) || strings.Contains(text, "79001234568") {
		t.Errorf("entry: %d %s", status, text)
	}
	if status, text := v.ask("POST", "api/quarantine/"+id+"/body", url.Values{}); status != 200 || !strings.Contains(text, "BROKEN") {
		t.Errorf("body: %d %s", status, text)
	}
	wantLogged(e, `"msg":"console action","action":"body opened","user":"","client_ip":"127.0.0.1","quarantine_id":"`+id+`"`)

	// A reload ends the streams, and keeps who is logged in.
	var streams []*http.Response
	for range 8 {
		streams = append(streams, v.open("GET", "api/live", nil))
	}
	for _, stream := range streams {
		if _, err := bufio.NewReader(stream.Body).ReadString('\n'); err != nil || stream.StatusCode != 200 {
			t.Fatalf("stream: %d %v", stream.StatusCode, err)
		}
	}
	began := time.Now()
	if err := e.Load(config + "\n"); err != nil {
		t.Fatal(err)
	}
	for _, stream := range streams {
		text, err := io.ReadAll(stream.Body)
		if err != nil || !strings.Contains(string(text), `{"reason":"reload"}`) {
			t.Errorf("a stream at the reload: %v %.200s", err, text)
		}
		stream.Body.Close()
	}
	if took := time.Since(began); took > edgetest.Patient(3*time.Second) {
		t.Errorf("a reload with 8 streams took %s", took)
	}
	if status, _ := v.ask("GET", "api/status", nil); status != 200 {
		t.Errorf("after a reload: %d", status)
	}
	if status, text := v.ask("POST", "api/quarantine/replay", url.Values{"id": {id}}); status != 200 || !strings.Contains(text, `"outcome":"delivered"`) {
		t.Errorf("replay: %d %s", status, text)
	}
	if status, text := v.ask("GET", "api/activity", nil); status != 200 || !strings.Contains(text, `"action":"replayed"`) || !strings.Contains(text, `"action":"body opened"`) ||
		!strings.Contains(text, `"action":"replay ended","replay":{"delivered":1,"failed":0,"kept":0,"skipped":0}`) || strings.Count(text, `"action":"reload"`) != 2 {
		t.Errorf("activity: %d %s", status, text)
	}
	if status, _ := v.ask("POST", "logout", url.Values{}); status != 303 {
		t.Errorf("logout: %d", status)
	}
	if status, _ := v.ask("GET", "api/status", nil); status != 401 {
		t.Errorf("after a logout: %d", status)
	}
	if err := e.Load(strings.Replace(config, consoleToken, "another-"+consoleToken, 1)); err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"the log": e.Logs.All(), "the alerts": strings.Join(in.All(), "\n")} {
		if strings.Contains(text, consoleToken) {
			t.Errorf("%s has the token", what)
		}
	}
}

// TestConsoleUser: Caddy logs people in, and the log knows them by name.
func TestConsoleUser(t *testing.T) {
	site := "http://edge.test:PORT1 {\nbind 127.0.0.1\ngreen_api_console {\nauth {\nuser {http.auth.user.id}\n}\nread_only\nbodies off\n}\n%s}\n"
	const login = "basic_auth {\nanna $2a$10$MKDLCM8vzT1i6X3NxkeJXOUzAQS/hCR4N5NPtMX7XYGfTimXv1xjO\n}\n"
	e := edgetest.Start(t, edgetest.Site(edgetest.Loopback)+fmt.Sprintf(site, login))
	e.Post(edgetest.Broken("BROKEN"))
	host := "edge.test:" + e.More[0]
	if status, _ := comeTo(e, host, "/").ask("GET", "", nil); status != 401 {
		t.Errorf("without a name: %d", status)
	}
	if status, _ := comeTo(e, "evil.test", "/").ask("GET", "", nil); status != 200 { // which is Caddy's empty answer
		t.Errorf("another host: %d", status)
	}
	v := comeTo(e, host, "/")
	v.user = "anna"
	if status, text := v.ask("GET", "", nil); status != 200 || !strings.Contains(text, "assets/") {
		t.Fatalf("page: %d %s", status, text)
	}
	if status, text := v.ask("GET", "api/me", nil); status != 200 || !strings.Contains(text, `"user":"anna"`) || !strings.Contains(text, `"read_only"`) {
		t.Errorf("me: %d %s", status, text)
	}
	id := v.newest()
	for path, form := range map[string]url.Values{
		"api/quarantine/" + id + "/body": {}, "api/quarantine/replay": {"all": {"true"}}, "api/quarantine/export": {"all": {"true"}}, "api/phones": {"show": {"true"}},
	} {
		if status, _ := v.ask("POST", path, form); status != 403 {
			t.Errorf("%s: %d", path, status)
		}
	}
	if v.newest() != id {
		t.Error("the entry is gone")
	}
	// Without what logs people in, nobody is let in, whatever stands beside the name.
	for _, user := range []string{"{http.auth.user.id}", "team-{http.auth.user.id}"} {
		if err := e.Load(edgetest.Site(edgetest.Loopback) + strings.Replace(fmt.Sprintf(site, ""), "{http.auth.user.id}", user, 1)); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"", "api/status"} {
			if status, _ := v.ask("GET", path, nil); status != 403 {
				t.Errorf("%s without a login of Caddy's: %q: %d", user, path, status)
			}
		}
	}
}

// TestConsoleSite: where a console is found: under which names, and behind which prefix.
func TestConsoleSite(t *testing.T) {
	const block = "green_api_console {\nauth {\ntoken " + consoleToken + "\n}\nhost edge.test\n}\n"
	for _, test := range []struct{ name, site, want string }{
		{"a site of its own", "http://edge.test:PORT1 {\n" + block + "}\n", "{[edge.test] false /}"},
		{"two names", "http://edge.test:PORT1, http://b.test:PORT1 {\n" + block + "}\n", "{[b.test edge.test] false /}"},
		{"any name below one", "http://*.edge.test:PORT1 {\n" + block + "}\n", "{[*.edge.test] false /}"},
		{"any name", "http://:PORT1 {\n" + block + "}\n", "{[] true /}"},
		{"a path", "http://edge.test:PORT1 {\nhandle_path /console/* {\n" + block + "}\n}\n", "{[edge.test] false /console/}"},
		{"a path in a path", "http://edge.test:PORT1 {\nhandle_path /a/* {\nhandle_path /b/* {\n" + block + "}\n}\n}\n", "{[edge.test] false /a/b/}"},
		{"taken off before", "http://edge.test:PORT1 {\nroute /a/* {\nuri strip_prefix /a\n" + block + "}\n}\n", "{[edge.test] false /a/}"},
		{"a path that stays", "http://edge.test:PORT1 {\nhandle /a/* {\n" + block + "}\n}\n", "{[edge.test] false /}"},
		{"beside another path", "http://edge.test:PORT1 {\nhandle_path /a/* {\nrespond 404\n}\nhandle {\n" + block + "}\n}\n", "{[edge.test] false /}"},
	} {
		t.Run(test.name, func(t *testing.T) {
			edgetest.Start(t, edgetest.Site(edgetest.Loopback)+test.site)
			if got := fmt.Sprint(activeApp().consoles[0].site); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// TestConsoleProtocols: a login, what ends as it ends, and the end of a stream at a reload, over all that a browser speaks.
func TestConsoleProtocols(t *testing.T) {
	if edgetest.RaceDetector {
		t.Skip("Caddy v2.11.9 has a race of its own when it begins to manage a certificate")
	}
	up := edgetest.NewUpstream(t, 200, nil)
	config := strings.NewReplacer("auto_https off", "auto_https disable_redirects\nskip_install_trust").
		Replace(consoleSite("https://localhost:PORT1", "auth {\ntoken "+consoleToken+"\n}"))
	config = strings.Replace(config, edgetest.Loopback, edgetest.Loopback+"reverse_proxy "+up.Address+"\n", 1)
	config = strings.Replace(config, "handle_path", "bind 127.0.0.1\ntls internal\nhandle_path", 1)
	e := edgetest.Start(t, config)
	trusting := &tls.Config{ServerName: "localhost", InsecureSkipVerify: true}
	edgetest.Eventually(t, "certificate", func() bool {
		conn, err := tls.Dial("tcp", "127.0.0.1:"+e.More[0], trusting)
		return err == nil && conn.Close() == nil
	})
	for proto, transport := range map[string]http.RoundTripper{
		"HTTP/1.1": &http.Transport{TLSClientConfig: trusting.Clone()},
		"HTTP/2.0": &http.Transport{TLSClientConfig: trusting.Clone(), ForceAttemptHTTP2: true},
		"HTTP/3.0": &http3.Transport{TLSClientConfig: trusting.Clone()},
	} {
		t.Run(proto, func(t *testing.T) {
			v := comeTo(e, "localhost:"+e.More[0], "/console/")
			v.base = strings.Replace(v.base, "http:", "https:", 1)
			v.client.Transport = transport
			login := v.open("POST", "login", url.Values{"token": {consoleToken}})
			login.Body.Close()
			if cookie := login.Header.Get("Set-Cookie"); login.StatusCode != 303 || login.Proto != proto || !strings.Contains(cookie, "; Secure") {
				t.Fatalf("login: %d over %s: %s", login.StatusCode, login.Proto, cookie)
			}
			stream := v.open("GET", "api/live", nil)
			defer stream.Body.Close()
			lines := bufio.NewScanner(stream.Body)
			await := func(part string) {
				t.Helper()
				for lines.Scan() {
					if strings.Contains(lines.Text(), part) {
						return
					}
				}
				t.Fatalf("the stream ended before %q: %v", part, lines.Err())
			}
			await("event: hello")
			if status := e.Post(edgetest.Broken(proto)); status != 200 {
				t.Fatal(status)
			}
			await(`"outcome":"quarantined"`)
			config += "\n"
			if err := e.Load(config); err != nil {
				t.Fatal(err)
			}
			await(`"reason":"reload"`)
		})
	}
}
