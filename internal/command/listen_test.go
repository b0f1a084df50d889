package command_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestListen: the other end prints what it gets and answers as it is told, by itself or by the URL
// that it hands on to.
func TestListen(t *testing.T) {
	var asked atomic.Int64
	up := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(204)
	})
	for _, test := range []struct {
		args   []string
		status int
		body   string
		prints []string
	}{
		{nil, 200, edgetest.TextMessage, []string{"  200  incomingMessageReceived textMessage instance 1101000001 chat 79001234568@c.us id 3EB0C767D097B7C7C030\n", `"textMessage":"a canary sings"`}},
		{[]string{"--status", "503", "--delay", "10ms"}, 503, edgetest.StateChanged, []string{"  503  stateInstanceChanged instance 1101000001\n"}},
		{nil, 200, "no\x1b[31m JSON", []string{"  200  POST /hook\n", "no?[31m JSON"}},
		{[]string{"--forward", up.URL + "/webhook"}, 204, edgetest.TextMessage, []string{"  204  incomingMessageReceived"}},
		{[]string{"--forward", "http://127.0.0.1:" + edgetest.FreePort(t)}, 502, edgetest.TextMessage, []string{"  502: ", "connection refused"}},
	} {
		cmd := edgetest.Command(t, append([]string{"green-api", "listen", "--address", "127.0.0.1:0"}, test.args...)...)
		var out bytes.Buffer
		cmd.Stdout = &out
		url := listenURL(t, cmd)
		response, err := edgetest.Client.Post(url+"/hook", "application/json", strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != test.status {
			t.Errorf("%v: status %d, want %d", test.args, response.StatusCode, test.status)
		}
		cmd.Process.Signal(syscall.SIGINT)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v", test.args, err)
		}
		for _, part := range test.prints {
			if !strings.Contains(out.String(), part) {
				t.Errorf("%v: lacks %q:\n%s", test.args, part, out.String())
			}
		}
	}
	if asked.Load() != 1 || up.Requests()[0].Body != edgetest.TextMessage || up.Requests()[0].Path != "/webhook" {
		t.Errorf("handed on %d times: %v", asked.Load(), up.Requests())
	}
	for _, test := range []struct{ args, want string }{
		{"--status 99", "invalid --status 99; want 200 to 599"},
		{"--delay -1s", "invalid --delay -1s"},
		{"--forward handler:8080", `invalid --forward "handler:8080"; want a URL`},
		{"--address nowhere", "--address: "},
	} {
		if _, stderr, code := runCommand(t, "", "", append([]string{"green-api", "listen"}, strings.Fields(test.args)...)...); code != 2 || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: exit code %d, stderr %q", test.args, code, stderr)
		}
	}
}

// TestListenForward: what the other end did not take whole is not answered with a 2xx, and what is
// in hand is finished at the end.
func TestListenForward(t *testing.T) {
	slow := make(chan struct{})
	target := edgetest.NewUpstream(t, 0, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/login", http.StatusFound)
		case "/truncated":
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "half")
		case "/slow":
			<-slow
		}
	})
	for path, want := range map[string]int{"/moved": 302, "/truncated": 502} {
		url := listenURL(t, edgetest.Command(t, "green-api", "listen", "--address", "127.0.0.1:0", "--forward", target.URL+path))
		response, err := edgetest.Client.Post(url, "application/json", strings.NewReader(edgetest.TextMessage))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: status %d, want %d", path, response.StatusCode, want)
		}
	}
	cmd := edgetest.Command(t, "green-api", "listen", "--address", "127.0.0.1:0", "--forward", target.URL+"/slow")
	url := listenURL(t, cmd)
	answer := make(chan int)
	before := len(target.Requests())
	go func() {
		response, err := edgetest.Client.Post(url, "application/json", strings.NewReader(edgetest.TextMessage))
		if err != nil {
			t.Error(err)
			answer <- 0
			return
		}
		response.Body.Close()
		answer <- response.StatusCode
	}()
	edgetest.Eventually(t, "handed on", func() bool { return len(target.Requests()) > before })
	cmd.Process.Signal(syscall.SIGTERM)
	edgetest.Eventually(t, "no more connections are taken", func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	close(slow)
	if status := <-answer; status != 200 {
		t.Errorf("in hand at the end: status %d", status)
	}
}

// listenURL starts listen and returns where it listens.
func listenURL(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	line, err := bufio.NewReader(stderr).ReadString('\n')
	address, _, ok := strings.Cut(strings.TrimPrefix(line, "listening on "), ",")
	if err != nil || !ok {
		t.Fatalf("%v: %q", err, line)
	}
	return "http://" + address
}
