package doctor

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"
)

// aMachine makes the files of a machine, by path. A value that begins with -> is a symbolic link.
func aMachine(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		var err error
		if len(text) > 2 && text[:2] == "->" {
			err = os.Symlink(text[2:], path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestUnits has units, drop-ins and systemd's own settings, each with how long a stop of the edge may take.
func TestUnits(t *testing.T) {
	config := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run := "[Service]\nExecStart=/usr/bin/caddy run --environ --config " + config + "\n"
	const at = "etc/systemd/system/edge.service"
	for name, test := range map[string]struct {
		files map[string]string
		want  []Unit
	}{
		"Caddy's own":       {map[string]string{"lib/systemd/system/caddy.service": run + "TimeoutStopSec=5s\n"}, []Unit{{"caddy.service", "/lib/systemd/system/caddy.service", 5 * time.Second}}},
		"nothing said":      {map[string]string{at: run}, []Unit{{"edge.service", "/" + at, 90 * time.Second}}},
		"infinity":          {map[string]string{at: run + "TimeoutStopSec=infinity\n"}, []Unit{{"edge.service", "/" + at, 0}}},
		"both times":        {map[string]string{at: run + "TimeoutSec=3min 5s\n"}, []Unit{{"edge.service", "/" + at, 185 * time.Second}}},
		"another section":   {map[string]string{at: run + "[Unit]\nTimeoutStopSec=5s\n"}, []Unit{{"edge.service", "/" + at, 90 * time.Second}}},
		"nonsense":          {map[string]string{at: run + "TimeoutStopSec=soon\n"}, []Unit{{"edge.service", "/" + at, 90 * time.Second}}},
		"a comment":         {map[string]string{at: "# TimeoutStopSec=1\n;x\n" + run + "#TimeoutStopSec=5s\n"}, []Unit{{"edge.service", "/" + at, 90 * time.Second}}},
		"systemd's default": {map[string]string{at: run, "etc/systemd/system.conf": "[Manager]\nDefaultTimeoutStopSec=30s\n"}, []Unit{{"edge.service", "/" + at, 30 * time.Second}}},
		"systemd's default, in a drop-in": {map[string]string{
			at: run, "etc/systemd/system.conf": "[Manager]\nDefaultTimeoutStopSec=30s\n", "etc/systemd/system.conf.d/a.conf": "[Manager]\nDefaultTimeoutStopSec=40s\n",
		}, []Unit{{"edge.service", "/" + at, 40 * time.Second}}},
		"a drop-in": {map[string]string{
			"lib/systemd/system/edge.service": run + "TimeoutStopSec=5s\n", at + ".d/override.conf": "[Service]\nTimeoutStopSec=180\n",
		}, []Unit{{"edge.service", "/lib/systemd/system/edge.service", 180 * time.Second}}},
		"the later drop-in": {map[string]string{
			at: run, at + ".d/b.conf": "[Service]\nTimeoutStopSec=20\n", "run/systemd/system/edge.service.d/a.conf": "[Service]\nTimeoutStopSec=10\n",
		}, []Unit{{"edge.service", "/" + at, 20 * time.Second}}},
		"a drop-in hidden by another": {map[string]string{
			at: run, at + ".d/a.conf": "[Service]\nTimeoutStopSec=20\n", "run/systemd/system/edge.service.d/a.conf": "[Service]\nTimeoutStopSec=10\n",
		}, []Unit{{"edge.service", "/" + at, 20 * time.Second}}},
		"a unit hidden by another": {map[string]string{"lib/systemd/system/edge.service": run + "TimeoutStopSec=5s\n", at: run}, []Unit{{"edge.service", "/" + at, 90 * time.Second}}},
		"-c":                       {map[string]string{at: "[Service]\nExecStart=-/usr/bin/caddy run -c " + config + "\n"}, []Unit{{"edge.service", "/" + at, 90 * time.Second}}},
		"=":                        {map[string]string{at: "[Service]\nExecStart=/usr/bin/caddy run --config=\"" + config + "\"\n"}, []Unit{{"edge.service", "/" + at, 90 * time.Second}}},
		"two lines":                {map[string]string{at: "[Service]\nExecStart=/usr/bin/caddy run \\\n  --config " + config + "\n"}, []Unit{{"edge.service", "/" + at, 90 * time.Second}}},
		"taken back":               {map[string]string{at: run, at + ".d/a.conf": "[Service]\nExecStart=\nExecStart=/usr/bin/caddy run --config /other\n"}, nil},
		"another config":           {map[string]string{at: "[Service]\nExecStart=/usr/bin/caddy run --config " + config + "-other\n"}, nil},
		"another command":          {map[string]string{at: "[Service]\nExecStart=/usr/bin/caddy reload --config " + config + "\n"}, nil},
		"no config":                {map[string]string{at: "[Service]\nExecStart=/usr/bin/caddy run --config\n"}, nil},
		"nothing":                  {nil, nil},
	} {
		if got := units(aMachine(t, test.files), config); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
	root := aMachine(t, map[string]string{"srv/edge/Caddyfile": "", at: "[Service]\nWorkingDirectory=/srv/edge\nExecStart=/usr/bin/caddy run\n"})
	if got := units(root, filepath.Join(root, "srv/edge/Caddyfile")); len(got) != 1 {
		t.Errorf("the Caddyfile of a directory: %+v", got)
	}
}

func TestTimeSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"180": 180 * time.Second, "180s": 180 * time.Second, "3min": 3 * time.Minute, "2min 30s": 150 * time.Second, "1.5h": 90 * time.Minute, "500ms": 500 * time.Millisecond,
		"infinity": 0, "": 1, "soon": 1, "5 parsecs": 1, "-5s": 1, "5s!": 1,
	} {
		if got := timeSpan(text, 1); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// TestMounts reads what Linux writes, and finds what a path is on.
func TestMounts(t *testing.T) {
	m := Machine{Mounts: parseMounts(`22 1 0:21 / / rw,relatime - overlay overlay rw,lowerdir=/x
23 22 0:22 / /data rw,nosuid shared:2 master:1 - xfs /dev/vdb rw
24 22 0:23 / /data/with\040blank rw - tmpfs tmpfs rw
25 22 0:24 / /database rw - btrfs /dev/vdc rw
26 22 0:25 / /data rw - ext4 /dev/vdd rw

nonsense
27 22 0:26 / /x rw -
`)}
	for path, want := range map[string]Mount{
		"/": {"/", "overlay"}, "/var/lib": {"/", "overlay"}, "/data": {"/data", "ext4"}, "/data/green-api": {"/data", "ext4"}, "/data/with blank/x": {"/data/with blank", "tmpfs"},
		"/databases": {"/", "overlay"}, "/database": {"/database", "btrfs"},
	} {
		if got := m.mountOf(path); got != want {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
	}
	if got := new(Machine).mountOf("/data"); got != (Mount{}) {
		t.Errorf("%+v", got)
	}
}

// TestSockets reads what Linux writes of sockets and processes.
func TestSockets(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such links")
	}
	config := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	root := aMachine(t, map[string]string{
		"proc/self/exe": "->/usr/bin/caddy",
		"proc/self/net/tcp": head +
			"   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0 100 0 0 10 0\n" +
			"   1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 200 1 0 100 0 0 10 0\n" +
			"   2: 0100007F:1F92 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 300 1 0 100 0 0 10 0\n" +
			"   3: 0100007F:1F93 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 400 1 0 100 0 0 10 0\n" +
			"nonsense\n",
		"proc/self/net/tcp6": head +
			"   0: 00000000000000000000000001000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 500 1 0 100 0 0 10 0\n" +
			"   1: 00:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 500 1 0 100 0 0 10 0\n",
		"proc/1/fd/3": "->socket:[500]", "proc/1/comm": "systemd\n", "proc/1/cmdline": "/sbin/init\x00", "proc/1/exe": "->/usr/lib/systemd/systemd",
		"proc/7/fd/0": "->/dev/null", "proc/7/fd/3": "->socket:[100]", "proc/7/fd/4": "->socket:[500]", "proc/7/comm": "caddy\n", "proc/7/cmdline": "caddy\x00run\x00",
		"proc/7/exe":  "->/usr/bin/caddy (deleted)",
		"proc/8/fd/5": "->socket:[200]", "proc/8/comm": "edge\n", "proc/8/cmdline": "/opt/edge\x00run\x00--config\x00" + config + "\x00", "proc/8/exe": "->/opt/edge",
		"proc/9/fd/5": "->pipe:[400]", "proc/9/comm": "sleep\n",
	})
	want := []Socket{
		{netip.MustParseAddrPort("0.0.0.0:8080"), 7, "caddy", true},
		{netip.MustParseAddrPort("127.0.0.1:8081"), 8, "edge", true},
		{netip.MustParseAddrPort("127.0.0.1:8083"), 0, "", false},
		{netip.MustParseAddrPort("[::1]:443"), 7, "caddy", true},
	}
	if got := sockets(root, config); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := sockets(aMachine(t, nil), config); got != nil {
		t.Errorf("%+v", got)
	}
}

func TestContainer(t *testing.T) {
	none := func(string) string { return "" }
	for name, test := range map[string]struct {
		files  map[string]string
		getenv func(string) string
		want   string
	}{
		"none":   {nil, none, ""},
		"docker": {map[string]string{".dockerenv": ""}, none, "docker"},
		"podman": {map[string]string{"run/.containerenv": ""}, none, "podman"},
		"a pod":  {map[string]string{".dockerenv": ""}, func(name string) string { return map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1"}[name] }, Kubernetes},
	} {
		m := lookAt(aMachine(t, test.files), "Caddyfile", test.getenv)
		if m.Container != test.want {
			t.Errorf("%s: %q", name, m.Container)
		}
		if time.Since(m.Now) > time.Minute {
			t.Errorf("%s: %s", name, m.Now)
		}
	}
}

// TestFree: of this machine's disk something is known where the plugin says so.
func TestFree(t *testing.T) {
	bytes, ok := free(t.TempDir())
	if known := slices.Contains([]string{"linux", "darwin", "windows"}, runtime.GOOS); ok != known || known && bytes == 0 {
		t.Errorf("%d, %v", bytes, ok)
	}
	if _, ok := free(filepath.Join(t.TempDir(), "missing")); ok {
		t.Error("something of a directory that is missing")
	}
}

// TestResolved: a directory that is yet to be made is behind the links that are there.
func TestResolved(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "disk"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("disk", filepath.Join(root, "link")); err != nil {
		t.Skip(err)
	}
	path, dir := resolved(filepath.Join(root, "link", "a", "b"))
	if path != filepath.Join(root, "disk", "a", "b") || dir != filepath.Join(root, "disk") {
		t.Errorf("%s in %s", path, dir)
	}
}
