package command_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/greenapi-community/caddy-green-api/internal/command"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/standin"
)

const (
	apiToken     = "demo-api-token"
	otherAPI     = "demo-api-token-of-another"
	webhookTok   = "demo-webhook-token"
	oldWebhook   = "demo-old-webhook-token"
	wholeSetting = `{"webhookUrl":"https://old.example.com","webhookUrlToken":"` + oldWebhook + `","stateWebhook":"yes"}`
)

// settingsBench runs settings commands against a stand-in of GREEN-API.
type settingsBench struct {
	*standin.Server
	t        *testing.T
	url      string
	commands caddycmd.Command
	paused   []time.Duration // how long the commands in this process were to pause
}

// newSettingsBench has two instances. Settings take effect after 5 ms, and a second of a command's pauses
// takes 40 ms.
func newSettingsBench(t *testing.T) *settingsBench {
	t.Helper()
	vendor := standin.New(standin.Options{Scale: 60000, NoLimits: true})
	server := httptest.NewServer(vendor)
	t.Cleanup(func() { vendor.Close(); server.Close() })
	vendor.Add("1101000001", apiToken)
	vendor.Add("1101000002", otherAPI)
	t.Setenv(command.APITokenVariable, apiToken)
	resolve := func(text string) (string, error) { return caddy.NewReplacer().ReplaceOrErr(text, true, true) }
	b := &settingsBench{Server: vendor, t: t, url: server.URL}
	b.commands = command.New(command.Config{Resolve: resolve, Pause: func(ctx context.Context, d time.Duration) bool {
		b.paused = append(b.paused, d)
		return edgetest.Pauses(ctx, d/25)
	}})
	return b
}

// wantPauses fails the test unless the commands were to pause so often, for so long, since the last time.
func (b *settingsBench) wantPauses(want ...time.Duration) {
	b.t.Helper()
	if !slices.Equal(b.paused, want) {
		b.t.Errorf("paused for %s, want %s", b.paused, want)
	}
	b.paused = nil
}

// run runs a command, and fails the test if it prints a token.
func (b *settingsBench) run(wantCode int, args ...string) (stdout, stderr string) {
	b.t.Helper()
	stdout, stderr, code := edgetest.RunCommandOf(b.t, b.commands, "", "", append(append([]string{"green-api", "settings"}, args...), "--api-url", b.url)...)
	if code != wantCode {
		b.t.Errorf("%q: exit code %d, want %d; stdout %q, stderr %q", args, code, wantCode, stdout, stderr)
	}
	for _, secret := range []string{apiToken, otherAPI, webhookTok, oldWebhook} {
		if strings.Contains(stdout+stderr, secret) {
			b.t.Errorf("%q prints %s: stdout %q, stderr %q", args, secret, stdout, stderr)
		}
	}
	return stdout, stderr
}

// begin gives an instance settings that are in force.
func (b *settingsBench) begin(settings string) {
	b.t.Helper()
	b.set("1101000001", apiToken, settings)
}

func (b *settingsBench) set(instance, token, settings string) {
	b.t.Helper()
	r := httptest.NewRequest("POST", "/waInstance"+instance+"/setSettings/"+token, strings.NewReader(settings))
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	if w.Code != 200 {
		b.t.Fatalf("%d %s", w.Code, w.Body)
	}
	b.inForce(instance)
}

// inForce waits until an instance has restarted.
func (b *settingsBench) inForce(instance string) {
	b.t.Helper()
	token := map[string]string{"1101000001": apiToken, "1101000002": otherAPI}[instance]
	edgetest.Eventually(b.t, "settings in force", func() bool {
		w := httptest.NewRecorder()
		b.ServeHTTP(w, httptest.NewRequest("GET", "/waInstance"+instance+"/getStateInstance/"+token, nil))
		return strings.Contains(w.Body.String(), "authorized")
	})
}

// file writes a file of instances.
func (b *settingsBench) file(text string) string {
	b.t.Helper()
	path := filepath.Join(b.t.TempDir(), "instances.txt")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return path
}

