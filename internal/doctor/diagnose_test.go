package doctor

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// well is a patient of whom nothing is found. Its config is in the directory.
func well(dir string) Patient {
	written := Read([]byte(`{"admin": {"listen": "unix//run/edge/admin.sock"}, "apps": {"http": {"servers": {"a": {
		"listen": [":8080"], "routes": [{"handle": [{"handler": "subroute", "routes": [{"handle": [{"handler": "green_api"}]}]}]}]}}}}}`))
	return Patient{
		File:    "Caddyfile",
		Written: &written,
		Config: &Config{
			Blocks:     []Block{{Name: "default", Shortest: 32, Vendor: true, Timeout: 170 * time.Second}},
			Quarantine: Store{Path: "/data/green-api", Said: "/data/green-api", File: filepath.Join(dir, "quarantine.db"), MaxSize: 1 << 30},
			Addresses:  time.Date(2026, 7, 15, 0, 0, 0, 0, time.UTC),
		},
		Machine: Machine{
			Now:    time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC),
			Mounts: []Mount{{"/", "ext4"}, {"/data", "xfs"}, {"/run", "tmpfs"}},
			Free:   func(string) (uint64, bool) { return 10 << 30, true },
			Units:  []Unit{{"edge.service", "/etc/systemd/system/edge.service", 180 * time.Second}},
			Sockets: []Socket{
				{netip.MustParseAddrPort("[::]:8080"), 7, "caddy", true},
				{netip.MustParseAddrPort("0.0.0.0:22"), 1, "systemd", false},
			},
		},
	}
}

// read replaces what the config says.
func (p *Patient) read(json string) {
	written := Read([]byte(json))
	p.Written = &written
}

const aServer = `"routes": [{"handle": [{"handler": "green_api"}]}]`

