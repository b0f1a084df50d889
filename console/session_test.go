package console

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const secret = "demo-console-token-0123456789"

// TestSessions: a session ends after an hour without use, and after twelve in all.
func TestSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSessions()
		realm := s.realmOf("/", Access{Token: secret})
		id, one := s.begin(realm, "anna", "192.0.2.1")
		one.leave()
		use := func() bool {
			one := s.enter(id, realm, "anna")
			if one == nil {
				return false
			}
			one.leave()
			return true
		}
		for range 11 {
			time.Sleep(idleTime - time.Second)
			if !use() {
				t.Fatal("it is over within an hour of its last use")
			}
		}
		if s.enter(id, realm, "ivan") != nil || s.enter(id, s.realmOf("/a/", Access{Token: secret}), "anna") != nil || s.enter("x", realm, "anna") != nil {
			t.Error("it is somebody else's, too")
		}
		time.Sleep(idleTime)
		if use() || one.context.Err() == nil || len(s.all) != 0 {
			t.Error("it is not over after an hour without use")
		}

		id, one = s.begin(realm, "anna", "192.0.2.1") // a stream that is open
		for range 3 {
			time.Sleep(3 * idleTime)
			if !use() {
				t.Fatal("it is over although a stream is open")
			}
		}
		if one.context.Err() != nil {
			t.Error("its streams end early")
		}
		time.Sleep(3*time.Hour + time.Second)
		if one.context.Err() == nil || use() {
			t.Error("it is not over after twelve hours")
		}
		one.leave()
	})
}

// TestSessionsBounded: too many sessions push out those that were not used for longest, and first those of the same user.
func TestSessionsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSessions()
		realm := s.realmOf("/", Access{})
		ofAnna, anna := s.begin(realm, "anna", "192.0.2.1")
		anna.leave()
		var first, second string
		for i := range mostOfOne + 1 {
			time.Sleep(time.Second)
			id, one := s.begin(realm, "ivan", "192.0.2.1")
			one.leave()
			switch i {
			case 0:
				first = id
			case 1:
				second = id
			}
		}
		if s.enter(first, realm, "ivan") != nil {
			t.Error("the first is still there")
		}
		for id, user := range map[string]string{second: "ivan", ofAnna: "anna"} {
			one := s.enter(id, realm, user)
			if one == nil {
				t.Fatalf("one of %s is gone", user)
			}
			one.leave()
		}
		time.Sleep(time.Second)
		for i := range 2 * mostSessions {
			_, one := s.begin(realm, fmt.Sprint(i), "192.0.2.1")
			one.leave()
		}
		if len(s.all) > mostSessions || s.enter(ofAnna, realm, "anna") != nil || anna.context.Err() == nil {
			t.Errorf("%d sessions", len(s.all))
		}
		for _, one := range s.all { // their timers
			one.end()
		}
	})
}

// TestSecrets: neither a token nor an ID is in what is kept.
func TestSecrets(t *testing.T) {
	c := newConsole(t, nil, nil)
	id, one := c.o.Sessions.begin(c.realm, "anna", "192.0.2.1")
	for _, kept := range []string{fmt.Sprintf("%+v", c), fmt.Sprintf("%+v", c.o.Sessions), fmt.Sprintf("%+v", one)} {
		if strings.Contains(kept, secret) || strings.Contains(kept, id) {
			t.Errorf("%s", kept)
		}
	}
	if !c.isToken(secret) || c.isToken(secret+"x") || c.isToken("") {
		t.Error("the token is not told from another")
	}
}

// newConsole returns a console with an API.
func newConsole(t testing.TB, api http.HandlerFunc, change func(*Options)) *Console {
	t.Helper()
	if api == nil {
		api = func(http.ResponseWriter, *http.Request) {}
	}
	o := Options{API: api, Access: Access{Token: secret, Name: "demo"}, Hosts: []string{"edge.test"}, Door: DoorSite, Bodies: true, Host: "hooks-1"}
	if change != nil {
		change(&o)
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// asked returns a request, with the cookie of a session if an ID is given.
func (c *Console) asked(method, path, form, id string) *http.Request {
	r := httptest.NewRequest(method, "http://edge.test"+path, strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if id != "" {
		r.AddCookie(&http.Cookie{Name: c.cookieName(r), Value: id})
	}
	return r
}

// TestGuessingElsewhere: who guesses holds up nobody who has not, unless a great many guess.
func TestGuessingElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConsole(t, nil, nil)
		c.o.Client = func(r *http.Request) string { return r.Header.Get("From") }
		try := func(client, token string) int {
			r := c.asked("POST", "/login", "token="+token, "")
			r.Header.Set("From", client)
			w := httptest.NewRecorder()
			c.ServeHTTP(w, r)
			return w.Code
		}
		for i := range 10 {
			want := 401
			if i >= mostFailures {
				want = 429
			}
			if got := try(fmt.Sprintf("2001:db8::%d", i), "wrong"); got != want { // all of one network
				t.Errorf("guess %d: %d, want %d", i, got, want)
			}
		}
		if got := try("192.0.2.7", secret); got != 303 {
			t.Errorf("somebody else: %d", got)
		}
		if got := try("2001:db8::99", secret); got != 429 {
			t.Errorf("a neighbour: %d", got)
		}
		for i := range mostGuessers {
			try(fmt.Sprintf("2001:db8:%x::1", i+1), "wrong")
		}
		if got := try("192.0.2.8", "wrong"); got != 429 {
			t.Errorf("one of very many: %d", got)
		}
		if n := len(c.o.Sessions.guessers); n > mostGuessers {
			t.Errorf("%d are listed", n)
		}
		time.Sleep(time.Hour)
		if got := try("192.0.2.8", secret); got != 303 {
			t.Errorf("an hour later: %d", got)
		}
	})
}

