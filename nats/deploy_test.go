package nats

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDeploy: three servers with the config of deploy/nats are a cluster that a store works with.
func TestDeploy(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a cluster")
	}
	text, err := os.ReadFile(filepath.Join("..", "deploy", "nats", "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	const secret = "invented-secret"
	t.Setenv("NATS_TOKEN", secret)
	ports := freePorts(t, 9)
	var servers []*server
	for i := range 3 {
		dir := t.TempDir()
		replace := []string{"0.0.0.0:4222", fmt.Sprintf("127.0.0.1:%d", ports[i]), "0.0.0.0:6222", fmt.Sprintf("127.0.0.1:%d", ports[3+i]),
			"0.0.0.0:8222", fmt.Sprintf("127.0.0.1:%d", ports[6+i]), "/data", dir, "$SERVER_NAME", fmt.Sprintf("n%d", i+1)}
		for n := range 3 {
			replace = append(replace, fmt.Sprintf("n%d:6222", n+1), fmt.Sprintf("127.0.0.1:%d", ports[3+n]))
		}
		s := &server{t: t, url: fmt.Sprintf("nats://127.0.0.1:%d", ports[i]), config: filepath.Join(dir, "server.conf"), log: filepath.Join(dir, "log")}
		config := strings.NewReplacer(replace...).Replace(string(text))
		if !strings.Contains(config, always) {
			t.Error("sync_interval is not always")
		}
		if err := os.WriteFile(s.config, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		s.start()
		t.Cleanup(s.kill)
		servers = append(servers, s)
	}
	q := &Queue{Servers: urls(servers), Token: "{env.NATS_TOKEN}", Partitions: 4}
	if err := q.provision(); err != nil {
		t.Fatal(err)
	}
	s, err := q.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	put(t, s.(*Store), "1101000001", 0)
}
