package queue

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestSyncedBeforeAnswer: when the sender's 200 is written, the file has the notification, and nothing of the file is
// left to sync. A kill shows no difference: only a power cut would.
func TestSyncedBeforeAnswer(t *testing.T) {
	edgetest.Proof(t)
	if _, err := exec.LookPath("strace"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("strace is missing: apt-get install strace")
		}
		t.Skip("strace is missing: apt-get install strace")
	}
	const count = 20
	e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(t.TempDir(), "quarantine")}
	e.URL = "http://127.0.0.1:" + e.Port + "/green-api/webhook"
	trace := filepath.Join(t.TempDir(), "trace")
	config := queued("", "127.0.0.1:"+edgetest.FreePort(t)) // no handler: nothing else is answered, and nothing removed
	p := edgetest.StartProcess(t, e, config, "strace", "-D", "-f", "-qq", "-y", "-s", "65536", "-o", trace,
		"-e", "trace=write,writev,sendto,sendmsg,pwrite64,pwritev,pwritev2,fsync,fdatasync,msync,sync_file_range")
	t.Cleanup(func() { _ = p.Process.Kill() })
	for i := range count {
		if status := e.Post(message(instance, chatA, i)); status != 200 {
			t.Fatal(status)
		}
	}
	if err := p.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("%v\n%s", err, p.Output)
	}
	var f traced
	edgetest.Eventually(t, "the tracer has written down all answers", func() bool {
		text, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		f = traced{}
		for line := range strings.Lines(string(text)) {
			f.read(line)
		}
		return f.answers >= count
	})
	for _, problem := range f.problems {
		t.Error(problem)
	}
	if f.answers != count || f.syncs < count {
		t.Errorf("%d answers and %d syncs were seen", f.answers, f.syncs)
	}
}

// traced is what the tracer has seen of the queue's file.
type traced struct {
	written, synced string // what was written to the file, in all and up to the last write before a sync
	answers, syncs  int
	syncing         map[string]string // by thread, written when its sync began
	problems        []string
}

// A call that another thread's interrupts is in two lines.
var (
	begun   = regexp.MustCompile(`^(\d+) +(\w+)\(\d+<([^>]*)>(.*)$`)
	resumed = regexp.MustCompile(`^(\d+) +<\.\.\. (fsync|fdatasync) resumed>.*= 0$`)
)

func (f *traced) read(line string) {
	line = strings.TrimSuffix(line, "\n")
	if done := resumed.FindStringSubmatch(line); done != nil {
		f.end(done[1])
		return
	}
	call := begun.FindStringSubmatch(line)
	if call == nil {
		return
	}
	thread, name, file, rest := call[1], call[2], call[3], call[4]
	isQueue := strings.HasSuffix(file, "/queue.db")
	switch {
	case isQueue && (name == "fsync" || name == "fdatasync"):
		if f.syncing == nil {
			f.syncing = make(map[string]string)
		}
		f.syncing[thread] = f.written
		if strings.HasSuffix(rest, "= 0") {
			f.end(thread)
		}
	case isQueue:
		f.written += rest
	case strings.Contains(rest, `"HTTP/1.1 200 `):
		mark := fmt.Sprintf("M%s-%s-%d", instance, chatA, f.answers)
		if !strings.Contains(f.synced, mark+`\"`) {
			f.problems = append(f.problems, mark+" is not in the file, or not synced, when it is answered")
		}
		if len(f.synced) != len(f.written) {
			f.problems = append(f.problems, fmt.Sprintf("%s is answered before all of its transaction is synced", mark))
		}
		f.answers++
	}
}

// end notes that a sync of a thread has ended, if it is of the queue's file.
func (f *traced) end(thread string) {
	if written, ours := f.syncing[thread]; ours {
		f.syncs++
		f.synced = written
		delete(f.syncing, thread)
	}
}
