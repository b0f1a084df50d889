package adopt

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/doctor"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// mistakes are what the page has a section for, by its heading: each returns the first line that shows it.
var mistakes = map[string]func(*testing.T) string{
	"curl -d is answered 200": func(t *testing.T) string {
		p := run(t, site(tokens+"reverse_proxy 127.0.0.1:9001"))
		if answer := p.post("/green-api/webhook", "Content-Type", "application/x-www-form-urlencoded"); answer != "HTTP/1.1 200 OK" {
			t.Errorf("the answer is %s", answer)
		}
		return p.firstLine()
	},
	"A wrong name or path is answered 200": func(t *testing.T) string {
		p := run(t, strings.Replace(site(tokens+"reverse_proxy 127.0.0.1:9001"), "\trespond 404\n", "", 1))
		if answer := p.post("/webhook"); answer != "HTTP/1.1 200 OK" {
			t.Errorf("the answer is %s", answer)
		}
		return p.firstLine()
	},
	"You send from your own machine, and it is refused": func(t *testing.T) string {
		p := run(t, site("auth {\ntoken "+edgetest.Token+"\n}\nreverse_proxy 127.0.0.1:9001"))
		if answer := p.post("/green-api/webhook"); answer != "HTTP/1.1 403 Forbidden" {
			t.Errorf("the answer is %s", answer)
		}
		return p.firstLine()
	},
	"The token is not the same": func(t *testing.T) string {
		p := run(t, site(tokens+"reverse_proxy "+edgetest.NewUpstream(t, 200, nil).Address))
		p.post("/green-api/webhook", "Authorization", "Bearer another-token")
		return p.firstLine()
	},
	"There is no auth": func(t *testing.T) string {
		return fails(t, site("reverse_proxy 127.0.0.1:9001"), "0")
	},
	"No handler runs": func(t *testing.T) string {
		p := run(t, site(tokens+"deliver {\ntimeout 300ms\n}\nreverse_proxy 127.0.0.1:"+edgetest.FreePort(t)))
		p.post("/green-api/webhook")
		return p.firstLine()
	},
	"The edge is behind a proxy that it does not know": func(t *testing.T) string {
		p := run(t, site("ip_filter {\nallow green_api\n}\nauth {\ntoken "+edgetest.Token+"\n}\nreverse_proxy 127.0.0.1:9001"))
		p.post("/green-api/webhook", "X-Forwarded-For", "46.101.109.139")
		return p.firstLine()
	},
	"The edge is behind a proxy that it trusts with anything": func(t *testing.T) string {
		config := strings.Replace(site("auth {\ntoken "+edgetest.Token+"\n}\nreverse_proxy 127.0.0.1:9001"), "# global", "servers {\ntrusted_proxies static 127.0.0.1\n}", 1)
		return fails(t, config, "0")
	},
	"The path is another one": func(t *testing.T) string {
		p := run(t, site(tokens+"reverse_proxy 127.0.0.1:9001"))
		answer := p.post("/webhook")
		p.wantNoLine()
		return answer
	},
	"The path ends in a slash, or does not": func(t *testing.T) string {
		p := run(t, strings.Replace(site(tokens+"reverse_proxy 127.0.0.1:9001"), "webhook*", "webhook", 1))
		return p.firstLine()
	},
	"The URL says http where the site is https": func(t *testing.T) string {
		config := strings.NewReplacer("http://:PORT", "https://:PORT", "# site", "tls internal", "auto_https off", "auto_https disable_redirects\nskip_install_trust").Replace(site(tokens + "reverse_proxy 127.0.0.1:9001"))
		p := run(t, config)
		return p.body("/green-api/webhook")
	},
	"The list of addresses is out of date": func(t *testing.T) string {
		p := run(t, site("ip_filter {\nallow 46.101.109.139\n}\nauth {\ntoken "+edgetest.Token+"\n}\nreverse_proxy 127.0.0.1:9001"))
		p.post("/green-api/webhook")
		return p.firstLine()
	},
	"A schema is too strict": func(t *testing.T) string {
		dir := t.TempDir()
		schema := `{"$schema": "https://json-schema.org/draft/2020-12/schema", "required": ["branch"]}`
		if err := os.WriteFile(filepath.Join(dir, "incomingMessageReceived.json"), []byte(schema), 0o600); err != nil {
			t.Fatal(err)
		}
		p := run(t, site(tokens+"validate {\nschemas "+dir+"\n}\nreverse_proxy 127.0.0.1:9001"))
		p.post("/green-api/webhook")
		return p.firstLine()
	},
	"The port is taken": func(t *testing.T) string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		_, port, err := net.SplitHostPort(listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return fails(t, site(tokens+"reverse_proxy 127.0.0.1:9001"), port)
	},
}

