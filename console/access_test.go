package console_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/console"
)

// TestOptions: what cannot be served, or by nobody or anybody, is refused.
func TestOptions(t *testing.T) {
	good := func() console.Options {
		return console.Options{
			API: newEdge(), Access: console.Access{Token: token}, Hosts: []string{"hooks.example.com"}, Door: console.DoorSite,
		}
	}
	if _, err := console.New(good()); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*console.Options){
		"no API": func(o *console.Options) { o.API = nil },
		"access: want one of a token, a user, and off":          func(o *console.Options) { o.Access = console.Access{} },
		"access: want one of a token, a user, and off ":         func(o *console.Options) { o.Access.Off = true },
		"access: want one of a token, a user, and off  ":        func(o *console.Options) { o.Access.User = func(*http.Request) string { return "" } },
		"token: want at least 22 characters":                    func(o *console.Options) { o.Access.Token = token[:21] },
		"hosts: want the names that the page is asked for by":   func(o *console.Options) { o.Hosts = nil },
		`hosts: invalid name ""; want one such as `:             func(o *console.Options) { o.Hosts = []string{""} },
		`hosts: invalid name "*"; want one such as `:            func(o *console.Options) { o.Hosts = []string{"*"} },
		`hosts: invalid name "*:8019"; want one such as `:       func(o *console.Options) { o.Hosts = []string{"*:8019"} },
		`hosts: invalid name "*example.com"; want one such as `: func(o *console.Options) { o.Hosts = []string{"*example.com"} },
		`hosts: invalid name "тест.example.com"; want it as `:   func(o *console.Options) { o.Hosts = []string{"тест.example.com"} },
		`hosts: invalid name "http://a"; want one such as `:     func(o *console.Options) { o.Hosts = []string{"http://a"} },
		`hosts: invalid name "{host}"; want one such as `:       func(o *console.Options) { o.Hosts = []string{"a", "{host}"} },
		`prefix: invalid path "/console"; want one such as `:    func(o *console.Options) { o.Prefix = "/console" },
		`prefix: invalid path "console/"; want one such as `:    func(o *console.Options) { o.Prefix = "console/" },
		`prefix: invalid path "/a/../"; want one such as `:      func(o *console.Options) { o.Prefix = "/a/../" },
		`prefix: invalid path "//"; want one such as `:          func(o *console.Options) { o.Prefix = "//" },
		`prefix: invalid path "/a;b/"; want one such as `:       func(o *console.Options) { o.Prefix = "/a;b/" },
		`prefix: invalid path "/a\r\nb/"; want one such as `:    func(o *console.Options) { o.Prefix = "/a\r\nb/" },
		`door: invalid value ""`:                                func(o *console.Options) { o.Door = "" },
	} {
		o := good()
		change(&o)
		if _, err := console.New(o); err == nil || !strings.HasPrefix(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// everyPath is each path that the page knows, and ways to write some that servers have fallen for.
func everyPath(prefix, assets string) []string {
	rel := []string{
		"", "login", "logout", "api/me", "api/status", "api/live", "api/live?since=1", "api/quarantine/summary", "api/quarantine/search", "api/quarantine/replay",
		"api/quarantine/export", "api/quarantine", "api/quarantine/20261121T034150123-00000001", "api/quarantine/20261121T034150123-00000001/body",
		"api/phones", "api/queue", "api/queue/state", "api/queue/3f2a9c01b7de", "api/queue/pause", "api/queue/resume", "api/queue/drain", "api/queue/retry",
		"api/queue/skip", "api/activity", assets + "app.js", "assets/app.js", "index.html",
		"%61pi/status", "api%2fstatus", "api//status", "/api/status", "//api/status", "./api/status", "x/../api/status", "login/../api/status", "login%2f..%2fapi/status",
		"..%2fapi/status", "%2e%2e/api/status", "api/status/", "api/status?x=/login", "api/status;/login", "API/STATUS", "api/status%00", "api\\status", "%6cogin/api/status",
		"green_api/status", "login%2f", "assets/../api/status", assets + "../../api/status", ".", "..", "favicon.ico",
	}
	var all []string
	for _, one := range rel {
		all = append(all, prefix+one)
	}
	return append(all, "/x"+prefix+"api/status", "/other", "/api/status", "/green_api/status")
}

// methods are those of HTTP, and some that nobody knows.
var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "X"}

// raw sends a request as it is written, and returns the status. It does what a client of net/http would not.
func raw(t *testing.T, address, path, host string, lines ...string) int {
	t.Helper()
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	fmt.Fprintf(connection, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: 0\r\n%s\r\n", path, host, strings.Join(append(lines, ""), "\r\n"))
	answer, err := io.ReadAll(connection)
	if err != nil {
		t.Fatal(err)
	}
	var status int
	if _, err := fmt.Sscanf(string(answer), "HTTP/1.1 %d ", &status); err != nil {
		t.Errorf("%s: %q", path, answer)
	}
	return status
}

// ask is a request, with a line of its header.
type ask struct{ method, path, line string }

// rawAll sends requests as they are written, one behind another, and returns the statuses.
func rawAll(t *testing.T, address string, all []ask) (statuses []int) {
	t.Helper()
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	go func() {
		for _, one := range all {
			fmt.Fprintf(connection, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n%s\r\n\r\n", one.method, one.path, address, one.line)
		}
	}()
	answers := bufio.NewReader(connection)
	for _, one := range all {
		answer, err := http.ReadResponse(answers, &http.Request{Method: one.method})
		if err != nil {
			t.Fatalf("%v: %v", one, err)
		}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			t.Fatalf("%v: %v", one, err)
		}
		statuses = append(statuses, answer.StatusCode)
	}
	return statuses
}

// TestNobodyWithoutSession: without a session every path and method is 401, 403 if a site's own login names nobody, and the
// edge is asked for nothing.
func TestNobodyWithoutSession(t *testing.T) {
	for _, prefix := range []string{"/", "/ops/console/"} {
		for _, test := range []struct {
			name   string
			access console.Access
			want   int
		}{
			{"token", console.Access{Token: token}, 401},
			{"once", console.Access{Token: token, Once: true}, 401},
			{"user", console.Access{User: func(*http.Request) string { return "" }}, 403},
			{"user with a session", console.Access{User: func(*http.Request) string { return "anna" }}, 401},
			{"off", console.Access{Off: true}, 401},
		} {
			t.Run(prefix+" "+test.name, func(t *testing.T) {
				s := serve(t, func(o *console.Options) { o.Prefix, o.Access = prefix, test.access })
				host := s.Listener.Addr().String()
				var asked []ask
				for _, path := range everyPath(prefix, "assets/0123456789abcdef/") {
					for _, method := range methods {
						isPage := path == prefix && method == "GET"
						if isPage && test.want == 401 && test.access.Token == "" {
							continue // there a session begins
						}
						if method == "POST" && (path == prefix+"login" || path == prefix+"%6cogin") {
							continue // TestLogin
						}
						with := []string{"X: y", "Cookie: green_api_console_00000000=" + token, "Authorization: Bearer " + token}[len(asked)%3]
						asked = append(asked, ask{method, path, with})
					}
				}
				for some := range slices.Chunk(asked, 500) {
					for i, status := range rawAll(t, host, some) {
						if status != test.want {
							t.Errorf("%v: %d", some[i], status)
						}
					}
				}
				if asked := s.edge.took(); len(asked) > 0 {
					t.Errorf("asked the edge for %q", asked)
				}
			})
		}
	}
}

// TestReadOnly: with it nothing is changed, whatever the path is.
func TestReadOnly(t *testing.T) {
	s := serve(t, func(o *console.Options) { o.ReadOnly = true })
	b := s.loggedIn()
	s.edge.took()
	for _, path := range everyPath("/", "assets/0123456789abcdef/") {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "PROPFIND"} {
			bare, _, _ := strings.Cut(path, "?")
			if method == "POST" && slices.Contains([]string{"/login", "/logout", "/api/phones", "/api/quarantine/search", "/api/quarantine/20261121T034150123-00000001/body"}, bare) {
				continue
			}
			status, text, _ := s.ask(b, method, path, "all=true")
			if status != 403 || text != `{"error":"read_only: nothing can be changed here"}`+"\n" {
				t.Errorf("%s %s: %d %s", method, path, status, text)
			}
		}
	}
	if asked := s.edge.took(); len(asked) > 0 {
		t.Errorf("asked the edge for %q", asked)
	}
	for _, test := range [][3]string{
		{"POST", "/api/quarantine/search", "reason=schema"},
		{"POST", "/api/quarantine/20261121T034150123-00000001/body", ""},
		{"POST", "/api/phones", "show=true"},
		{"GET", "/api/queue", ""},
	} {
		if status, text, _ := s.ask(b, test[0], test[1], test[2]); status != 200 {
			t.Errorf("%v: %d %s", test, status, text)
		}
	}
	if _, text, _ := s.ask(b, "GET", "/api/me", ""); !strings.Contains(text, `"role":"read_only"`) {
		t.Errorf("me: %s", text)
	}
}

// TestNoBodies: with bodies off none is shown, and no phone number.
func TestNoBodies(t *testing.T) {
	s := serve(t, func(o *console.Options) { o.Bodies = false })
	b := s.loggedIn()
	s.edge.took()
	for _, test := range [][3]string{
		{"POST", "/api/quarantine/20261121T034150123-00000001/body", ""},
		{"POST", "/api/quarantine/export", "all=true"},
		{"POST", "/api/phones", "show=true"},
	} {
		if status, text, _ := s.ask(b, test[0], test[1], test[2]); status != 403 || !strings.HasPrefix(text, `{"error":"bodies off: `) {
			t.Errorf("%v: %d %s", test, status, text)
		}
	}
	if asked := s.edge.took(); len(asked) > 0 {
		t.Errorf("asked the edge for %q", asked)
	}
	if status, text, _ := s.ask(b, "POST", "/api/quarantine/replay", "all=true"); status != 200 {
		t.Errorf("replay: %d %s", status, text)
	}
}

// TestHosts: only its own names are answered.
func TestHosts(t *testing.T) {
	s := serve(t, func(o *console.Options) {
		o.Hosts = append(o.Hosts, "hooks.example.com", "*.edge.example.com", "[::1]:8019")
	})
	address := s.Listener.Addr().String()
	port := address[strings.LastIndexByte(address, ':'):]
	for host, want := range map[string]int{
		address: 401, "localhost" + port: 401, "LOCALHOST" + port: 401, "LocalHost" + port: 401, "hooks.example.com": 401, "hooks.example.com:8443": 401,
		"HOOKS.example.com": 401, "a.edge.example.com": 401, "a.edge.example.com:1": 401, "[::1]:8019": 401,
		"": 403, "localhost": 403, "127.0.0.1": 403, "localhost." + port: 403, "hooks.example.com.": 403, "hooks.example.com.:8443": 403,
		"localhost:1": 403, "127.0.0.1:1": 403, "evil.test" + port: 403, "localhost" + port + ".evil.test": 403, "hooks.example.com.evil.test": 403,
		"evil-hooks.example.com": 403, "a.hooks.example.com": 403, "edge.example.com": 403, ".edge.example.com": 403, "a.b.edge.example.com": 403, "127.1" + port: 403,
		"2130706433" + port: 403, "0x7f.0.0.1" + port: 403, "127.0.0.2" + port: 403, "[::1]" + port: 403, "::1:8019": 403, "[::ffff:127.0.0.1]" + port: 403,
		"hooks.example.com:x": 400, "hooks.example.com:": 401, "user@hooks.example.com": 400, "loca\u017fhost" + port: 400,
	} {
		status := raw(t, address, "/", host)
		if status != want && (want != 400 || status != 403) {
			t.Errorf("%q: %d, want %d", host, status, want)
		}
	}
	if status := raw(t, address, "/", address, "Host: evil.test"); status != 400 {
		t.Errorf("two: %d", status)
	}
	if status := raw(t, address, "http://evil.test/", address); status != 403 {
		t.Errorf("in the request line: %d", status)
	}
	if status := raw(t, address, "/", "evil.test", "X-Forwarded-Host: "+address, "Forwarded: host="+address); status != 403 {
		t.Errorf("forwarded: %d", status)
	}
}

// TestOrigins: a page of another origin reads nothing and changes nothing, even with the cookie.
func TestOrigins(t *testing.T) {
	s := serve(t, nil)
	b := s.loggedIn()
	headers := func(list ...string) func(*http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(list); i += 2 {
				r.Header.Add(list[i], list[i+1])
			}
		}
	}
	for _, test := range []struct {
		name          string
		set           func(*http.Request)
		page, get, do int
	}{
		{"no browser", headers(), 200, 200, 200},
		{"the page", headers("Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors", "Origin", s.URL), 200, 200, 200},
		{"a form of the page", headers("Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "navigate", "Origin", "null"), 200, 200, 200},
		{"typed", headers("Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"), 200, 200, 200},
		{"a link elsewhere", headers("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"), 200, 403, 403},
		{"a frame elsewhere", headers("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"), 403, 403, 403},
		{"a script elsewhere", headers("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script"), 403, 403, 403},
		{"another port", headers("Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors"), 403, 403, 403},
		{"fetch elsewhere", headers("Sec-Fetch-Site", "cross-site", "Origin", "http://evil.test"), 403, 403, 403},
		{"an older browser", headers("Origin", s.URL), 200, 200, 200},
		{"an older browser elsewhere", headers("Origin", "http://evil.test"), 403, 403, 403},
		{"an older browser, no origin", headers("Origin", "null"), 403, 403, 403},
		{"nonsense", headers("Sec-Fetch-Site", "yes"), 403, 403, 403},
		{"empty", headers("Sec-Fetch-Site", "", "Origin", "http://evil.test"), 403, 403, 403},
	} {
		for _, one := range []struct {
			method, path string
			want         int
		}{
			{"GET", "/", test.page},
			{"GET", "/api/status", test.get},
			{"GET", "/api/queue", test.get},
			{"POST", "/api/queue/pause", test.do},
			{"POST", "/api/quarantine/search", test.do},
			{"DELETE", "/api/quarantine", test.do},
		} {
			status, text, header := s.ask(b, one.method, one.path, "", test.set)
			if status != one.want {
				t.Errorf("%s: %s %s: %d %s", test.name, one.method, one.path, status, text)
			}
			for name := range header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s: %s %s: %s", test.name, one.method, one.path, name)
				}
			}
		}
	}
	for _, method := range []string{"POST", "HEAD"} { // another page logs nobody in
		if status, _, _ := s.ask(s.browser(), method, "/login", "token="+token, with("Sec-Fetch-Site", "cross-site")); status != 403 {
			t.Errorf("login: %d", status)
		}
	}
}

