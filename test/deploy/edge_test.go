//go:build linux

package deploy

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

const domain = "hooks.example.com"

// A handler takes notifications after a while.
type handler struct {
	address     string
	began, took atomic.Int64
}

func newHandler(t *testing.T, delay time.Duration) *handler {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &handler{address: listener.Addr().String()}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		h.began.Add(1)
		select {
		case <-time.After(delay):
			h.took.Add(1)
		case <-r.Context().Done():
		}
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return h
}

// A plan says how a file of deploy/ is run here.
type plan struct {
	name      string
	caddyfile string                                                  // in deploy/
	limit     func(*testing.T) time.Duration                          // how long its supervisor waits after SIGTERM
	change    func(t *testing.T, e *edge, config, to string) string   // what cannot be as it is on this machine
	command   func(t *testing.T, e *edge, caddyfile string) *exec.Cmd // what its supervisor starts
}

var plans = []plan{
	{
		name: "systemd", caddyfile: "deploy/Caddyfile",
		limit: func(t *testing.T) time.Duration { return seconds(t, read(t, unit), `^TimeoutStopSec=(\d+)$`) },
		change: func(t *testing.T, e *edge, config, to string) string {
			return change(t, config,
				"https://"+domain+" {", "https://"+domain+" {\n\ttls internal", // no authority asks this machine
				"http://:9180", "http://:"+e.private,
				"127.0.0.1:9001 127.0.0.1:9002", to)
		},
		command: underSystemd,
	},
	{
		name: "compose", caddyfile: "deploy/docker/Caddyfile",
		limit: func(t *testing.T) time.Duration {
			_, edge, _ := strings.Cut(read(t, compose), "\n  edge:\n")
			edge, _, _ = strings.Cut(edge, "\n\n")
			return seconds(t, edge, `^    stop_grace_period: (\d+)s$`)
		},
		change: func(t *testing.T, e *edge, config, to string) string {
			return change(t, inContainer(t, e, config),
				"\n"+domain+" {", "\n"+domain+" {\n\ttls internal",
				"handler-1:9000 handler-2:9000", to)
		},
		command: asInContainer,
	},
	{
		name: "kubernetes", caddyfile: "deploy/kubernetes/Caddyfile",
		limit: func(t *testing.T) time.Duration {
			set := read(t, "deploy/kubernetes/statefulset.yaml")
			// What happens before the SIGTERM is a part of it.
			return seconds(t, set, `^      terminationGracePeriodSeconds: (\d+)$`) - seconds(t, set, `^                seconds: (\d+)$`)
		},
		change: func(t *testing.T, e *edge, config, to string) string {
			cert, key := certificate(t, e.dir)
			first, _, _ := strings.Cut(to, " ")
			_, port, _ := net.SplitHostPort(first)
			return change(t, inContainer(t, e, config),
				"/run/tls/tls.crt", cert, "/run/tls/tls.key", key,
				"name handlers.default.svc.cluster.local", "name localhost",
				"port 9000", "port "+port)
		},
		command: asInContainer,
	},
}

const (
	unit    = "deploy/systemd/caddy-green-api.service"
	compose = "deploy/docker/compose.yaml"
)

// inContainer changes what both containers have in common.
func inContainer(t *testing.T, e *edge, config string) string {
	t.Helper()
	return change(t, config,
		"\tgrace_period", "\tdefault_bind 127.0.0.1\n\tgrace_period",
		"http_port 8080", "http_port "+e.http,
		"https_port 8443", "https_port "+e.https,
		"http://:9180", "http://:"+e.private)
}

// underSystemd starts ExecStart as systemd would, with the sockets of the socket unit and the credential.
func underSystemd(t *testing.T, e *edge, caddyfile string) *exec.Cmd {
	t.Helper()
	need(t, "systemd-socket-activate", "apt-get install systemd")
	if got := strings.Join(lines(read(t, "deploy/systemd/caddy-green-api.socket"), "ListenStream="), " "); got != "443 80" {
		t.Fatalf("the socket unit listens on %s; want 443, which is fd/3, and 80, which is fd/4", got)
	}
	write(t, filepath.Join(e.dir, "credentials", "token"), edgetest.Token+"\n")
	args := []string{"-l", "127.0.0.1:" + e.https, "-l", "127.0.0.1:" + e.http}
	environment := append(strings.Fields(strings.Join(lines(read(t, unit), "Environment="), " ")), e.env...)
	for _, variable := range environment {
		args = append(args, "-E", strings.ReplaceAll(variable, "/var/lib/caddy-green-api", e.dir))
	}
	args = append(args, "-E", "CREDENTIALS_DIRECTORY="+filepath.Join(e.dir, "credentials"), "-E", "GREEN_API_TEST_CADDY=1")
	start := find(t, read(t, unit), `^ExecStart=(.*)$`)
	start = change(t, start, "/usr/bin/caddy-green-api", e.program, "/etc/caddy-green-api/Caddyfile", caddyfile)
	return exec.Command("systemd-socket-activate", append(args, strings.Fields(start)...)...)
}

// asInContainer starts what the image starts, in its environment.
func asInContainer(t *testing.T, e *edge, caddyfile string) *exec.Cmd {
	t.Helper()
	write(t, filepath.Join(e.dir, "secrets", "token"), edgetest.Token+"\n")
	dockerfile := read(t, "deploy/docker/Dockerfile")
	if got := find(t, dockerfile, `^ENTRYPOINT (.*)$`); got != `["caddy-green-api"]` {
		t.Fatalf("ENTRYPOINT %s", got)
	}
	args := list(change(t, find(t, dockerfile, `^CMD \[(.*)\]$`), "/etc/caddy-green-api/Caddyfile", caddyfile))
	cmd := exec.Command(e.program, args...)
	_, environment, _ := strings.Cut(dockerfile, "\nENV ")
	environment, _, _ = strings.Cut(environment, "\nUSER")
	environment = change(t, environment, "=/data", "="+e.dir, "=/run/secrets", "="+filepath.Join(e.dir, "secrets"),
		"/run/caddy-green-api", e.dir, "\\\n", "")
	cmd.Env = append(append(strings.Fields(environment), "GREEN_API_TEST_CADDY=1"), e.env...)
	return cmd
}