// TestGuessingSecond: after a second tokens are looked at again, and right ones do not count.
func TestGuessingSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConsole(t, nil, nil)
		try := func(token string) int {
			w := httptest.NewRecorder()
			c.ServeHTTP(w, c.asked("POST", "/login", "token="+token, ""))
			return w.Code
		}
		for range 3 {
			for range 4 {
				if got := try("wrong"); got != 401 {
					t.Fatalf("wrong: %d", got)
				}
			}
			for range 10 {
				if got := try(secret); got != 303 {
					t.Fatalf("right: %d", got)
				}
			}
			if got := try("wrong"); got != 401 {
				t.Fatalf("the fifth: %d", got)
			}
			time.Sleep(time.Second - 1)
			for _, token := range []string{"wrong", secret} {
				if got := try(token); got != 429 {
					t.Fatalf("the sixth: %d", got)
				}
			}
			time.Sleep(time.Nanosecond)
		}
		for _, one := range c.o.Sessions.all {
			one.end()
		}
	})
}

// TestStreamsEnd: a stream ends at once with a logout, with the end of the session, and with the browser; nothing is left
// of it. Whoever comes at the moment of the logout gets in before, or not at all.
func TestStreamsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Int64
		c := newConsole(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/green_api/live" && r.URL.Path != "/green_api/queue" {
				return
			}
			open.Add(1)
			defer open.Add(-1)
			fmt.Fprint(w, "{}\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, nil)
		id, one := c.o.Sessions.begin(c.realm, "demo", "192.0.2.1")
		one.leave()
		var streams sync.WaitGroup
		start := func(path string) {
			streams.Go(func() {
				defer func() {
					if err := recover(); err != nil && err != http.ErrAbortHandler { //nolint:errorlint // as net/http looks at it
						panic(err)
					}
				}()
				r := c.asked("GET", path, "", id)
				if path == "/api/live" {
					r.Header.Set("Accept", eventStream)
				}
				c.ServeHTTP(httptest.NewRecorder(), r)
			})
		}
		for range 10 {
			start("/api/live")
			start("/api/queue")
		}
		synctest.Wait()
		if open.Load() != 20 {
			t.Fatalf("%d streams", open.Load())
		}
		for range 50 {
			start("/api/live")
			start("/api/queue")
			if i := open.Load(); i > 60 {
				break
			}
		}
		w := httptest.NewRecorder()
		streams.Go(func() { c.ServeHTTP(w, c.asked("POST", "/logout", "", id)) })
		streams.Wait()
		if w.Code != 303 || open.Load() != 0 || len(c.o.Sessions.all) != 0 {
			t.Errorf("logout: %d, %d streams, %d sessions", w.Code, open.Load(), len(c.o.Sessions.all))
		}

		id, one = c.o.Sessions.begin(c.realm, "demo", "192.0.2.1")
		one.leave()
		began := time.Now()
		start("/api/live")
		streams.Wait()
		if time.Since(began) != sessionTime {
			t.Errorf("the stream took %s", time.Since(began))
		}
	})
}

// TestPushedOut: who logs in too often ends the stream of the first login, and nobody else's.
func TestPushedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConsole(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, nil)
		id, one := c.o.Sessions.begin(c.realm, "demo", "192.0.2.1")
		one.leave()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			r := c.asked("GET", "/api/live", "", id)
			r.Header.Set("Accept", eventStream)
			c.ServeHTTP(httptest.NewRecorder(), r)
		}()
		synctest.Wait()
		time.Sleep(time.Second)
		for range mostOfOne {
			_, one := c.o.Sessions.begin(c.realm, "demo", "192.0.2.1")
			one.leave()
		}
		<-ended
		for _, one := range c.o.Sessions.all {
			one.end()
		}
	})
}

// A deadlined writer notes the deadlines that it gets.
type deadlined struct {
	*httptest.ResponseRecorder
	read, write []time.Time
}

