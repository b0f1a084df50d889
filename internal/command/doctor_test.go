package command_test

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/doctor"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// ofMachine are findings that depend on the machine of the test, not on the config.
var ofMachine = []doctor.Kind{
	doctor.StopNotSeen, doctor.VolatileDisk, doctor.NoVolume, doctor.DiskLow, doctor.Clock, doctor.PortShared, doctor.PortTaken, doctor.OldAddresses,
}

type aFinding struct {
	Finding doctor.Kind
	Level   doctor.Level
	Where   string
	Fix     string
}

// doctorFinds runs doctor on a config in the file Caddyfile of a directory. It returns what is found in the config, and
// fails the test unless the exit code says whether anything above info is found.
func doctorFinds(t *testing.T, dir string, args ...string) (found []aFinding) {
	t.Helper()
	stdout, stderr, code := runCommand(t, dir, "", append([]string{"green-api", "doctor", "--format", "json"}, args...)...)
	want := 0
	for line := range strings.Lines(stdout) {
		decoder := json.NewDecoder(strings.NewReader(line))
		decoder.DisallowUnknownFields()
		var f aFinding
		if err := decoder.Decode(&f); err != nil || !slices.Contains(doctor.Kinds, f.Finding) || f.Fix == "" {
			t.Fatalf("%v: %s", err, line)
		}
		if f.Level != doctor.Info {
			want = 1
		}
		if !slices.Contains(ofMachine, f.Finding) {
			found = append(found, f)
		}
	}
	if code != want || stderr != "" {
		t.Errorf("exit code %d, want %d; stderr %q; %s", code, want, stderr, stdout)
	}
	return found
}

const longToken = "demo-token-of-27-characters"

// wellConfig is a config in which nothing is found.
const wellConfig = `{
	admin unix//run/edge/admin.sock
	auto_https off
	# global
}
http://127.0.0.1:18080, http://:18080 {
	green_api /green-api/webhook* {
		auth {
			token ` + longToken + `
		}
		reverse_proxy 127.0.0.1:9001
	}
	respond 404
}
`