// TestHeaders: each answer has what keeps a browser from being led astray.
func TestHeaders(t *testing.T) {
	s := serve(t, nil)
	b, nobody := s.loggedIn(), s.browser()
	_, text, _ := s.ask(b, "GET", "/", "")
	asset := regexp.MustCompile(`assets/[0-9a-f]{16}/app.js`).FindString(text)
	for _, test := range []struct {
		b                    *http.Client
		method, path, header string
	}{
		{b, "GET", "/", "no-cache"},
		{b, "HEAD", "/", "no-cache"},
		{b, "GET", "/" + asset, "private, max-age=31536000, immutable"},
		{b, "GET", "/api/me", "no-store"},
		{b, "GET", "/api/status", "no-store"},
		{b, "GET", "/api/live", "no-store"},
		{b, "GET", "/nothing", "no-store"},
		{b, "PUT", "/api/me", "no-store"},
		{nobody, "GET", "/", "no-store"},
		{nobody, "GET", "/api/me", "no-store"},
		{nobody, "POST", "/login", "no-store"},
		{b, "POST", "/api/quarantine/export", "no-store"},
	} {
		_, _, header := s.ask(test.b, test.method, test.path, "")
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin",
			"Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": test.header,
		} {
			if got := header.Get(name); got != want {
				t.Errorf("%s %s: %s: %q, want %q", test.method, test.path, name, got, want)
			}
		}
		policy := header.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'; ", "base-uri 'none'; ", "frame-ancestors 'none'; ", "form-action 'self'; ", "require-trusted-types-for 'script'"} {
			if !strings.Contains(policy, part) || strings.Contains(policy, "unsafe") {
				t.Errorf("%s %s: policy %q lacks %q", test.method, test.path, policy, part)
			}
		}
	}
}

