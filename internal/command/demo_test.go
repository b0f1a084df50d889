package command_test

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// demoCommand is a demo in a process of its own, and the directory that has its home and all it writes.
func demoCommand(t *testing.T, args ...string) (cmd *exec.Cmd, dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd = edgetest.Command(t, append([]string{"green-api", "demo"}, args...)...)
	cmd.Env = append(cmd.Env, "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "TMPDIR="+dir, "TMP="+dir)
	cmd.Dir = dir
	return cmd, dir
}

// wantEmpty fails the test if a demo has left something behind.
func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		t.Errorf("%s is left behind", entry.Name())
	}
}

// sentAll matches what a demo says of its examples.
var sentAll = regexp.MustCompile(`\n(\d+) of (\d+) sent, (\d+) acknowledged, 0 lost, 0 re-sent in \S+\nof those, (\d+) delivered, 0 quarantined\n`)

// wantSent fails the test unless a demo says that all examples were delivered, to both handlers.
func wantSent(t *testing.T, said string) {
	t.Helper()
	n := sentAll.FindStringSubmatch(said)
	if n == nil || n[1] != n[2] || n[1] != n[3] || n[1] != n[4] || len(n[1]) < 2 {
		t.Errorf("says of the examples: %v in\n%s", n, said)
	}
	for _, handler := range []string{"\nhandler 1 took ", "\nhandler 2 took "} {
		if _, took, there := strings.Cut(said, handler); !there || took[0] == '0' {
			t.Errorf("lacks %q or has it with 0:\n%s", handler, said)
		}
	}
}

// TestDemoOnce: a demo that ends by itself says what happened, and its exit code says whether it went well.
func TestDemoOnce(t *testing.T) {
	taken := edgetest.NewUpstream(t, 200, nil) // on an address that the demo is told to use
	for _, test := range []struct {
		args []string
		code int
		want string // in what it says of an error
	}{
		{[]string{"--once"}, 0, ""},
		{[]string{"--once", "--admin", "127.0.0.1:" + edgetest.FreePort(t)}, 0, ""},
		{[]string{"--once", "--admin", taken.Address}, 1, "address already in use"},
		{[]string{"--once", "--admin", ""}, 2, "--admin: empty"},
		{[]string{"--once", "twice"}, 2, "unknown command"},
	} {
		cmd, dir := demoCommand(t, test.args...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		if exited := new(exec.ExitError); err != nil && !errors.As(err, &exited) {
			t.Fatal(err)
		}
		if code := cmd.ProcessState.ExitCode(); code != test.code || !strings.Contains(stderr.String(), test.want) || test.want == "" && stderr.Len() > 0 {
			t.Errorf("%v: exit code %d, want %d; stdout %q, stderr %q", test.args, code, test.code, stdout.String(), stderr.String())
		}
		if test.code == 0 {
			wantSent(t, stdout.String())
			if strings.Contains(stdout.String(), "What to try now") {
				t.Errorf("%v: says what to try although it ends", test.args)
			}
		}
		wantEmpty(t, dir)
	}
}

// TestDemo does what a demo says can be done next, and stops it as a user would.
func TestDemo(t *testing.T) {
	cmd, dir := demoCommand(t)
	stdout, stderr := new(growing), new(growing)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	edgetest.Eventually(t, "said to the end", func() bool { return strings.Contains(stdout.text(), "\nFrom here on ") })
	said := stdout.text()
	wantSent(t, said)

	var admin, url string
	for line := range strings.Lines(said) {
		words := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "    caddy green-api "):
			if out, problems, code := runCommand(t, "", "", words[1:]...); code != 0 {
				t.Errorf("%q: exit code %d, %s%s", line, code, out, problems)
			} else if words[2] == "quarantine" && !strings.Contains(out, "malformed") {
				t.Errorf("%q says %q", line, out)
			}
			admin = words[len(words)-1]
		case strings.HasPrefix(line, "    curl -i "):
			url = words[2]
			want := map[bool]int{true: 200, false: 401}[strings.Contains(line, "Bearer demo-token")]
			if got := curl(t, line); got != want {
				t.Errorf("%q: status %d, want %d", line, got, want)
			}
		case strings.HasPrefix(line, "    tail -f "):
			if _, err := os.Stat(words[2]); err != nil {
				t.Error(err)
			}
		}
	}
	if want := "unix/" + dir; !strings.HasPrefix(admin, want) || !strings.HasPrefix(url, "http://127.0.0.1:") {
		t.Errorf("admin API on %s, want %s…; edge on %s", admin, want, url)
	}
	_, caddyfile, _ := strings.Cut(said, "\n    hooks.example.com {\n")
	caddyfile, _, _ = strings.Cut(caddyfile, "\n\n")
	if _, err := edgetest.Adapt("hooks.example.com {\n" + caddyfile); err != nil || caddyfile == "" {
		t.Errorf("%v: %s", err, caddyfile)
	}

	// A handler prints what it takes. Another demo stands in nobody's way.
	shown := strings.TrimPrefix(stdout.text(), said)
	if !regexp.MustCompile(`(?m)^handler [12]  \S+  200  incomingCall instance 1101000001 .*\n    \{.*"incomingCall"`).MatchString(shown) {
		t.Errorf("handlers print %q", shown)
	}
	other, otherDir := demoCommand(t, "--once")
	if out, err := other.CombinedOutput(); err != nil {
		t.Errorf("another demo: %v: %s", err, out)
	}
	wantEmpty(t, otherDir)

	if kept, _ := filepath.Glob(filepath.Join(dir, "*", "quarantine", "quarantine.db")); len(kept) != 1 {
		t.Errorf("quarantines of the demo: %q", kept)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || stderr.text() != "" || !strings.Contains(stdout.text(), "\nending, and removing "+dir) {
		t.Errorf("%v, stderr %q, stdout ends %q", err, stderr.text(), stdout.text()[max(0, len(stdout.text())-200):])
	}
	wantEmpty(t, dir)
}

// growing is what a process prints, while it does.
type growing struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (g *growing) Write(text []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buffer.Write(text)
}

func (g *growing) text() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buffer.String()
}

// curl sends what a line with curl says, in quotes but for the URL, and returns the status of the answer.
func curl(t *testing.T, line string) int {
	t.Helper()
	quoted := strings.Split(line, "'") // every other one is between quotes: headers, then the body
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, strings.Fields(line)[2], strings.NewReader(quoted[len(quoted)-2]))
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(quoted)-2; i += 2 {
		name, value, _ := strings.Cut(quoted[i], ": ")
		r.Header.Set(name, value)
	}
	response, err := edgetest.Client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}