// TestDoctor has configs, each with what is found in it.
func TestDoctor(t *testing.T) {
	t.Setenv("GREEN_API_TEST_UNSET", "")
	for name, test := range map[string]struct {
		replace []string
		want    string // kind, level, where, and a part of the fix
	}{
		"well":               {nil, ""},
		"empty 200":          {[]string{"\trespond 404\n", ""}, "empty_200 error :18080 respond 404"},
		"one exact path":     {[]string{"webhook*", "webhook"}, "one_path warn block default, path /green-api/webhook /green-api/webhook*"},
		"below a path":       {[]string{"webhook*", "webhook/*"}, "one_path warn block default, path /green-api/webhook/* /green-api/webhook*"},
		"the admin socket":   {[]string{"\tadmin unix//run/edge/admin.sock\n", ""}, "admin_open warn admin localhost:2019 unix//"},
		"the admin, for all": {[]string{"admin unix//run/edge/admin.sock", "admin :2019"}, "admin_open error admin :2019 unix//"},
		"proxies that are not strict": {
			[]string{"# global", "servers {\ntrusted_proxies static 10.0.0.0/8\n}"},
			"proxies_not_strict error Caddyfile trusted_proxies_strict",
		},
		"proxies that are not strict, of which no address is asked": {
			[]string{"# global", "servers {\ntrusted_proxies static 10.0.0.0/8\n}", "auth {", "ip_filter off\nauth {"}, "proxies_not_strict warn :18080 trusted_proxies_strict",
		},
		"strict proxies":       {[]string{"# global", "servers {\ntrusted_proxies static 10.0.0.0/8\ntrusted_proxies_strict\n}"}, ""},
		"a short token":        {[]string{longToken, "demo-token"}, "short_token warn block default openssl"},
		"a short Basic":        {[]string{longToken, `"Basic ZGVtbw=="`}, "short_token warn block default openssl"},
		"one of an instance's": {[]string{"token " + longToken, "instance 1101000001 " + longToken + " short-token"}, "short_token warn block default openssl"},
		"open":                 {[]string{"auth {\n\t\t\ttoken " + longToken + "\n\t\t}", "ip_filter off\nauth off"}, "open_to_all error block default bind 127.0.0.1"},
		"a short grace period": {[]string{"# global", "grace_period 10s"}, "short_grace_period error grace_period 10s grace_period 175s"},
		"a grace period that fits": {
			[]string{"# global", "grace_period 30s", "reverse_proxy", "deliver {\ntimeout 30s\n}\nreverse_proxy"}, "",
		},
		"a grace period too short for a queue": {
			[]string{"# global", "grace_period 175s", "reverse_proxy", "queue {\n}\nreverse_proxy"},
			"short_grace_period error grace_period 2m55s grace_period 305s",
		},
		"a grace period that fits a queue": {
			[]string{"# global", "grace_period 175s", "reverse_proxy", "deliver {\nattempt_timeout 1m\n}\nqueue {\n}\nreverse_proxy"}, "",
		},
		"a queue among temporary files": {
			[]string{"# global", "green_api {\nqueue bbolt /tmp/queue\n}", "reverse_proxy", "queue {\n}\nreverse_proxy"},
			"queue_volatile error /tmp/queue queue bbolt /var/lib/green-api",
		},
		"a directory for a queue that no block has": {[]string{"# global", "green_api {\nqueue bbolt /tmp/queue\n}"}, ""},
		"a socket without the wrapper":              {[]string{"\tgreen_api", "\tbind fd/3\n\tgreen_api"}, "no_listener_wrapper warn fd/3 'green_api' and 'tls'"},
		"no block":                                  {[]string{"green_api /green-api/webhook* {", "route {", "auth {", "header {", "token", "x"}, "no_green_api warn Caddyfile --config"},
		"a slip":                                    {[]string{"auth {", "aut {"}, "does_not_load error Caddyfile:8 unrecognized green_api option 'aut'"},
		"no auth":                                   {[]string{"auth {\n\t\t\ttoken " + longToken + "\n\t\t}", ""}, "does_not_load error Caddyfile:10 auth is required"},
		"nginx in the block":                        {[]string{"reverse_proxy", "proxy_pass"}, "does_not_load error Caddyfile:11 proxy_pass is a word of nginx's; want 'reverse_proxy"},
		"nginx in the site":                         {[]string{"respond 404", "location / {\n}"}, "does_not_load error Caddyfile:13 location is a word of nginx's; want a matcher"},
		"a variable unset":                          {[]string{longToken, "{env.GREEN_API_TEST_UNSET}"}, "does_not_load error Caddyfile auth: token 1: placeholder {env.GREEN_API_TEST_UNSET} is not set or empty"},
		"an unknown module":                         {[]string{"# global", "storage nothing"}, "does_not_load error Caddyfile:4 getting module named 'caddy.storage.nothing'"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			config := strings.NewReplacer(test.replace...).Replace(wellConfig)
			if len(test.replace) > 0 && config == wellConfig {
				t.Fatal("nothing is replaced")
			}
			writeTo(t, filepath.Join(dir, "Caddyfile"), config)
			found := doctorFinds(t, dir)
			if test.want == "" && len(found) == 0 {
				return
			}
			if len(found) != 1 {
				t.Fatalf("found %+v, want %q", found, test.want)
			}
			f := found[0]
			fix, ok := strings.CutPrefix(test.want, string(f.Finding)+" "+string(f.Level)+" "+f.Where+" ")
			if !ok || !strings.Contains(f.Fix, fix) {
				t.Errorf("found %+v, want %q", f, test.want)
			}
			if strings.Contains(f.Fix+f.Where, longToken) {
				t.Error("shows a token")
			}
		})
	}
}

