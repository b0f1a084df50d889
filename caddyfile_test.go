package greenapi

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

var update = flag.Bool("update", false, "rewrite the second half of each file in testdata/caddyfile")

// goldenSeparator is between a Caddyfile and what becomes of it.
const goldenSeparator = "----------\n"

// TestCaddyfile adapts the first half of each file and compares with the second: pretty-printed
// JSON, or in error_* the whole message. What adapts must also load.
func TestCaddyfile(t *testing.T) {
	for _, name := range []string{"GREEN_API_TOKEN", "GREEN_API_OLD_TOKEN", "TOKEN_1101000001", "ALERT_TOKEN", "CONSOLE_TOKEN"} {
		t.Setenv(name, "demo-"+strings.ToLower(name)+"-of-some-length")
	}
	files, err := filepath.Glob("testdata/caddyfile/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".caddyfiletest")
		t.Run(name, func(t *testing.T) {
			golden, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			config, want, found := strings.Cut(string(golden), goldenSeparator)
			if !found {
				t.Fatalf("no line %q", strings.TrimSpace(goldenSeparator))
			}
			got := adaptGolden(t, config, strings.HasPrefix(name, "error_"))
			if *update {
				if err := os.WriteFile(file, []byte(config+goldenSeparator+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// adaptGolden returns what a Caddyfile becomes: JSON that loads, or if wantErr an error message.
func adaptGolden(t *testing.T, config string, wantErr bool) string {
	t.Helper()
	text, warnings, err := adaptFully(config)
	if wantErr {
		if err == nil {
			t.Fatalf("adapts, want an error:\n%s", text)
		}
		return err.Error() + "\n"
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, warning := range warnings {
		t.Errorf("warning: %s", warning)
	}
	if err := validate(text); err != nil {
		t.Errorf("does not load: %v", err)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, text, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return pretty.String() + "\n"
}

func adaptFully(config string) ([]byte, []caddyconfig.Warning, error) {
	return caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
}

// validate provisions a config as `caddy validate` does, without a word on the terminal. A panic is
// an error like others, so that the case is named.
func validate(text []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	var config caddy.Config
	if err := caddy.StrictUnmarshalJSON(text, &config); err != nil {
		return err
	}
	if config.Logging == nil {
		config.Logging = new(caddy.Logging)
	}
	if config.Logging.Logs == nil {
		discard := caddy.BaseLog{WriterRaw: json.RawMessage(`{"output": "discard"}`)}
		config.Logging.Logs = map[string]*caddy.CustomLog{"default": {BaseLog: discard}}
	}
	return caddy.Validate(&config)
}

// FuzzCaddyfile takes anything for the inside of a green_api block. What can be read loads, or does
// not for a reason that names green_api; and no message shows the token.
func FuzzCaddyfile(f *testing.F) {
	goldens, err := filepath.Glob("testdata/caddyfile/*.caddyfiletest")
	if err != nil {
		f.Fatal(err)
	}
	for _, golden := range goldens {
		text, err := os.ReadFile(golden)
		if err != nil {
			f.Fatal(err)
		}
		config, _, _ := strings.Cut(string(text), goldenSeparator)
		if _, inside, found := strings.Cut(config, "green_api {\n"); found && !strings.Contains(inside, "\n}\n\n") {
			if end := strings.LastIndex(strings.TrimRight(inside, "}\n\t "), "\n"); end > 0 {
				f.Add(inside[:end])
			}
		}
	}
	for _, seed := range []string{
		"auth off", "auth {\ntoken x\n}\nip_filter {\nallow 10.0.0.1\n}", "auth {\ninstance 1 {env.HOME}\n}", "auth off\nreverse_proxy h:1 {\nlb_policy green_api chat\n}",
		"auth off\nvalidate {\nmax_body_size 1MiB\ndrop a.b\nunknown_type pass\n}", "auth off\ndeliver {\ntimeout 1s\ndead_letter off\ndeduplicate 24h\n}",
		"auth off\nip_filter {\nsource static 10.0.0.0/8\nunlisted pass\nreport_only\n}", "name x\nlog_body\nauth {\ntoken \"Basic x\"\nreport_only\n}", "auth off\nvalidate {\nmax_body_size 9223372036854775807\n}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, inside string) {
		if escapes(inside) {
			return
		}
		text, err := edgetest.Adapt("http://:8080 {\ngreen_api {\n" + inside + "\n}\n}\n")
		if err != nil {
			return
		}
		// Caddy's own cannot be asked to stay off the network and the disk.
		for _, word := range []string{`"transport"`, `"dynamic_upstreams"`, `"health_checks"`, `"apps":{"tls"`, `"pki"`} {
			if bytes.Contains(text, []byte(word)) {
				return
			}
		}
		if err := validate(text); err != nil && (!strings.Contains(err.Error(), "green_api") || strings.HasPrefix(err.Error(), "panic")) {
			t.Errorf("%v\n%s", err, text)
		}
	})
}

// escapes reports whether a text leaves the block that it is put into, or reads other files.
func escapes(inside string) bool {
	if strings.Contains(inside, "import") || strings.Contains(inside, "{file.") || strings.Contains(inside, "<<") {
		return true
	}
	tokens, err := caddyfile.Tokenize([]byte(inside), "Caddyfile")
	if err != nil {
		return true
	}
	depth := 0
	for _, token := range tokens {
		switch token.Text {
		case "{":
			depth++
		case "}":
			depth--
		}
		if depth < 0 {
			return true
		}
	}
	return depth != 0
}

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
	"queue bbolt":        {"quarantine DIR\nqueue bbolt VALUE", "auth off\nqueue\nreverse_proxy 127.0.0.1:9", 8},
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
	quickAlerts(t)
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

// handlerConfig is a config with handlers of green_api on one server, written in JSON.
func handlerConfig(handlers ...string) string {
	for i, h := range handlers {
		handlers[i] = `{"handler": "green_api", ` + strings.TrimPrefix(h, "{")
	}
	return `{"apps": {"http": {"servers": {"edge": {"listen": ["127.0.0.1:8080"], "routes": [{"handle": [` +
		strings.Join(handlers, ", ") + `]}]}}}}}`
}

// loadConfig adapts a config if it is a Caddyfile, and provisions it.
func loadConfig(t *testing.T, config string) error {
	t.Helper()
	text := []byte(config)
	if !json.Valid(text) {
		var err error
		if text, err = edgetest.Adapt(config); err != nil {
			return err
		}
	}
	return validate(text)
}

// TestProvisionRefuses has configs that can be read but must not load. Each has the token in it,
// which no message may show.
func TestProvisionRefuses(t *testing.T) {
	// In the configs, TOKEN is the secret.
	auth := func(inside string) string { return "http://:8080 {\ngreen_api {\nauth {\n" + inside + "\n}\n}\n}" }
	block := func(inside string) string {
		return "http://:8080 {\ngreen_api {\nauth {\ntoken TOKEN\n}\n" + inside + "\n}\n}"
	}
	receive := func(inside string) string {
		return "http://:8080 {\ngreen_api {\nreverse_proxy 127.0.0.1:9001\n" + inside + "\n}\n}"
	}
	ipFilter := func(inside string) string { return block("ip_filter {\n" + inside + "\n}") }
	withAuth := func(fields string) string { return handlerConfig(`{"auth": {"token": ["TOKEN"]}, ` + fields + `}`) }
	loose := func(global, inside string) string {
		return "{\nservers {\n" + global + "\n}\n}\n" + block(inside)
	}
	schemas := func(files map[string]string) string {
		dir := t.TempDir()
		for name, text := range files {
			path := filepath.Join(dir, name)
			var err error
			if target, found := strings.CutPrefix(text, "-> "); found {
				err = os.Symlink(target, path)
			} else {
				err = os.WriteFile(path, []byte(text), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	t.Setenv("GREEN_API_TEST_EMPTY", "")
	t.Setenv("GREEN_API_TEST_CONTROL", edgetest.Token+"\n"+edgetest.Token)
	t.Setenv("GREEN_API_TEST_TWO_WORDS", edgetest.Token+" "+edgetest.Token)
	t.Setenv("GREEN_API_TEST_ADDRESSES", "203.0.113.7 300.1.1.1")
	emptyFile := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(emptyFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	for _, test := range []struct {
		name   string
		config string
		want   []string // parts of the message
	}{
		// auth
		{"token unset", auth("token TOKEN {env.GREEN_API_TEST_UNSET}"), []string{"auth: token 2: ", "{env.GREEN_API_TEST_UNSET} is not set or empty"}},
		{"token as nginx has it", auth("token $GREEN_API_KEY TOKEN"), []string{"auth: token 1: it begins with $, which means nothing here; want {env.NAME}"}},
		{"token of an empty variable", auth("token TOKEN {env.GREEN_API_TEST_EMPTY}"), []string{"auth: token 2: ", "{env.GREEN_API_TEST_EMPTY} is not set or empty"}},
		{"token unset beside text", auth("token TOKEN{env.GREEN_API_TEST_UNSET}TOKEN"), []string{"auth: token 1: ", "{env.GREEN_API_TEST_UNSET} is not set or empty"}},
		{"token of a missing file", auth("token TOKEN {file./nonexistent/green-api-token}"), []string{"auth: token 2: ", "{file./nonexistent/green-api-token} is not set or empty"}},
		{"token of an empty file", auth("token TOKEN {file." + emptyFile + "}"), []string{"auth: token 2: ", "{file." + emptyFile + "} is not set or empty"}},
		{"token with an unknown placeholder", auth("token TOKEN{http.request.host}"), []string{"auth: token 1: unknown placeholder; want {env.NAME}"}},
		{"token empty", auth(`token TOKEN ""`), []string{"auth: token 2: empty value"}},
		{"token of spaces", auth(`token TOKEN "  "`), []string{"auth: token 2: invalid token; want it as in the console"}},
		{"token in two arguments", auth("token Bearer TOKEN"), []string{"auth: token 1: invalid token", "scheme and token are one argument, in quotes"}},
		{"token in two arguments, Basic", auth("token basic TOKEN"), []string{"auth: token 1: invalid token"}},
		{"token with an unknown scheme", auth(`token "Digest TOKEN"`), []string{"auth: token 1: invalid token"}},
		{"token in two words", auth("token {env.GREEN_API_TEST_TWO_WORDS} TOKEN"), []string{"auth: token 1: invalid token"}},
		{"token with a scheme and two words", auth(`token "Bearer TOKEN TOKEN"`), []string{"auth: token 1: invalid token"}},
		{"token with a control character", auth("token {env.GREEN_API_TEST_CONTROL} TOKEN"), []string{"auth: token 1: invalid token", "in printable ASCII"}},
		{"token with a tab", auth("token \"Bearer\tTOKEN\""), []string{"auth: token 1: invalid token"}},
		{"token not in ASCII", auth("token TOKENä"), []string{"auth: token 1: invalid token", "in printable ASCII"}},
		{"instance's token unset", auth("instance 1101000001 TOKEN {env.GREEN_API_TEST_UNSET}"), []string{"auth: instance 1101000001: token 2: ", "{env.GREEN_API_TEST_UNSET} is not set or empty"}},
		{"token unset beside a file", auth("token TOKEN {env.GREEN_API_TEST_UNSET}\ninstances " + emptyFile), []string{"auth: token 2: placeholder {env.GREEN_API_TEST_UNSET} is not set or empty"}},
		{"instance's token unset beside a file", auth("instance 1101000001 TOKEN {env.GREEN_API_TEST_UNSET}\ninstances " + emptyFile), []string{"auth: instance 1101000001: token 2: placeholder {env.GREEN_API_TEST_UNSET}"}},
		{"file empty beside a token", auth("token TOKEN\ninstances " + emptyFile), []string{"auth: instances: " + emptyFile}},
		{"instance's token not in ASCII", auth("instance 1101000001 TOKENä"), []string{"auth: instance 1101000001: token 1: invalid token"}},
		{"instance id of letters", auth("instance whatsapp TOKEN"), []string{"instance: the id is not 1 to 20 digits"}},
		{"instance id of letters, in JSON", handlerConfig(`{"auth": {"instance": {"TOKEN": ["TOKEN"]}}}`), []string{"auth: instance: the id is not 1 to 20 digits"}},
		{"instance id too long", auth("instance 110100000111010000011 TOKEN"), []string{"instance: the id is not 1 to 20 digits"}},
		{"instance id empty", auth(`instance "" TOKEN`), []string{"instance: the id is not 1 to 20 digits"}},
		{"instance and token swapped", auth("instance TOKEN 1101000001"), []string{"instance: the id is not 1 to 20 digits"}},
		{"instance without token", handlerConfig(`{"auth": {"token": ["TOKEN"], "instance": {"1101000001": []}}}`), []string{"auth: instance 1101000001: no token"}},
		{"auth without token", "http://:8080 {\n# TOKEN\ngreen_api {\nauth\n}\n}", []string{"auth: no token; want 'token', 'instance', 'instances', or 'auth off'"}},
		{"auth missing", handlerConfig(`{"name": "TOKEN"}`), []string{"auth: required; want 'token', 'instance', or 'auth off'"}},
		{"auth off with token", "http://:8080 {\ngreen_api {\nauth off {\ntoken TOKEN\n}\n}\n}", []string{"auth: off: takes no other option beside it"}},
		{"auth off with instance", handlerConfig(`{"auth": {"off": true, "instance": {"1101000001": ["TOKEN"]}}}`), []string{"auth: off: takes no other option beside it"}},
		{"token not in a list", handlerConfig(`{"auth": {"token": "TOKEN"}}`), []string{"green_api", "token"}},

		// receive
		{"receive without proxy", "http://:8080 {\ngreen_api {\nreceive 1101000001 TOKEN\n}\n}", []string{"receive: want a reverse_proxy in the same block"}},
		{"received token unset", receive("# TOKEN\nreceive 1101000001 {env.GREEN_API_TEST_UNSET}"), []string{"receive: instance 1101000001: token: placeholder {env.GREEN_API_TEST_UNSET} is not set or empty"}},
		{"received token as nginx has it", receive("# TOKEN\nreceive 1101000001 $API_KEY"), []string{"receive: instance 1101000001: token: it begins with $"}},
		{"received token with a slash", receive("receive 1101000001 TOKEN/a"), []string{"receive: instance 1101000001: token: invalid; want apiTokenInstance as in the console"}},
		{"received twice", receive("receive 1101000001 TOKEN\nreceive 01101000001 TOKEN"), []string{"receive: instance 01101000001 is already specified; want it once"}},
		{
			"received in two blocks", receive("receive 1101000001 TOKEN\n}\ngreen_api /other* {\nname other\nreceive 1101000001 TOKEN\nreverse_proxy 127.0.0.1:9001"),
			[]string{"receive: instance 1101000001 is received in the green_api blocks", `"other"`, `"default"`},
		},
		{"api_url without scheme", receive("receive 1101000001 TOKEN {\napi_url api.green-api.com\n}"), []string{"receive: instance 1101000001: api_url: invalid; want apiUrl as in the console, such as https://api.green-api.com"}},
		{"api_url with a query", receive("receive 1101000001 TOKEN {\napi_url https://api.green-api.com?a=TOKEN\n}"), []string{"api_url: invalid"}},
		{"api_url unset", receive("receive 1101000001 TOKEN {\napi_url {env.GREEN_API_TEST_UNSET}\n}"), []string{"api_url: placeholder {env.GREEN_API_TEST_UNSET} is not set or empty"}},
		{"uri relative", receive("receive 1101000001 TOKEN {\nuri webhook\n}"), []string{`receive: instance 1101000001: uri: invalid value "webhook"; want a path`}},
		{"received id of letters, in JSON", handlerConfig(`{"receive": [{"instance": "TOKEN", "token": "TOKEN"}], "reverse_proxy": {"upstreams": [{"dial": "127.0.0.1:9001"}]}}`), []string{"receive: the id is not 1 to 20 digits"}},

		// ip_filter
		{"address invalid", ipFilter("allow 300.1.1.1"), []string{`ip_filter: allow: invalid address "300.1.1.1"; want an address such as 203.0.113.7, a CIDR such as`}},
		{"address by name", ipFilter("allow example.com"), []string{`ip_filter: allow: invalid address "example.com"`}},
		{"address range", ipFilter("allow 203.0.113.7-203.0.113.9"), []string{`ip_filter: allow: invalid address "203.0.113.7-203.0.113.9"`}},
		{"address with port", ipFilter("allow 203.0.113.7:443"), []string{`ip_filter: allow: invalid address "203.0.113.7:443"`}},
		{"address with zone", ipFilter("allow fe80::1%eth0"), []string{`ip_filter: allow: invalid address "fe80::1%eth0"`}},
		{"CIDR with zone", ipFilter("allow fe80::%eth0/10"), []string{`ip_filter: allow: invalid address "fe80::%eth0/10"`}},
		{"CIDR out of range", ipFilter("allow 203.0.113.0/33"), []string{`ip_filter: allow: invalid address "203.0.113.0/33"`}},
		{"CIDR out of range, IPv6", ipFilter("allow 2001:db8::/129"), []string{`ip_filter: allow: invalid address "2001:db8::/129"`}},
		{"address unset", ipFilter("allow 203.0.113.7 {env.GREEN_API_TEST_UNSET}"), []string{"ip_filter: allow: placeholder {env.GREEN_API_TEST_UNSET} is not set or empty"}},
		{"address of a variable", ipFilter("allow {env.GREEN_API_TEST_ADDRESSES}"), []string{`ip_filter: allow: {env.GREEN_API_TEST_ADDRESSES}: its address 2 is invalid; want an address`}},
		{"source invalid", ipFilter("source static 203.0.113.0/33"), []string{"ip_filter: source: ", "203.0.113.0/33"}},
		{"source unknown", withAuth(`"ip_filter": {"source": [{"source": "nowhere"}]}`), []string{"ip_filter: source: ", "unknown module: http.ip_sources.nowhere"}},
		{"source without name", withAuth(`"ip_filter": {"source": [{}]}`), []string{"ip_filter: source: "}},
		{"unlisted invalid", withAuth(`"ip_filter": {"unlisted": "drop"}`), []string{`ip_filter: unlisted: invalid value "drop"; want refuse or pass`}},
		{"ip_filter off with allow", block("ip_filter off {\nallow 203.0.113.7\n}"), []string{"ip_filter: off: takes no other option beside it"}},
		{"ip_filter off with source", block("ip_filter off {\nsource green_api\n}"), []string{"ip_filter: off: takes no other option beside it"}},
		{"ip_filter off with unlisted", block("ip_filter off {\nunlisted pass\n}"), []string{"ip_filter: off: takes no other option beside it"}},
		{"proxies not strict", loose("trusted_proxies static private_ranges", ""), []string{"ip_filter: ", "trusted_proxies_strict", "ip_filter off"}},
		{"proxies not strict, allow", loose("trusted_proxies static private_ranges", "ip_filter {\nallow 203.0.113.7\n}"), []string{"ip_filter: ", "trusted_proxies_strict"}},
		{"proxies not strict, unix", loose("trusted_proxies_unix", ""), []string{"ip_filter: ", "trusted_proxies_strict"}},
		{"proxies not strict, named route", "{\nservers {\ntrusted_proxies static private_ranges\n}\n}\n&(edge) {\ngreen_api {\nauth {\ntoken TOKEN\n}\n}\n}\nhttp://:8080 {\ninvoke edge\n}", []string{"ip_filter: ", "trusted_proxies_strict"}},
		{"proxies not strict, handle", "{\nservers {\ntrusted_proxies static private_ranges\n}\n}\nhttp://:8080 {\nhandle /a* {\ngreen_api {\nauth {\ntoken TOKEN\n}\n}\n}\n}", []string{"ip_filter: ", "trusted_proxies_strict"}},

		// validate
		{"accept and drop", block("validate {\naccept deviceInfo\ndrop incomingCall\n}"), []string{"validate: accept, drop: want one of them, not both"}},
		{"accept unknown type", block("validate {\naccept deviceInf\n}"), []string{`validate: accept: unknown type "deviceInf"; want TYPE or TYPE.MESSAGE`, "the types are ", "incomingMessageReceived, "}},
		{"accept unknown message", block("validate {\naccept incomingMessageReceived.textMessag\n}"), []string{`validate: accept: unknown type "incomingMessageReceived.textMessag"`}},
		{"accept message without type", block("validate {\naccept textMessage\n}"), []string{`validate: accept: unknown type "textMessage"`}},
		{"unknown_type invalid", withAuth(`"validate": {"unknown_type": "refuse"}`), []string{`validate: unknown_type: invalid value "refuse"; want quarantine, pass or drop`}},
		{"unknown_message invalid", withAuth(`"validate": {"unknown_message": "refuse"}`), []string{`validate: unknown_message: invalid value "refuse"; want quarantine, pass or drop`}},
		{"invalid invalid", withAuth(`"validate": {"invalid": "refuse"}`), []string{`validate: invalid: invalid value "refuse"; want quarantine, pass or drop`}},
		{"max_body_size negative", withAuth(`"validate": {"max_body_size": -1}`), []string{"validate: max_body_size", "want a size above 0"}},
		{"max_kept_body negative", withAuth(`"validate": {"max_kept_body": -1}`), []string{"validate: ", "max_kept_body", "want a size above 0"}},
		{"max_kept_body at the limit of integers", withAuth(`"validate": {"max_kept_body": 4000000000000000000}`), []string{"validate: max_kept_body: 4000000000000000000 bytes are too many; want at most 1GiB"}},
		{"max_body_size at the limit of integers", withAuth(`"validate": {"max_body_size": 4000000000000000000}`), []string{"validate: max_body_size: 4000000000000000000 bytes are too many"}},
		{"max_body_size over 1 GiB", block("validate {\nmax_body_size 1073741825\n}"), []string{"validate: max_body_size: 1073741825 bytes are too many"}},
		{"max_kept_body less", block("validate {\nmax_body_size 2KiB\nmax_kept_body 1KiB\n}"), []string{"validate: max_kept_body: 1024 bytes are less than the 2048 of max_body_size"}},
		{"max_kept_body less than the default", block("validate {\nmax_kept_body 1KiB\n}"), []string{"validate: max_kept_body: 1024 bytes are less than the 1048576 of max_body_size"}},
		{"schemas missing", block("validate {\nschemas /nonexistent/schemas\n}"), []string{"validate: schemas: ", "/nonexistent/schemas", "no such file or directory"}},
		{"schemas a file", block("validate {\nschemas Caddyfile.example\n}"), []string{"validate: schemas: ", "Caddyfile.example"}},
		{"schema no JSON", block("validate {\nschemas " + schemas(map[string]string{"brandNew.json": `{"type": `}) + "\n}"), []string{"validate: schemas: ", "brandNew.json: byte 9: unexpected end"}},
		{"schema invalid", block("validate {\nschemas " + schemas(map[string]string{"brandNew.json": `{"type": "text"}`}) + "\n}"), []string{"validate: schemas: ", "brandNew.json"}},
		{"schema with a $ref to nothing", block("validate {\nschemas " + schemas(map[string]string{"brandNew.json": `{"$ref": "nothing.json"}`}) + "\n}"), []string{"validate: schemas: ", "nothing.json", "not there"}},
		{"schema unreadable", block("validate {\nschemas " + schemas(map[string]string{"brandNew.json": "-> /nonexistent"}) + "\n}"), []string{"validate: schemas: ", "brandNew.json", "no such file or directory"}},
		{"schema no file", block("validate {\nschemas " + schemas(map[string]string{"brandNew.json": "-> /"}) + "\n}"), []string{"validate: schemas: ", "brandNew.json: not a regular file"}},
		{"schema with a wrong name", block("validate {\nschemas " + schemas(map[string]string{"brandNew.yaml": "{}"}) + "\n}"), []string{"validate: schemas: ", "brandNew.yaml", "want common.json, TYPE.json or messageData.MESSAGE.json"}},

		// deliver
		{"timeout as long as the sender's", block("deliver {\ntimeout 180s\n}"), []string{"deliver: timeout: 3m0s is out of range; want more than 0s and less than 3m0s"}},
		{"timeout negative", withAuth(`"deliver": {"timeout": -1}`), []string{"deliver: timeout: ", "is out of range"}},
		{"attempt_timeout longer than timeout", block("deliver {\ntimeout 30s\nattempt_timeout 31s\n}"), []string{"deliver: attempt_timeout: 31s is out of range; want more than 0s and at most the timeout of 30s"}},
		{"attempt_timeout longer than the default timeout", block("deliver {\nattempt_timeout 171s\n}"), []string{"deliver: attempt_timeout: 2m51s is out of range", "2m50s"}},
		{"second_opinion negative", withAuth(`"deliver": {"second_opinion": -1}`), []string{"deliver: second_opinion: -1 is out of range"}},
		{"dead_letter 0", withAuth(`"deliver": {"dead_letter": 0}`), []string{"dead_letter: invalid value 0; want a number of failures above 0, or off"}},
		{"dead_letter negative", withAuth(`"deliver": {"dead_letter": -1}`), []string{"dead_letter: invalid value -1"}},
		{"dead_letter_after negative", withAuth(`"deliver": {"dead_letter_after": "-1h"}`), []string{`dead_letter_after: invalid value "-1h"; want a duration above 0s, such as "1h", or off`}},
		{"queue without reverse_proxy", withAuth(`"queue": {}`), []string{"queue: want a reverse_proxy in the same block, which delivers what is in the queue"}},
		{"queue key", withAuth(`"queue": {"key": "sender"}, "reverse_proxy": {"upstreams": [{"dial": "127.0.0.1:9"}]}`), []string{`queue: key: invalid value "sender"; want instance or chat`}},
		{"queue in_flight", withAuth(`"queue": {"in_flight": -1}, "reverse_proxy": {"upstreams": [{"dial": "127.0.0.1:9"}]}`), []string{"queue: in_flight: -1 is out of range; want a number above 0"}},
		{"queue max_per_instance", withAuth(`"queue": {"max_per_instance": -1}, "reverse_proxy": {"upstreams": [{"dial": "127.0.0.1:9"}]}`), []string{"queue: max_per_instance: -1 is out of range; want a number above 0"}},
		{"queue retry", withAuth(`"queue": {"retry": ["1s", "2h"]}, "reverse_proxy": {"upstreams": [{"dial": "127.0.0.1:9"}]}`), []string{"queue: retry: 2h0m0s is out of range; want pauses above 0s and at most 1h"}},
		{"queue max_age", withAuth(`"queue": {"max_age": "-1h"}`), []string{`max_age: invalid value "-1h"; want a duration above 0s, such as "1h", or off`}},
		{"queue put_timeout", withAuth(`"queue": {"put_timeout": "3m"}, "reverse_proxy": {"upstreams": [{"dial": "127.0.0.1:9"}]}`), []string{"queue: put_timeout: 3m0s is out of range; want more than 0s and less than 2m50s"}},
		{"queue and timeout", withAuth(`"queue": {}, "deliver": {"timeout": "-1s"}, "reverse_proxy": {"upstreams": [{"dial": "127.0.0.1:9"}]}`), []string{"deliver: timeout: -1s is out of range; want more than 0s"}},
		{"queue and attempt_timeout", withAuth(`"queue": {}, "deliver": {"attempt_timeout": "31m"}, "reverse_proxy": {"upstreams": [{"dial": "127.0.0.1:9"}]}`), []string{"deliver: attempt_timeout: 31m0s is out of range; want at most 30m0s"}},
		{"dead_letter_after no duration", withAuth(`"deliver": {"dead_letter_after": "soon"}`), []string{`dead_letter_after: invalid value "soon"`}},
		{"dead_letter no number", withAuth(`"deliver": {"dead_letter": "never"}`), []string{`dead_letter: invalid value "never"`}},
		{"deduplicate negative", withAuth(`"deliver": {"deduplicate": -1}`), []string{"deliver: deduplicate: ", "is out of range"}},
		{"attempt_timeout negative", withAuth(`"deliver": {"attempt_timeout": -1}`), []string{"deliver: attempt_timeout: ", "is out of range"}},

		// reverse_proxy
		{"weights", withAuth(`"reverse_proxy": {"upstreams": [{"dial": "127.0.0.1:1"}, {"dial": "127.0.0.1:2"}], "load_balancing": {"selection_policy": {"policy": "weighted_round_robin", "weights": [3]}}}`), []string{"1 weights for 2 upstreams; want one for each"}},
		{"no upstream", withAuth(`"reverse_proxy": {}`), []string{"reverse_proxy: no upstream; want one or more"}},
		{"lb_retries", withAuth(`"reverse_proxy": {"load_balancing": {"retries": 1}}`), []string{"reverse_proxy: lb_retries", "do not go with green_api"}},
		{"lb_try_duration", withAuth(`"reverse_proxy": {"load_balancing": {"try_duration": "5s"}}`), []string{"reverse_proxy: ", "lb_try_duration", "do not go with green_api"}},
		{"lb_try_interval", withAuth(`"reverse_proxy": {"load_balancing": {"try_interval": "1s"}}`), []string{"reverse_proxy: ", "do not go with green_api"}},
		{"lb_retry_match", withAuth(`"reverse_proxy": {"load_balancing": {"retry_match": [{"method": ["POST"]}]}}`), []string{"reverse_proxy: ", "lb_retry_match", "do not go with green_api"}},
		{"lb_policy green_api invalid", withAuth(`"reverse_proxy": {"load_balancing": {"selection_policy": {"policy": "green_api", "by": "sender"}}}`), []string{"reverse_proxy: ", `lb_policy green_api: invalid value "sender"; want instance, chat or nothing`}},
		{"lb_policy unknown", withAuth(`"reverse_proxy": {"load_balancing": {"selection_policy": {"policy": "nothing"}}}`), []string{"reverse_proxy: ", "unknown module: http.reverse_proxy.selection_policies.nothing"}},
		{"transport unknown", withAuth(`"reverse_proxy": {"transport": {"protocol": "pigeon"}}`), []string{"reverse_proxy: ", "unknown module: http.reverse_proxy.transport.pigeon"}},
		{"transport with an unknown field", withAuth(`"reverse_proxy": {"transport": {"protocol": "http", "dial_time": 1}}`), []string{"reverse_proxy: ", `unknown field "dial_time"`}},
		{"transport null", withAuth(`"reverse_proxy": {"transport": null}`), []string{"reverse_proxy: "}},
		{"transport no object", withAuth(`"reverse_proxy": {"transport": "http"}`), []string{"reverse_proxy: transport: "}},

		// the whole
		{"two blocks with one name", "http://:8080 {\ngreen_api /a {\nauth {\ntoken TOKEN\n}\n}\ngreen_api /b {\nauth off\n}\n}", []string{`name: "default" is the name of two green_api blocks that differ; give one of them another 'name'`}},
		{"two blocks with one name, on two ports", "http://:8080 {\ngreen_api {\nname a\nauth {\ntoken TOKEN\n}\n}\n}\nhttp://:8081 {\ngreen_api {\nname a\nauth off\n}\n}", []string{`name: "a" is the name of two green_api blocks that differ`}},
		{"a name and the default", "http://:8080 {\ngreen_api /a {\nauth {\ntoken TOKEN\n}\n}\ngreen_api /b {\nname default\nauth off\n}\n}", []string{`name: "default" is the name of two green_api blocks that differ`}},
		{"unknown field", withAuth(`"validation": {}`), []string{`unknown field "validation"`}},
		{"unknown field of a gate", withAuth(`"ip_filter": {"deny": []}`), []string{`unknown field "deny"`}},
		{"unknown field of reverse_proxy", withAuth(`"reverse_proxy": {"upstream": []}`), []string{`unknown field "upstream"`}},
		{"quarantine unset", "{\ngreen_api {\nquarantine {env.GREEN_API_TEST_UNSET}/TOKEN\n}\n}\n" + block(""), []string{"green_api", "quarantine: placeholder {env.GREEN_API_TEST_UNSET} is not set or empty"}},
		{"max_size negative", `{"apps": {"green_api": {"quarantine": {"path": "/TOKEN", "max_size": -1}}}}`, []string{"quarantine: max_size: invalid value -1; want a size above 0"}},
		{"unknown field of the app", `{"apps": {"green_api": {"quarantine": {"path": "/TOKEN", "max_entries": 1}}}}`, []string{`unknown field "max_entries"`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := strings.ReplaceAll(test.config, "TOKEN", edgetest.Token)
			if !strings.Contains(config, edgetest.Token) {
				t.Fatal("the config has no secret in it")
			}
			err := loadConfig(t, config)
			if err == nil {
				t.Fatal("loads")
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("message lacks %q:\n%v", part, err)
				}
			}
			if strings.HasPrefix(err.Error(), "panic") {
				t.Error(err)
			}
			if strings.Contains(err.Error(), edgetest.Token) {
				t.Errorf("message shows the token:\n%v", err)
			}
		})
	}
}

// TestProvisionLoads has what is near to a mistake and none.
func TestProvisionLoads(t *testing.T) {
	t.Setenv("GREEN_API_TEST_TOKEN", edgetest.Token)
	t.Setenv("GREEN_API_TEST_ADDRESSES", "203.0.113.7 2001:db8::/32\nprivate_ranges green_api")
	tokenFile := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(tokenFile, []byte("Bearer "+edgetest.Token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	block := func(inside string) string { return "green_api {\nauth {\ntoken demo-token\n}\n" + inside + "\n}\n" }
	site := func(global, inside string) string {
		return "{\n" + global + "\n}\nhttp://:8080 {\n" + inside + "}\n"
	}
	auth := func(inside string) string { return site("", "green_api {\nauth {\n"+inside+"\n}\n}\n") }
	for _, test := range []struct{ name, config string }{
		{"token of a variable", auth("token {env.GREEN_API_TEST_TOKEN}")},
		{"token of a file", auth("token {file." + tokenFile + "}")},
		{"token with scheme", auth(`token "Bearer {env.GREEN_API_TEST_TOKEN}" "basic ZGVtbzpkZW1v" bearertoken`)},
		{"instances only", auth("instance 1101000001 demo-token\ninstance 1101000002 demo-token")},
		{"addresses of a variable", site("", block("ip_filter {\nallow {env.GREEN_API_TEST_ADDRESSES}\n}"))},
		{"addresses", site("", block("ip_filter {\nallow 203.0.113.7 ::ffff:203.0.113.7 ::1 0.0.0.0/0 ::/0 203.0.113.7/32\n}"))},
		{"drop of an unknown type", site("", block("validate {\ndrop brandNew\n}"))},
		{"accept of a type with a schema of its own", site("", block("validate {\nschemas testdata/caddyfile/schemas\naccept demoEvent\n}"))},
		{"max_body_size and max_kept_body of 1 GiB", site("", block("validate {\nmax_body_size 1GiB\nmax_kept_body 1GiB\n}"))},
		{"max_body_size above the default of max_kept_body", site("", block("validate {\nmax_body_size 32MiB\n}"))},
		{"timeout just below the sender's", site("", block("deliver {\ntimeout 179s\nattempt_timeout 179s\n}"))},
		{"timeout below the default of attempt_timeout", site("", block("deliver {\ntimeout 5s\n}"))},
		{"proxies strict", site("servers {\ntrusted_proxies static private_ranges\ntrusted_proxies_strict\n}", block(""))},
		{"proxies strict, unix", site("servers {\ntrusted_proxies_unix\ntrusted_proxies_strict\n}", block(""))},
		{"proxies not strict, ip_filter off", site("servers {\ntrusted_proxies static private_ranges\n}", block("ip_filter off"))},
		{"proxies not strict on another server", "{\nservers :8081 {\ntrusted_proxies static private_ranges\n}\n}\nhttp://:8080 {\n" + block("") + "}\nhttp://:8081 {\nrespond 404\n}\n"},
		{"one block on two ports", "http://:8080, http://:8081 {\n" + block("") + "}\n"},
		{"one block twice", site("", "handle /a {\n"+block("")+"}\nhandle /b {\n"+block("")+"}\n")},
		{"two blocks with two names", site("", "handle /a {\n"+block("")+"}\nhandle /b {\n"+block("name b\nip_filter off")+"}\n")},
		{"gates of JSON", handlerConfig(`{"auth": {"off": true}, "ip_filter": {"off": true}}`)},
		{"quarantine of a variable", site("green_api {\nquarantine /tmp/{env.GREEN_API_TEST_TOKEN}\n}", block(""))},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := loadConfig(t, test.config); err != nil {
				t.Error(err)
			}
		})
	}
}
