package greenapi

import (
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// TestExposedDoors has blocks that let anyone in, and tells of those that anyone can reach.
func TestExposedDoors(t *testing.T) {
	const open = "ip_filter off\nauth off"
	for _, test := range []struct {
		name, block, bind string
		warns             bool
	}{
		{"both off, everywhere", open, "0.0.0.0", true},
		{"both off, everywhere, IPv6", open, "[::]", true},
		{"both off, here too", open, "127.0.0.1 0.0.0.0", true},
		{"both off, here", open, "127.0.0.1", false},
		{"both off, here, another address", open, "127.0.0.2", false},
		{"both off, here by name", open, "localhost", false},
		{"both off, a socket", open, "unix/SOCKET", false},
		{"no token", "auth off", "0.0.0.0", false},
		{"no address", "ip_filter off\nauth {\ntoken TOKEN\n}", "0.0.0.0", false},
		{"an allowlist of all", "ip_filter {\nallow 0.0.0.0/0 ::/0\n}\nauth {\ntoken TOKEN\n}", "0.0.0.0", false},
		{"an allowlist of all, no token", "ip_filter {\nallow 0.0.0.0/0 ::/0\n}\nauth off", "0.0.0.0", true},
		{"an allowlist of all, no token, here", "ip_filter {\nallow 0.0.0.0/0 ::/0\n}\nauth off", "127.0.0.1", false},
		{"an allowlist of all in pieces, no token", "ip_filter {\nallow 0.0.0.0/1 128.0.0.0/1\n}\nauth off", "0.0.0.0", true},
		{"a source of all, no token", "ip_filter {\nsource static 0.0.0.0/0\n}\nauth off", "0.0.0.0", true},
		{"an allowlist, no token", "ip_filter {\nallow private_ranges green_api\n}\nauth off", "0.0.0.0", false},
		{"both report", "ip_filter {\nreport_only\n}\nauth {\ntoken TOKEN\nreport_only\n}", "0.0.0.0", true},
		{"the tokens report, any address", "ip_filter off\nauth {\ntoken TOKEN\nreport_only\n}", "0.0.0.0", true},
		{"the tokens report", "auth {\ntoken TOKEN\nreport_only\n}", "0.0.0.0", false},
		{"the addresses report", "ip_filter {\nreport_only\n}\nauth {\ntoken TOKEN\n}", "0.0.0.0", false},
		{"the addresses report, no token", "ip_filter {\nreport_only\n}\nauth off", "0.0.0.0", true},
		{"unlisted pass, no token", "ip_filter {\nunlisted pass\n}\nauth off", "0.0.0.0", false}, // no token is right
	} {
		t.Run(test.name, func(t *testing.T) {
			bind := strings.Replace(test.bind, "SOCKET", filepath.Join(t.TempDir(), "s"), 1)
			e := edgetest.Start(t, strings.Replace(edgetest.Site(test.block), "bind 127.0.0.1", "bind "+bind, 1))
			logs := e.Logs.All()
			if got := strings.Contains(logs, `"level":"warn"`) && strings.Contains(logs, "anyone can send notifications"); got != test.warns {
				t.Errorf("warns: %t\n%s", got, logs)
			}
		})
	}
}

// TestExposedLists: a list of most addresses keeps nobody out, in however many pieces.
func TestExposedLists(t *testing.T) {
	for list, want := range map[string]bool{
		"":                              false,
		"0.0.0.0/0":                     true,
		"::/0":                          true,
		"::ffff:0:0/96":                 true, // the same as 0.0.0.0/0
		"0.0.0.0/1 128.0.0.0/1":         true,
		"0.0.0.0/2 64.0.0.0/2":          true,
		"0.0.0.0/2 0.0.0.0/3":           false, // the same ones twice
		"2000::/3":                      true,
		"2000::/4 3000::/4":             true,
		"2000::/5 3000::/5":             true,
		"2000::/5":                      false,
		"fc00::/7 fe80::/10 ::1/128":    false,
		"10.0.0.0/8 203.0.113.7/32":     false,
		"8000::/1":                      false, // nobody is there
		"128.0.0.0/1 2001:db8::/32":     true,
		"192.0.0.0/2 160.0.0.0/3":       false,
		"1.0.0.0/8 2.0.0.0/7 4.0.0.0/6": false,
	} {
		var prefixes []netip.Prefix
		for text := range strings.FieldsSeq(list) {
			prefixes = append(prefixes, netip.MustParsePrefix(text))
		}
		if got := mostOfInternet(prefixes); got != want {
			t.Errorf("%q: %t, want %t", list, got, want)
		}
	}
}

// TestExposedFiles: who else can read what is kept, or tokens, is told of.
func TestExposedFiles(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no bits for others")
	}
	const message = "file can be used by others, and has secrets or messages in it"
	for _, test := range []struct {
		name                 string
		dir, file, instances os.FileMode
		wants                []string // names of files
		missing              bool
	}{
		{name: "as it is made", missing: true, instances: 0o600},
		{name: "shut", dir: 0o700, file: 0o600, instances: 0o600},
		{name: "shut, tokens for a group", dir: 0o700, file: 0o600, instances: 0o640},
		{name: "directory", dir: 0o755, file: 0o600, instances: 0o600, wants: []string{"quarantine"}},
		{name: "directory for a group", dir: 0o750, file: 0o600, instances: 0o600, wants: []string{"quarantine"}},
		{name: "file", dir: 0o700, file: 0o640, instances: 0o600, wants: []string{"quarantine.db"}},
		{name: "tokens", dir: 0o700, file: 0o600, instances: 0o644, wants: []string{"instances"}},
		{name: "all", dir: 0o755, file: 0o644, instances: 0o604, wants: []string{"quarantine", "quarantine.db", "instances"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			instances, kept := filepath.Join(dir, "instances"), filepath.Join(dir, "quarantine")
			t.Setenv("GREEN_API_TEST_FOLDER", dir)
			mode := func(path string, mode os.FileMode) {
				if err := os.Chmod(path, mode); err != nil { // the umask does not count
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(instances, []byte("1101000001 "+edgetest.Token+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			mode(instances, test.instances)
			if !test.missing {
				store, err := quarantine.Open(kept)
				if err != nil {
					t.Fatal(err)
				}
				if err := store.Close(); err != nil {
					t.Fatal(err)
				}
				mode(kept, test.dir)
				mode(filepath.Join(kept, quarantine.FileName), test.file)
			}
			config := edgetest.Site("auth {\ninstances {env.GREEN_API_TEST_FOLDER}/instances\n}")
			e := edgetest.Start(t, strings.Replace(config, "quarantine DIR", "quarantine "+kept, 1))
			logs := e.Logs.All()
			if got := strings.Count(logs, message); got != len(test.wants) {
				t.Errorf("%d warnings, want %d\n%s", got, len(test.wants), logs)
			}
			for _, name := range test.wants {
				if !strings.Contains(logs, `"file":"`+filepath.Join(dir, name)+`"`) && !strings.Contains(logs, `"file":"{env.GREEN_API_TEST_FOLDER}/`+name+`"`) && !strings.Contains(logs, `"file":"`+filepath.Join(kept, name)+`"`) {
					t.Errorf("no warning of %s", name)
				}
			}
			if strings.Contains(logs, filepath.Join(dir, "instances")) {
				t.Error("the log shows what a placeholder stands for")
			}
			if strings.Contains(logs, edgetest.Token) {
				t.Error("the log shows a token")
			}
		})
	}
}