// TestLogin: by a form, with and without JavaScript.
func TestLogin(t *testing.T) {
	var mu sync.Mutex
	var refused []string
	s := serve(t, func(o *console.Options) {
		o.Prefix, o.Client = "/ops/", func(*http.Request) string { return "192.0.2.7\r\n\u202eevil" }
		o.Refused = func(client string) {
			mu.Lock()
			defer mu.Unlock()
			refused = append(refused, client)
		}
	})
	b := s.browser()
	status, text, header := s.ask(b, "GET", "/ops/", "", with("Accept-Language", "de, ru-RU;q=0.8, en;q=0.7"))
	if status != 401 || !strings.Contains(text, `action="/ops/login"`) || !strings.Contains(text, "Токен") || !strings.HasPrefix(header.Get("Content-Type"), "text/html") {
		t.Errorf("page: %d %v %s", status, header, text)
	}
	for _, wrong := range []string{"token=", "token=" + token + "x", "token=" + strings.ToUpper(token), "x=" + token} {
		status, text, header := s.ask(b, "POST", "/ops/login", wrong)
		if status != 401 || !strings.Contains(text, ">This token is wrong.<") || len(header["Set-Cookie"]) > 0 {
			t.Errorf("%s: %d %v %s", wrong, status, header, text)
		}
	}
	if status, text, _ := s.ask(b, "POST", "/ops/login", "token=no", with("Accept", "application/json")); status != 401 || text != `{"error":"wrong token"}`+"\n" {
		t.Errorf("as JSON: %d %s", status, text)
	}
	mu.Lock()
	if len(refused) != 5 || refused[0] != "192.0.2.7\ufffd\ufffd\ufffdevil" {
		t.Errorf("told of %q", refused)
	}
	mu.Unlock()
	b = s.browser()
	for { // the guesses may have been five in a second
		if status, _, header = s.ask(b, "POST", "/ops/login", "token=+"+token+"%0A"); status != 429 {
			break
		}
	}
	if status != 303 || header.Get("Location") != "/ops/" {
		t.Errorf("right: %d %v", status, header)
	}
	cookies := header["Set-Cookie"]
	if want := regexp.MustCompile(`^green_api_console_[0-9a-f]{8}=[A-Z2-7]{52}; Path=/ops/; HttpOnly; SameSite=Strict$`); len(cookies) != 1 || !want.MatchString(cookies[0]) {
		t.Errorf("cookies %q", cookies)
	}
	if status, text, _ := s.ask(b, "GET", "/ops/", ""); status != 200 || !strings.Contains(text, `"assets/`) {
		t.Errorf("page: %d %s", status, text)
	}
	if status, _, header := s.ask(b, "GET", "/ops", ""); status == 200 || status == 303 && header.Get("Location") != "/ops/" {
		t.Errorf("without the slash: %d %v", status, header)
	}
	status, text, _ = s.ask(s.browser(), "POST", "/ops/login", "token="+token, with("Accept", "application/json"))
	if status != 204 || text != "" {
		t.Errorf("as JSON: %d %s", status, text)
	}
	if status, _, _ := s.ask(s.browser(), "GET", "/ops/login?token="+token, ""); status != 401 {
		t.Errorf("in the URL: %d", status)
	}
	if status, _, header := s.ask(b, "POST", "/ops/logout", ""); status != 303 || header.Get("Location") != "/ops/" || !strings.Contains(header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("logout: %d %v", status, header)
	}
}