func wantLines(t *testing.T, got string, want ...string) {
	t.Helper()
	if joined := strings.Join(want, "\n") + "\n"; got != joined {
		t.Errorf("got:\n%s\nwant:\n%s", got, joined)
	}
}

func TestSettingsGet(t *testing.T) {
	b := newSettingsBench(t)
	b.begin(`{"webhookUrl":"https://user:secret@old.example.com/hook","webhookUrlToken":"` + oldWebhook + `","stateWebhook":"yes"}`)
	stdout, stderr := b.run(0, "get", "1101000001")
	for _, part := range []string{
		"1101000001\n    webhookUrl                 https://REDACTED@old.example.com/hook\n    webhookUrlToken            REDACTED\n    catalogWebhook             no\n",
		"    stateWebhook               yes\n",
	} {
		if !strings.Contains(stdout, part) {
			t.Errorf("lacks %q:\n%s", part, stdout)
		}
	}
	if stderr != "" || strings.Contains(stdout, "wid") || strings.Contains(stdout, "delay") {
		t.Errorf("stderr %q, stdout %s", stderr, stdout)
	}

	// Several, of which one has a wrong token, and one whose API is elsewhere.
	t.Setenv("SETTINGS_TEST_TOKEN", otherAPI)
	file := b.file("# ID TOKEN URL\n1101000001 demo-wrong-token # ours\n\n1101000002\t{env.SETTINGS_TEST_TOKEN} " + b.url + "/v3/\n")
	stdout, _ = b.run(1, "get", "--instances", file, "--format", "json")
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if len(lines) != 2 || lines[0] != `{"instance":"1101000001","settings":{},"error":"getSettings: the API does not take the token (status 401)"}` ||
		!strings.Contains(lines[1], `"incomingWebhook":"no"`) {
		t.Fatalf("%q", lines)
	}
	var got command.SettingsGot
	if err := json.Unmarshal([]byte(lines[1]), &got); err != nil || got.Error != "" || got.Settings["webhookUrlToken"] != "" || len(got.Settings) != 17 {
		t.Errorf("%+v, %v", got, err)
	}
	stdout, stderr = b.run(1, "get", "--instances", file)
	if !strings.HasPrefix(stdout, "1101000002\n") || stderr != "caddy green-api settings get: instance 1101000001: getSettings: the API does not take the token (status 401)\n" {
		t.Errorf("stdout %q, stderr %q", stdout, stderr)
	}
	if stdout, _ = b.run(0, "get", "1101000002", "--instances", file); !strings.HasPrefix(stdout, "1101000002\n    webhookUrl                 \"\"\n") {
		t.Error(stdout)
	}
	if stdout, _ = b.run(0, "get", "1101000002", "--api-token", "{env.SETTINGS_TEST_TOKEN}"); !strings.HasPrefix(stdout, "1101000002\n") {
		t.Error(stdout)
	}
}

