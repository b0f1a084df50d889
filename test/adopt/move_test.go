package adopt

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

const (
	frontTitle = "the edge in front of the old nginx"
	frontLine  = "reverse_proxy 127.0.0.1:8081"
)

// without returns a config without what a pattern matches, so many times.
func without(t *testing.T, config, pattern string, times int) string {
	t.Helper()
	found := regexp.MustCompile("(?m)" + pattern)
	if n := len(found.FindAllString(config, -1)); n != times {
		t.Fatalf("%d times %s, want %d:\n%s", n, pattern, times, config)
	}
	return found.ReplaceAllString(config, "")
}

// besideEdge is the page's hardened nginx with the lines that let an edge stand in front of it.
func besideEdge(t *testing.T, text string) string {
	config := without(t, configOf(t, text, "a hardened one"), `^\t(set_real_ip_from|real_ip_header|real_ip_recursive) .*\n`, 3)
	_, lines, _ := strings.Cut(configOf(t, text, "the old nginx, behind the edge"), "\n")
	return cut(config, "\tlisten 443 ssl http2;\n", "\tlisten 443 ssl http2;\n"+lines)
}

// behindEdge is the same, without the ports that the edge has now.
func behindEdge(t *testing.T, text string) string {
	config := without(t, besideEdge(t, text), `^server \{\n\tlisten (80|443 ssl default_server);(\n\t.*)*\n\}\n`, 2)
	return without(t, config, `^\tlisten 443 .*\n`, 1)
}

// printed returns the command of the page that contains a text, in one line.
func printed(t *testing.T, text, part string) string {
	t.Helper()
	for _, found := range fences.FindAllStringSubmatch(text, -1) {
		if found[2] == "sh" && strings.Contains(found[3], part) {
			return strings.TrimSpace(found[3])
		}
	}
	t.Fatalf("the page prints no %q", part)
	return ""
}