// TestLoginOnce: a token that is good for once lets in one of many who come at the same time.
func TestLoginOnce(t *testing.T) {
	s := serve(t, func(o *console.Options) { o.Access.Once = true })
	var in, out int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			status, _, _ := s.ask(s.browser(), "POST", "/login", "token="+token)
			mu.Lock()
			defer mu.Unlock()
			if status == 303 {
				in++
			} else {
				out++
			}
		})
	}
	all.Wait()
	if in != 1 || out != 4 {
		t.Errorf("%d in, %d out", in, out)
	}
	for {
		status, text, _ := s.ask(s.browser(), "POST", "/login", "token="+token)
		if status == 429 {
			continue
		}
		if status != 401 || !strings.Contains(text, "This link was used already") {
			t.Errorf("%d %s", status, text)
		}
		break
	}
}

// TestFixation: an ID that somebody has planted is not taken over, and the session that a browser had ends.
func TestFixation(t *testing.T) {
	s := serve(t, nil)
	_, _, header := s.ask(s.loggedIn(), "GET", "/api/me", "")
	if len(header["Set-Cookie"]) > 0 {
		t.Errorf("another cookie: %v", header)
	}
	_, _, header = s.ask(s.browser(), "POST", "/login", "token="+token)
	name, rest, _ := strings.Cut(header.Get("Set-Cookie"), "=")
	id, _, _ := strings.Cut(rest, ";")
	planted := strings.Repeat("A", len(id))
	for _, before := range []string{planted, id} {
		_, _, header := s.ask(s.browser(), "POST", "/login", "token="+token, with("Cookie", name+"="+before))
		if got := header.Get("Set-Cookie"); got == "" || strings.Contains(got, before) {
			t.Errorf("Set-Cookie %q after %s", got, before)
		}
		if status, _, _ := s.ask(s.browser(), "GET", "/api/me", "", with("Cookie", name+"="+before)); status != 401 {
			t.Errorf("%s: %d", before, status)
		}
	}
}

