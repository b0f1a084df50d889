package greenapi

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

const marker = "s3cr3t-marker"

// resolvedOptions is every option that resolves placeholders, and those that may seem to.
var resolvedOptions = map[string]struct {
	global, block string
	loads         int // how many of the values
}{
	"auth token":         {"", "auth {\ntoken VALUE\n}", 8},
	"auth instance":      {"", "auth {\ninstance 1101000001 VALUE\n}", 8},
	"auth instances":     {"", "auth {\ninstances VALUE\n}", 0},
	"path in instances":  {"", "auth {\ninstances LISTED\n}", 8},
	"ip_filter allow":    {"", "ip_filter {\nallow VALUE\n}\nauth off", 0},
	"allow, one of many": {"", "ip_filter {\nallow green_api \"203.0.113.7 VALUE\"\n}\nauth off", 0},
	"green_api_file":     {"", "ip_filter {\nsource green_api_file VALUE\n}\nauth off", 0},
	"receive token":      {"", "receive 1101000001 VALUE\nreverse_proxy 127.0.0.1:9", 3},
	"receive api_url":    {"", "receive 1101000001 x {\napi_url VALUE\n}\nreverse_proxy 127.0.0.1:9", 1},
	"receive uri":        {"", "receive 1101000001 x {\napi_url http://127.0.0.1:9\nuri VALUE\n}\nreverse_proxy 127.0.0.1:9", 0},
	"validate schemas":   {"", "validate {\nschemas VALUE\n}\nauth off", 0},
	"validate drop":      {"", "validate {\ndrop VALUE\n}\nauth off", 10},
	"quarantine":         {"quarantine VALUE", "auth off", 8},
	"below quarantine":   {"quarantine VALUE/below", "auth off", 8},
	"alert":              {"quarantine DIR\nalert VALUE", "auth off", 2},
	"alert header":       {"quarantine DIR\nalert http://127.0.0.1:9 {\nheader Authorization VALUE\n}", "auth off", 8},
	"alert content type": {"quarantine DIR\nalert http://127.0.0.1:9 {\nheader Content-Type VALUE\n}", "auth off", 8},
	"alert body":         {"quarantine DIR\nalert http://127.0.0.1:9 {\nbody `VALUE`\n}", "auth off", 0},
}