func TestSettingsSet(t *testing.T) {
	b := newSettingsBench(t)
	b.begin(wholeSetting)
	set := b.Calls("setSettings")
	args := []string{"set", "1101000001", "--url", "https://hooks.example.com/hook", "--token", webhookTok, "--switch", "incomingWebhook=yes", "--switch", "stateWebhook=yes"}
	changes := []string{
		"1101000001  incomingWebhook: no -> yes", "1101000001  webhookUrl: https://old.example.com -> https://hooks.example.com/hook",
		"1101000001  webhookUrlToken: REDACTED -> REDACTED (another)",
	}
	stdout, _ := b.run(0, append(args, "--dry-run", "--wait")...)
	wantLines(t, stdout, append(changes, "1101000001  dry run, so nothing is set")...)
	if b.Calls("setSettings") != set {
		t.Fatal("a dry run calls setSettings")
	}
	stdout, _ = b.run(0, args...)
	wantLines(t, stdout, append(changes, "1101000001  saved; the instance restarts, and it can take five minutes until the settings are in force")...)
	b.inForce("1101000001")
	settings := b.Settings("1101000001")
	if settings["webhookUrl"] != "https://hooks.example.com/hook" || settings["webhookUrlToken"] != webhookTok || settings["incomingWebhook"] != "yes" ||
		settings["outgoingWebhook"] != "no" || b.Calls("setSettings") != set+1 {
		t.Errorf("%v, %d calls", settings, b.Calls("setSettings"))
	}
	stdout, _ = b.run(0, append(args, "--wait")...)
	wantLines(t, stdout, "1101000001  nothing differs, so nothing is set")
	if b.Calls("setSettings") != set+1 {
		t.Error("nothing differs, and setSettings is called")
	}

	stdout, _ = b.run(0, "set", "1101000001", "--url", "", "--token", "", "--all", "yes", "--switch", "deviceWebhook=no", "--wait", "--format", "json")
	var done command.SettingsDone
	if err := json.Unmarshal([]byte(stdout), &done); err != nil || done.Outcome != "in_force" || done.Error != "" || len(done.Changes) != 14 {
		t.Errorf("%v: %s", err, stdout)
	}
	settings = b.Settings("1101000001")
	if settings["webhookUrl"] != "" || settings["webhookUrlToken"] != "" || settings["outgoingCallWebhook"] != "yes" || settings["deviceWebhook"] != "no" ||
		settings["keepOnlineStatus"] != "no" {
		t.Errorf("%v", settings)
	}
}

// TestSettingsSwitches: the switches are those that the instance has, whatever this program knows.
func TestSettingsSwitches(t *testing.T) {
	b := newSettingsBench(t)
	b.Switch("1101000001", "brandNewWebhook", "no")
	b.Switch("1101000001", "oddWebhook", "https://SECRET")
	b.Switch("1101000001", "stateWebhook", "")
	stdout, _ := b.run(0, "get", "1101000001")
	if !strings.Contains(stdout, "    brandNewWebhook            no\n") || strings.Contains(stdout, "stateWebhook") || strings.Contains(stdout, "SECRET") {
		t.Error(stdout)
	}
	stdout, _ = b.run(0, "set", "1101000001", "--all", "yes", "--wait")
	if settings := b.Settings("1101000001"); settings["brandNewWebhook"] != "yes" || settings["incomingMessageStatusWebhook"] != "yes" || settings["stateWebhook"] != nil ||
		settings["keepOnlineStatus"] != "no" {
		t.Errorf("%v: %s", settings, stdout)
	}

	// One that no instance has, and one that the other lacks.
	file := b.file("1101000001 " + apiToken + "\n1101000002 " + otherAPI + "\n")
	set := b.Calls("setSettings")
	for _, name := range []string{"incomingWebhok", "oddWebhook", "keepOnlineStatus", "webhookUrl"} {
		stdout, stderr := b.run(2, "set", "--instances", file, "--all", "no", "--switch", name+"=yes")
		if stdout != "" || !strings.Contains(stderr, `unknown --switch "`+name+`"; want one of brandNewWebhook, catalogWebhook, deletedMessageWebhook, `) {
			t.Errorf("%s: stdout %q, stderr %q", name, stdout, stderr)
		}
	}
	if b.Calls("setSettings") != set {
		t.Error("something is set")
	}
	stdout, stderr := b.run(1, "set", "--instances", file, "--switch", "brandNewWebhook=no")
	if !strings.HasPrefix(stdout, "1101000001  brandNewWebhook: yes -> no\n1101000001  saved;") || strings.Contains(stdout, "1101000002") ||
		!strings.Contains(stderr, `instance 1101000002: unknown --switch "brandNewWebhook"; want one of catalogWebhook, `) {
		t.Errorf("stdout %q, stderr %q", stdout, stderr)
	}
}