// tokens is the start of a block that this machine may send to.
const tokens = "ip_filter {\nallow 127.0.0.1\n}\nauth {\ntoken " + edgetest.Token + "\n}\n"

// site is a config with a block. PORT and DIR are replaced.
func site(block string) string {
	return `{
	admin off
	persist_config off
	auto_https off
	# global
	green_api {
		quarantine DIR
	}
}
http://:PORT {
	bind 127.0.0.1
	# site
	green_api /green-api/webhook* {
		` + block + `
	}
	respond 404
}
`
}

// An edge is a Caddy of its own that runs a config.
type edge struct {
	t          *testing.T
	port, file string
	process    *exec.Cmd
	end        func()

	mu  sync.Mutex
	log bytes.Buffer
}

// Write takes what the edge logs.
func (e *edge) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.log.Write(p)
}

// logged returns what the edge has logged so far.
func (e *edge) logged() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.log.String()
}

// run runs a config until the test ends, on a port if one is named.
func run(t *testing.T, config string, port ...string) *edge {
	t.Helper()
	e := &edge{t: t, port: append(port, edgetest.FreePort(t))[0]}
	e.file = write(t, t.TempDir(), config, e.port)
	e.process = edgetest.Command(t, "run", "--config", e.file)
	e.process.Env = append(e.process.Env, "XDG_DATA_HOME="+t.TempDir()) // one that is killed leaves locks behind
	e.process.Stderr = e
	if err := e.process.Start(); err != nil {
		t.Fatal(err)
	}
	e.end = sync.OnceFunc(func() {
		e.process.Process.Kill()
		e.process.Wait()
	})
	t.Cleanup(e.end)
	edgetest.Eventually(t, "Caddy runs", func() bool { return strings.Contains(e.logged(), "serving initial configuration") })
	return e
}

// write writes a config for a port into a directory.
func write(t *testing.T, dir, config, port string) (file string) {
	t.Helper()
	file = filepath.Join(dir, "Caddyfile")
	config = strings.NewReplacer("PORT", port, "DIR", filepath.Join(dir, "quarantine")).Replace(config)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// fails runs Caddy with a config that does not start, and returns the first line that says so.
func fails(t *testing.T, config, port string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, config, port)
	_, stderr, code := edgetest.RunCaddy(t, dir, "", "run")
	if code == 0 {
		t.Fatalf("it ran:\n%s", stderr)
	}
	return firstOf(stderr)
}

// post sends a notification as GREEN-API does, and returns the first line of the answer.
func (e *edge) post(path string, headers ...string) string {
	e.t.Helper()
	return e.postBody(path, edgetest.TextMessage, headers...)
}

// postBody is post of another body.
func (e *edge) postBody(path, body string, headers ...string) string {
	e.t.Helper()
	header := http.Header{"Authorization": {"Bearer " + edgetest.Token}, "Content-Type": {"application/json; charset=utf-8"}}
	for i := 0; i < len(headers); i += 2 {
		header.Set(headers[i], headers[i+1])
	}
	r, err := http.NewRequest(http.MethodPost, "http://127.0.0.1:"+e.port+path, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	r.Header = header
	response, err := edgetest.Client.Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	response.Body.Close()
	return response.Proto + " " + response.Status
}

// body returns the first line of what an answer says.
func (e *edge) body(path string) string {
	e.t.Helper()
	response, err := edgetest.Client.Get("http://127.0.0.1:" + e.port + path)
	if err != nil {
		e.t.Fatal(err)
	}
	defer response.Body.Close()
	line, err := bufio.NewReader(response.Body).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		e.t.Fatal(err)
	}
	return strings.TrimSuffix(line, "\n")
}

// firstLine returns the first line of the edge's log that is not well. It may follow an answer.
func (e *edge) firstLine() (line string) {
	e.t.Helper()
	edgetest.Eventually(e.t, "a line in the log", func() bool {
		line = firstOf(e.logged())
		return line != ""
	})
	return line
}

