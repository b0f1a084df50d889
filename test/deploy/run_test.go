//go:build linux

package deploy

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestCaddyfiles: each config is as `caddy fmt` writes it, loads, and has what a production config must have.
func TestCaddyfiles(t *testing.T) {
	for _, p := range plans {
		t.Run(p.name, func(t *testing.T) {
			text := read(t, p.caddyfile)
			if formatted := string(caddyfile.Format([]byte(text))); formatted != text {
				t.Errorf("not as `caddy fmt` writes it:\n%s", formatted)
			}
			dir := t.TempDir()
			write(t, filepath.Join(dir, "token"), edgetest.Token)
			t.Setenv("CREDENTIALS_DIRECTORY", dir)
			if p.name == "kubernetes" {
				cert, key := certificate(t, dir)
				text = change(t, text, "/run/tls/tls.crt", cert, "/run/tls/tls.key", key)
			}
			adapted, err := edgetest.Adapt(text)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate(adapted); err != nil {
				t.Fatal(err)
			}
			inProduction(t, adapted, p.limit(t))

			write(t, filepath.Join(dir, "token"), "\n")
			if err := validate(adapted); err == nil || !strings.Contains(err.Error(), "token") {
				t.Errorf("with an empty token: %v; want an error that names it", err)
			}
		})
	}
}

func validate(adapted []byte) error {
	var config caddy.Config
	if err := caddy.StrictUnmarshalJSON(adapted, &config); err != nil {
		return err
	}
	return caddy.Validate(&config)
}

// inProduction checks what a config that was adapted must have, under a supervisor that waits for so long.
func inProduction(t *testing.T, adapted []byte, limit time.Duration) {
	t.Helper()
	type route struct {
		Match  []json.RawMessage `json:"match"`
		Handle []json.RawMessage `json:"handle"`
	}
	var config struct {
		Admin struct{ Listen string }
		Apps  struct {
			HTTP struct {
				GracePeriod time.Duration `json:"grace_period"`
				Servers     map[string]struct {
					Listen     []string
					Header     time.Duration `json:"read_header_timeout"`
					Body       time.Duration `json:"read_timeout"`
					Protocols  []string
					StrictHops int `json:"trusted_proxies_strict"`
					Routes     []route
				}
			}
		}
	}
	if err := json.Unmarshal(adapted, &config); err != nil {
		t.Fatal(err)
	}
	if got, want := config.Admin.Listen, "unix//run/caddy-green-api/admin.sock"; got != want {
		t.Errorf("admin API on %q, want %q", got, want)
	}
	// What a handler has in hand may take 170 seconds, and what comes after the wait a few more.
	if grace := config.Apps.HTTP.GracePeriod; grace < 171*time.Second || limit < grace+5*time.Second {
		t.Errorf("handlers have 170s, Caddy waits %s, its supervisor %s; want each a little longer than the one before", grace, limit)
	}
	private := 0
	for name, server := range config.Apps.HTTP.Servers {
		if server.Header <= 0 || server.Header > time.Minute || server.Body <= 0 || server.Body > time.Minute {
			t.Errorf("%s: header within %s, body within %s; want at most a minute", name, server.Header, server.Body)
		}
		for _, address := range server.Listen {
			if !strings.HasSuffix(address, ":9180") {
				continue
			}
			private++
			if len(server.Listen) != 1 {
				t.Errorf("%s listens on %s: health and metrics want a port of their own", name, server.Listen)
			}
		}
		last := server.Routes[len(server.Routes)-1]
		if len(last.Match) != 0 || !strings.Contains(string(last.Handle[len(last.Handle)-1]), `"status_code":404`) {
			t.Errorf("%s does not end in a 404 for every other name: %s", name, last.Handle)
		}
	}
	if private != 1 {
		t.Errorf("%d servers on port 9180, want one", private)
	}
}

// TestRun runs each config with the commands that the files around it have, and sends it what must come through and
// what must not.
func TestRun(t *testing.T) {
	edgetest.Proof(t)
	for _, p := range plans {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			h := newHandler(t, 0)
			e := p.prepare(t)
			ready := make(chan string, 10)
			if p.name == "systemd" {
				e.env = append(e.env, "NOTIFY_SOCKET="+notified(t, e.dir, ready))
			}
			e.start(t, h)
			serves(t, e, h)
			e.reload(t)
			if status, text := e.post(edgetest.TextMessage); status != 200 {
				t.Errorf("after a reload: %d %s", status, text)
			}
			if killed := e.stop(t); killed || e.ProcessState.ExitCode() != 0 {
				t.Errorf("the stop: %s", e.ProcessState)
			}
			for line := range strings.Lines(e.output.String()) {
				if (strings.Contains(line, `"level":"error"`) || strings.Contains(line, `"level":"warn"`)) && !expected(line) {
					t.Errorf("logged %s", line)
				}
			}
			if p.name == "systemd" {
				said := drain(ready)
				for _, want := range []string{"READY=1", "RELOADING=1", "STOPPING=1"} {
					if !strings.Contains(said, want) {
						t.Errorf("systemd was told %q, want %s", said, want)
					}
				}
			}
		})
	}
}

// expected reports whether a warning belongs to what the test does.
func expected(line string) bool {
	for _, part := range []string{
		"notification quarantined",                                                     // the test sends one
		"host checking disabled",                                                       // Caddy does not check hosts on a unix socket
		"HTTP/2 skipped because it requires TLS", "no automatic HTTPS will be applied", // on ports 80 and 9180
		"exiting; byeee",
	} {
		if strings.Contains(line, part) {
			return true
		}
	}
	return false
}