func (d *deadlined) SetReadDeadline(at time.Time) error {
	d.read = append(d.read, at)
	return nil
}

func (d *deadlined) SetWriteDeadline(at time.Time) error {
	d.write = append(d.write, at)
	return nil
}

// TestDeadlines: neither a body that does not come nor a browser that does not read holds a request for long.
func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConsole(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{}`) }, nil)
		id, one := c.o.Sessions.begin(c.realm, "demo", "192.0.2.1")
		one.leave()
		w := &deadlined{ResponseRecorder: httptest.NewRecorder()}
		now := time.Now()
		c.ServeHTTP(w, c.asked("POST", "/api/quarantine/search", "limit=1", id))
		if w.Code != 200 || len(w.read) != 2 || !w.read[0].Equal(now.Add(readTime)) || !w.read[1].IsZero() {
			t.Errorf("%d, read until %v", w.Code, w.read)
		}
		if len(w.write) == 0 || !w.write[0].Equal(now.Add(writeTime)) {
			t.Errorf("write until %v", w.write)
		}
		r := c.asked("GET", "/api/live", "", id)
		r.Header.Set("Accept", eventStream)
		w = &deadlined{ResponseRecorder: httptest.NewRecorder()}
		c.ServeHTTP(w, r)
		// There is none while nothing is written, and one for what is left at the end.
		if soon := now.Add(streamTime); len(w.write) != 3 || !w.write[0].Equal(soon) || !w.write[1].IsZero() || !w.write[2].Equal(soon) {
			t.Errorf("write to a stream until %v", w.write)
		}
		one.end()
	})
}

// TestHalfAnswers: half an answer does not look like a whole one, and an answer that is none is told.
func TestHalfAnswers(t *testing.T) {
	for _, test := range []struct {
		name   string
		api    http.HandlerFunc
		status int // 0 if it breaks off
	}{
		{"a panic after a line", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}\n"); panic(http.ErrAbortHandler) }, 0},
		{"a panic", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0},
		{"half a line", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}\n{\"id\":") }, 0},
		{"half a value", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"chat":"790`) }, 502},
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, 502},
		{"nothing", func(http.ResponseWriter, *http.Request) {}, 200},
		{"an error", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(409); fmt.Fprint(w, `{"error":"locked"}`) }, 409},
		{"an error of something else", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", 503) }, 503},
		{"refused by the edge", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403); fmt.Fprint(w, `{"error":"host"}`) }, 502},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }, 502},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewUnstartedServer(nil)
			c := newConsole(t, test.api, func(o *Options) { o.Hosts = []string{server.Listener.Addr().String()} })
			server.Config.Handler = c
			server.Start()
			defer server.Close()
			id, one := c.o.Sessions.begin(c.realm, "demo", "192.0.2.1")
			one.leave()
			r, _ := http.NewRequest("GET", server.URL+"/api/queue", nil)
			r.AddCookie(&http.Cookie{Name: c.cookieName(r), Value: id})
			response, err := server.Client().Do(r)
			var text []byte
			if err == nil {
				defer response.Body.Close()
				text, err = io.ReadAll(response.Body)
			}
			switch {
			case test.status == 0 && err == nil:
				t.Errorf("a whole answer: %d %s", response.StatusCode, text)
			case test.status == 0:
			case err != nil:
				t.Error(err)
			case response.StatusCode != test.status || test.status > 299 && !strings.HasPrefix(string(text), `{"error":"`):
				t.Errorf("%d %s", response.StatusCode, text)
			}
		})
	}
}

// FuzzRoute: no way to write a path leads past the login.
func FuzzRoute(f *testing.F) {
	for _, path := range []string{"/", "/api/status", "/%61pi/status", "//api/status", "/x/../api/status", "/login", "/assets/a", "/api/live", "/api/quarantine/1/body", "*"} {
		f.Add("GET", path, "a=b", false)
		f.Add("POST", path, "", true)
	}
	asked := false
	var console [2]*Console
	for i, prefix := range []string{"/", "/ops/"} {
		console[i] = newConsole(f, func(http.ResponseWriter, *http.Request) { asked = true }, func(o *Options) { o.Prefix = prefix })
	}
	f.Fuzz(func(t *testing.T, method, path, query string, below bool) {
		c := console[0]
		if below {
			c = console[1]
		}
		r := httptest.NewRequest("GET", "http://edge.test/", http.NoBody)
		r.Method, r.URL.Path, r.URL.RawQuery = method, path, query
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		if asked {
			t.Fatal("the edge was asked")
		}
		switch {
		case w.Code == http.StatusUnauthorized:
		case w.Code == http.StatusForbidden: // of what changes something nothing is known of its origin
		case w.Code == http.StatusTooManyRequests && method == "POST" && path == c.o.Prefix+"login":
		default:
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}
