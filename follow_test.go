package greenapi

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// The tests' files are looked at more often.
func init() {
	followEvery = 100 * time.Millisecond
}

// TestInstancesFile: a change is in force within seconds and without a reload, and a bad file
// leaves the last good copy in force and tells the operator.
func TestInstancesFile(t *testing.T) {
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	file := filepath.Join(t.TempDir(), "instances")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write("1101000001 first-token\n")
	e := edgetest.Start(t, edgetest.Alerting(in.URL, "every 1s", "ip_filter {\nallow 127.0.0.1\n}\nauth {\ninstances "+file+"\n}\nreverse_proxy "+up.Address))
	post := func(token string) int { return e.Post(edgetest.TextMessage, "Authorization", token) }
	if got := post("Bearer first-token"); got != 200 {
		t.Errorf("first token: status %d", got)
	}
	write("# changed\n1101000001 first-token Basic c2Vjb25k # both\n1101000002 x\n")
	edgetest.Eventually(t, "second token", func() bool { return post("Basic c2Vjb25k") == 200 })
	if got := post("Bearer first-token"); got != 200 {
		t.Errorf("first token, still: status %d", got)
	}
	for _, bad := range []string{"# nothing\n", "whatsapp first-token\n", "1101000001\n", "1101000001 a\n1101000001 b\n", "1101000001 s3cret-canary-tokenä\n"} {
		write(bad)
		edgetest.Eventually(t, "complaint about "+bad, func() bool {
			defer func() { e.Logs.Mu.Lock(); e.Logs.Text.Reset(); e.Logs.Mu.Unlock() }()
			return strings.Contains(e.Logs.All(), "file cannot be used, its last good copy stays in force")
		})
		if got := post("Bearer first-token"); got != 200 {
			t.Errorf("%q: status %d", bad, got)
		}
	}
	os.Remove(file)
	edgetest.Eventually(t, "complaint about the missing file", func() bool { return strings.Contains(e.Logs.All(), "no such file") })
	if got := post("Basic c2Vjb25k"); got != 200 {
		t.Errorf("missing file: status %d", got)
	}
	write("1101000001 third-token\n")
	edgetest.Eventually(t, "third token", func() bool { return post("Bearer third-token") == 200 })
	if got := post("Bearer first-token"); got != 401 {
		t.Errorf("a token that is gone: status %d", got)
	}
	edgetest.Eventually(t, "alert", func() bool { return strings.Contains(strings.Join(in.All(), ""), `"reason":"bad_file"`) })
	if strings.Contains(e.Logs.All()+strings.Join(in.All(), ""), "s3cret-canary") {
		t.Error("a token of the file is in the log or an alert")
	}
}

func TestParseInstances(t *testing.T) {
	got, err := parseInstances([]byte("# comment\n1101000001 abc#def  Bearer g#h # both\r\n\n\t1101000002\tx\t# y\n"))
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(got); text != "map[1101000001:[abc#def Bearer g#h] 1101000002:[x]]" {
		t.Errorf("got %s", text)
	}
}

func TestInstancesFileRefused(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"empty": "", "bad": "1101000001 a\nwhatsapp TOKEN\n", "twice": "1101000009 a\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"missing": "missing: no such file or directory", "empty": "no instance in it", "bad": "line 2: the id is not 1 to 20 digits", "twice": "instance 1101000009 is in the config, too",
	} {
		config := "http://:8080 {\ngreen_api {\nauth {\ninstance 1101000009 x\ninstances " + filepath.Join(dir, name) + "\n}\n}\n}\n"
		if err := loadConfig(t, config); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "TOKEN") {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

// TestAddressFile: a list of addresses is followed, too.
func TestAddressFile(t *testing.T) {
	up := edgetest.NewUpstream(t, 200, nil)
	file := filepath.Join(t.TempDir(), "addresses")
	if err := os.WriteFile(file, []byte("203.0.113.7 # not us\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := edgetest.Start(t, edgetest.Site("ip_filter {\nsource green_api_file "+file+"\n}\nauth {\ntoken TOKEN\n}\nreverse_proxy "+up.Address))
	if got := e.Post(edgetest.TextMessage); got != 403 {
		t.Errorf("status %d", got)
	}
	if err := os.WriteFile(file, []byte("203.0.113.7\n127.0.0.0/8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	edgetest.Eventually(t, "let in", func() bool { return e.Post(edgetest.TextMessage) == 200 })
	if err := os.WriteFile(file, []byte("localhost\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	edgetest.Eventually(t, "complaint", func() bool { return strings.Contains(e.Logs.All(), "line 1: no address") })
	if got := e.Post(edgetest.TextMessage); got != 200 {
		t.Errorf("after a bad list: status %d", got)
	}
}

// TestFollowLeaksNothing: what follows a file ends with the config that names it.
func TestFollowLeaksNothing(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"instances": "1101000001 x\n", "addresses": "203.0.113.7\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := func(i int) string {
		return edgetest.Site(fmt.Sprintf("ip_filter {\nsource green_api_file %s/addresses\n}\nauth {\ninstances %s/instances\ntoken x%d\n}\nreverse_proxy 127.0.0.1:9001", dir, dir, i))
	}
	e := edgetest.Start(t, config(0))
	for i := range 10 {
		if err := e.Load(config(i % 2)); err != nil {
			t.Fatal(err)
		}
	}
	settle := func() int {
		time.Sleep(50 * time.Millisecond)
		return runtime.NumGoroutine()
	}
	before := settle()
	const reloads = 100 // each follows two files, so that a leak of one shows ten times over
	for i := range reloads {
		if err := e.Load(config(i % 2)); err != nil {
			t.Fatal(err)
		}
	}
	edgetest.Eventually(t, "goroutines as before", func() bool { return settle() <= before+10 })
}
