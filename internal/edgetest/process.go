package edgetest

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Process is a Caddy of its own that runs a config.
type Process struct {
	*exec.Cmd
	File   string
	Output *bytes.Buffer
}

func StartProcess(t *testing.T, e *Edge, config string) *Process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "Caddyfile")
	config = strings.NewReplacer("PORT", e.Port, "DIR", e.Dir, "TOKEN", Token, "output test_buffer", "output stderr").Replace(config)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &Process{Cmd: Command(t, "run", "--config", file), File: file, Output: new(bytes.Buffer)}
	stderr, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	serving := make(chan bool, 1)
	go func() {
		lines := bufio.NewReader(io.TeeReader(stderr, p.Output))
		for {
			line, err := lines.ReadString('\n')
			if strings.Contains(line, "serving initial configuration") {
				serving <- true
			}
			if err != nil {
				serving <- false
				return
			}
		}
	}()
	if !<-serving {
		p.Wait()
		t.Fatalf("Caddy ended:\n%s", p.Output)
	}
	return p
}

// RunCaddy runs a command in a process of its own, in a directory.
func RunCaddy(t *testing.T, dir, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := Command(t, args...)
	var out, problems bytes.Buffer
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, strings.NewReader(stdin), &out, &problems
	err := cmd.Run()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		t.Fatal(err)
	}
	return out.String(), problems.String(), cmd.ProcessState.ExitCode()
}

// Command is the command of a Caddy process of its own.
func Command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "GREEN_API_TEST_CADDY=1")
	return cmd
}