// TestDiagnose has configs and machines, each with what is found: kind, level, where, and a part of the fix.
func TestDiagnose(t *testing.T) {
	const admin = `{"admin": {"listen": "ADDRESS"}}`
	for name, test := range map[string]struct {
		ail  func(*Patient)
		want string
	}{
		"well": {func(*Patient) {}, ""},
		"not adapted": {func(p *Patient) {
			p.Written, p.Config, p.Refused = nil, nil, errors.New("Caddyfile:5: unrecognized directive: location\nDid you mean to define a second site?")
		}, "does_not_load error Caddyfile:5 a matcher on 'green_api'"},
		"not provisioned": {func(p *Patient) {
			p.Config, p.Refused = nil, errors.New("loading http app module: provision http: server srv0: setting up route handlers: route 0: loading handler modules: "+
				"position 0: loading module 'green_api': provision http.handlers.green_api: auth: token 1: placeholder {env.NOPE} is not set or empty")
		}, "does_not_load error Caddyfile auth: token 1: placeholder {env.NOPE} is not set or empty; give this command the environment and the files that the edge has"},
		"not strict, not loaded": {func(p *Patient) {
			p.read(`{"admin": {"disabled": true}, "apps": {"http": {"servers": {"a": {"trusted_proxies": {"source": "static"}, ` + aServer + `}}}}}`)
			p.Config, p.Refused = nil, errors.New("loading http app module: provision http: ip_filter: the server trusts proxies but not trusted_proxies_strict, so that")
		}, "proxies_not_strict error Caddyfile say 'trusted_proxies_strict'"},
		"not strict, loaded": {func(p *Patient) {
			p.read(`{"admin": {"disabled": true}, "apps": {"http": {"servers": {"a": {"listen": [":1"], "trusted_proxies": {"source": "static"}, ` + aServer + `}}}}}`)
		}, "proxies_not_strict warn :1 say 'trusted_proxies_strict'"},
		"strict": {func(p *Patient) {
			p.read(`{"admin": {"disabled": true}, "apps": {"http": {"servers": {"a": {"trusted_proxies": {}, "trusted_proxies_strict": 1, ` + aServer + `}}}}}`)
		}, ""},
		"not strict, no block": {func(p *Patient) {
			p.read(`{"admin": {"disabled": true}, "apps": {"http": {"servers": {"a": {"trusted_proxies": {}, "routes": [{"handle": [{"handler": "static_response"}]}]}}}}}`)
		}, ""},
		"another config":      {func(p *Patient) { p.Config.Blocks = nil }, "no_green_api warn Caddyfile --config"},
		"a short token":       {func(p *Patient) { p.Config.Blocks[0].Shortest = 15 }, "short_token warn block default openssl"},
		"a token long enough": {func(p *Patient) { p.Config.Blocks[0].Shortest = 16 }, ""},
		"no token":            {func(p *Patient) { p.Config.Blocks[0].Shortest = 0 }, ""},
		"an old list":         {func(p *Patient) { p.Machine.Now = time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC) }, "old_addresses warn block default addresses"},
		"an old list, not used": {func(p *Patient) {
			p.Machine.Now, p.Config.Blocks[0].Vendor = time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC), false
		}, ""},
		"open":                  {func(p *Patient) { p.Config.Blocks[0].Open = true }, "open_to_all error block default say a token in 'auth'"},
		"admin as it is":        {func(p *Patient) { p.read(`{}`) }, "admin_open warn admin localhost:2019 unix//"},
		"admin, loopback":       {func(p *Patient) { p.read(strings.Replace(admin, "ADDRESS", "127.0.0.1:2019", 1)) }, "admin_open warn admin 127.0.0.1:2019 unix//"},
		"admin, all":            {func(p *Patient) { p.read(strings.Replace(admin, "ADDRESS", ":2019", 1)) }, "admin_open error admin :2019 unix//"},
		"admin, a name":         {func(p *Patient) { p.read(strings.Replace(admin, "ADDRESS", "edge.test:2019", 1)) }, "admin_open error admin edge.test:2019 unix//"},
		"admin, a socket":       {func(p *Patient) { p.read(strings.Replace(admin, "ADDRESS", "unix//run/admin.sock", 1)) }, ""},
		"admin, a given socket": {func(p *Patient) { p.read(strings.Replace(admin, "ADDRESS", "fd/4", 1)) }, ""},
		"admin, off":            {func(p *Patient) { p.read(`{"admin": {"disabled": true}}`) }, ""},
		"a given socket": {func(p *Patient) {
			p.read(`{"admin": {"disabled": true}, "apps": {"http": {"servers": {"a": {"listen": ["fd/3", ":1"], ` + aServer + `}}}}}`)
		}, "no_listener_wrapper warn fd/3 'green_api' and 'tls'"},
		"a wrapped socket": {func(p *Patient) {
			p.read(`{"admin": {"disabled": true}, "apps": {"http": {"servers": {"a": {"listen": ["fd/3"], "listener_wrappers": [{"wrapper": "green_api"}, {"wrapper": "tls"}], ` + aServer + `}}}}}`)
		}, ""},
		"a given socket of another server": {func(p *Patient) {
			p.read(`{"admin": {"disabled": true}, "apps": {"http": {"servers": {"a": {"listen": ["fd/4"]}, "b": {"listen": [":1"], ` + aServer + `}}}}}`)
		}, ""},
		"a short grace": {func(p *Patient) { p.read(`{"admin": {"disabled": true}, "apps": {"http": {"grace_period": "10s"}}}`) }, "short_grace_period error grace_period 10s 'grace_period 175s'"},
		"grace enough": {func(p *Patient) {
			p.read(`{"admin": {"disabled": true}, "apps": {"http": {"grace_period": 170000000000}}}`)
		}, ""},
		"a unit of Caddy's": {
			func(p *Patient) { p.Machine.Units[0].Stop = 5 * time.Second },
			"short_stop_time error /etc/systemd/system/edge.service 'systemctl edit edge.service' with the lines '[Service]' and 'TimeoutStopSec=180'",
		},
		"a unit that never kills":         {func(p *Patient) { p.Machine.Units[0].Stop = 0 }, ""},
		"a unit that fits a shorter time": {func(p *Patient) { p.Machine.Units[0].Stop, p.Config.Blocks[0].Timeout = 30*time.Second, 20*time.Second }, ""},
		"a unit, a config that does not load": {func(p *Patient) {
			p.Machine.Units[0].Stop, p.Config, p.Refused = 90*time.Second, nil, errors.New("no")
		}, "does_not_load error Caddyfile no|short_stop_time error /etc/systemd/system/edge.service TimeoutStopSec=180"},
		"a unit too short for a queue": {
			func(p *Patient) { p.Config.Blocks[0].Queued, p.Config.Blocks[0].Timeout = true, 5*time.Minute },
			"short_stop_time error /etc/systemd/system/edge.service TimeoutStopSec=310",
		},
		"a grace too short for a queue": {func(p *Patient) {
			p.read(`{"admin": {"disabled": true}, "apps": {"http": {"grace_period": "175s"}}}`)
			p.Config.Blocks[0].Queued, p.Config.Blocks[0].Timeout, p.Machine.Units = true, 5*time.Minute, nil
		}, "short_grace_period error grace_period 2m55s 'grace_period 305s'"},
		"a queue": {func(p *Patient) {
			p.Config.Blocks[0].Queued, p.Config.Queue = true, p.Config.Quarantine
		}, ""},
		"a queue in memory": {func(p *Patient) {
			p.Config.Queue = Store{Path: "/run/queue", Said: "/run/queue"}
		}, "queue_volatile error /run/queue queue bbolt /var/lib/green-api"},
		"a queue in the same memory": {func(p *Patient) {
			p.Config.Queue = p.Config.Quarantine
			p.Machine.Mounts = append(p.Machine.Mounts, Mount{"/data", "tmpfs"})
		}, "quarantine_volatile error /data/green-api quarantine /var/lib/green-api"},
		"a queue on no volume": {func(p *Patient) {
			p.Machine.Container, p.Machine.Mounts = "docker", []Mount{{"/", "overlay"}, {"/data", "xfs"}}
			p.Config.Queue = Store{Path: "/queue", Said: "/queue"}
		}, "queue_without_volume error /queue docker run --volume green-api:/queue|stop_time_not_seen info docker 180"},
		"one disk, low for both": {func(p *Patient) {
			p.Config.Queue = Store{Path: "/data/queue", Said: "/data/queue", MaxSize: 1}
			p.Machine.Free = func(string) (uint64, bool) { return 1 << 30, true }
		}, "disk_low warn /data/green-api lower a max_size"},
		"two disks, one low": {func(p *Patient) {
			p.Config.Queue = Store{Path: "/queue", Said: "/queue", MaxSize: 11 << 30}
		}, "disk_low warn /queue lower its max_size"},
		"a container": {func(p *Patient) { p.Machine.Container = "docker" }, "stop_time_not_seen info docker stop_grace_period: 180s"},
		"a pod":       {func(p *Patient) { p.Machine.Container = Kubernetes }, "stop_time_not_seen info kubernetes terminationGracePeriodSeconds: 190"},
		"a container without a volume": {func(p *Patient) {
			p.Machine.Container, p.Machine.Mounts = "docker", []Mount{{"/", "overlay"}, {"/proc", "proc"}}
		}, "quarantine_without_volume error /data/green-api docker run --volume green-api:/data/green-api|stop_time_not_seen info docker 180"},
		"memory":              {func(p *Patient) { p.Machine.Mounts = append(p.Machine.Mounts, Mount{"/data", "tmpfs"}) }, "quarantine_volatile error /data/green-api quarantine /var/lib/green-api"},
		"no mount of its own": {func(p *Patient) { p.Machine.Mounts = []Mount{{"/", "ext4"}} }, ""},
		"memory next to it":   {func(p *Patient) { p.Machine.Mounts = append(p.Machine.Mounts, Mount{"/data/green", "tmpfs"}) }, ""},
		"temporary files": {
			func(p *Patient) { p.Config.Quarantine.Path, p.Config.Quarantine.Said = "/tmp/kept", "{env.KEPT}" },
			"quarantine_volatile error {env.KEPT} quarantine /var/lib/green-api",
		},
		"nothing known of disks": {func(p *Patient) { p.Machine.Mounts, p.Machine.Free = nil, nil }, ""},
		"disk low":               {func(p *Patient) { p.Machine.Free = func(string) (uint64, bool) { return 1<<30 - 1, true } }, "disk_low warn /data/green-api max_size"},
		"disk just enough":       {func(p *Patient) { p.Machine.Free = func(string) (uint64, bool) { return 1 << 30, true } }, ""},
		"disk low, but most of it is taken": {func(p *Patient) {
			p.Machine.Free, p.Config.Quarantine.MaxSize = func(string) (uint64, bool) { return 64 << 20, true }, 65<<20
			if err := os.WriteFile(p.Config.Quarantine.File, make([]byte, 1<<20), 0o600); err != nil {
				panic(err)
			}
		}, ""},
		"disk all but full": {func(p *Patient) { p.Machine.Free = func(string) (uint64, bool) { return 1 << 20, true } }, "disk_low error /data/green-api free some of it"},
		"disk not seen":     {func(p *Patient) { p.Machine.Free = func(string) (uint64, bool) { return 0, false } }, ""},
		"a clock alone":     {func(p *Patient) { p.Machine.Unsynced = true }, "clock warn this machine set-ntp"},
		"a clock that is wrong": {
			func(p *Patient) { p.Machine.Now = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) },
			"clock error this machine set-ntp",
		},
		"two edges": {func(p *Patient) {
			p.Machine.Sockets = append(p.Machine.Sockets, Socket{netip.MustParseAddrPort("127.0.0.1:8080"), 8, "caddy", true})
		}, "port_shared error :8080 stop the one"},
		"an edge with two sockets": {func(p *Patient) {
			p.Machine.Sockets = append(p.Machine.Sockets, Socket{netip.MustParseAddrPort("0.0.0.0:8080"), 7, "caddy", true})
		}, ""},
		"an edge and nginx": {func(p *Patient) {
			p.Machine.Sockets = append(p.Machine.Sockets, Socket{netip.MustParseAddrPort("0.0.0.0:8080"), 9, "nginx", false})
		}, "port_shared error :8080 stop the one"},
		"nginx": {func(p *Patient) {
			p.Machine.Sockets[0] = Socket{netip.MustParseAddrPort("0.0.0.0:8080"), 9, "nginx", false}
		}, "port_taken error :8080 another port"},
		"nginx on another port": {func(p *Patient) {
			p.Machine.Sockets[0] = Socket{netip.MustParseAddrPort("0.0.0.0:8081"), 9, "nginx", false}
		}, ""},
		"one that is not seen": {func(p *Patient) { p.Machine.Sockets[0] = Socket{Address: netip.MustParseAddrPort("0.0.0.0:8080")} }, ""},
		"two that are not seen": {func(p *Patient) {
			p.Machine.Sockets = slices.Repeat([]Socket{{Address: netip.MustParseAddrPort("0.0.0.0:8080")}}, 2)
		}, "port_shared warn :8080 as root"},
		"two that are not seen, of two addresses": {func(p *Patient) {
			p.Machine.Sockets = []Socket{{Address: netip.MustParseAddrPort("127.0.0.1:8080")}, {Address: netip.MustParseAddrPort("[::1]:8080")}}
		}, ""},
		"nginx on another address": {func(p *Patient) {
			p.read(`{"admin": {"disabled": true}, "apps": {"http": {"servers": {"a": {"listen": ["127.0.0.1:8080", "localhost:8080"]}}}}}`)
			p.Machine.Sockets[0] = Socket{netip.MustParseAddrPort("192.0.2.1:8080"), 9, "nginx", false}
		}, ""},
		"nginx on the same address": {func(p *Patient) {
			p.read(`{"admin": {"disabled": true}, "apps": {"http": {"servers": {"a": {"listen": ["127.0.0.1:8080-8081"]}}}}}`)
			p.Machine.Sockets[0] = Socket{netip.MustParseAddrPort("[::ffff:127.0.0.1]:8081"), 9, "nginx", false}
		}, "port_taken error 127.0.0.1:8081 another port"},
	} {
		t.Run(name, func(t *testing.T) {
			p := well(t.TempDir())
			test.ail(&p)
			found := Diagnose(p)
			var wants []string
			if test.want != "" {
				wants = strings.Split(test.want, "|")
			}
			for i := range max(len(found), len(wants)) {
				if i >= len(found) || i >= len(wants) {
					t.Fatalf("found %+v, want %q", found, wants)
				}
				head := string(found[i].Kind) + " " + string(found[i].Level) + " " + found[i].Where + " "
				if fix, ok := strings.CutPrefix(wants[i], head); !ok || !strings.Contains(found[i].Fix, fix) || found[i].Message == "" {
					t.Errorf("found %s(%s) %s, want %s", head, found[i].Message, found[i].Fix, wants[i])
				}
				if !slices.Contains(Kinds, found[i].Kind) {
					t.Errorf("%s is not in the closed list", found[i].Kind)
				}
			}
		})
	}
}