// TestSettingsSecrets: what is secret in a webhookUrl is shown when that is asked for, and never else.
func TestSettingsSecrets(t *testing.T) {
	b := newSettingsBench(t)
	const address = "https://user:SECRET1@old.example.com/hook?token=SECRET2&SECRET3"
	b.begin(`{"webhookUrl":"` + address + `","webhookUrlToken":"demo-known-token"}`)
	refuse := func(method, _ string) *standin.Fault {
		if method == "setSettings" {
			return &standin.Fault{Status: 400, Body: `{"message":"Validation failed: ` + strings.Replace(address, "old", "new", 1) + ` has SECRET2"}`}
		}
		return nil
	}
	for _, format := range []string{"text", "json"} {
		b.Fault(nil)
		stdout, stderr := b.run(0, "get", "1101000001", "--format", format)
		b.Fault(refuse)
		failed, failedErr := b.run(1, "set", "1101000001", "--url", strings.Replace(address, "old", "new", 1), "--format", format)
		if all := stdout + stderr + failed + failedErr; strings.Contains(all, "SECRET") || strings.Contains(all, "demo-known-token") ||
			strings.Count(all, "://REDACTED@old.example.com/hook?token=REDACTED") != 2 || strings.Count(all, "://REDACTED@new.example.com/hook?token=REDACTED") != 2 {
			t.Errorf("%s", all)
		}
	}
	b.Fault(nil)
	stdout, _ := b.run(0, "get", "1101000001", "--show-secrets")
	if !strings.Contains(stdout, "webhookUrl                 "+address+"\n    webhookUrlToken            demo-known-token\n") {
		t.Error(stdout)
	}
	stdout, _ = b.run(0, "get", "1101000001", "--show-secrets", "--format", "json")
	var got command.SettingsGot
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || got.Settings["webhookUrl"] != address || got.Settings["webhookUrlToken"] != "demo-known-token" {
		t.Errorf("%v: %s", err, stdout)
	}
}

// TestSettingsWait: the command ends when settings are in force, and says so if they are not.
func TestSettingsWait(t *testing.T) {
	b := newSettingsBench(t)
	file := b.file("1101000001 " + apiToken + "\n1101000002 " + otherAPI + "\n")
	stdout, _ := b.run(0, "set", "--instances", file, "--switch", "stateWebhook=yes", "--wait")
	saved := "saved; the instance restarts, and it can take five minutes until the settings are in force"
	wantLines(t, stdout, "1101000001  stateWebhook: no -> yes", "1101000001  "+saved, "1101000002  stateWebhook: no -> yes", "1101000002  "+saved,
		"1101000001  in force", "1101000002  in force")
	b.wantPauses(time.Second)

	// Whatever the API says meanwhile, but that the token is wrong.
	get := b.Calls("getSettings")
	b.Fault(func(method, _ string) *standin.Fault {
		if n := b.Calls("getSettings") - get; method == "getSettings" && n > 1 && n < 4 {
			return &standin.Fault{Status: map[bool]int{true: 429, false: 502}[n == 2]}
		}
		return nil
	})
	if stdout, _ = b.run(0, "set", "1101000001", "--switch", "stateWebhook=no", "--wait"); !strings.HasSuffix(stdout, "1101000001  in force\n") {
		t.Error(stdout)
	}
	if n := b.Calls("getSettings") - get; n != 4 {
		t.Errorf("%d calls of getSettings", n)
	}
	b.wantPauses(time.Second, time.Second, time.Second)

	// Settings that never come into force.
	b.Fault(func(method, _ string) *standin.Fault {
		if method == "setSettings" {
			return &standin.Fault{Status: 200, Body: `{"saveSettings":true}`}
		}
		return nil
	})
	stdout, stderr := b.run(1, "set", "1101000001", "--switch", "stateWebhook=yes", "--wait", "--wait-timeout", "100ms")
	wantLines(t, stdout, "1101000001  stateWebhook: no -> yes", "1101000001  "+saved)
	wantLines(t, stderr, "caddy green-api settings set: instance 1101000001: saved, but not in force after 100ms")
	stdout, _ = b.run(1, "set", "1101000001", "--switch", "stateWebhook=yes", "--wait", "--wait-timeout", "100ms", "--format", "json")
	wantLines(t, stdout, `{"instance":"1101000001","outcome":"failed","changes":[{"name":"stateWebhook","before":"no","after":"yes"}],"error":"saved, but not in force after 100ms"}`)
}

