package adopt

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

func init() {
	mistakes["A second edge starts on the same port"] = func(t *testing.T) string {
		config := site(tokens + "reverse_proxy 127.0.0.1:9001")
		one := run(t, config)
		another := run(t, config, one.port)
		stdout, _, _ := edgetest.RunCommand(t, "", "", "green-api", "doctor", "--config", one.file)
		one.wantNoLine()
		another.wantNoLine()
		for line := range strings.Lines(stdout) {
			if strings.Contains(line, "port_shared") {
				return strings.TrimSuffix(line, "\n")
			}
		}
		return stdout
	}
	mistakes["The disk is full"] = func(t *testing.T) string {
		p := run(t, site(tokens+"reverse_proxy "+edgetest.NewUpstream(t, 200, nil).Address))
		edgetest.Eventually(t, "Caddy has cleaned its storage", func() bool { // it would complain of its own files
			return strings.Contains(p.logged(), "finished cleaning storage units")
		})
		limit := unix.Rlimit{Cur: 0, Max: 0} // no file grows any more, as on a full disk
		if err := unix.Prlimit(p.process.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
			t.Skip(err)
		}
		p.postBody("/green-api/webhook", `{"typeWebhook":`)
		return p.firstLine()
	}
}
