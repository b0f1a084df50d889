package greenapi

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/token"
)

// TestFollowedFiles: a change of a followed file is in effect within seconds and without a reload. If the file
// is bad, its last good copy stays in effect, and the operator is told.
func TestFollowedFiles(t *testing.T) {
	quickAlerts(t)
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	instances, addresses := filepath.Join(t.TempDir(), "instances"), filepath.Join(t.TempDir(), "addresses")
	writeFile(t, instances, "1101000001 first-token\n")
	writeFile(t, addresses, "203.0.113.7 # not us\n")
	e := edgetest.Start(t, edgetest.Alerting(in.URL, "every 1s",
		"ip_filter {\nsource green_api_file "+addresses+"\n}\nauth {\ninstances "+instances+"\n}\nreverse_proxy "+up.Address))
	post := func(token string) int { return e.Post(edgetest.TextMessage, "Authorization", token) }
	if got := post("Bearer first-token"); got != 403 {
		t.Errorf("from an address that is not listed: status %d", got)
	}
	writeFile(t, instances, "# changed\n1101000001 first-token Basic c2Vjb25k # both\n1101000002 x\n")
	writeFile(t, addresses, "203.0.113.7\n127.0.0.0/8\n")
	edgetest.Eventually(t, "let in by the second token", func() bool { return post("Basic c2Vjb25k") == 200 })
	if got := post("Bearer first-token"); got != 200 {
		t.Errorf("first token, still: status %d", got)
	}
	writeFile(t, instances, "1101000001 s3cret-canary-tokenä\n")
	writeFile(t, addresses, "localhost\n")
	for _, complaint := range []string{"line 1: instance 1101000001: token 1: invalid token", "line 1: no address"} {
		edgetest.Eventually(t, complaint, func() bool { return strings.Contains(e.Logs.All(), complaint) })
	}
	edgetest.Eventually(t, "alert", func() bool { return strings.Contains(strings.Join(in.All(), ""), `"reason":"bad_file"`) })
	if got := post("Bearer first-token"); got != 200 {
		t.Errorf("bad files: status %d", got)
	}
	if strings.Contains(e.Logs.All()+strings.Join(in.All(), ""), "s3cret-canary") {
		t.Error("a token of the file is in the log or an alert")
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestInstancesFileParsed: what a file of instances says is taken with the tokens of the config, and with its
// placeholders resolved.
func TestInstancesFileParsed(t *testing.T) {
	for name, test := range map[string]struct {
		text, want string
		now        int
	}{
		"with the config's":                 {"8 b\n", "", 2},
		"in the config, too":                {"007 b\n", "instance 7 is in the config, too", 0},
		"a brace that is no placeholder":    {"8 s3cret{x}\n", `as in \{`, 0},
		"a brace with a backslash":          {`8 s3cret\{x\}` + "\n", "", 2},
		"a placeholder that does not exist": {"8 {env.GREEN_API_TEST_NOT_SET}\n", "{env.GREEN_API_TEST_NOT_SET} is not set", 0},
		"a bad line":                        {"8\n", "line 1: instance 8: no token", 0},
	} {
		a := &Auth{Instance: map[string][]string{"7": {"a"}}, set: new(atomic.Pointer[token.Set])}
		_, use, err := a.parseFile([]byte(test.text))
		if test.want != "" {
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%s: %v, want %q", name, err, test.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if use(); len(a.set.Load().Own) != test.now {
			t.Errorf("%s: %v", name, a.set.Load().Own)
		}
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

// TestFollowForced: if a file seems to have been cut short, another config keeps its last good copy in effect. The
// same config, loaded again, takes the file as it stands, with a WARN of what it has lost.
func TestFollowForced(t *testing.T) {
	file := filepath.Join(t.TempDir(), "instances")
	listed := func(count int) (text string) {
		for i := range count {
			text += fmt.Sprintf("%d token-%d\n", 1101000001+i, i+1)
		}
		return text
	}
	writeFile(t, file, listed(40))
	quickAlerts(t)
	in := edgetest.NewInbox(t, nil)
	up := edgetest.NewUpstream(t, 200, nil)
	config := edgetest.Alerting(in.URL, "every 1s", "ip_filter {\nallow 127.0.0.1\n}\nauth {\ninstances "+file+"\n}\nreverse_proxy "+up.Address)
	e := edgetest.Start(t, config)
	load := func(config string, want int) {
		t.Helper()
		if err := e.Load(config); err != nil {
			t.Fatal(err)
		}
		if got := e.Post(strings.Replace(edgetest.TextMessage, "1101000001", "1101000040", 1), "Authorization", "token-40"); got != want {
			t.Errorf("status %d, want %d", got, want)
		}
	}
	complaints := func(complaint string) int { return strings.Count(e.Logs.All(), complaint) }
	writeFile(t, file, listed(20)+"1101000021 tok")
	config = strings.Replace(config, "ip_filter {", "log_body\nip_filter {", 1)
	load(config, 200)
	if torn, n := e.Post(edgetest.TextMessage, "Authorization", "tok"), complaints("as if the file was cut short"); torn != 401 || n != 1 {
		t.Errorf("cut short: with the torn token status %d, %d complaints", torn, n)
	}
	edgetest.Eventually(t, "alert", func() bool { return strings.Contains(strings.Join(in.All(), ""), "as if the file was cut short") })
	writeFile(t, file, listed(20))
	config = strings.Replace(config, "log_body\n", "", 1)
	load(config, 200)
	if n := complaints("20 of 40 entries are missing"); n != 1 {
		t.Errorf("half of it: %d complaints", n)
	}
	load(config, 401) // as with --force
	if logs := e.Logs.All(); !strings.Contains(logs, `"instances_before":40,"instances_now":20,"instances_lost":20`) {
		t.Errorf("no warning of the loss: %s", logs)
	}
	load(config, 401)
	if n := complaints("instances_lost"); n != 1 {
		t.Errorf("%d warnings of the loss, want 1", n)
	}
}

// TestByteOrderMark: an error at load names it.
func TestByteOrderMark(t *testing.T) {
	file := filepath.Join(t.TempDir(), "list")
	for _, test := range []struct{ text, block string }{
		{"1101000001 a\n", "auth {\ninstances " + file + "\n}"},
		{"203.0.113.7\n", "ip_filter {\nsource green_api_file " + file + "\n}\nauth off"},
	} {
		if err := os.WriteFile(file, []byte("\xef\xbb\xbf"+test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := loadConfig(t, strings.ReplaceAll(edgetest.Site(test.block), "PORT", "8080"))
		if err == nil || !strings.Contains(err.Error(), file+": it begins with a byte-order mark (UTF-8); want UTF-8 without one") {
			t.Errorf("%s: %v", test.block, err)
		}
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
	const reloads = 30 // each follows two files, so that a leak of one shows three times over
	for i := range reloads {
		if err := e.Load(config(i % 2)); err != nil {
			t.Fatal(err)
		}
	}
	edgetest.Eventually(t, "goroutines as before", func() bool { return settle() <= before+10 })
}
