//go:build linux

package deploy

import (
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

const socketUnit = "deploy/systemd/caddy-green-api.socket"

// TestUnits: systemd understands the units, finds the service exposed to little, and knows the user.
func TestUnits(t *testing.T) {
	edgetest.Proof(t)
	once(t)
	need(t, "systemd-analyze", "apt-get install systemd")
	root := t.TempDir()
	units := filepath.Join(root, "usr", "lib", "systemd", "system")
	write(t, filepath.Join(root, "usr", "bin", "caddy-green-api"), "#!/bin/sh\n")
	if err := os.Chmod(filepath.Join(root, "usr", "bin", "caddy-green-api"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{unit, socketUnit} {
		write(t, filepath.Join(units, filepath.Base(path)), read(t, path))
	}
	// Those that the units name, and the ones behind them.
	there, err := filepath.Glob("/usr/lib/systemd/system/*.target")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range there {
		if text, err := os.ReadFile(path); err == nil {
			write(t, filepath.Join(units, filepath.Base(path)), string(text))
		}
	}
	verify := func() string {
		out, err := exec.Command("systemd-analyze", "verify", "--root="+root, filepath.Base(unit), filepath.Base(socketUnit)).CombinedOutput()
		if err != nil {
			return err.Error() + "\n" + string(out)
		}
		return string(out)
	}
	if said := verify(); said != "" {
		t.Error(said)
	}
	exposure := run(t, "systemd-analyze", "security", "--no-pager", "--offline=yes", "--threshold=20", filepath.Join(top, unit))
	t.Log(exposure[strings.LastIndex(exposure, "Overall"):])

	// It does find what is wrong.
	write(t, filepath.Join(units, filepath.Base(unit)), change(t, read(t, unit), "/usr/bin/caddy-green-api run", "/usr/bin/caddy run"))
	if said := verify(); !strings.Contains(said, "/usr/bin/caddy") {
		t.Errorf("a program that is not there: %q", said)
	}

	sysusers := read(t, "deploy/systemd/caddy-green-api.sysusers")
	for _, option := range []string{"User", "Group"} {
		if name := find(t, read(t, unit), "^"+option+"=(.*)$"); !strings.Contains(sysusers, "u "+name+" ") {
			t.Errorf("%s=%s is not in the sysusers file", option, name)
		}
	}
	for _, file := range []string{unit, socketUnit} {
		if !strings.Contains(read(t, file), "\nConditionPathExists=/etc/caddy-green-api/token\n") {
			t.Errorf("%s starts without a token", file)
		}
	}
}

// TestSystemCalls: what an edge asks the kernel for is what the unit allows. No systemd runs here that would enforce
// it, so a tracer notes each call.
func TestSystemCalls(t *testing.T) {
	edgetest.Proof(t)
	once(t)
	need(t, "strace", "apt-get install strace")
	need(t, "systemd-analyze", "apt-get install systemd")
	t.Parallel()
	h := newHandler(t, 0)
	e := plans[0].prepare(t)
	trace := filepath.Join(e.dir, "trace")
	cmd := e.plan.command(t, e, e.config(t, h))
	traced := exec.Command("strace", append([]string{"-f", "-qq", "-D", "-o", trace}, cmd.Args...)...)
	e.startCmd(t, traced)
	serves(t, e, h)
	e.reload(t)
	if killed := e.stop(t); killed {
		t.Errorf("the stop: %s", e.ProcessState)
	}
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	allowed := allowedCalls(t)
	// The unit has them fail, and nothing but speed may depend on them: how many files may be open is LimitNOFILE's.
	harmless := map[string]bool{}
	denied := make(map[string]string)
	calls := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		call := regexp.MustCompile(`^\d+ +([a-z0-9_]+)\(`).FindStringSubmatch(line)
		if call == nil {
			continue
		}
		calls[call[1]] = true
		if !allowed[call[1]] && !harmless[call[1]] {
			denied[call[1]] = line
		}
		switch {
		case regexp.MustCompile(`^\d+ +(mmap|mprotect)\(.*PROT_WRITE\|PROT_EXEC`).MatchString(line):
			denied["MemoryDenyWriteExecute"] = line
		case call[1] == "socket" && !regexp.MustCompile(`socket\(AF_(INET6?|UNIX),`).MatchString(line):
			denied["RestrictAddressFamilies"] = line
		}
	}
	for _, name := range slices.Sorted(maps.Keys(denied)) {
		t.Errorf("the unit does not allow %s: %s", name, denied[name])
	}
	t.Logf("%d different calls", len(calls))
	for _, must := range []string{"execve", "accept4", "fdatasync", "connect"} {
		if !calls[must] {
			t.Errorf("no %s was seen: the tracer did not see the edge", must)
		}
	}
}

// allowedCalls is what SystemCallFilter lets through.
func allowedCalls(t *testing.T) map[string]bool {
	t.Helper()
	sets := make(map[string][]string)
	var set string
	for line := range strings.Lines(run(t, "systemd-analyze", "syscall-filter", "--no-pager")) {
		name := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "@"):
			set = name
		case strings.HasPrefix(line, "    ") && !strings.HasPrefix(name, "#"):
			sets[set] = append(sets[set], name)
		}
	}
	allowed := make(map[string]bool)
	var say func(name string, yes bool)
	say = func(name string, yes bool) {
		if !strings.HasPrefix(name, "@") {
			allowed[name] = yes
			return
		}
		if len(sets[name]) == 0 {
			t.Fatalf("no set %s", name)
		}
		for _, member := range sets[name] {
			say(member, yes)
		}
	}
	for _, filter := range lines(read(t, unit), "SystemCallFilter=") {
		rest, no := strings.CutPrefix(filter, "~")
		for name := range strings.FieldsSeq(rest) {
			say(name, !no)
		}
	}
	return allowed
}

// TestPaths: the files that docs/deploy.md and the files of deploy/ name are there.
func TestPaths(t *testing.T) {
	texts := map[string]string{"docs/deploy.md": read(t, "docs/deploy.md")}
	err := filepath.WalkDir(filepath.Join(top, "deploy"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && filepath.Ext(path) != ".json" {
			var text []byte
			text, err = os.ReadFile(path)
			texts[path] = string(text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for from, text := range texts {
		for _, found := range regexp.MustCompile(`(?:^|[\s"'`+"`"+`])((?:deploy|docs|cmd)/[A-Za-z0-9_./-]*[A-Za-z0-9_])`).FindAllStringSubmatch(text, -1) {
			named++
			if _, err := os.Stat(filepath.Join(top, found[1])); err != nil {
				t.Errorf("%s names %s: %v", from, found[1], err)
			}
		}
	}
	if named < 20 {
		t.Errorf("only %d paths found", named)
	}
	// And what it says of commands is what they can do.
	for _, command := range []string{"run", "reload", "validate", "green-api quarantine list"} {
		if !strings.Contains(texts["docs/deploy.md"]+read(t, unit), "caddy-green-api "+command) {
			continue
		}
		if _, problems, code := edgetest.RunCaddy(t, t.TempDir(), "", append(strings.Fields(command), "--help")...); code != 0 {
			t.Errorf("%s: %s", command, problems)
		}
	}
}