// file writes a config of the page for commands, and returns its path.
func (b *bench) file(config string) string {
	b.t.Helper()
	file := filepath.Join(b.dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(b.place(config)), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return file
}

// longer is a text message of so many bytes and some.
func longer(bytes int) string {
	return cut(edgetest.TextMessage, "a canary sings", strings.Repeat("a canary sings ", bytes/len("a canary sings ")))
}

var aForm = []string{"Content-Type", "application/x-www-form-urlencoded"}

// TestFromNginxMove makes the move of the page, with its configs as they stand, behind a load balancer: the edge in
// front of the old nginx, the switch, and what is to be done before the way back.
func TestFromNginxMove(t *testing.T) {
	edgetest.Proof(t)
	if edgetest.RaceDetector {
		t.Skip("Caddy v2.11.9 has a race of its own when it begins to manage a certificate")
	}
	binary := needs(t, "nginx", "nginx-light")
	text := page(t, fromNginx)
	b := newBench(t)
	b.balancer = "127.0.0.2"
	stopNginx := b.startNginx(binary, b.place(behindEdge(t, text)), b.old)
	defer func() { stopNginx() }()
	front := configOf(t, text, frontTitle)
	e, stopEdge := b.startEdge(front)
	defer func() { stopEdge() }()

	for _, test := range []struct {
		request
		seen             string
		wouldBe, because string // but for report_only
	}{
		{request{what: "genuine"}, "200 delivered", "", ""},
		{request{what: "broken", body: edgetest.TextMessage[:120]}, "200 delivered", "quarantined", "malformed"},
		{request{what: "fails its schema", body: edgetest.Broken("3EB0C767D097B7C7C031")}, "200 delivered", "quarantined", "schema"},
		{request{what: "old token, which the edge does not know", header: []string{"Authorization", "Bearer " + oldToken}}, "200 delivered", "refused", "bad_token"},
		{request{what: "stranger", from: stranger}, "502 `misrouted`", "refused", "misrouted"},
		{request{what: "stranger, appended to a claim", from: fromGreenAPI + ", " + stranger}, "502 `misrouted`", "refused", "misrouted"},
		{request{what: "past the balancer", direct: true}, "502 `misrouted`", "refused", "misrouted"},
		{request{what: "another path", path: "/webhook"}, "404", "", ""},
		{request{what: "another host", host: "other.example.com"}, "200 delivered", "", ""},
		{request{what: "another host's certificate, too", host: "other.example.com", name: "other.example.com"}, "200 delivered", "", ""},
		{request{what: "the bare address", host: "203.0.113.20", name: "-"}, "200 delivered", "", ""},
		{request{what: "the bare address by http", scheme: "http", host: "203.0.113.20"}, "200 delivered", "", ""},
		{request{what: "http", scheme: "http"}, "308", "", ""},
		{request{what: "GET", method: "GET"}, "405 `method`", "", ""},
		{request{what: "a body that nginx refuses", body: longer(3 << 19)}, "502 `handler_refused`", "", ""},
		{request{what: "a body longer than max_body_size", body: longer(16 << 20), chunked: true}, "413 `too_large`", "", ""},
		{request{what: "a form", header: aForm}, "200 kept `encoding`", "", ""},
		{request{what: "packed", header: []string{"Content-Encoding", "gzip"}, body: packed(edgetest.TextMessage)}, "200 kept `encoding`", "", ""},
		{request{what: "handlers say 201", handlers: []string{"201"}}, "200 delivered", "", ""},
		{request{what: "handlers say 400", handlers: []string{"400"}}, "502 `handler_refused`", "", ""},
		{request{what: "handlers say 500", handlers: []string{"500"}}, "502 `handler_error`", "", ""},
		{request{what: "handlers are down", gone: true}, "502 `handler_error`", "", ""},
	} {
		seen, logged := b.askEdge(e, test.request)
		if seen != test.seen {
			t.Errorf("%s: %s, want %s", test.what, seen, test.seen)
		}
		found := test.wouldBe == ""
		for _, r := range logged {
			found = found || r.Text("report_only") == "true" && strings.Contains(r.Text("would_be"), test.wouldBe) && r.Text("reason") == test.because
			if r.Text("failures") != "" {
				t.Errorf("%s: counts towards a dead letter: %v", test.what, r)
			}
		}
		if !found {
			t.Errorf("%s: the log does not say that it would be %s for %s:\n%v", test.what, test.wouldBe, test.because, logged)
		}
		if test.faulty() {
			stopNginx() // it would remember which handlers failed
			stopNginx = b.startNginx(binary, b.place(behindEdge(t, text)), b.old)
		}
	}

	// A week.
	socket := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(b.dir, "admin.sock"))
	}}}
	if command := printed(t, text, "metrics"); command != "curl -s --unix-socket /run/caddy/admin.sock http://localhost/metrics | grep report_only" {
		t.Errorf("the page asks by %s", command)
	}
	answer, err := socket.Get("http://localhost/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if metrics := edgetest.ReaderText(t, answer.Body); !strings.Contains(metrics, `report_only_total{outcome="refused",reason="bad_token",type="none"} 1`) {
		t.Errorf("the metrics do not have what would have been refused:\n%s", metrics)
	}
	doctor := func(config string) string {
		stdout, _, _ := edgetest.RunCaddy(t, b.dir, "", "green-api", "doctor", "--config", b.file(config))
		return stdout
	}
	if said := doctor(front); !strings.Contains(said, "open_to_all") || strings.Contains(said, "empty_200") || strings.Contains(said, "does_not_load") {
		t.Errorf("the doctor says of the edge in front:\n%s", said)
	}

	// The switch.
	switched := without(t, front, `^\t+report_only\n`, 3)
	switched = without(t, switched, `^\t+#.*\n\t+max_body_size .*\n`, 1)
	switched = without(t, switched, `^\t\tdeliver \{\n(\t\t\t.*\n)+\t\t\}\n`, 1)
	switched = without(t, switched, `^\t+#.*\n.*@failed.*\n.*@failed.*\n`, 1)
	switched = cut(switched, frontLine, "reverse_proxy handler-1:8080 handler-2:8080 handler-3:8080")
	if strings.Count(switched, frontLine) != 2 {
		t.Fatalf("the page says that two are left:\n%s", switched)
	}
	switched = strings.ReplaceAll(switched, frontLine, "respond 404")
	if address := "hooks.example.com, 203.0.113.20 {"; !strings.Contains(text, "`"+address+"`") {
		t.Errorf("the page does not name %s", address)
	} else {
		switched = cut(switched, "\nhooks.example.com {", "\n"+address)
	}
	e, _ = b.startEdge(switched)
	stopNginx()
	for _, test := range []struct {
		request
		seen string
	}{
		{request{what: "genuine"}, "200 delivered"},
		{request{what: "stranger", from: stranger}, "403 `unlisted_sender`"},
		{request{what: "a wrong token", header: []string{"Authorization", "Bearer wrong-token"}}, "401 `bad_token`"},
		{request{what: "another path", path: "/webhook"}, "404"},
		{request{what: "another host", host: "other.example.com"}, "404"},
		{request{what: "the bare address", host: "203.0.113.20", name: "-"}, "200 delivered"},
		{request{what: "broken", body: edgetest.TextMessage[:120]}, "200 kept `malformed`"},
		{request{what: "fails its schema", body: edgetest.Broken("3EB0C767D097B7C7C031")}, "200 kept `schema`"},
	} {
		if seen, _ := b.askEdge(e, test.request); seen != test.seen {
			t.Errorf("after the switch, %s: %s, want %s", test.what, seen, test.seen)
		}
	}
	if said := doctor(switched); strings.Contains(said, "open_to_all") || strings.Contains(said, "empty_200") || strings.Contains(said, "does_not_load") {
		t.Errorf("the doctor says after the switch:\n%s", said)
	}

	// Before the way back. The form and what was packed are still there.
	replay := func(what string) string {
		command := strings.NewReplacer("/etc/caddy/Caddyfile", b.file(switched), "--all", what).Replace(printed(t, text, "quarantine replay"))
		stdout, stderr, _ := edgetest.RunCaddy(t, b.dir, "", strings.Fields(command)[1:]...)
		return stdout + stderr
	}
	if said := replay("--all"); !strings.Contains(said, "1 delivered, 0 failed") || !strings.Contains(said, "3 skipped") {
		t.Errorf("the replay of all: %s", said)
	}
	if said := replay("--reason malformed"); !strings.Contains(said, "1 delivered, 0 failed") {
		t.Errorf("the replay of what is malformed: %s", said)
	}

	// Back in front of nginx.
	stopNginx = b.startNginx(binary, b.place(behindEdge(t, text)), b.old)
	b.startEdge(front)
	if said := replay("--reason encoding"); !strings.Contains(said, "0 delivered, 2 failed") || !strings.Contains(said, ": 403") {
		t.Errorf("a replay to nginx: %s", said)
	}
	if seen := outcomeOf(b.ask(request{})); seen != "200 delivered" {
		t.Errorf("back in front: %s", seen)
	}
}