// TestSettingsFailures: what fails for one instance does not keep the others from being set.
func TestSettingsFailures(t *testing.T) {
	b := newSettingsBench(t)
	file := b.file("1101000003 demo-token-of-nobody\n1101000001 demo-wrong-token\n1101000002 " + otherAPI + "\n")
	stdout, stderr := b.run(1, "set", "--instances", file, "--all", "no", "--switch", "incomingWebhook=yes")
	wantLines(t, stderr,
		"caddy green-api settings set: instance 1101000003: getSettings: the API does not know the instance at this address (status 403)",
		"caddy green-api settings set: instance 1101000001: getSettings: the API does not take the token (status 401)")
	if !strings.HasPrefix(stdout, "1101000002  incomingWebhook: no -> yes\n1101000002  saved;") {
		t.Error(stdout)
	}
	stdout, _ = b.run(1, "set", "1101000001", "--api-token", "demo-wrong-token", "--all", "no", "--format", "json")
	wantLines(t, stdout, `{"instance":"1101000001","outcome":"failed","changes":[],"error":"getSettings: the API does not take the token (status 401)"}`)

	// A refusal that quotes what it refuses.
	b.Fault(func(method, _ string) *standin.Fault {
		if method == "setSettings" {
			return &standin.Fault{Status: 400, Body: `{"message":"Validation failed: ` + webhookTok + `"}`}
		}
		return nil
	})
	_, stderr = b.run(1, "set", "1101000001", "--token", "Bearer "+webhookTok)
	if strings.Count(stderr, "Validation failed: REDACTED (status 400)") != 1 {
		t.Error(stderr)
	}

	// 429, then it is fine; and what no other try would mend is not tried again.
	get := b.Calls("getSettings")
	b.Fault(func(string, string) *standin.Fault {
		if b.Calls("getSettings") == get+1 {
			return &standin.Fault{Status: 429, RetryAfter: "3"}
		}
		return nil
	})
	if stdout, _ = b.run(0, "get", "1101000001"); !strings.HasPrefix(stdout, "1101000001\n") || b.Calls("getSettings") != get+2 {
		t.Errorf("%d calls: %s", b.Calls("getSettings")-get, stdout)
	}
	b.wantPauses(3 * time.Second)
	b.Fault(func(string, string) *standin.Fault { return &standin.Fault{Status: 466} })
	_, stderr = b.run(1, "get", "1101000001")
	if b.Calls("getSettings") != get+3 || !strings.Contains(stderr, "quota") {
		t.Errorf("%d calls: %s", b.Calls("getSettings")-get, stderr)
	}
}

