//go:build unix

package restarts

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestSystemdSocketActivate: systemd's own program passes the sockets. It becomes what it starts and holds them
// no longer, so a shell does that, and starts Caddy again whenever it ends.
func TestSystemdSocketActivate(t *testing.T) {
	edgetest.Proof(t)
	activate, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("Debian has it in the package systemd: %v", err)
	}
	s := newSupervisor(t, "fd/3", "fd/4", true)
	for _, socket := range s.sockets {
		socket.Close() // it makes its own
	}
	cmd := exec.Command(activate, "--listen="+s.plain, "--listen="+s.secure, "--setenv=GREEN_API_TEST_CADDY=1",
		"--setenv=XDG_DATA_HOME="+os.Getenv("XDG_DATA_HOME"), "--setenv=XDG_CONFIG_HOME="+os.Getenv("XDG_CONFIG_HOME"),
		"sh", "-c", `while "$0" run --config "$1" --adapter caddyfile; do :; done`, os.Args[0], s.file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the shell and its Caddy end together
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var served atomic.Int64
	var output bytes.Buffer
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(io.TeeReader(stderr, &output))
		for lines.Scan() {
			if strings.Contains(lines.Text(), "serving initial configuration") {
				served.Add(1)
			}
		}
	}()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		cmd.Wait()
		if t.Failed() {
			t.Log(output.String())
		}
	})
	edgetest.Eventually(t, "systemd-socket-activate, which listens", func() bool {
		conn, err := net.Dial("tcp", s.secure) // starts Caddy
		if err == nil {
			conn.Close()
		}
		return err == nil
	})

	l := newLoad(s.plain, s.secure, s.client, 40)
	l.start()
	var did ends
	for round := range int64(3) {
		edgetest.Eventually(t, "Caddy, which serves", func() bool { return served.Load() > round })
		time.Sleep(500 * time.Millisecond)
		s.reload()
		did.reloads++
		response, err := edgetest.Client.Post("http://"+s.admin+"/stop", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Fatal(response.Status)
		}
		did.restarts++
	}
	edgetest.Eventually(t, "Caddy, which serves", func() bool { return served.Load() > 3 })
	time.Sleep(500 * time.Millisecond)
	l.stop()
	if failed := l.report(t, did); failed > 0 {
		t.Errorf("%d failed", failed)
	}
}