// wantNoLine ends the edge, and fails the test if its log has a line that is not well.
func (e *edge) wantNoLine() {
	e.t.Helper()
	time.Sleep(100 * time.Millisecond) // a line may follow the answer
	e.end()
	if line := firstOf(e.logged()); line != "" {
		e.t.Errorf("there is a line in the log: %s", line)
	}
}

// ofCaddy is what Caddy says of itself and of a test's own setup.
var ofCaddy = []string{
	`"level":"info"`, "HTTP/2 skipped", "HTTP/3 skipped", "not formatted", "admin endpoint disabled", "could not clean default/global storage",
}

// firstOf returns the first line of a log that is not well, but for ofCaddy.
func firstOf(log string) string {
	for line := range strings.Lines(log) {
		if !strings.HasSuffix(line, "\n") {
			return "" // not yet whole
		}
		usual := slices.ContainsFunc(ofCaddy, func(said string) bool { return strings.Contains(line, said) })
		if !usual {
			return strings.TrimSuffix(line, "\n")
		}
	}
	return ""
}

// A section of the page is a heading and the first line that is shown below it.
type section struct{ heading, line string }

func sections(t *testing.T) (found []section) {
	t.Helper()
	for _, part := range strings.Split(page(t, "docs/troubleshooting.md"), "\n### ")[1:] {
		heading, rest, _ := strings.Cut(part, "\n")
		_, fence, _ := strings.Cut(rest, "\n```text\n")
		line, _, shown := strings.Cut(fence, "\n```\n")
		if !shown || strings.Contains(line, "\n") {
			t.Errorf("%s: want one line in a block of text, got %q", heading, line)
		}
		found = append(found, section{heading, line})
	}
	return found
}

// TestMistakes: each mistake of the page shows the line that the page says.
func TestMistakes(t *testing.T) {
	there := make(map[string]bool)
	for _, s := range sections(t) {
		there[s.heading] = true
		t.Run(s.heading, func(t *testing.T) {
			t.Parallel() // each edge is a process of its own
			mistake := mistakes[s.heading]
			if mistake == nil && linuxOnly[s.heading] && runtime.GOOS != "linux" {
				t.Skip("Linux only")
			}
			if mistake == nil {
				t.Fatal("nothing makes this mistake; add it to mistakes")
			}
			if got := mistake(t); !looksLike(got, s.line) {
				t.Errorf("the first line is\n%s\nand the page says\n%s", got, s.line)
			}
		})
	}
	for heading := range mistakes {
		if !there[heading] {
			t.Errorf("the page has no section %q", heading)
		}
	}
}

// linuxOnly are the mistakes that are made on Linux only.
var linuxOnly = map[string]bool{"The disk is full": true, "A second edge starts on the same port": true}

// looksLike reports whether a line is another one with … for any text.
func looksLike(line, want string) bool {
	parts := strings.Split(want, "…")
	last := len(parts) - 1
	for i, part := range parts {
		at := strings.Index(line, part)
		if at < 0 || i == 0 && at > 0 {
			return false
		}
		if i == last && !strings.HasSuffix(line, part) {
			return false
		}
		line = line[at+len(part):]
	}
	return last > 0 || line == ""
}

func TestLooksLike(t *testing.T) {
	for want, yes := range map[string]bool{"abc": true, "a…c": true, "…": true, "a…": true, "…c": true, "a…b…c": true, "ab": false, "bc": false, "a…b": false, "b…c": false, "a…x…c": false, "a…c…b…": false} {
		if looksLike("abc", want) != yes {
			t.Errorf("%s: want %v", want, yes)
		}
	}
}

// TestFindings: the page explains each finding of the doctor's closed list, and no other.
func TestFindings(t *testing.T) {
	_, table, _ := strings.Cut(page(t, "docs/troubleshooting.md"), "\n## What the doctor finds\n")
	var explained []doctor.Kind
	for line := range strings.Lines(table) {
		if name, isRow := strings.CutPrefix(line, "| `"); isRow {
			name, _, _ = strings.Cut(name, "`")
			explained = append(explained, doctor.Kind(name))
		}
	}
	if !slices.Equal(explained, doctor.Kinds) {
		t.Errorf("explained are %q, want %q", explained, doctor.Kinds)
	}
}