// serves checks an edge that runs from outside.
func serves(t *testing.T, e *edge, h *handler) {
	t.Helper()
	if status, text := e.post(edgetest.TextMessage); status != 200 || h.took.Load() == 0 {
		t.Errorf("a notification: %d %s, and handlers took %d", status, text, h.took.Load())
	}
	if status, text := e.post(edgetest.Broken("first")); status != 200 {
		t.Errorf("a broken notification: %d %s", status, text)
	}
	stored, err := filepath.Glob(filepath.Join(e.dir, "caddy", "green_api", "*", "quarantine.db"))
	if more, _ := filepath.Glob(filepath.Join(e.dir, "caddy", "green_api", "quarantine.db")); err != nil || len(stored)+len(more) != 1 {
		t.Errorf("no quarantine in the directory that outlives the edge: %v %v", stored, err)
	}
	private := "http://127.0.0.1:" + e.private
	for _, test := range []struct {
		url    string
		status int
		text   string
	}{
		{"https://" + domain + "/", 404, "127.0.0.1"}, // who the client is
		{"https://" + domain + "/healthz", 404, "127.0.0.1"},
		{"https://" + domain + "/metrics", 404, "127.0.0.1"},
		{"http://" + domain + "/green-api/webhook", 308, ""},
		{"http://127.0.0.1:" + e.http + "/green-api/webhook", 404, ""},
		{private + "/healthz", 200, ""},
		{private + "/metrics", 200, "caddy_green_api_notifications_total"},
		{private + "/green-api/webhook", 404, ""},
	} {
		if status, text, _ := e.get(test.url); status != test.status || !strings.Contains(text, test.text) {
			t.Errorf("%s: %d %.200s, want %d %s", test.url, status, text, test.status, test.text)
		}
	}
	if status, text, _ := e.do("POST", "http://"+domain+"/green-api/webhook", edgetest.TextMessage); status != 308 {
		t.Errorf("a notification to port 80: %d %s", status, text)
	}
	info, err := os.Stat(filepath.Join(e.dir, "admin.sock"))
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the admin API's socket: %v %v; want one of its user only", info, err)
	}
}

// reload does what the page says.
func (e *edge) reload(t *testing.T) {
	t.Helper()
	file := filepath.Join(e.dir, "Caddyfile")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, change(t, string(text), "max_size 1GiB", "max_size 2GiB"))
	command := change(t, find(t, read(t, unit), `^ExecReload=(.*)$`), "/usr/bin/caddy-green-api ", "", "/etc/caddy-green-api/Caddyfile", file)
	cmd := exec.Command(e.program, strings.Fields(command)...)
	// By hand nobody says where the credentials are, which must not matter to what runs.
	cmd.Env = append(os.Environ(), "GREEN_API_TEST_CADDY=1", "CREDENTIALS_DIRECTORY="+filepath.Join(e.dir, "credentials"))
	if e.plan.name != "systemd" {
		cmd.Env = e.Env
	}
	runCmd(t, cmd)
}

// notified listens as systemd does for what a service says of itself.
func notified(t *testing.T, dir string, said chan<- string) string {
	t.Helper()
	path := filepath.Join(dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	go func() {
		text := make([]byte, 4096)
		for {
			n, err := socket.Read(text)
			if err != nil {
				return
			}
			said <- string(text[:n])
		}
	}()
	return path
}

// drain returns all that was said.
func drain(said <-chan string) (all string) {
	for {
		select {
		case text := <-said:
			all += text + "\n"
		case <-time.After(100 * time.Millisecond):
			return all
		}
	}
}

// TestStop: a stop while a handler works at a notification loses nothing, under the limits of each file. `make stop`
// has a handler that takes 20 seconds.
func TestStop(t *testing.T) {
	edgetest.Proof(t)
	delay := 6 * time.Second // more than Caddy's own unit gives
	if text := os.Getenv("GREEN_API_STOP"); text != "" {
		var err error
		if delay, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range plans {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			h := newHandler(t, delay)
			e := p.prepare(t)
			e.start(t, h)
			answered := make(chan int, 1)
			go func() {
				status, _ := e.post(edgetest.TextMessage)
				answered <- status
			}()
			edgetest.Eventually(t, "the handler has it", func() bool { return h.began.Load() == 1 })
			began := time.Now()
			killed := e.stop(t)
			t.Logf("%s: the stop took %s of %s", p.name, time.Since(began).Round(100*time.Millisecond), p.limit(t))
			if status := <-answered; status != 200 || h.took.Load() != 1 || killed || e.ProcessState.ExitCode() != 0 {
				t.Errorf("answered %d, taken %d times, killed: %t, %s", status, h.took.Load(), killed, e.ProcessState)
			}
		})
	}
}

// TestComposeHandlers: the handlers of compose.yaml take what its edge gives them.
func TestComposeHandlers(t *testing.T) {
	edgetest.Proof(t)
	t.Parallel()
	args := list(find(t, read(t, compose), `^    command: \[(.*)\]$`))
	for i, arg := range args {
		if arg == ":9000" {
			args[i] = "127.0.0.1:" + edgetest.FreePort(t)
			h := &handler{address: args[i]}
			cmd := edgetest.Command(t, args...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
			e := plans[1].prepare(t)
			e.start(t, h)
			edgetest.Eventually(t, "a handler takes it", func() bool {
				status, _ := e.post(edgetest.TextMessage)
				return status == 200
			})
			return
		}
	}
	t.Errorf("no port 9000 in %s", args)
}
