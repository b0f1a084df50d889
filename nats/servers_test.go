package nats

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	_ "github.com/greenapi-community/caddy-green-api"
	"github.com/greenapi-community/caddy-green-api/queue"
)

// serverBinary is set by TestMain.
var serverBinary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Getenv(asEdge) != "" { // of TestQueueEdgesWithoutReset
		caddycmd.Main()
		return 0
	}
	dir, err := os.MkdirTemp("", "nats-server")
	if err == nil {
		defer os.RemoveAll(dir)
		serverBinary = filepath.Join(dir, "nats-server")
		var said []byte
		if said, err = exec.Command("go", "build", "-o", serverBinary, "github.com/nats-io/nats-server/v2").CombinedOutput(); err != nil { //nolint:gosec // fixed
			fmt.Fprintf(os.Stderr, "%s", said)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// asEdge is a variable that makes this test's program an edge, as cmd/caddy is, which has the engine nats_without_reset
// as well.
const asEdge = "GREEN_API_TEST_AS_EDGE"

func init() {
	caddy.RegisterModule(queueWithoutReset{})
}

// queueWithoutReset is the engine with what takeovers need left out.
type queueWithoutReset struct{ Queue }

func (queueWithoutReset) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "green_api.queues.nats_without_reset", New: func() caddy.Module { return new(queueWithoutReset) }}
}

func (q *queueWithoutReset) Open() (queue.Store, error) {
	o := q.options()
	o.noReset = true
	return Open(o)
}

// A server is a process of nats-server.
type server struct {
	t      testing.TB
	url    string
	config string
	log    string
	cmd    *exec.Cmd
	ended  chan struct{}
}

// freePorts returns ports that nobody listened on a moment ago. They are below those that systems give to connections:
// one of those could be in use when its server listens, be it for a connection of the server next to it.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for tries := 0; len(ports) < n; tries++ {
		port := 10_000 + rand.N(20_000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			if tries > 1000 {
				t.Fatal(err)
			}
			continue
		}
		defer l.Close()
		ports = append(ports, port)
	}
	return ports
}

// always is what docs/queue.md wants servers to have.
const always = "sync_interval: always"

// startServers starts n servers, as a cluster if there are several. extra is more of their config.
func startServers(t testing.TB, n int, extra string) []*server {
	t.Helper()
	ports := freePorts(t, 2*n)
	var routes []string
	for i := range n {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[n+i]))
	}
	sync := ""
	if extra == always {
		sync, extra = always, ""
	}
	var servers []*server
	for i := range n {
		dir := t.TempDir()
		text := fmt.Sprintf("listen: 127.0.0.1:%d\nserver_name: n%d\nmax_payload: 8MB\njetstream { store_dir: %q, max_file_store: 20GB, %s }\n%s\n", ports[i], i+1, dir, sync, extra)
		if n > 1 {
			text += fmt.Sprintf("cluster { name: test, no_advertise: true, listen: 127.0.0.1:%d, routes: [ %s ] }\n", ports[n+i], strings.Join(routes, ", "))
		}
		s := &server{t: t, url: fmt.Sprintf("nats://127.0.0.1:%d", ports[i]), config: filepath.Join(dir, "server.conf"), log: filepath.Join(dir, "log")}
		if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.start()
		servers = append(servers, s)
	}
	t.Cleanup(func() {
		for _, s := range servers {
			s.kill()
		}
		if t.Failed() {
			for _, s := range servers {
				text, _ := os.ReadFile(s.log)
				lines := strings.Split(string(text), "\n")
				t.Logf("%s\n%s", s.url, strings.Join(lines[max(0, len(lines)-15):], "\n"))
			}
		}
	})
	return servers
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(serverBinary, "--config", s.config, "--log", s.log) //nolint:gosec // of this test
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait()
		close(ended)
	}(s.cmd, s.ended)
}

func (s *server) kill() {
	_ = s.cmd.Process.Signal(syscall.SIGKILL)
	<-s.ended
}

// urls returns the addresses of servers.
func urls(servers []*server) (list []string) {
	for _, s := range servers {
		list = append(list, s.url)
	}
	return list
}

// options returns options of a store for servers, with few partitions.
func options(servers []*server, stream string) Options {
	replicas := 1
	if len(servers) > 1 {
		replicas = 3
	}
	return Options{
		Servers: urls(servers), Stream: stream, Replicas: replicas, Partitions: 4, MaxPerInstance: 200, Edge: "edge",
		Logger: zap.NewNop, GracePeriod: time.Second,
	}
}

// watched returns options with a log that the test can read.
func watched(o Options) (Options, *observer.ObservedLogs) {
	core, logs := observer.New(zap.DebugLevel)
	logger := zap.New(core)
	o.Logger = func() *zap.Logger { return logger }
	return o, logs
}

// openStore opens a store as soon as there is a cluster.
func openStore(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if err := s.awaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return s
}

// wait is how long a test waits for what must happen.
const wait = time.Minute

// until waits until a condition holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for late := time.Now().Add(wait); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("waited for %s in vain", what)
		}
	}
}

// admin returns the servers as an operator sees them.
func admin(t *testing.T, servers []*server) jetstream.JetStream {
	t.Helper()
	var nc *natsgo.Conn
	until(t, "a server", func() (ok bool) {
		var err error
		nc, err = natsgo.Connect(strings.Join(urls(servers), ","))
		return err == nil
	})
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}
