//go:build unix

package restarts

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// ends counts how a config or a process was ended.
type ends struct{ restarts, reloads, both, early int }

// TestRestarts: a Caddy on sockets of its supervisor is restarted and reloaded under load, and nothing is
// refused, reset or left without an answer. GREEN_API_RESTARTS=20 does so twenty times at full load, and with
// GREEN_API_RESTARTS_BESIDE=4 before that, for comparison, four times without sockets and without the
// listener wrapper, where each may take the whole grace period.
func TestRestarts(t *testing.T) {
	edgetest.Proof(t)
	if edgetest.RaceDetector {
		t.Skip("what is promised counts in seconds, and the race detector makes a busy machine too slow for that")
	}
	rounds, connections, rate := 2, 200, 40
	if text := os.Getenv("GREEN_API_RESTARTS"); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		connections, rate = 1000*rounds, 200
	}
	if text := os.Getenv("GREEN_API_RESTARTS_BESIDE"); text != "" {
		beside, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		t.Run("by address", func(t *testing.T) {
			restart(t, newSupervisor(t, "127.0.0.1", "127.0.0.1", false), beside, 1000*beside, rate)
		})
		t.Run("sockets", func(t *testing.T) {
			restart(t, newSupervisor(t, "fd/3", "fd/4", false), beside, 1000*beside, rate)
		})
	}
	t.Run("sockets and listener wrapper", func(t *testing.T) {
		if failed := restart(t, newSupervisor(t, "fd/3", "fd/4", true), rounds, connections, rate); failed > 0 {
			t.Errorf("%d failed", failed)
		}
	})
}

// restart puts a supervisor's Caddy under load, and restarts and reloads it so many times.
func restart(t *testing.T, s *supervisor, rounds, connections, rate int) (failed int) {
	t.Helper()
	s.start()
	<-s.serving
	l := newLoad(s.plain, s.secure, s.client, rate)
	began := time.Now()
	l.start()
	pace := time.Duration(connections) * time.Second / time.Duration(rate) / time.Duration(2*rounds)
	next := func(n int) { time.Sleep(time.Until(began.Add(pace*time.Duration(n) + rand.N(pace/4)))) }
	var ended ends
	for round := range rounds {
		next(2 * round)
		s.reload()
		ended.reloads++
		next(2*round + 1)
		switch round % 4 {
		case 1:
			reloading := make(chan struct{})
			go func() { s.reload(); close(reloading) }()
			time.Sleep(rand.N(200 * time.Millisecond))
			s.restart(0)
			<-reloading
			ended.both++
		case 3:
			s.restart(rand.N(time.Second))
			ended.early++
		default:
			s.restart(0)
		}
		ended.restarts++
		<-s.serving
	}
	for int(l.connections.Load()) < connections {
		time.Sleep(100 * time.Millisecond)
	}
	l.stop()
	took := time.Since(began)
	s.end()
	t.Logf("%.0f new connections a second, %s for each end", float64(l.connections.Load())/took.Seconds(), (took / time.Duration(ended.restarts+ended.reloads)).Round(time.Millisecond))
	failed = l.report(t, ended)
	for _, mark := range l.acknowledged {
		if !s.handler.took(mark) {
			t.Errorf("%s was answered 200, and no handler has it", mark)
		}
	}
	return failed
}

// A handler remembers what it took.
type handler struct {
	address string
	mu      sync.Mutex
	taken   map[string]bool
}

func newHandler(t *testing.T) *handler {
	h := &handler{taken: make(map[string]bool)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		time.Sleep(rand.N(20 * time.Millisecond))
		_, rest, _ := bytes.Cut(body, []byte(`"idMessage":"`))
		mark, _, _ := bytes.Cut(rest, []byte(`"`))
		h.mu.Lock()
		defer h.mu.Unlock()
		h.taken[string(mark)] = true
	}))
	t.Cleanup(server.Close)
	h.address = server.Listener.Addr().String()
	return h
}

func (h *handler) took(mark string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.taken[mark]
}

// A supervisor holds two sockets as systemd does, and passes them to each Caddy that it starts.
type supervisor struct {
	t             *testing.T
	plain, secure string // addresses of the sockets
	client        *tls.Config
	handler       *handler
	admin         string
	file          string // the Caddyfile
	sockets       []*os.File

	process *exec.Cmd
	serving chan struct{} // closed when the process serves
	output  *bytes.Buffer
}

