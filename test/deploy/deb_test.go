//go:build linux

package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// ofMachine is what the doctor may find on the machine of the test, where the root directory is a temporary one.
var ofMachine = []string{"quarantine_volatile", "quarantine_without_volume", "queue_volatile", "queue_without_volume", "stop_time_not_seen", "disk_low", "clock", "port_shared", "port_taken", "old_addresses"}

// TestByHand runs what docs/deploy.md says to who installs without a package, with a root directory of its own.
func TestByHand(t *testing.T) {
	edgetest.Proof(t)
	once(t)
	t.Parallel()
	root := t.TempDir()
	for _, dir := range []string{"usr/bin", "etc/systemd/system", "etc/sysusers.d", "bin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// There is no systemd to tell, and the edge is built already.
	for _, name := range []string{"systemctl", "systemd-sysusers"} {
		if err := os.Chmod(write(t, filepath.Join(root, "bin", name), "#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	_, page, _ := strings.Cut(read(t, "docs/deploy.md"), "Without it, from a clone")
	fences := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(page, 2)
	sh := func(script string) string {
		cmd := exec.Command("sh", "-euc", script)
		cmd.Dir = top
		cmd.Env = append(os.Environ(), "PATH="+filepath.Join(root, "bin")+":"+os.Getenv("PATH"))
		return runCmd(t, cmd)
	}
	sh(change(t, fences[0][1], "sudo ", "", "deploy/build v0.1.0 caddy-green-api\n", "", "-m 0755 caddy-green-api", "-m 0755 "+binary(t),
		" /usr/bin/", " "+root+"/usr/bin/", " /etc/", " "+root+"/etc/"))
	write(t, filepath.Join(root, "etc", "caddy-green-api", "token"), edgetest.Token+"\n")
	said := sh(strings.TrimSpace(change(t, fences[1][1], "sudo ", "env ", "=/etc/", "="+root+"/etc/", "=/var/", "="+root+"/var/",
		" /etc/", " "+root+"/etc/", " caddy-green-api green-api", " "+root+"/usr/bin/caddy-green-api green-api")) + " || test $? = 1")
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "nothing found in ") {
			continue
		}
		if words := strings.Fields(line); !slices.Contains(ofMachine, words[1]) {
			t.Errorf("the doctor finds:\n%s", said)
			break
		}
	}
	for _, path := range []string{"etc/systemd/system/caddy-green-api.service", "etc/systemd/system/caddy-green-api.socket", "etc/sysusers.d/caddy-green-api.conf"} {
		if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Error(err)
		}
	}
}

// TestDeb builds the package, and installs, upgrades, removes and purges it in a root directory of its own. The edge
// that it installs runs.
func TestDeb(t *testing.T) {
	edgetest.Proof(t)
	once(t)
	need(t, "nfpm", "make tools builds it, in .lint")
	need(t, "dpkg", "only Debian has it")
	need(t, "systemd-sysusers", "apt-get install systemd")
	needRoot(t)
	t.Parallel()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	write(t, filepath.Join(root, "var", "lib", "dpkg", "status"), "")
	for _, part := range []string{"updates", "info", "triggers"} {
		if err := os.MkdirAll(filepath.Join(root, "var", "lib", "dpkg", part), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// A systemd that runs, for the scripts, and says what it was asked for.
	if err := os.MkdirAll(filepath.Join(root, "run", "systemd", "system"), 0o755); err != nil {
		t.Fatal(err)
	}
	asked := filepath.Join(dir, "asked")
	systemctl := write(t, filepath.Join(dir, "bin", "systemctl"), "#!/bin/sh\necho \"$@\" >>"+asked+"\n")
	if err := os.Chmod(systemctl, 0o755); err != nil {
		t.Fatal(err)
	}
	dpkg := func(args ...string) string {
		cmd := exec.Command("dpkg", append([]string{
			"--root=" + root, "--log=" + filepath.Join(dir, "log"), "--force-script-chrootless", "--force-depends", "--force-confold",
		}, args...)...)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(systemctl)+":"+os.Getenv("PATH"))
		os.Remove(asked)
		out := runCmd(t, cmd)
		said, _ := os.ReadFile(asked)
		return out + string(said)
	}
	build := func(version, program string) string {
		file := filepath.Join(dir, version+".deb")
		cmd := exec.Command("nfpm", "package", "--config", "deploy/deb/nfpm.yaml", "--packager", "deb", "--target", file)
		cmd.Dir = top
		cmd.Env = append(os.Environ(), "GOARCH=amd64", "VERSION="+version, "BINARY="+program)
		runCmd(t, cmd)
		return file
	}

	first, second := build("0.1.0", binary(t)), build("0.1.1", systemctl) // any program: it is not run
	said := dpkg("--install", first)
	if !strings.Contains(said, "/etc/caddy-green-api/token") || !strings.HasSuffix(said, "\ndaemon-reload\ntry-restart caddy-green-api.service\n") {
		t.Errorf("the first install said:\n%s", said)
	}
	for path, mode := range map[string]os.FileMode{
		"usr/bin/caddy-green-api": 0o755, "etc/caddy-green-api/Caddyfile": 0o644,
		"usr/lib/systemd/system/caddy-green-api.service": 0o644, "usr/lib/systemd/system/caddy-green-api.socket": 0o644,
	} {
		if info, err := os.Stat(filepath.Join(root, path)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v %v, want %v", path, info, err, mode)
		}
	}
	if users, err := os.ReadFile(filepath.Join(root, "etc", "passwd")); err != nil || !strings.Contains(string(users), "caddy-green-api:") {
		t.Errorf("no user: %s %v", users, err)
	}

	h := newHandler(t, 0)
	e := plans[0].prepare(t)
	e.program = filepath.Join(root, "usr", "bin", "caddy-green-api")
	installed, err := os.ReadFile(filepath.Join(root, "etc", "caddy-green-api", "Caddyfile"))
	if err != nil || string(installed) != read(t, "deploy/Caddyfile") {
		t.Fatalf("another Caddyfile: %v", err)
	}
	e.start(t, h)
	serves(t, e, h)
	if e.stop(t) || e.ProcessState.ExitCode() != 0 {
		t.Errorf("the stop: %s", e.ProcessState)
	}
	if version := run(t, e.program, "version"); !strings.HasPrefix(version, "caddy-green-api-v0.0.0 ") {
		t.Errorf("version %s", version)
	}

	mine := string(installed) + "# mine\n"
	write(t, filepath.Join(root, "etc", "caddy-green-api", "Caddyfile"), mine)
	kept := write(t, filepath.Join(root, "var", "lib", "caddy-green-api", "caddy", "green_api", "quarantine.db"), "kept")
	if said = dpkg("--install", second); !strings.Contains(said, "try-restart caddy-green-api.service") || strings.Contains(said, "What is left to do") {
		t.Errorf("an upgrade said:\n%s", said)
	}
	if text, err := os.ReadFile(filepath.Join(root, "etc", "caddy-green-api", "Caddyfile")); string(text) != mine {
		t.Errorf("an upgrade changed the Caddyfile: %v", err)
	}
	if said = dpkg("--remove", "caddy-green-api"); !strings.Contains(said, "disable --now caddy-green-api.socket caddy-green-api.service") {
		t.Errorf("a removal said:\n%s", said)
	}
	if said = dpkg("--purge", "caddy-green-api"); !strings.Contains(said, "/var/lib/caddy-green-api stays") {
		t.Errorf("a purge said:\n%s", said)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("a purge took the quarantine: %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, "etc", "caddy-green-api", "Caddyfile")); err == nil {
		t.Error("a purge left the Caddyfile")
	}
}
