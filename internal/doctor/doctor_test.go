package doctor

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile" // the adapter
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func TestSiteForAll(t *testing.T) {
	for _, test := range []struct {
		listen []string
		tls    bool
		want   string
	}{
		{[]string{":8080"}, false, "http://:8080 {|respond 404|}"},
		{[]string{":443"}, true, "http://, https:// {|respond 404|}"},
		{[]string{":8443"}, true, "https://:8443 {|respond 404|}"},
		{[]string{"[::1]:8080", "127.0.0.1:8080", "127.0.0.1:8081"}, false, "http://:8080, http://:8081 {|bind ::1 127.0.0.1|respond 404|}"},
		{[]string{"unix//run/edge.sock|0222"}, false, "http:// {|bind unix//run/edge.sock|0222|respond 404|}"},
		{[]string{":no-port"}, false, "http:// {|respond 404|}"},
	} {
		lines := siteForAll(test.listen, test.tls)
		if got := strings.Join(lines, "|"); got != test.want {
			t.Errorf("%v: %q, want %q", test.listen, got, test.want)
		}
		adapter := caddyconfig.GetAdapter("caddyfile")
		if config, _, err := adapter.Adapt([]byte("{\nauto_https off\n}\n"+strings.Join(lines, "\n")+"\n"), nil); err != nil || len(config) == 0 {
			t.Errorf("%v: %v", lines, err)
		}
	}
}

func TestUsedByOthers(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no bits for others")
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		mode, deny os.FileMode
		found      int
	}{
		{0o600, 0o077, 0},
		{0o700, 0o077, 0},
		{0o640, 0o077, 1},
		{0o604, 0o077, 1},
		{0o610, 0o077, 1},
		{0o640, 0o004, 0},
		{0o604, 0o004, 1},
		{0o644, 0o004, 1},
	} {
		if err := os.Chmod(path, test.mode); err != nil { // the umask does not count
			t.Fatal(err)
		}
		if found := usedByOthers(File{path, "said", test.deny}); len(found) != test.found {
			t.Errorf("%o without %o: found %v", test.mode, test.deny, found)
		}
	}
	if found := usedByOthers(File{path + "-missing", "said", 0o077}); found != nil {
		t.Errorf("a missing file: found %v", found)
	}
}

// TestAnyone: a block that lets everyone in is found if another machine can reach it, or if that is not known.
func TestAnyone(t *testing.T) {
	for listen, found := range map[string]int{
		"": 1, ":8080": 1, "0.0.0.0:8080": 1, "[::]:8080": 1, "edge.test:8080": 1, "127.0.0.1:8080 192.0.2.1:8080": 1, ":no-port": 1,
		"127.0.0.1:8080": 0, "127.0.0.2:8080": 0, "[::1]:8080": 0, "[::ffff:127.0.0.1]:8080": 0, "localhost:8080": 0, "unix//run/edge.sock": 0,
	} {
		b := Block{Name: "x", Open: true}
		if listen != "" {
			b.Server = &caddyhttp.Server{Listen: strings.Fields(listen)}
		}
		if got := anyone(b); len(got) != found {
			t.Errorf("%s: found %v", listen, got)
		}
		b.Open = false
		if got := anyone(b); got != nil {
			t.Errorf("%s, not open: found %v", listen, got)
		}
	}
}