// TestWorstFirst: errors stand before warnings, and infos last.
func TestWorstFirst(t *testing.T) {
	p := well(t.TempDir())
	p.Machine.Container, p.Config.Blocks[0].Shortest, p.Machine.Units[0].Stop = "podman", 3, time.Second
	var levels []Level
	for _, f := range Diagnose(p) {
		levels = append(levels, f.Level)
	}
	if !slices.Equal(levels, []Level{Error, Warn, Info}) {
		t.Errorf("%v", levels)
	}
}

// TestRefusal has errors of Caddy's, each with its place and its last cause.
func TestRefusal(t *testing.T) {
	for _, test := range []struct{ text, where, cause string }{
		{"open /etc/caddy/Caddyfile: no such file or directory", "FILE", "open /etc/caddy/Caddyfile: no such file or directory"},
		{"parsing caddyfile tokens for 'green_api': auth is required; want a block, at Caddyfile:3", "Caddyfile:3", "auth is required; want a block"},
		{
			"parsing caddyfile tokens for 'green_api': name is already specified; want it once, at Caddyfile:4 import chain: ['Caddyfile:9 (import edge)']",
			"Caddyfile:4", "name is already specified; want it once",
		},
		{"Caddyfile:5: unrecognized directive: proxy\nDid you mean to define a second site?", "Caddyfile:5", "unrecognized directive: proxy Did you mean to define a second site?"},
		{"Caddyfile:2: unrecognized global option: set_real_ip_from", "Caddyfile:2", "set_real_ip_from is a word of nginx's; " + InsteadOf("set_real_ip_from")},
		{"parsing caddyfile tokens for 'servers': unrecognized servers option 'real_ip_header', at Caddyfile:4", "Caddyfile:4", "real_ip_header is a word of nginx's; " + InsteadOf("real_ip_header")},
		{"parsing caddyfile tokens for 'reverse_proxy': unrecognized subdirective weight=3, at Caddyfile:4", "Caddyfile:4", "weight= is a word of nginx's; " + InsteadOf("weight=")},
		{
			"getting module named 'http.ip_sources.10.0.0.0/8': module not registered: http.ip_sources.10.0.0.0/8, at Caddyfile:4", "Caddyfile:4",
			"getting module named 'http.ip_sources.10.0.0.0/8': module not registered: http.ip_sources.10.0.0.0/8; want 'static' before the addresses, as in 'trusted_proxies static 10.0.0.0/8'",
		},
		{"Caddyfile:5: unrecognized directive: proxy_pass", "Caddyfile:5", "proxy_pass is a word of nginx's; " + InsteadOf("proxy_pass")},
		{
			"loading http app module: provision http: server srv0: setting up route handlers: route 0: loading handler modules: position 0: loading module 'subroute': " +
				"provision http.handlers.subroute: setting up subroutes: route 0: loading handler modules: position 0: loading module 'foo': unknown module: http.handlers.foo",
			"FILE", "unknown module: http.handlers.foo",
		},
		{"loading green_api app module: provision green_api: alert 1: no URL", "FILE", "alert 1: no URL"},
		{"decoding config: json: unknown field \"app\"", "FILE", "decoding config: json: unknown field \"app\""},
	} {
		if f := refusal("FILE", errors.New(test.text)); f.Kind != DoesNotLoad || f.Where != test.where || f.Fix != test.cause {
			t.Errorf("%s: %+v", test.text, f)
		}
	}
}

// TestInsteadOf: what is said in place of nginx's words ends in no dot, as other errors, and is no list of options.
func TestInsteadOf(t *testing.T) {
	for word, ours := range ofNginx {
		if !regexp.MustCompile(`^[a-z_]+=?$`).MatchString(word) || !regexp.MustCompile(`^(want|leave it out:) .*[^.]$`).MatchString(ours) {
			t.Errorf("%s: %s", word, ours)
		}
	}
}