// TestFromNginxMoveAddresses: what the page says of the lines about addresses.
func TestFromNginxMoveAddresses(t *testing.T) {
	edgetest.Proof(t)
	binary := needs(t, "nginx", "nginx-light")
	text := page(t, fromNginx)
	nginx, front := behindEdge(t, text), configOf(t, text, frontTitle)
	alone := without(t, front, `^\t\t#.*\n\t\ttrusted_proxies .*\n\t\ttrusted_proxies_strict\n`, 1)
	office := cut(nginx, "203.0.113.7 1;", "127.0.0.9 1;") // the only address of this machine's that nginx lets in
	for _, test := range []struct {
		what, nginx, edge string
		request
		seen string
	}{
		{"no balancer, a sender whom nginx lets in", office, alone, request{direct: true}, "200 delivered"},
		{"no balancer, a claim", nginx, alone, request{direct: true}, "502"},
		{"a balancer that the edge does not know", nginx, alone, request{}, "502"},
		{"a balancer that nginx does not know", without(t, nginx, `^set_real_ip_from 10.*\n`, 1), front, request{}, "502"},
		{"an edge that nginx does not know", without(t, nginx, `^set_real_ip_from 127.*\n`, 1), front, request{}, "502"},
		{"not recursive", without(t, nginx, `^real_ip_recursive .*\n`, 1), front, request{}, "502"},
	} {
		t.Run(test.what, func(t *testing.T) {
			b := newBench(t)
			b.balancer = "127.0.0.2"
			defer b.startNginx(binary, b.place(test.nginx), b.old)()
			_, stop := b.startEdge(test.edge)
			defer stop()
			if seen := outcomeOf(b.ask(test.request)); seen != test.seen {
				t.Errorf("%s, want %s", seen, test.seen)
			}
		})
	}
}

