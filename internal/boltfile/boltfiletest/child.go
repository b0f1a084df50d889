// Package boltfiletest has what tests of stores in a bbolt file need: processes to kill, and disks that fail.
package boltfiletest

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// childVar is set in a process of the test binary that does one of its children instead of the tests.
const childVar = "BOLTFILE_TEST_CHILD"

// Main runs the tests, or the child that this process was started for.
func Main(m *testing.M, children map[string]func(dir string) error) {
	name := os.Getenv(childVar)
	if name == "" {
		os.Exit(m.Run())
	}
	if err := children[name](os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Child returns a command that runs one of the children with dir in another process.
func Child(t *testing.T, name, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, dir) //nolint:gosec // the test itself
	cmd.Env = append(os.Environ(), childVar+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}
