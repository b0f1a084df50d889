package command_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// A consoleProcess is the command, and a browser that its URL has let in.
type consoleProcess struct {
	*exec.Cmd
	t     *testing.T
	page  *url.URL // without the token
	token string
	said  strings.Builder // all answers
	http.Client
}

func startConsole(t *testing.T, args ...string) *consoleProcess {
	t.Helper()
	c := &consoleProcess{Cmd: edgetest.Command(t, append([]string{"green-api", "console", "--format", "json"}, args...)...), t: t}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill() })
	var said struct{ URL string }
	if err := json.NewDecoder(stdout).Decode(&said); err != nil {
		t.Fatal(err)
	}
	if c.page, err = url.Parse(said.URL); err != nil {
		t.Fatal(err)
	}
	c.token, c.page.Fragment = strings.TrimPrefix(c.page.Fragment, "token="), ""
	c.Jar, _ = cookiejar.New(nil)
	return c
}

// ask sends a request, and returns status and body.
func (c *consoleProcess) ask(method, path, form string) (status int, text string) {
	c.t.Helper()
	response := c.open(method, path, form, "application/json")
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Error(err)
	}
	c.said.Write(body)
	return response.StatusCode, string(body)
}

func (c *consoleProcess) open(method, path, form, accept string) *http.Response {
	c.t.Helper()
	r, err := http.NewRequest(method, c.page.JoinPath(path).String(), strings.NewReader(form))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", accept)
	response, err := c.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	return response
}

// TestConsole: the command lets one browser in, shows what the edge does, and does what it is told; the edge logs who it was.
func TestConsole(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"reverse_proxy "+up.Address))
	e := edgetest.Start(t, config)
	e.Post(edgetest.Broken("ONE"))
	e.Post(edgetest.Broken("TWO"))
	c := startConsole(t, "--admin", admin)
	if c.page.Hostname() != "127.0.0.1" || len(c.token) < 22 {
		t.Errorf("URL %s, token %q", c.page, c.token)
	}
	if status, text := c.ask("GET", "/api/status", ""); status != 401 {
		t.Errorf("before the login: %d %s", status, text)
	}
	if status, text := c.ask("POST", "/login", "token="+c.token); status != 204 {
		t.Fatalf("login: %d %s", status, text)
	}
	if status, text := c.ask("POST", "/login", "token="+c.token); status != 401 {
		t.Errorf("once more: %d %s", status, text)
	}
	var me struct {
		User, Door, Role, Version string
		Bodies                    bool
	}
	if _, text := c.ask("GET", "/api/me", ""); json.Unmarshal([]byte(text), &me) != nil || me.User == "" || me.Door != "command" || me.Role != "operator" || !me.Bodies || me.Version == "" {
		t.Errorf("me: %s", text)
	}
	if status, text := c.ask("GET", "/", ""); status != 200 || !strings.Contains(text, "assets/") {
		t.Errorf("page: %d %s", status, text)
	}
	if _, text := c.ask("GET", "/api/status", ""); !strings.Contains(text, `"quarantined":2`) {
		t.Errorf("status: %s", text)
	}

	var found struct{ Entries []struct{ ID, Chat string } }
	_, text := c.ask("POST", "/api/quarantine/search", "chat=79001234568@c.us")
	if json.Unmarshal([]byte(text), &found) != nil || len(found.Entries) != 2 || found.Entries[0].Chat != "7900•••4568@c.us" {
		t.Fatalf("search: %s", text)
	}
	path := "/api/quarantine/" + found.Entries[0].ID
	if _, text := c.ask("GET", path, ""); !strings.Contains(text, `"marks":[{`) || strings.Contains(text, "79001234568") || strings.Contains(text, `"body"`) {
		t.Errorf("entry: %s", text)
	}
	var opened struct{ Body string }
	_, body := c.ask("POST", path+"/body", "")
	if json.Unmarshal([]byte(body), &opened) != nil || opened.Body != edgetest.Broken("TWO") {
		t.Errorf("body: %s", body)
	}
	if _, text := c.ask("POST", "/api/quarantine/replay", "id="+found.Entries[0].ID); !strings.Contains(text, `"outcome":"delivered"`) || len(up.Requests()) != 1 {
		t.Errorf("replay: %s", text)
	}
	if _, text := c.ask("DELETE", "/api/quarantine", "all=true"); text != `{"deleted":1}`+"\n" {
		t.Errorf("deletion: %s", text)
	}
	_, text = c.ask("GET", "/api/activity", "")
	for _, part := range []string{
		`"user":"` + me.User + `","client_ip":"127.0.0.1","action":"deleted","count":1}`, `"action":"replayed","quarantine_id":"` + found.Entries[0].ID + `","count":1}`, `"action":"body opened"`,
	} {
		if !strings.Contains(text, part) {
			t.Errorf("activity lacks %s: %s", part, text)
		}
	}
	logged := e.Logged("console action")
	if strings.Count(logged, "\n") != 4 || !strings.Contains(logged, `"action":"login"`) || strings.Contains(logged, "79001234568") || !strings.Contains(logged, `"user":"`+me.User+`"`) {
		t.Errorf("log: %s", logged)
	}
	if status, text := c.ask("GET", "/api/queue", ""); status != 404 || !strings.HasPrefix(text, `{"error":`) {
		t.Errorf("queue: %d %s", status, text)
	}

	for _, path := range []string{"/api/live?since=0", "/api/quarantine/summary", "/api/queue/state"} {
		c.ask("GET", path, "")
	}
	for _, secret := range []string{c.token, edgetest.Token, "79001234568"} {
		if said := strings.Replace(c.said.String(), body, "", 1); strings.Contains(said, secret) {
			t.Errorf("the answers have %s: %s", secret, said)
		}
	}

	stream := c.open("GET", "/api/live", "", "text/event-stream")
	defer stream.Body.Close()
	lines := bufio.NewReader(stream.Body)
	until := func(want string) {
		t.Helper()
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("no %q: %v", want, err)
			}
			if strings.Contains(line, want) {
				return
			}
		}
	}
	until("event: hello")
	e.Post(edgetest.TextMessage)
	until(`"outcome":"delivered"`)
	c.Process.Signal(syscall.SIGINT)
	if err := c.Wait(); err != nil {
		t.Errorf("the command ends with %v", err)
	}
	if _, err := io.Copy(io.Discard, lines); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the stream ends with %v", err)
	}
}