// TestFromNginxPorts: the edge starts beside nginx on spare ports, the page's command swaps the ports, and on the way
// back nginx has them at once, while the edge finishes what a handler has in hand.
func TestFromNginxPorts(t *testing.T) {
	edgetest.Proof(t)
	binary := needs(t, "nginx", "nginx-light")
	text := page(t, fromNginx)
	b := newBench(t)
	b.balancer = "127.0.0.2"
	t.Setenv("GREEN_API_TOKEN", newToken)

	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	nginxWith := func(inside string) string { return write("nginx.conf", nginxConfig(dir, b.place(inside)), 0o600) }
	master := exec.Command(binary, "-c", nginxWith(besideEdge(t, text)), "-p", dir, "-g", "daemon off;")
	master.Stderr = os.Stderr
	if err := master.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		master.Process.Signal(syscall.SIGTERM)
		master.Wait()
	}()
	ofNginx := func() bool { return b.send(request{method: "GET"}) == 403 } // the port that requests go to
	ofEdge := func() bool { return b.send(request{method: "GET"}) == 405 }
	edgetest.Eventually(t, "nginx", ofNginx)

	real := [2]string{b.http, b.https}
	front := strings.ReplaceAll(configOf(t, text, frontTitle), "{env.GREEN_API_TOKEN}", newToken)
	b.http, b.https = edgetest.FreePort(t), edgetest.FreePort(t)
	edge := edgetest.StartProcess(t, &edgetest.Edge{T: t}, b.caddyfile(front))
	defer edge.Process.Kill()
	if status, taken := b.ask(request{}); status != 200 || !taken || !ofEdge() {
		t.Fatalf("on spare ports: %s", outcomeOf(status, taken))
	}
	b.http, b.https = real[0], real[1]
	if !ofNginx() {
		t.Error("nginx has lost its ports")
	}

	nginxWith(behindEdge(t, text))
	config := strings.ReplaceAll(b.caddyfile(front), "output test_buffer", "output stderr")
	if err := os.WriteFile(edge.File, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	write("nginx", "#!/bin/sh\nexec "+binary+" -c "+dir+"/nginx.conf -p "+dir+" \"$@\"\n", 0o700)
	write("caddy", "#!/bin/sh\nGREEN_API_TEST_CADDY=1 exec "+os.Args[0]+" \"$@\"\n", 0o700)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	soon, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	swap := exec.CommandContext(soon, "sh", "-c", strings.ReplaceAll(printed(t, text, "nginx -s reload &&"), "/etc/caddy/Caddyfile", edge.File))
	if said, err := swap.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if status, taken := b.ask(request{}); status != 200 || !taken || !ofEdge() {
		t.Errorf("after the swap: %s", outcomeOf(status, taken))
	}

	answered := make(chan int, 1)
	go func() {
		status, _ := b.ask(request{handlers: []string{"slow", "200"}})
		answered <- status
	}()
	<-b.began
	nginxWith(besideEdge(t, text))
	back := printed(t, text, "systemctl stop")
	command, stop := strings.CutPrefix(back, "systemctl stop --no-block caddy && ")
	if !stop {
		t.Fatalf("the page stops the edge by %s", back)
	}
	edge.Process.Signal(syscall.SIGTERM)
	if said, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	edgetest.Eventually(t, "nginx has its ports back", ofNginx)
	select {
	case status := <-answered:
		t.Errorf("answered %d before nginx had its ports", status)
	default:
	}
	if status := <-answered; status != 200 {
		t.Errorf("what the handler had in hand: %d", status)
	}
	if err := edge.Wait(); err != nil {
		t.Errorf("%v\n%s", err, edge.Output)
	}
	if status, taken := b.ask(request{}); status != 200 || !taken {
		t.Errorf("nginx, back: %s", outcomeOf(status, taken))
	}
}