// TestSecretsOfOptions gives each option a placeholder for a value that it cannot use, and looks for
// the value in the error and in the log.
func TestSecretsOfOptions(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir) // some values are paths
	if err := os.WriteFile(filepath.Join(dir, "a-file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	values := map[string]string{
		"a word":            marker,
		"a file's content":  "1101000001 " + marker + "\n1101000002 " + marker + "\n",
		"a path":            filepath.Join(dir, marker, "none"),
		"a path in a file":  filepath.Join(dir, "a-file", marker, "none"),
		"a URL":             "http://user:" + marker + "@" + marker + ".invalid:9/" + marker + "?" + marker,
		"a URL to nowhere":  "http://" + marker + ".invalid:9/" + marker,
		"no URL":            "http://[" + marker + "/%zz",
		"control character": marker + "\x00\x7f",
		"braces":            "{" + marker + "}",
		"a dollar":          "$" + strings.ReplaceAll(marker, "-", "_"),
	}
	found := regexp.MustCompile(`(?i)s3cr3t.marker`)
	for option, config := range resolvedOptions {
		t.Run(option, func(t *testing.T) {
			loaded := 0
			for name, value := range values {
				said := filepath.Join(dir, "value")
				if err := os.WriteFile(said, []byte(value), 0o600); err != nil {
					t.Fatal(err)
				}
				said = "{file." + said + "}"
				if name != "control character" && name != "a file's content" {
					t.Setenv("GREEN_API_TEST_OPTION", value)
					said = "{env.GREEN_API_TEST_OPTION}"
				}
				listed := filepath.Join(dir, "listed")
				if err := os.WriteFile(listed, []byte("1101000001 "+said+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				config := strings.Replace(edgetest.Site(config.block), "quarantine DIR", "\n"+config.global+"\n", 1)
				config = strings.NewReplacer("VALUE", said, "LISTED", listed).Replace(config)
				e := &edgetest.Edge{T: t, Port: edgetest.FreePort(t), Dir: filepath.Join(dir, "quarantine"), Logs: edgetest.NewLogBuffer()}
				err := e.Load(config)
				if err == nil {
					loaded++
				} else if found.MatchString(err.Error()) {
					t.Errorf("%s: the error has it: %v", name, err)
				}
				if logs := e.Logs.All(); found.MatchString(logs) {
					t.Errorf("%s: the log has it: %s", name, logs)
				}
			}
			if err := caddy.Stop(); err != nil {
				t.Error(err)
			}
			if want := resolvedOptions[option].loads; loaded != want {
				t.Errorf("%d values load, want %d", loaded, want)
			}
		})
	}
}

// TestSecretsOfNetwork: neither an alert that cannot be sent nor an API that cannot be reached shows
// where a placeholder leads to.
func TestSecretsOfNetwork(t *testing.T) {
	t.Setenv("GREEN_API_TEST_URL", "http://user:"+marker+"@"+marker+".invalid:9/"+marker+"?"+marker)
	t.Setenv("GREEN_API_TEST_API", "http://"+marker+".invalid:9/"+marker)
	t.Setenv("GREEN_API_TEST_HOST", marker+".invalid:9")
	config := edgetest.Site(edgetest.Loopback + "receive 1101000001 x {\napi_url {env.GREEN_API_TEST_API}\n}\nreverse_proxy 127.0.0.1:9")
	config = strings.Replace(config, "quarantine DIR", "quarantine DIR\nalert {env.GREEN_API_TEST_URL}\nalert http://{env.GREEN_API_TEST_HOST}/x {\nevery 1s\n}\n", 1)
	e := edgetest.Start(t, config)
	e.Post(edgetest.TextMessage, "Authorization", "wrong")
	for _, said := range []string{
		`"msg":"alert could not be sent","endpoint":"{env.GREEN_API_TEST_URL}"`, `"msg":"alert could not be sent","endpoint":"{env.GREEN_API_TEST_HOST}"`,
		`"api_url":"{env.GREEN_API_TEST_API}"`,
	} {
		edgetest.Eventually(t, said, func() bool { return strings.Contains(e.Logs.All(), said) })
	}
	if logs := e.Logs.All(); strings.Contains(logs, marker) {
		t.Errorf("the log has it: %s", logs)
	}
}

func TestHostOf(t *testing.T) {
	for said, want := range map[string]string{
		"https://alerts.example.com/secret":        "alerts.example.com",
		"https://user:secret@alerts.example.com/x": "alerts.example.com",
		"https://alerts.example.com:8443?secret":   "alerts.example.com:8443",
		"{env.ALERT_URL}":                          "{env.ALERT_URL}",
		"{file./etc/alert}/x":                      "{file./etc/alert}",
		"https://{env.USER}@{env.HOST}:1/{env.X}":  "{env.HOST}:1",
		"https://": "",
	} {
		if got := hostOf(said); got != want {
			t.Errorf("%s: %q, want %q", said, got, want)
		}
	}
}

func TestSlipOf(t *testing.T) {
	for name, want := range map[string]bool{
		"tokn": true, "tokens": true, "oken": true, "tokem": true, "taken": true, "token": true,
		"toke_s": false, "secretg": false, "tkoen": false, "": false, "to": false, "tokenabc": false, "nekot": false,
	} {
		if got := slipOf("token", name); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestSecretsOfSlips: a token in the place of something else is not shown by the error.
func TestSecretsOfSlips(t *testing.T) {
	for _, block := range []string{
		"auth {\nsecretg\n}", "auth {\nSECRETg\n}", "auth {\ntoken {\nsecretg\n}\n}", "auth {\ninstances {\nsecretg\n}\n}", "auth {\ninstances secretg\n}",
		"auth {\ninstance 1101000001\nsecretg\n}", "auth {\ninstance secretg x\n}", "auth {\nreport_only secretg\n}", "auth secretg",
		"auth {\ntoken x {\nsecretg\n}\n}", "receive secretg 1101000001", "receive 1101000001 x {\nsecretg\n}", "receive 1101000001 x secretg",
		"receive 1101000001 x secretg {\nuri /\n}", "auth {\ntoken secretg{x}\n}", "auth {\ntoken {secretg}\n}", "auth {\ntoken $secretg\n}",
	} {
		err := loadConfig(t, strings.ReplaceAll(edgetest.Site(block+"\nreverse_proxy 127.0.0.1:9"), "PORT", "8080"))
		if err == nil || strings.Contains(strings.ToLower(err.Error()), "secretg") {
			t.Errorf("%q: %v", block, err)
		}
	}
	for _, global := range []string{"alert http://127.0.0.1:9 {\nsecretg\n}", "alert http://127.0.0.1:9 secretg", "alert secretg", "alert secretg://x"} {
		err := loadConfig(t, strings.NewReplacer("PORT", "8080", "quarantine DIR", global).Replace(edgetest.Site("auth off")))
		if err == nil || strings.Contains(strings.ToLower(err.Error()), "secretg") {
			t.Errorf("%q: %v", global, err)
		}
	}
}
