package adopt

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// ownEdge is an edge in a process of its own, on its own port and quarantine.
func ownEdge(t *testing.T) *edgetest.Edge {
	t.Helper()
	e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(t.TempDir(), "quarantine")}
	e.URL = "http://127.0.0.1:" + e.Port + "/green-api/webhook"
	return e
}

// TestSeveralEdges: of two edges behind the page's nginx one is killed, started, stopped and started again under load.
// Nothing is lost, and no instance sends more than once again for each.
func TestSeveralEdges(t *testing.T) {
	edgetest.Proof(t)
	binary := needs(t, "nginx", "nginx-light")
	l := edgetest.NewLedger(t)
	handlers := l.Fleet(2)
	b := newBench(t)
	one, other := ownEdge(t), ownEdge(t)
	config := edgetest.Site(edgetest.Loopback + "validate {\ndrift_guard off\n}\nreverse_proxy" + edgetest.Addresses(handlers))
	dies, stays := edgetest.StartProcess(t, one, config), edgetest.StartProcess(t, other, config)
	front := strings.NewReplacer("edge-1:8080", "127.0.0.1:"+one.Port, "edge-2:8080", "127.0.0.1:"+other.Port).Replace(configOf(t, page(t, "docs/several-edges.md"), "two edges"))
	stop := b.startNginx(binary, b.place(front), b.https)
	defer stop()

	const instances = 8
	options := edgetest.ChaosOptions(one)
	options.URL, options.Insecure = "https://127.0.0.1:"+b.https+"/green-api/webhook", true
	report := l.Send(options, l.Queues(instances, 0, time.Now().Add(6*time.Second)), func(ctx context.Context) {
		for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
			edgetest.Pauses(ctx, 1500*time.Millisecond)
			if ctx.Err() != nil {
				t.Logf("all was sent before %s", signal)
				return
			}
			dies.Process.Signal(signal)
			dies.Wait()
			edgetest.Pauses(ctx, 200*time.Millisecond)
			dies = edgetest.StartProcess(t, one, config)
		}
	})
	for _, p := range []*edgetest.Process{dies, stays} {
		p.Process.Signal(syscall.SIGTERM)
		p.Wait()
	}
	kept := edgetest.ReadQuarantineWhole(t, other.Dir)
	for _, entry := range kept {
		l.Taken[edgetest.MarkOf(entry.Body)]++
	}
	l.Verify(one.Dir, report)
	if report.Resent > 2*instances {
		t.Errorf("%d re-sent by %d instances", report.Resent, instances)
	}
}

// TestUpgrading: docs/upgrading.md moves the quarantine and takes it back from a copy; a second edge does not get it.
func TestUpgrading(t *testing.T) {
	edgetest.Proof(t)
	handler := edgetest.NewUpstream(t, 200, nil)
	e := ownEdge(t)
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback+"validate {\ndrift_guard off\n}\nreverse_proxy "+handler.Address))
	quarantined := func() (ids []string) {
		t.Helper()
		out, problem, code := edgetest.RunCaddy(t, ".", "", "green-api", "quarantine", "export", "--address", admin)
		if code != 0 {
			t.Fatalf("export: %s", problem)
		}
		for line := range strings.Lines(out) {
			var entry struct{ ID, Body string }
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(entry.Body, "UPGRADE") {
				t.Errorf("exported without its body: %s", line)
			}
			ids = append(ids, entry.ID)
		}
		return ids
	}
	end := func(p *edgetest.Process) {
		t.Helper()
		p.Process.Signal(syscall.SIGTERM)
		if err := p.Wait(); err != nil {
			t.Error(err)
		}
	}

	p := edgetest.StartProcess(t, e, config)
	e.Post(edgetest.Broken("UPGRADE1"))
	second := edgetest.Command(t, "run", "--config", p.File)
	if out, err := second.CombinedOutput(); err == nil || !strings.Contains(string(out), "quarantine is locked") {
		t.Errorf("a second edge with the same quarantine: %v\n%s", err, out)
	}
	if _, problem, code := edgetest.RunCaddy(t, ".", "", "validate", "--config", p.File); code != 0 {
		t.Errorf("validate beside the running edge: %s", problem)
	}
	before := quarantined()
	end(p)
	file := filepath.Join(e.Dir, "quarantine.db")
	backup := filepath.Join(t.TempDir(), "backup.db")
	copyFile(t, file, backup)

	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.Rename(e.Dir, moved); err != nil {
		t.Fatal(err)
	}
	old := e.Dir
	e.Dir = moved
	p = edgetest.StartProcess(t, e, config)
	if got := quarantined(); len(before) != 1 || len(got) != 1 || got[0] != before[0] {
		t.Errorf("before the move %v, after it %v", before, got)
	}
	e.Post(edgetest.Broken("UPGRADE2"))
	end(p)

	copyFile(t, backup, filepath.Join(moved, "quarantine.db"))
	p = edgetest.StartProcess(t, e, config)
	if got := quarantined(); len(got) != 1 || got[0] != before[0] {
		t.Errorf("restored %v, want %v", got, before)
	}
	end(p)

	e.Dir = old // a path that is wrong by a letter
	p = edgetest.StartProcess(t, e, config)
	if got := quarantined(); len(got) != 0 {
		t.Errorf("an empty quarantine has %v", got)
	}
	end(p)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
}
