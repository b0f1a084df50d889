package console_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/console"
)

const (
	token  = "demo-console-token-0123456789"
	chat   = "79001234567@c.us"
	masked = "7900•••4567@c.us"
)

// An edge stands in for the operator's API.
type edge struct {
	mu      sync.Mutex
	asked   []string // method, path, query and body of each request
	noteBad bool     // acts cannot be noted

	streams chan struct{} // one for each that has begun
	ended   chan struct{} // one for each that has ended
}

func newEdge() *edge {
	return &edge{streams: make(chan struct{}, 100), ended: make(chan struct{}, 100)}
}

func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	e.mu.Lock()
	e.asked = append(e.asked, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
	noteBad := e.noteBad
	e.mu.Unlock()
	form, _ := url.ParseQuery(string(body))
	entry := func(i int) string {
		return fmt.Sprintf(`{"id":"20261121T034150123-%08d","instance":"1101000001","chat":%q,"size":3,"body":"SECRET-BODY"}`+"\n", i, chat)
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /green_api/status":
		fmt.Fprint(w, `{"version":"v0.1.0","waiting":0}`)
	case "GET /green_api/live":
		if r.Header.Get("Accept") != "text/event-stream" {
			fmt.Fprint(w, `{"seq":7,"rows":[]}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, "event: hello\nid: 7\ndata: {%q:%q}\n\n", "last", r.Header.Get("Last-Event-ID"))
		_ = http.NewResponseController(w).Flush()
		e.streams <- struct{}{}
		<-r.Context().Done()
		e.ended <- struct{}{}
	case "POST /green_api/activity":
		if noteBad {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"error":"disk full"}`)
		}
	case "POST /green_api/quarantine/search":
		fmt.Fprintf(w, `{"entries":[%s],"looked_at":1}`, entry(1))
	case "GET /green_api/quarantine":
		w.Header().Set("Content-Type", "application/x-ndjson")
		fmt.Fprint(w, entry(1), entry(2))
	case "GET /green_api/quarantine/20261121T034150123-00000001":
		fmt.Fprint(w, entry(1))
	case "POST /green_api/quarantine/replay", "DELETE /green_api/quarantine":
		if form.Get("dry_run") == "true" {
			fmt.Fprint(w, `{"count":2,"skipped":1,"until":"2026-11-21T03:41:50Z-00000001"}`)
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		for i := range 3 {
			fmt.Fprintf(w, `{"id":"%d","outcome":"delivered"}`+"\n", i)
			_ = http.NewResponseController(w).Flush()
		}
	case "GET /green_api/queue":
		if r.URL.Query().Get("name") == "endless" {
			fmt.Fprint(w, "{}\n")
			<-r.Context().Done()
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		fmt.Fprintf(w, `{"lane":"3f2a9c01b7de","chat":%q,"entries":1}`+"\n"+`{"lane":"3f2a9c01b7df","chat":"","entries":1}`+"\n", chat)
	case "GET /green_api/queue/3f2a9c01b7de":
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"error":"no lane"}`)
	default:
		fmt.Fprint(w, `{}`)
	}
}

// took returns what the edge was asked for since the last time.
func (e *edge) took() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	asked := e.asked
	e.asked = nil
	return asked
}

// A site is a server with a console.
type site struct {
	*httptest.Server
	edge *edge
	t    *testing.T
}

// serve starts a site. change may change what it has, of which the port of the hosts is set later.
func serve(t *testing.T, change func(*console.Options)) *site {
	t.Helper()
	s := &site{edge: newEdge(), t: t}
	s.Server = httptest.NewUnstartedServer(nil)
	address := s.Listener.Addr().String()
	o := console.Options{
		API: s.edge, Access: console.Access{Token: token, Name: "demo"}, Door: console.DoorSite, Bodies: true, Version: "v0.1.0",
		Hosts: []string{address, "localhost" + address[strings.LastIndexByte(address, ':'):]}, Host: "hooks-1",
	}
	if change != nil {
		change(&o)
	}
	c, err := console.New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Config.Handler = c
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// A browser keeps cookies, and follows no redirect.
func (s *site) browser() *http.Client {
	jar, _ := cookiejar.New(nil)
	return &http.Client{
		Jar: jar, Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// loggedIn returns a browser that is logged in.
func (s *site) loggedIn() *http.Client {
	s.t.Helper()
	b := s.browser()
	if status, text, _ := s.ask(b, "POST", "/login", "token="+token); status != http.StatusSeeOther {
		s.t.Fatalf("login: %d %s", status, text)
	}
	return b
}

// ask sends a request with a form, and with what change sets, and returns the answer.
func (s *site) ask(b *http.Client, method, path, form string, change ...func(*http.Request)) (status int, text string, header http.Header) {
	s.t.Helper()
	response := s.open(b, method, path, form, change...)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Errorf("%s %s: %v", method, path, err)
	}
	return response.StatusCode, string(body), response.Header
}

func (s *site) open(b *http.Client, method, path, form string, change ...func(*http.Request)) *http.Response {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.URL, strings.NewReader(form))
	if err != nil {
		s.t.Fatal(err)
	}
	r.URL.Opaque = "//" + r.URL.Host + path   // as it is written
	r.URL.Path, _, _ = strings.Cut(path, "?") // for cookies
	if form != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, f := range change {
		f(r)
	}
	response, err := b.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	return response
}

func with(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// note is what the edge is asked for when it has to note an act.
func note(action, more string) string {
	return "POST /green_api/activity action=" + strings.ReplaceAll(action, " ", "+") + "&client_ip=127.0.0.1" + more + "&user=demo"
}

// TestAPI: what the page asks for, and what the edge is asked for in turn.
func TestAPI(t *testing.T) {
	const id = "20261121T034150123-00000001"
	s := serve(t, nil)
	for _, test := range []struct {
		method, path, form string
		status             int
		answer             string // its beginning
		asked              []string
	}{
		{"GET", "/api/me", "", 200, `{"bodies":true,"door":"site","host":"hooks-1","login":true,"phones":false,"role":"operator","user":"demo","version":"v0.1.0"}`, nil},
		{"GET", "/api/status", "", 200, `{"version":"v0.1.0","waiting":0}`, []string{"GET /green_api/status"}},
		{"GET", "/api/live?since=4", "", 200, `{"seq":7,`, []string{"GET /green_api/live?since=4"}},
		{"GET", "/api/live?since=4&x=1", "", 400, `{"error":"x: unknown parameter"}`, nil},
		{"GET", "/api/quarantine/summary", "", 200, `{}`, []string{"GET /green_api/quarantine/summary"}},
		{
			"POST", "/api/quarantine/search", "chat=" + chat + "&limit=5&before=" + id, 200,
			`{"entries":[{"id":"` + id + `","instance":"1101000001","chat":"` + masked + `","size":3}],"looked_at":1}`,
			[]string{"POST /green_api/quarantine/search before=" + id + "&chat=79001234567%40c.us&limit=5"},
		},
		{"POST", "/api/quarantine/search?chat=79001234567", "", 400, `{"error":"chat: `, nil},
		{"POST", "/api/quarantine/search?%43hat=79001234567", "", 400, `{"error":"chat: `, nil},
		{"GET", "/?chat=79001234567", "", 400, `{"error":"chat: `, nil},
		{"POST", "/api/quarantine/search?limit=5", "", 400, `{"error":"want the parameters in the body"}`, nil},
		{"POST", "/api/quarantine/search", "body=true", 400, `{"error":"body: unknown parameter"}`, nil},
		{
			"GET", "/api/quarantine/" + id, "", 200, `{"id":"` + id + `","instance":"1101000001","chat":"` + masked + `","size":3}`,
			[]string{"GET /green_api/quarantine/" + id + "?body=false&marks=true"},
		},
		{"GET", "/api/quarantine/a%2fb", "", 404, `{"error":"no such page"}`, nil},
		{"GET", "/api/quarantine/..", "", 404, `{"error":"no such page"}`, nil},
		{
			"POST", "/api/quarantine/" + id + "/body", "", 200, `{"body":"SECRET-BODY"}`,
			[]string{note("body opened", "&count=1&quarantine_id="+id), "GET /green_api/quarantine/" + id},
		},
		{"GET", "/api/quarantine/" + id + "/body", "", 405, `{"error":"method not allowed"}`, nil},
		{
			"POST", "/api/quarantine/replay", "reason=schema&recheck=true", 200, `{"id":"0","outcome":"delivered"}` + "\n" + `{"id":"1"`,
			[]string{"POST /green_api/quarantine/replay dry_run=true&reason=schema&recheck=true", note("replayed", "&count=2"), "POST /green_api/quarantine/replay reason=schema&recheck=true"},
		},
		{
			"POST", "/api/quarantine/replay", "reason=schema&dry_run=true", 200, `{"count":2,`,
			[]string{"POST /green_api/quarantine/replay dry_run=true&reason=schema"},
		},
		{
			"DELETE", "/api/quarantine", "id=" + id, 200, `{"id":"0"`,
			[]string{"DELETE /green_api/quarantine dry_run=true&id=" + id, note("deleted", "&count=3&quarantine_id="+id), "DELETE /green_api/quarantine id=" + id},
		},
		{
			"POST", "/api/quarantine/export", "all=true&chat=" + chat, 200, `{"id":"` + id + `","instance":"1101000001","chat":"` + chat + `","size":3,"body":"SECRET-BODY"}` + "\n",
			[]string{"POST /green_api/quarantine/replay all=true&chat=79001234567%40c.us&dry_run=true", note("exported", "&count=3"), "GET /green_api/quarantine body=true&chat=79001234567%40c.us"},
		},
		{
			"GET", "/api/queue?limit=2&name=sales", "", 200, `{"lane":"3f2a9c01b7de","chat":"` + masked + `","entries":1}` + "\n" + `{"lane":"3f2a9c01b7df","chat":"",`,
			[]string{"GET /green_api/queue?limit=2&name=sales"},
		},
		{"GET", "/api/queue/state", "", 200, `{}`, []string{"GET /green_api/queue/state"}},
		{"GET", "/api/queue/3f2a9c01b7de?limit=1", "", 404, `{"error":"no lane"}`, []string{"GET /green_api/queue/3f2a9c01b7de?limit=1"}},
		{"POST", "/api/queue/pause", "name=sales", 200, `{}`, []string{note("queue paused", "&name=sales"), "POST /green_api/queue/pause name=sales"}},
		{"POST", "/api/queue/pause", "instance=1101000001", 200, `{}`, []string{note("queue paused", "&instance=1101000001"), "POST /green_api/queue/pause instance=1101000001"}},
		{"POST", "/api/queue/resume", "", 200, `{}`, []string{note("queue resumed", ""), "POST /green_api/queue/resume"}},
		{"POST", "/api/queue/drain", "", 200, `{}`, []string{note("queue drained", ""), "POST /green_api/queue/drain"}},
		{"POST", "/api/queue/drain", "off=true", 200, `{}`, []string{note("queue resumed", ""), "POST /green_api/queue/drain off=true"}},
		{"POST", "/api/queue/retry", "lane=3f2a9c01b7de", 200, `{}`, []string{note("queue retried", "&lane=3f2a9c01b7de"), "POST /green_api/queue/retry lane=3f2a9c01b7de"}},
		{"POST", "/api/queue/skip", "lane=3f2a9c01b7de&seq=1", 200, `{}`, []string{note("queue skipped", "&lane=3f2a9c01b7de"), "POST /green_api/queue/skip lane=3f2a9c01b7de&seq=1"}},
		{"POST", "/api/queue/move", "from=a&to=b", 405, `{"error":"method not allowed"}`, nil},
		{"GET", "/api/activity", "", 200, `{}`, []string{"GET /green_api/activity"}},
		{"POST", "/api/quarantine/summary/body", "", 404, `{"error":"no such page"}`, nil},
		{"GET", "/api/fit", "", 404, `{"error":"no such page"}`, nil},
		{"POST", "/api/phones", "show=yes", 400, `{"error":"show: want true or false"}`, nil},
		{"POST", "/api/phones", "show=true", 200, `{"phones":true}`, []string{note("phones shown", "")}},
		{"OPTIONS", "/api/status", "", 405, `{"error":"method not allowed"}`, nil},
	} {
		t.Run(test.method+" "+test.path+" "+test.form, func(t *testing.T) {
			b := s.loggedIn()
			s.edge.took()
			status, text, header := s.ask(b, test.method, test.path, test.form)
			if status != test.status || !strings.HasPrefix(text, test.answer) {
				t.Errorf("%d %s", status, text)
			}
			if asked := s.edge.took(); !slices.Equal(asked, test.asked) {
				t.Errorf("asked the edge for\n%q, want\n%q", asked, test.asked)
			}
			if header.Get("Cache-Control") != "no-store" || header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("header %v", header)
			}
			if test.answer == `{"error":"method not allowed"}` && header.Get("Allow") == "" {
				t.Error("no Allow")
			}
		})
	}
}

// TestVisits: who logs in and out is noted, and does so all the same if that cannot be noted. Who cannot log in is not.
func TestVisits(t *testing.T) {
	for _, bad := range []bool{false, true} {
		s := serve(t, nil)
		s.edge.noteBad = bad
		if status, _, _ := s.ask(s.browser(), "POST", "/login", "token=wrong"); status != 401 {
			t.Errorf("a wrong token: %d", status)
		}
		b := s.loggedIn()
		s.ask(b, "GET", "/", "")
		if status, _, _ := s.ask(b, "POST", "/logout", ""); status != 303 {
			t.Errorf("logout: %d", status)
		}
		if asked, want := s.edge.took(), []string{note("login", ""), note("logout", "")}; !slices.Equal(asked, want) {
			t.Errorf("asked the edge for\n%q, want\n%q", asked, want)
		}
		if status, _, _ := s.ask(b, "GET", "/", ""); status != 401 {
			t.Errorf("after the logout: %d", status)
		}
	}
	var client atomic.Value
	s := serve(t, func(o *console.Options) {
		o.Access = console.Access{User: func(*http.Request) string { return "demo" }}
		o.Client = func(*http.Request) string { return client.Load().(string) }
	})
	for _, test := range []struct {
		client string
		noted  int
	}{{"192.0.2.1", 1}, {"192.0.2.1", 0}, {"192.0.2.2", 1}, {"192.0.2.1", 0}} {
		client.Store(test.client)
		b := s.browser() // without a cookie: another browser, or a link from elsewhere
		for range 2 {
			s.ask(b, "GET", "/", "")
		}
		if asked := s.edge.took(); len(asked) != test.noted {
			t.Errorf("by a name, from %s: asked the edge for %q", test.client, asked)
		}
	}
}

// TestNotNoted: what the edge does not note is not done.
func TestNotNoted(t *testing.T) {
	s := serve(t, nil)
	b := s.loggedIn()
	s.edge.mu.Lock()
	s.edge.noteBad = true
	s.edge.mu.Unlock()
	for _, test := range [][3]string{
		{"POST", "/api/quarantine/20261121T034150123-00000001/body", ""},
		{"POST", "/api/quarantine/replay", "all=true"},
		{"DELETE", "/api/quarantine", "all=true"},
		{"POST", "/api/quarantine/export", "all=true"},
		{"POST", "/api/phones", "show=true"},
		{"POST", "/api/queue/pause", ""},
		{"POST", "/api/queue/skip", "lane=3f2a9c01b7de"},
	} {
		status, text, _ := s.ask(b, test[0], test[1], test[2])
		if status != 500 || text != `{"error":"not done, because it could not be noted: disk full"}`+"\n" {
			t.Errorf("%v: %d %s", test, status, text)
		}
		asked := s.edge.took()
		if last := asked[len(asked)-1]; !strings.HasPrefix(last, "POST /green_api/activity ") || len(asked) > 2 {
			t.Errorf("%v: asked the edge for %q", test, asked)
		}
	}
	if _, text, _ := s.ask(b, "GET", "/api/me", ""); !strings.Contains(text, `"phones":false`) {
		t.Errorf("me: %s", text)
	}
}

// TestPhones: a session sees phone numbers once it has asked for them, and another does not.
func TestPhones(t *testing.T) {
	s := serve(t, nil)
	one, other := s.loggedIn(), s.loggedIn()
	s.ask(one, "POST", "/api/phones", "show=true")
	for b, want := range map[*http.Client]string{one: chat, other: masked} {
		if _, text, _ := s.ask(b, "GET", "/api/queue", ""); !strings.Contains(text, want) {
			t.Errorf("%s", text)
		}
		if _, text, _ := s.ask(b, "POST", "/api/quarantine/search", ""); !strings.Contains(text, want) || strings.Contains(text, "SECRET") {
			t.Errorf("%s", text)
		}
	}
	s.ask(one, "POST", "/api/phones", "show=false")
	if _, text, _ := s.ask(one, "GET", "/api/queue", ""); !strings.Contains(text, masked) {
		t.Errorf("%s", text)
	}
}

// TestPhonesOfBefore: where no body is shown, a session sees no phone number, even if it saw them under another config.
func TestPhonesOfBefore(t *testing.T) {
	both := console.NewSessions()
	before := serve(t, func(o *console.Options) { o.Sessions, o.Hosts = both, []string{"127.0.0.1"} })
	after := serve(t, func(o *console.Options) { o.Sessions, o.Hosts, o.Bodies = both, []string{"127.0.0.1"}, false })
	b := before.loggedIn()
	before.ask(b, "POST", "/api/phones", "show=true")
	if _, text, _ := before.ask(b, "GET", "/api/queue", ""); !strings.Contains(text, chat) {
		t.Errorf("before: %s", text)
	}
	if status, text, _ := after.ask(b, "GET", "/api/queue", ""); status != 200 || !strings.Contains(text, masked) || strings.Contains(text, chat) {
		t.Errorf("after: %d %s", status, text)
	}
	if _, text, _ := after.ask(b, "GET", "/api/me", ""); !strings.Contains(text, `"phones":false`) {
		t.Errorf("after: %s", text)
	}
}

// TestLive: a stream comes as it is written, and ends with the session.
func TestLive(t *testing.T) {
	s := serve(t, nil)
	b := s.loggedIn()
	response := s.open(b, "GET", "/api/live", "", with("Accept", "text/event-stream"), with("Last-Event-ID", "6"))
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	for _, want := range []string{"event: hello\n", "id: 7\n", `data: {"last":"6"}` + "\n"} {
		if line, err := lines.ReadString('\n'); err != nil || line != want {
			t.Fatalf("%q, %v", line, err)
		}
	}
	if kind := response.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("Content-Type %q", kind)
	}
	if status, _, header := s.ask(b, "POST", "/logout", ""); status != 303 || header.Get("Location") != "/" {
		t.Errorf("logout: %d %v", status, header)
	}
	if _, err := io.ReadAll(lines); err != nil {
		t.Errorf("the stream ends with %v", err)
	}
	<-s.edge.ended
	if status, _, _ := s.ask(b, "GET", "/api/me", ""); status != 401 {
		t.Errorf("afterwards: %d", status)
	}
}

// A taker takes an answer, and tells when it may take as long as it likes to send what comes next.
type taker struct {
	*httptest.ResponseRecorder
	hurried, flushed bool // since the deadline was set
	free             chan struct{}
}

func (w *taker) SetWriteDeadline(at time.Time) error {
	if at.IsZero() && w.hurried && w.flushed {
		w.free <- struct{}{}
	}
	w.hurried, w.flushed = !at.IsZero(), false
	return nil
}

func (w *taker) FlushError() error {
	w.flushed = true
	return nil
}

// TestNothingToWrite: a browser has to take what is written soon, and may wait for it long. HTTP/2 ends an answer whose
// deadline passes, even if nothing is being written.
func TestNothingToWrite(t *testing.T) {
	for _, test := range []struct{ path, kind string }{{"/api/live", "text/event-stream"}, {"/api/queue", "application/json"}} {
		w := &taker{ResponseRecorder: httptest.NewRecorder(), free: make(chan struct{}, 1)}
		c, err := console.New(console.Options{
			Access: console.Access{Off: true}, Door: console.DoorSite, Hosts: []string{"edge.test"},
			API: http.HandlerFunc(func(to http.ResponseWriter, _ *http.Request) {
				for range 2 {
					fmt.Fprint(to, "{}\n")
					_ = http.NewResponseController(to).Flush()
					select {
					case <-w.free:
					case <-time.After(30 * time.Second):
						t.Errorf("%s: the deadline of what was written stays", test.path)
					}
				}
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		first := httptest.NewRecorder()
		c.ServeHTTP(first, httptest.NewRequest("GET", "http://edge.test/", nil))
		r := httptest.NewRequest("GET", "http://edge.test"+test.path, nil)
		r.Header.Set("Accept", test.kind)
		r.AddCookie(first.Result().Cookies()[0])
		c.ServeHTTP(w, r)
		if text := w.Body.String(); w.Code != 200 || text != "{}\n{}\n" {
			t.Errorf("%s: %d %q", test.path, w.Code, text)
		}
		if !w.hurried {
			t.Errorf("%s: what is left at the end has no deadline", test.path)
		}
	}
}

// TestCutOff: a list that a logout cuts off does not look like a whole one.
func TestCutOff(t *testing.T) {
	s := serve(t, nil)
	b := s.loggedIn()
	response := s.open(b, "GET", "/api/queue?name=endless", "")
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	if line, err := lines.ReadString('\n'); err != nil || line != "{}\n" {
		t.Fatalf("%q, %v", line, err)
	}
	s.ask(b, "POST", "/logout", "")
	if rest, err := io.ReadAll(lines); err == nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
}
