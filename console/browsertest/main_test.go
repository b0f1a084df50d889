// Package browsertest looks at the console with a real browser: a Chromium that is driven through its pipe, against edges,
// consoles and handlers that run for it. It is a module of its own, so that a build of Caddy has nothing of it.
package browsertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// patience is how long a test waits for what has to come.
const patience = 30 * time.Second

// A lab is what all tests share: it takes seconds to make.
type lab struct {
	caddy   string          // the program
	browser context.Context // of a browser that runs
	without string          // why there is no browser
}

// shared is set by TestMain, once.
var shared lab

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "browsertest")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program, err := chromium()
	if err != nil {
		shared.without = err.Error()
		return m.Run()
	}
	shared.caddy = filepath.Join(dir, "caddy")
	// Without the profile: with it, all of Caddy would be compiled once more.
	build := exec.Command("go", "build", "-pgo=off", "-o", shared.caddy, "./cmd/caddy")
	build.Dir = filepath.Join("..", "..")
	if said, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, said)
		return 1
	}
	browser, end, err := startBrowser(program)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chromium does not start:", err)
		return 1
	}
	defer end()
	shared.browser = browser
	return m.Run()
}

func chromium() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if program, err := exec.LookPath(name); err == nil {
			return program, nil
		}
	}
	return "", errors.New("there is no chromium here (Debian: chromium)")
}

func startBrowser(program string) (context.Context, func(), error) {
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program),
		chromedp.Flag("host-resolver-rules", "MAP evil.test 127.0.0.1, MAP *.evil.test 127.0.0.1"),
		chromedp.Flag("lang", "en-US"),
		chromedp.Flag("ignore-certificate-errors", true), // of edges that have made their own
	)
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	allocator, endAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	browser, endBrowser := chromedp.NewContext(allocator)
	end := func() {
		endBrowser()
		endAllocator()
	}
	if err := chromedp.Do(browser); err != nil {
		end()
		return nil, nil, err
	}
	return browser, end, nil
}

// needBrowser skips a test where there is no browser. A gate has one.
func needBrowser(t *testing.T) {
	t.Helper()
	missing(t, shared.without)
}

// missing skips a test for a reason, if there is one, and fails it in CI.
func missing(t *testing.T, why string) {
	t.Helper()
	switch {
	case why == "":
	case os.Getenv("CI") != "":
		t.Fatal(why)
	default:
		t.Skip(why)
	}
}

// full reports whether the full bars apply, which a machine with other things to do does not meet.
func full() bool { return os.Getenv("GREEN_API_CONSOLE_FULL") != "" }
