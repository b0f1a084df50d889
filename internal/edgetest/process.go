package edgetest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// Process is a separate Caddy process that runs a config.
type Process struct {
	*exec.Cmd
	File   string
	Output *bytes.Buffer
}

// StartProcess starts a process and waits until it serves. If a tracer is given, it starts under that.
func StartProcess(t *testing.T, e *Edge, config string, tracer ...string) *Process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "Caddyfile")
	config = strings.NewReplacer("PORT", e.Port, "DIR", e.Dir, "TOKEN", Token, "output test_buffer", "output stderr").Replace(config)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &Process{Cmd: Command(t, "run", "--config", file), File: file, Output: new(bytes.Buffer)}
	if len(tracer) > 0 {
		traced := exec.Command(tracer[0], slices.Concat(tracer[1:], p.Args)...)
		traced.Env = p.Env
		p.Cmd = traced
	}
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

// RunCommand runs a command `caddy green-api …` in this process, in a directory if dir is not "". It does
// what RunCaddy does, except for what needs a process of its own.
func RunCommand(t *testing.T, dir, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return RunCommandOf(t, caddycmd.Commands()["green-api"], dir, stdin, args...)
}

// RunCommandOf is RunCommand for a command that need not be the registered one.
func RunCommandOf(t *testing.T, of caddycmd.Command, dir, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	if dir != "" {
		before, err := os.Getwd()
		if err == nil {
			err = os.Chdir(dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer os.Chdir(before)
	}
	command := &cobra.Command{Use: of.Name + " " + of.Usage, Short: of.Short, Long: of.Long}
	of.CobraFunc(command)
	root := &cobra.Command{Use: "caddy", SilenceUsage: true}
	root.AddCommand(command)
	var out, problems bytes.Buffer
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&problems)
	if err := root.Execute(); err != nil {
		code = 1
		fmt.Sscanf(err.Error(), "exiting with status %d", &code)
	}
	return out.String(), problems.String(), code
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

// Command returns the command of a separate Caddy process.
func Command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "GREEN_API_TEST_CADDY=1")
	return cmd
}