// TestConsoleAlone: a console goes on without its edge, and says so.
func TestConsoleAlone(t *testing.T) {
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback))
	e := edgetest.Start(t, config)
	c := startConsole(t, "--admin", admin)
	c.ask("POST", "/login", "token="+c.token)
	if err := e.Load(strings.Replace(config, "admin "+admin, "admin off", 1)); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second) // the old admin API may take some time to go
	for {
		status, text := c.ask("GET", "/api/status", "")
		if status == 502 && strings.HasPrefix(text, `{"error":"the edge cannot be reached: `) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d %s", status, text)
		}
	}
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	if status, text := c.ask("GET", "/api/status", ""); status != 200 {
		t.Errorf("it is back: %d %s", status, text)
	}
}

// TestConsoleRefuses: what cannot be served is refused, with what to do.
func TestConsoleRefuses(t *testing.T) {
	nobody := "127.0.0.1:" + edgetest.FreePort(t)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--address", "0.0.0.0:8123"}, "ssh -L 8123:127.0.0.1:8123 "},
		{[]string{"--address", ":8123"}, "ssh -L 8123:127.0.0.1:8123 "},
		{[]string{"--address", "[::]:0"}, "ssh -L 8019:127.0.0.1:8019 "},
		{[]string{"--address", "192.0.2.7:8123"}, "others could reach it"},
		{[]string{"--address", "hooks.example.com:8123"}, "others could reach it"},
		{[]string{"--address", "127.0.0.1"}, "want one such as 127.0.0.1:8019"},
		{[]string{"--format", "yaml"}, "want text or json"},
		{[]string{"--admin", nobody}, "that of the Caddy that runs, or --admin\n"},
		{[]string{"more"}, "unknown command"},
	} {
		stdout, stderr, code := runCommand(t, "", "", append([]string{"green-api", "console"}, test.args...)...)
		if code != 2 || stdout != "" || !strings.HasPrefix(stderr, "caddy green-api console: ") || !strings.Contains(stderr, test.want) {
			t.Errorf("%v: exit code %d, stdout %q, stderr %q", test.args, code, stdout, stderr)
		}
	}
}