// TestSettingsRefused has what ends with exit code 2, without a call.
func TestSettingsRefused(t *testing.T) {
	b := newSettingsBench(t)
	b.commands = caddycmd.Commands()["green-api"] // its errors of placeholders are the plugin's
	t.Setenv("SETTINGS_TEST_EMPTY", "")
	good := b.file("1101000001 " + apiToken + "\n")
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"get"}, "want the id of one instance, or a file with --instances"},
		{[]string{"get", "1101000001", "1101000002"}, "want the id of one instance"},
		{[]string{"get", "one"}, "an argument is no instance's id; want 1 to 20 digits"},
		{[]string{"get", "1101000001", "--format", "yaml"}, `invalid --format "yaml"; want text or json`},
		{[]string{"get", "1101000001", "--api-token", "{env.SETTINGS_TEST_EMPTY}"}, "API token: placeholder {env.SETTINGS_TEST_EMPTY} is not set or empty"},
		{[]string{"get", "1101000001", "--api-token", ""}, "no API token; want it in the variable"},
		{[]string{"get", "1101000001", "--api-token", "two words"}, "API token: it has spaces"},
		{[]string{"get", "--instances", good, "--api-token", apiToken}, "--api-token is of one instance"},
		{[]string{"get", "--instances", "nonexistent.txt"}, "--instances: open nonexistent.txt: no such file"},
		{[]string{"get", "1101000002", "--instances", good}, "no instance 1101000002 in it"},
		{[]string{"get", "1101000001", "1101000001", "--instances", good}, "instance 1101000001 is named twice"},
		{[]string{"get", "--instances", b.file("# none\n")}, "no instance in it"},
		{[]string{"get", "--instances", b.file("\xef\xbb\xbf1101000001 x\n")}, "byte-order mark (UTF-8)"},
		{[]string{"get", "--instances", b.file("\n1101000001\n")}, ":2: want an id, its API token and"},
		{[]string{"get", "--instances", b.file(apiToken + " 1101000001\n")}, ":1: want an id, its API token and"},
		{[]string{"get", "--instances", b.file("1101000001 " + apiToken + "\n1101000001 " + otherAPI + "\n")}, ":2: instance 1101000001 is there already"},
		{[]string{"get", "--instances", b.file("1101000001 " + apiToken + " api.example.com\n")}, ":1: invalid apiUrl; want a URL"},
		{[]string{"get", "--instances", b.file("1101000001 {env.SETTINGS_TEST_EMPTY}\n")}, ":1: API token: placeholder"},
		{[]string{"get", "1101000001", "--url", "x"}, "unknown flag: --url"},
		{[]string{"set", "1101000001"}, "nothing to set; want --url, --token, --switch or --all"},
		{[]string{"set", "1101000001", "--url", "hooks.example.com"}, "invalid --url; want a URL that begins with https://"},
		{[]string{"set", "1101000001", "--url", "ftp://hooks.example.com"}, "invalid --url"},
		{[]string{"set", "1101000001", "--token", "$GREEN_API_TOKEN"}, "--token: it begins with $"},
		{[]string{"set", "1101000001", "--token", webhookTok + " and more"}, "--token: invalid token"},
		{[]string{"set", "1101000001", "--token", "{env.SETTINGS_TEST_EMPTY}"}, "--token: placeholder {env.SETTINGS_TEST_EMPTY} is not set or empty"},
		{[]string{"set", "1101000001", "--switch", "stateWebhook"}, `invalid --switch "stateWebhook"; want NAME=yes or NAME=no`},
		{[]string{"set", "1101000001", "--switch", "stateWebhook=yes,stateWebhook=no"}, "--switch stateWebhook is both yes and no"},
		{[]string{"set", "1101000001", "--all", "on"}, `invalid --all "on"; want yes or no`},
		{[]string{"set", "1101000001", "--all", "no", "--wait-timeout", "0s"}, "invalid --wait-timeout 0s"},
	} {
		stdout, stderr := b.run(2, test.args...)
		if stdout != "" || !strings.Contains(stderr, test.want) || !strings.HasSuffix(stderr, "see 'caddy green-api settings "+test.args[0]+" --help'\n") {
			t.Errorf("%q: stdout %q, stderr %q, want %q", test.args, stdout, stderr, test.want)
		}
	}
	if _, stderr, code := runCommand(t, "", "", "green-api", "settings", "get", "1101000001", "--api-url", "api.example.com"); code != 2 || !strings.Contains(stderr, "invalid --api-url") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	t.Setenv(command.APITokenVariable, "")
	if _, stderr := b.run(2, "get", "1101000001"); !strings.Contains(stderr, "no API token; want it in the variable "+command.APITokenVariable) {
		t.Error(stderr)
	}
	for _, method := range []string{"getSettings", "setSettings"} {
		if n := b.Calls(method); n != 0 {
			t.Errorf("%d calls of %s", n, method)
		}
	}
}