// lines returns what stands behind a prefix in the lines of a text that have it.
func lines(text, prefix string) (found []string) {
	for line := range strings.Lines(text) {
		if rest, is := strings.CutPrefix(line, prefix); is {
			found = append(found, strings.TrimSpace(rest))
		}
	}
	return found
}

// list returns the elements of a list in YAML or JSON.
func list(text string) (elements []string) {
	for element := range strings.SplitSeq(text, ",") {
		elements = append(elements, strings.Trim(strings.TrimSpace(element), `"`))
	}
	return elements
}

// An edge is a process that runs a file of deploy/.
type edge struct {
	*exec.Cmd
	plan                 plan
	dir                  string // for all that it keeps
	https, http, private string // ports
	program              string
	env                  []string
	output               *output
	ended                chan struct{} // closed when the process is gone
}

type output struct {
	sync.Mutex
	bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.Lock()
	defer o.Unlock()
	return o.Buffer.Write(p)
}

func (o *output) String() string {
	o.Lock()
	defer o.Unlock()
	return o.Buffer.String()
}

// prepare makes an edge of a plan that gives notifications to handlers.
func (p plan) prepare(t *testing.T) *edge {
	t.Helper()
	dir, err := os.MkdirTemp("", "deploy-") // short: a socket's path must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &edge{
		plan: p, dir: dir, https: edgetest.FreePort(t), http: edgetest.FreePort(t), private: edgetest.FreePort(t),
		program: os.Args[0], output: new(output), ended: make(chan struct{}),
	}
}

// config writes the edge's Caddyfile.
func (e *edge) config(t *testing.T, handlers ...*handler) string {
	t.Helper()
	var addresses []string
	for _, h := range handlers {
		addresses = append(addresses, h.address)
	}
	config := e.plan.change(t, e, read(t, e.plan.caddyfile), strings.Join(addresses, " "))
	return write(t, filepath.Join(e.dir, "Caddyfile"), change(t, config,
		"/run/caddy-green-api/admin.sock", filepath.Join(e.dir, "admin.sock"),
		"\t\tauth {", "\t\tip_filter {\n\t\t\tallow 127.0.0.1\n\t\t}\n\t\tauth {")) // the test sends, not GREEN-API
}

// start starts the command of the edge's plan, and waits until it serves.
func (e *edge) start(t *testing.T, handlers ...*handler) {
	t.Helper()
	e.startCmd(t, e.plan.command(t, e, e.config(t, handlers...)))
}

func (e *edge) startCmd(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	e.Cmd = cmd
	e.Stdout, e.Stderr = e.output, e.output
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		e.Wait()
		close(e.ended)
	}()
	t.Cleanup(func() {
		e.Process.Kill()
		<-e.ended
		if t.Failed() {
			t.Log(e.output)
		}
	})
	edgetest.Eventually(t, e.plan.name+" serves", func() bool {
		select {
		case <-e.ended:
			t.Fatalf("%s ended:\n%s", e.plan.name, e.output)
		default:
		}
		// The first connection starts what waits behind a socket.
		if connection, err := net.Dial("tcp", "127.0.0.1:"+e.https); err == nil {
			connection.Close()
		}
		if status, _, _ := e.get("http://127.0.0.1:" + e.private + "/healthz"); status != 200 {
			return false
		}
		status, _, _ := e.get("https://" + domain + "/") // a certificate of its own takes a moment
		return status == 404
	})
}

// client is a client that finds the domain at this edge.
func (e *edge) client() *http.Client {
	return &http.Client{
		Timeout:       60 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				address = strings.NewReplacer(domain+":443", "127.0.0.1:"+e.https, domain+":80", "127.0.0.1:"+e.http).Replace(address)
				return new(net.Dialer).DialContext(ctx, network, address)
			},
		},
	}
}

func (e *edge) get(url string) (status int, body string, header http.Header) {
	return e.do(http.MethodGet, url, "")
}

func (e *edge) do(method, url, body string) (int, string, http.Header) {
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, err.Error(), nil
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+edgetest.Token)
	response, err := e.client().Do(r)
	if err != nil {
		return 0, err.Error(), nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error(), nil
	}
	return response.StatusCode, string(text), response.Header
}

// post sends a notification, as GREEN-API does.
func (e *edge) post(body string) (int, string) {
	status, text, _ := e.do(http.MethodPost, "https://"+domain+"/green-api/webhook", body)
	return status, text
}

// stop stops the edge as its supervisor does, and kills it when that is over.
func (e *edge) stop(t *testing.T) (killed bool) {
	t.Helper()
	limit := e.plan.limit(t)
	e.Process.Signal(syscall.SIGTERM)
	select {
	case <-e.ended:
	case <-time.After(limit):
		killed = true
		e.Process.Kill()
		<-e.ended
	}
	return killed
}

// certificate writes one for the domain, as a secret of a cluster has it.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{domain}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour)}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyBytes, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert = write(t, filepath.Join(dir, "tls.crt"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})))
	key = write(t, filepath.Join(dir, "tls.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyBytes})))
	return cert, key
}