// TestCookies: with TLS a cookie is bound to it. A session is of one console, whoever else has the same sessions.
func TestCookies(t *testing.T) {
	sessions := console.NewSessions()
	secure := func(prefix, secret string) (*httptest.Server, *http.Client, string) {
		server := httptest.NewUnstartedServer(nil)
		c, err := console.New(console.Options{
			API: newEdge(), Access: console.Access{Token: secret}, Door: console.DoorSite, Hosts: []string{server.Listener.Addr().String()}, Prefix: prefix, Sessions: sessions,
		})
		if err != nil {
			t.Fatal(err)
		}
		server.Config.Handler = c
		server.StartTLS()
		t.Cleanup(server.Close)
		jar, _ := cookiejar.New(nil)
		b := &http.Client{Jar: jar, Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
		response, err := b.Post(server.URL+prefix+"login", "application/x-www-form-urlencoded", strings.NewReader("token="+secret))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 200 { // it has followed the redirect
			t.Errorf("%s: %d", prefix, response.StatusCode)
		}
		first := response.Request.Header.Get("Cookie")
		return server, b, first
	}
	root, b, cookie := secure("/", token)
	if !strings.HasPrefix(cookie, "__Host-green_api_console_") {
		t.Errorf("cookie %q", cookie)
	}
	_, id, _ := strings.Cut(cookie, "=")
	for prefix, secret := range map[string]string{"/a/": token, "/": token + "2"} {
		other, _, theirs := secure(prefix, secret)
		if prefix != "/" && !strings.HasPrefix(theirs, "__Secure-green_api_console_") {
			t.Errorf("cookie %q", theirs)
		}
		name, _, _ := strings.Cut(theirs, "=")
		r, _ := http.NewRequest("GET", other.URL+prefix+"api/me", nil)
		r.Header.Set("Cookie", name+"="+id)
		response, err := (&http.Client{Transport: b.Transport}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 401 {
			t.Errorf("%s: the session of another console: %d", prefix, response.StatusCode)
		}
	}
	response, err := b.Get(root.URL + "/api/me")
	if err != nil || response.StatusCode != 200 {
		t.Fatalf("its own: %v, %v", response, err)
	}
	response.Body.Close()
}

// TestUser: a site's own login says who it is, at each request.
func TestUser(t *testing.T) {
	s := serve(t, func(o *console.Options) {
		o.Access = console.Access{User: func(r *http.Request) string { return r.Header.Get("X-User") }}
	})
	anna, ivan := with("X-User", "anna"), with("X-User", "ivan\x85\u202e")
	b := s.browser()
	if status, text, _ := s.ask(b, "GET", "/", "", anna); status != 200 || !strings.Contains(text, "assets/") {
		t.Errorf("page: %d %s", status, text)
	}
	if _, text, _ := s.ask(b, "GET", "/api/me", "", anna); !strings.Contains(text, `"user":"anna"`) {
		t.Errorf("me: %s", text)
	}
	s.ask(b, "POST", "/api/phones", "show=true", anna)
	if status, _, _ := s.ask(b, "GET", "/api/me", "", ivan); status != 401 {
		t.Errorf("somebody else: %d", status)
	}
	if status, _, _ := s.ask(b, "GET", "/api/me", ""); status != 403 {
		t.Errorf("nobody: %d", status)
	}
	s.ask(b, "GET", "/", "", ivan)
	if _, text, _ := s.ask(b, "GET", "/api/me", "", ivan); !strings.Contains(text, "\"user\":\"ivan\ufffd\ufffd\"") || !strings.Contains(text, `"phones":false`) {
		t.Errorf("somebody else: %s", text)
	}
	if status, _, _ := s.ask(b, "POST", "/login", "token=", anna); status != 401 {
		t.Errorf("login: %d", status)
	}
}

// TestGuessing: five wrong tokens a second are looked at, however many come.
func TestGuessing(t *testing.T) {
	var mu sync.Mutex
	told := 0
	s := serve(t, func(o *console.Options) {
		o.Refused = func(string) {
			mu.Lock()
			defer mu.Unlock()
			told++
		}
	})
	began := time.Now()
	var wrong, slow int
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 10 {
				status, _, header := s.ask(s.browser(), "POST", "/login", "token=guess", with("Accept", "application/json"))
				mu.Lock()
				switch {
				case status == 401:
					wrong++
				case status == 429 && header.Get("Retry-After") == "1":
					slow++
				default:
					t.Errorf("%d %v", status, header)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if most := 5 * (int(time.Since(began).Seconds()) + 2); wrong < 5 || wrong > most || told != wrong || wrong+slow != 80 {
		t.Errorf("%d looked at, %d told, %d too many, in %s", wrong, told, slow, time.Since(began))
	}
}

// TestLimits: a body has a length and a form.
func TestLimits(t *testing.T) {
	s := serve(t, nil)
	b := s.loggedIn()
	s.edge.took()
	long := "id=" + strings.Repeat("x", 1<<20)
	for _, test := range []struct {
		path, form string
		set        func(*http.Request)
		want       int
	}{
		{"/api/quarantine/search", long, nil, 413},
		{"/api/quarantine/search", long[:1<<20], nil, 200},
		{"/api/quarantine/search", long[:100], with("Content-Type", "text/plain"), 415},
		{"/api/quarantine/search", long[:100], with("Content-Type", "multipart/form-data; boundary=x"), 415},
		{"/api/quarantine/search", long[:100], with("Content-Type", "application/x-www-form-urlencoded;charset=UTF-8"), 200},
		{"/api/quarantine/search", "a=%zz", nil, 400},
		{"/login", "token=" + long[:4<<10], nil, 413},
		{"/login", "token=" + token, with("Content-Type", "application/json"), 415},
	} {
		status, text, _ := s.ask(b, "POST", test.path, test.form, func(r *http.Request) {
			if test.set != nil {
				test.set(r)
			}
		})
		if status != test.want {
			t.Errorf("%s %.20s: %d %.100s", test.path, test.form, status, text)
		}
	}
	many := strings.Repeat("id=1&", 30_000)
	if status, text, _ := s.ask(b, "POST", "/api/quarantine/search", many[:len(many)-1]); status != 200 {
		t.Errorf("many: %d %s", status, text)
	}
}

// TestLoginPage: its script and its style are what its policy allows, whatever it says.
func TestLoginPage(t *testing.T) {
	s := serve(t, nil)
	for _, language := range []string{"", "ru", "en-GB", "ru;q=0.1,en", "*", ";;;", "de,ru;q=x"} {
		for _, ask := range []struct {
			method, form string
		}{{"GET", ""}, {"POST", "token=x"}} {
			path := "/"
			if ask.method == "POST" {
				path = "/login"
			}
			_, text, header := s.ask(s.browser(), ask.method, path, ask.form, with("Accept-Language", language), with("Sec-Fetch-Site", "none"))
			policy := header.Get("Content-Security-Policy")
			for _, name := range []string{"script", "style"} {
				inside := regexp.MustCompile(`(?s)<` + name + `>(.*)</` + name + `>`).FindStringSubmatch(text)
				if inside == nil || !strings.Contains(policy, name+"-src "+console.HashOf([]byte(inside[1]))+";") {
					t.Errorf("%q %s: the %s is not that of the policy %q", language, ask.method, name, policy)
				}
			}
			if strings.Contains(text, "ZgotmplZ") || strings.Contains(text, " style=") || strings.Contains(text, " onsubmit") {
				t.Errorf("%s", text)
			}
			if russian := language == "ru"; russian != strings.Contains(text, `lang="ru"`) {
				t.Errorf("%q: %.100s", language, text)
			}
		}
	}
	_, text, _ := s.ask(s.browser(), "GET", "/", "", with("Sec-Fetch-Site", "cross-site"), with("Sec-Fetch-Mode", "navigate"), with("Sec-Fetch-Dest", "document"))
	if !strings.Contains(text, `data-again="yes"`) {
		t.Errorf("after a link elsewhere: %s", text)
	}
}

// TestStatic: the page and its files are what is in the folder, compressed for who takes that, and unchanged for who has
// them.
func TestStatic(t *testing.T) {
	s := serve(t, nil)
	b := s.loggedIn()
	_, text, header := s.ask(b, "GET", "/", "", with("Accept-Encoding", "identity"))
	found := regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(text, -1)
	if len(found) < 3 {
		t.Fatalf("%s", text)
	}
	if status, _, _ := s.ask(b, "GET", "/", "", with("Accept-Encoding", "identity"), with("If-None-Match", header.Get("Etag"))); status != 304 {
		t.Errorf("the same page: %d", status)
	}
	kinds := map[string]string{"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
	for _, match := range found {
		path := "/" + match[1]
		status, plain, header := s.ask(b, "GET", path, "", with("Accept-Encoding", "br, gzip;q=0"))
		kind := kinds[path[strings.LastIndexByte(path, '.')+1:]]
		if status != 200 || header.Get("Content-Encoding") != "" || header.Get("Content-Type") != kind || plain == "" {
			t.Errorf("%s: %d %v", path, status, header)
		}
		_, packed, gzipped := s.ask(b, "GET", path, "", with("Accept-Encoding", "br, gzip"))
		if gzipped.Get("Content-Encoding") != "gzip" || len(packed) >= len(plain) || gzipped.Get("Etag") == header.Get("Etag") {
			t.Errorf("%s compressed: %v", path, gzipped)
		}
		status, text, _ := s.ask(b, "GET", path, "", with("Accept-Encoding", "br, gzip"), with("If-None-Match", `"x", W/`+gzipped.Get("Etag")))
		if status != 304 || text != "" {
			t.Errorf("%s again: %d %s", path, status, text)
		}
		if status, text, _ := s.ask(b, "HEAD", path, ""); status != 200 || text != "" {
			t.Errorf("%s HEAD: %d %s", path, status, text)
		}
		if status, _, _ := s.ask(b, "POST", path, ""); status != 405 {
			t.Errorf("%s POST: %d", path, status)
		}
	}
	for _, path := range []string{"/assets/app.js", "/assets/0123456789abcdef/app.js", "/index.html", strings.Replace(found[0][1], "assets/", "/assets/", 1) + "x"} {
		if status, _, _ := s.ask(b, "GET", path, ""); status != 404 {
			t.Errorf("%s: %d", path, status)
		}
	}
}

// TestSlowBody: who sends a body slowly holds a connection, and no more.
func TestSlowBody(t *testing.T) {
	s := serve(t, nil)
	connection, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	fmt.Fprintf(connection, "POST /login HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\ntoken=", s.Listener.Addr())
	for range 10 { // nobody waits for it, and it is no guess
		if status, _, _ := s.ask(s.browser(), "POST", "/login", "token="+token); status != 303 {
			t.Fatalf("%d", status)
		}
	}
	connection.(*net.TCPConn).CloseWrite()
	answer, _ := io.ReadAll(connection)
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 408 ")) {
		t.Errorf("%q", answer)
	}
}