// newSupervisor makes a config that binds to two words, such as fd/3 and fd/4.
func newSupervisor(t *testing.T, plain, secure string, wrapper bool) *supervisor {
	t.Helper()
	s := &supervisor{t: t, handler: newHandler(t), admin: "127.0.0.1:" + edgetest.FreePort(t)}
	for _, address := range []*string{&s.plain, &s.secure} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*address = listener.Addr().String()
		if strings.HasPrefix(plain, "fd/") {
			file, err := listener.(*net.TCPListener).File()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { file.Close() })
			s.sockets = append(s.sockets, file)
		}
		listener.Close() // the file is the same socket
	}
	s.configure(plain, secure, wrapper)
	t.Cleanup(func() {
		if s.process != nil {
			s.process.Process.Kill()
			s.process.Wait()
		}
	})
	return s
}

// configure writes the Caddyfile.
func (s *supervisor) configure(plain, secure string, wrapper bool) {
	dir := s.t.TempDir()
	cert, key, client := certificate(s.t, dir)
	s.client, s.file = client, filepath.Join(dir, "Caddyfile")
	wrappers := ""
	if wrapper {
		wrappers = "listener_wrappers {\ngreen_api\ntls\n}\n"
	}
	block := "green_api /green-api/webhook* {\n" + edgetest.Loopback + "reverse_proxy " + s.handler.address + "\n}\nrespond 404\n"
	config := `{
	admin ` + s.admin + `
	persist_config off
	auto_https off
	grace_period 30s
	log {
		exclude http.handlers.green_api
	}
	green_api {
		quarantine ` + filepath.Join(dir, "quarantine") + `
	}
	servers {
		protocols h1 h2
		` + wrappers + `
	}
}
http://` + s.plain + ` {
	bind ` + plain + `
	` + block + `
}
https://` + s.secure + ` {
	bind ` + secure + `
	tls ` + cert + ` ` + key + `
	` + block + `
}
`
	if err := os.WriteFile(s.file, []byte(strings.ReplaceAll(config, "TOKEN", edgetest.Token)), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// certificate writes a certificate and its key, and returns how a client trusts it.
func certificate(t *testing.T, dir string) (certFile, keyFile string, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour * 24),
	}
	cert, err := x509.CreateCertificate(crand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return certFile, keyFile, &tls.Config{RootCAs: pool}
}

// start starts a Caddy.
func (s *supervisor) start() {
	s.t.Helper()
	s.process = edgetest.Command(s.t, "run", "--config", s.file, "--adapter", "caddyfile")
	s.process.ExtraFiles = s.sockets
	stderr, err := s.process.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	serving, output := make(chan struct{}), new(bytes.Buffer)
	s.serving, s.output = serving, output
	go func() {
		var once sync.Once
		ready := func() { close(serving) }
		lines := bufio.NewScanner(io.TeeReader(stderr, output))
		for lines.Scan() {
			if strings.Contains(lines.Text(), "serving initial configuration") {
				once.Do(ready)
			}
		}
		once.Do(ready) // it has ended
	}()
}

// restart ends the Caddy and starts another, as `systemctl restart` does. With a pause, that other one is
// ended after it, wherever it is then, and a third one started.
func (s *supervisor) restart(pause time.Duration) {
	s.t.Helper()
	s.end()
	s.start()
	if pause > 0 {
		time.Sleep(pause)
		s.process.Process.Signal(syscall.SIGTERM)
		s.process.Wait() // before it hears signals, one kills it
		s.start()
	}
}

// end ends the Caddy and waits for it.
func (s *supervisor) end() {
	s.t.Helper()
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	if err := s.process.Wait(); err != nil {
		s.t.Errorf("Caddy ended with %v:\n%s", err, s.output)
	}
	s.process = nil
}

// reload loads the config once more, as `caddy reload --force` does.
func (s *supervisor) reload() {
	text, err := os.ReadFile(s.file)
	if err != nil {
		s.t.Error(err)
		return
	}
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(text, map[string]any{"filename": "Caddyfile"})
	if err != nil {
		s.t.Error(err)
		return
	}
	r, err := http.NewRequest(http.MethodPost, "http://"+s.admin+"/load", bytes.NewReader(config))
	if err != nil {
		s.t.Error(err)
		return
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Cache-Control", "must-revalidate")
	response, err := edgetest.Client.Do(r)
	if err != nil {
		return // it is about to end
	}
	defer response.Body.Close()
	if text, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusOK {
		s.t.Errorf("reload: %s: %s", response.Status, text)
	}
}