func writeTo(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDoctorFiles: which file is taken, and how it is read.
func TestDoctorFiles(t *testing.T) {
	dir := t.TempDir()
	if stdout, stderr, code := runCommand(t, dir, "", "green-api", "doctor"); code != 2 || stdout != "" || !strings.Contains(stderr, "no --config, and no Caddyfile") {
		t.Errorf("no file: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if found := doctorFinds(t, dir, "--config", "missing"); len(found) != 1 || found[0].Finding != doctor.DoesNotLoad || found[0].Where != "missing" {
		t.Errorf("a missing file: %+v", found)
	}
	writeTo(t, filepath.Join(dir, "edge.conf"), wellConfig)
	if found := doctorFinds(t, dir, "--config", "edge.conf"); len(found) != 1 || found[0].Finding != doctor.DoesNotLoad || !strings.Contains(found[0].Fix, "--adapter caddyfile") {
		t.Errorf("a Caddyfile by another name: %+v", found)
	}
	if found := doctorFinds(t, dir, "--config", "edge.conf", "--adapter", "caddyfile"); found != nil {
		t.Errorf("its adapter named: %+v", found)
	}
	if found := doctorFinds(t, dir, "--config", "edge.conf", "--adapter", "nothing"); len(found) != 1 || found[0].Fix != "unrecognized config adapter: nothing" {
		t.Errorf("an unknown adapter: %+v", found)
	}
	text, err := edgetest.Adapt(wellConfig)
	if err != nil {
		t.Fatal(err)
	}
	writeTo(t, filepath.Join(dir, "caddyfile.json"), string(text))
	if found := doctorFinds(t, dir, "--config", "caddyfile.json"); found != nil {
		t.Errorf("JSON: %+v", found)
	}
	writeTo(t, filepath.Join(dir, "slip.json"), `{"app": {}}`)
	if found := doctorFinds(t, dir, "--config", "slip.json"); !slices.ContainsFunc(found, func(f aFinding) bool {
		return f.Finding == doctor.DoesNotLoad && strings.Contains(f.Fix, `unknown field "app"`)
	}) {
		t.Errorf("JSON with a slip: %+v", found)
	}
}

// TestDoctorText: in words, each finding says what is wrong and how to mend it; a cause is one line.
func TestDoctorText(t *testing.T) {
	dir := t.TempDir()
	writeTo(t, filepath.Join(dir, "Caddyfile"), strings.Replace(wellConfig, longToken, "demo-token", 1))
	stdout, stderr, code := runCommand(t, dir, "", "green-api", "doctor")
	if want := "warn   short_token  block default\n       a token has 10 characters, and can be guessed\n       fix: take one of 16 or more"; code != 1 ||
		stderr != "" || !strings.Contains(stdout, want) {
		t.Errorf("exit code %d, stderr %q, stdout:\n%s", code, stderr, stdout)
	}
	writeTo(t, filepath.Join(dir, "Caddyfile"), "http://:18080 {\n\tgreen_api\n}\n")
	stdout, stderr, code = runCommand(t, dir, "", "green-api", "doctor")
	if want := "error  does_not_load  Caddyfile:2\n       the config does not load\n       cause: auth is required; want a block with"; code != 1 ||
		stderr != "" || !strings.HasPrefix(stdout, want) {
		t.Errorf("exit code %d, stderr %q, stdout:\n%s", code, stderr, stdout)
	}
	if _, stderr, code := runCommand(t, dir, "", "green-api", "doctor", "--format", "yaml"); code != 2 || !strings.Contains(stderr, "want text or json") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

// TestDoctorProcess: a process logs nothing beside what it finds, and leaves nothing behind. It sees who has the port.
func TestDoctorProcess(t *testing.T) {
	dir := t.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(dir, "kept")
	config := strings.NewReplacer("18080", port, "# global", "green_api {\nquarantine "+kept+"\n}\nlog {\noutput file "+filepath.Join(dir, "log")+"\n}", longToken, "demo-token").Replace(wellConfig)
	writeTo(t, filepath.Join(dir, "Caddyfile"), config)
	stdout, stderr, code := edgetest.RunCaddy(t, dir, "", "green-api", "doctor")
	if code != 1 || stderr != "" || !strings.Contains(stdout, "warn   short_token  block default\n") {
		t.Errorf("exit code %d, stderr %q, stdout:\n%s", code, stderr, stdout)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("left behind: %v, %v", files, err)
	}
	// This process is the same program as the one that looks: an edge, as far as it can see.
	if strings.Contains(stdout, "port_") {
		t.Errorf("takes the edge for another program:\n%s", stdout)
	}
}

// TestDoctorSharedPort: Caddy lets another process listen on its port, and each gets a part of the connections.
func TestDoctorSharedPort(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("who listens is only seen on Linux")
	}
	other := filepath.Join(t.TempDir(), "other-program")
	if err := os.Link(os.Args[0], other); err != nil {
		t.Skip(err)
	}
	e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(t.TempDir(), "quarantine")}
	edge := edgetest.StartProcess(t, e, edgetest.Site(edgetest.Loopback))
	t.Cleanup(func() {
		edge.Process.Kill()
		edge.Wait()
	})
	shared := func() (where []string) {
		for _, f := range doctorFindsAll(t, "--config", edge.File) {
			if f.Finding == doctor.PortShared || f.Finding == doctor.PortTaken {
				where = append(where, string(f.Finding)+" "+f.Where)
			}
		}
		return where
	}
	if got := shared(); got != nil {
		t.Errorf("the edge alone: %q", got)
	}
	config := filepath.Join(t.TempDir(), "other.caddyfile")
	writeTo(t, config, "{\nadmin off\npersist_config off\n}\nhttp://:"+e.Port+" {\nbind 127.0.0.1\nrespond 200\n}\n")
	second := exec.Command(other, "run", "--config", config)
	second.Env = append(os.Environ(), "GREEN_API_TEST_CADDY=1")
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		second.Process.Kill()
		second.Wait()
	})
	edgetest.Eventually(t, "the other program listens", func() bool { return slices.Equal(shared(), []string{"port_shared 127.0.0.1:" + e.Port}) })
	edge.Process.Kill()
	edge.Wait()
	edgetest.Eventually(t, "the other program listens alone", func() bool { return slices.Equal(shared(), []string{"port_taken 127.0.0.1:" + e.Port}) })
}

// doctorFindsAll runs doctor in this process and returns all that it finds.
func doctorFindsAll(t *testing.T, args ...string) (found []aFinding) {
	t.Helper()
	stdout, _, _ := runCommand(t, "", "", append([]string{"green-api", "doctor", "--format", "json"}, args...)...)
	for line := range strings.Lines(stdout) {
		var f aFinding
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatal(err)
		}
		found = append(found, f)
	}
	return found
}
