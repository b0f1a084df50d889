//go:build linux

package deploy

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestImage builds the image, but for the first stage, which would fetch Go's own, and starts what is in it as its
// user and with its root directory.
func TestImage(t *testing.T) {
	edgetest.Proof(t)
	once(t)
	need(t, "buildah", "apt-get install buildah")
	needRoot(t)
	t.Parallel()
	dir := t.TempDir()
	// What the first stage leaves.
	stage := filepath.Join(dir, "build")
	program, err := os.ReadFile(binary(t))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(stage, "out", "usr", "bin", "caddy-green-api"), string(program))
	if err := os.Chmod(filepath.Join(stage, "out", "usr", "bin", "caddy-green-api"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(stage, "out", "etc", "ssl", "certs", "ca-certificates.crt"), "roots\n")
	for _, empty := range []string{"data", "run/caddy-green-api"} {
		if err := os.MkdirAll(filepath.Join(stage, "out", empty), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	buildah := func(args ...string) string {
		return strings.TrimSpace(run(t, "buildah", append([]string{
			"--storage-driver", "vfs", "--root", filepath.Join(dir, "store"), "--runroot", filepath.Join(dir, "runroot"),
		}, args...)...))
	}
	buildah("build", "--isolation", "chroot", "--format", "docker", "--build-context", "build="+stage,
		"--tag", "caddy-green-api", "--file", filepath.Join(top, "deploy", "docker", "Dockerfile"), top)

	var image struct {
		Docker struct {
			Config struct {
				User, StopSignal     string
				Entrypoint, Cmd, Env []string
				Volumes              map[string]any
				Healthcheck          struct{ Test []string }
			} `json:"config"`
		}
	}
	if err := json.Unmarshal([]byte(buildah("inspect", "--type", "image", "caddy-green-api")), &image); err != nil {
		t.Fatal(err)
	}
	config := image.Docker.Config
	if _, volume := config.Volumes["/data"]; !volume || config.User != "65532:65532" || config.StopSignal != "SIGTERM" {
		t.Errorf("%+v", config)
	}
	if want := []string{"CMD", "caddy-green-api", "green-api", "health"}; !slices.Equal(config.Healthcheck.Test, want) {
		t.Errorf("health check %q, want %q", config.Healthcheck.Test, want)
	}

	root := buildah("mount", buildah("from", "--pull-never", "caddy-green-api"))
	// It has what it needs and nothing else.
	var files []string
	filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files = append(files, strings.TrimPrefix(path, root))
		}
		return nil
	})
	if want := []string{"/etc/caddy-green-api/Caddyfile", "/etc/ssl/certs/ca-certificates.crt", "/usr/bin/caddy-green-api"}; !slices.Equal(files, want) {
		t.Errorf("the image has %q, want %q", files, want)
	}

	h := newHandler(t, 0)
	e := plans[1].prepare(t)
	text := inContainer(t, e, read(t, "deploy/docker/Caddyfile"))
	write(t, filepath.Join(root, "etc", "caddy-green-api", "Caddyfile"), change(t, text,
		"\n"+domain+" {", "\n"+domain+" {\n\ttls internal", "handler-1:9000 handler-2:9000", h.address,
		"\t\tauth {", "\t\tip_filter {\n\t\t\tallow 127.0.0.1\n\t\t}\n\t\tauth {"))
	write(t, filepath.Join(root, "run", "secrets", "token"), edgetest.Token)
	e.dir = filepath.Join(root, "data")
	cmd := exec.Command("/usr/bin/"+config.Entrypoint[0], config.Cmd...)
	cmd.Env, cmd.Dir = config.Env, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	e.startCmd(t, cmd)
	socket := filepath.Join(root, "run", "caddy-green-api", "admin.sock")
	if err := os.Symlink(socket, filepath.Join(e.dir, "admin.sock")); err != nil { // where the check looks
		t.Fatal(err)
	}
	serves(t, e, h)

	// What is inside it finds the edge by itself.
	inside := exec.Command("/usr/bin/"+config.Entrypoint[0], "green-api", "quarantine", "list")
	inside.Env, inside.Dir, inside.SysProcAttr = config.Env, "/", cmd.SysProcAttr
	if list := runCmd(t, inside); !strings.Contains(list, "schema") {
		t.Errorf("the quarantine has %q, want what was broken", list)
	}
	check := exec.Command("/usr/bin/"+config.Healthcheck.Test[1], config.Healthcheck.Test[2:]...)
	check.Env, check.Dir, check.SysProcAttr = config.Env, "/", cmd.SysProcAttr
	if said, err := check.CombinedOutput(); err != nil || !strings.HasPrefix(string(said), "ready") {
		t.Errorf("the health check: %v %s", err, said)
	}
	if e.stop(t) || e.ProcessState.ExitCode() != 0 {
		t.Errorf("the stop: %s", e.ProcessState)
	}
}
