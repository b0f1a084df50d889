package greenapi

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/doctor"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// probe is an app that hands what is found in its config to a test.
type probe struct{}

// probed is called with what a probe finds.
var probed func([]doctor.Finding)

func init() {
	caddy.RegisterModule(probe{})
	caddy.RegisterModule(answerer{})
	httpcaddyfile.RegisterHandlerDirective("test_answer", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) { return new(answerer), nil })
}

func (probe) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "green_api_test_probe", New: func() caddy.Module { return new(probe) }}
}

func (probe) Provision(ctx caddy.Context) error {
	if _, err := ctx.App("http"); err != nil { // the blocks first
		return err
	}
	app, err := ctx.App("green_api")
	if err != nil {
		return err
	}
	probed(app.(*App).findings())
	return nil
}

func (probe) Start() error { return nil }

func (probe) Stop() error { return nil }

// findingsOf returns what is found in a Caddyfile, each as the log has it. The config is provisioned, but not started.
func findingsOf(t *testing.T, config string) (found []string) {
	t.Helper()
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg"})
	probed = func(findings []doctor.Finding) {
		for _, f := range findings {
			line, err := encoder.EncodeEntry(zapcore.Entry{Message: f.Message}, f.Fields)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, line.String())
		}
	}
	config = strings.NewReplacer("PORT", "8080", "DIR", filepath.Join(t.TempDir(), "quarantine"), "TOKEN", edgetest.Token).Replace(config)
	text, err := edgetest.Adapt(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(bytes.Replace(text, []byte(`"apps":{`), []byte(`"apps":{"green_api_test_probe":{},`), 1)); err != nil {
		t.Fatal(err)
	}
	return found
}

// TestDeployFindsNothing: the doctor finds nothing in the configs that deploy has for production.
func TestDeployFindsNothing(t *testing.T) {
	credentials := t.TempDir()
	writeFile(t, filepath.Join(credentials, "token"), strings.Repeat("0123456789", 4))
	directory := regexp.MustCompile(`\{\$CREDENTIALS_DIRECTORY:[^}]*\}`)
	for _, file := range []string{"deploy/Caddyfile", "deploy/docker/Caddyfile", "deploy/kubernetes/Caddyfile"} {
		config, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if found := findingsOf(t, strings.Replace(directory.ReplaceAllString(string(config), credentials), "/run/tls/tls.crt /run/tls/tls.key", "internal", 1)); len(found) > 0 {
			t.Errorf("%s: %q", file, found)
		}
	}
	open := "http:// {\n\tgreen_api {\n\t\tauth off\n\t\tip_filter off\n\t}\n}\n"
	if len(findingsOf(t, open)) == 0 {
		t.Error("it finds nothing at all")
	}
}

// containing returns the findings that have the text in them.
func containing(text string, found []string) (those []string) {
	for _, one := range found {
		if strings.Contains(one, text) {
			those = append(those, one)
		}
	}
	return those
}

// TestFindings: what is found in a config is logged as WARN when the config has started, and shows no secret.
func TestFindings(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no bits for others")
	}
	dir := t.TempDir()
	t.Setenv("GREEN_API_TEST_FOLDER", dir)
	instances, kept := filepath.Join(dir, "instances"), filepath.Join(dir, "quarantine")
	writeFile(t, instances, "1101000001 "+edgetest.Token+"\n")
	config := edgetest.SiteWith("", "green_api /hook {\nname one\nip_filter off\nauth off\n}\n"+
		"green_api /other* {\nname other\nauth {\ninstances {env.GREEN_API_TEST_FOLDER}/instances\n}\n}\n")
	config = strings.NewReplacer("bind 127.0.0.1", "bind 0.0.0.0", "quarantine DIR", "quarantine "+kept).Replace(config)
	e := edgetest.Start(t, config)
	for _, want := range []string{
		`"msg":"requests that no route matches are answered 200 by Caddy, and a notification among them is lost","listen":["0.0.0.0:PORT"],"fix":"end each site`,
		`"msg":"a block takes one exact path, and GREEN-API's URL may end in a slash or not: the other form does not reach it","name":"one",` +
			`"path":"/hook","missing":"/hook/","fix":"match with a final *, such as /hook*"`,
		`"msg":"anyone can send notifications, neither address nor token keeps them out","name":"one","listen":["0.0.0.0:PORT"]`,
	} {
		wantWarning(t, e, want)
	}
	const byOthers = "file can be used by others, and has secrets or messages in it"
	if strings.Contains(e.Logs.All(), byOthers) {
		t.Error("warns of files as they are made")
	}
	modes := map[string]os.FileMode{kept: 0o755, filepath.Join(kept, quarantine.FileName): 0o644, instances: 0o604}
	for path, mode := range modes {
		if err := os.Chmod(path, mode); err != nil { // the umask does not count
			t.Fatal(err)
		}
	}
	if err := e.Load(config); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"file":"` + kept + `","mode":"drwxr-xr-x","fix":"chmod go= ` + kept + `"`,
		`"file":"` + filepath.Join(kept, quarantine.FileName) + `","mode":"-rw-r--r--"`,
		`"file":"{env.GREEN_API_TEST_FOLDER}/instances","mode":"-rw----r--","fix":"chmod go= {env.GREEN_API_TEST_FOLDER}/instances"`,
	} {
		wantWarning(t, e, `"msg":"`+byOthers+`",`+want)
	}
	if logs := e.Logs.All(); strings.Contains(logs, instances) || strings.Contains(logs, edgetest.Token) {
		t.Error("the log shows what a placeholder stands for, or a token")
	}
}

// wantWarning fails the test unless the app has warned once with that text.
func wantWarning(t *testing.T, e *edgetest.Edge, text string) {
	t.Helper()
	n := 0
	for line := range strings.Lines(e.Logs.All()) {
		if strings.Contains(line, `"level":"warn"`) && strings.Contains(line, `"logger":"green_api"`) && strings.Contains(line, strings.ReplaceAll(text, "PORT", e.Port)) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d warnings, want one: %s\n%s", n, text, e.Logs.All())
	}
}

// TestExposedDoors has blocks that let anyone in. Those that anyone can reach are found.
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
			found := findingsOf(t, strings.Replace(edgetest.Site(test.block), "bind 127.0.0.1", "bind "+bind, 1))
			if got := len(containing("anyone can send notifications", found)); got > 1 || got == 1 != test.warns {
				t.Errorf("found %q", found)
			}
		})
	}
}

// TestEmpty200 has sites of which some answer 200 to what no route matches, and one is found.
func TestEmpty200(t *testing.T) {
	block := "green_api /green-api/webhook* {\n" + edgetest.Loopback + "}\n"
	for _, test := range []struct {
		name  string
		sites string
		warns bool
	}{
		{"respond 404", "http://:PORT {\n" + block + "respond 404\n}\n", false},
		{"nothing at the end", "http://:PORT {\n" + block + "}\n", true},
		{"a header at the end", "http://:PORT {\n" + block + "header X-Edge yes\n}\n", true},
		{"no matcher", "http://:PORT {\ngreen_api {\n" + edgetest.Loopback + "}\n}\n", false},
		{"a host", "http://hooks.test:PORT {\n" + block + "respond 404\n}\n", true},
		{"a host, and all others", "http://hooks.test:PORT {\n" + block + "respond 404\n}\nhttp://:PORT {\nrespond 404\n}\n", false},
		{"an address that is a host name", "http://127.0.0.1:PORT {\n" + block + "respond 404\n}\n", true},
		{"handle blocks", "http://:PORT {\nhandle /green-api/* {\n" + block + "}\nhandle {\nerror 404\n}\n}\n", true},
		{"handle blocks, with an answer in each", "http://:PORT {\nhandle /green-api/* {\n" + block + "error 404\n}\nhandle {\nerror 404\n}\n}\n", false},
		{"all others, but not another path", "http://hooks.test:PORT {\n" + block + "}\nhttp://:PORT {\nrespond 404\n}\n", true},
		{"a wildcard", "http://*.hooks.test:PORT {\n" + block + "}\nhttp://:PORT {\nrespond 404\n}\n", true},
		{"a site of others", "http://hooks.test:PORT {\n" + block + "respond 404\n}\nhttp://www.test:PORT {\nrespond hello\n}\nhttp://:PORT {\nrespond 404\n}\n", false},
		{"a path of others", "http://:PORT {\n" + block + "respond /healthz 200\nrespond 404\n}\n", false},
		{"a path inside", "http://:PORT {\nhandle /in/* {\ngreen_api /in/hook* {\n" + edgetest.Loopback + "}\n}\nhandle {\nrespond 404\n}\n}\n", true},
		{"a path inside, answered", "http://:PORT {\nhandle /in/* {\ngreen_api /in/hook* {\n" + edgetest.Loopback + "}\nrespond 404\n}\nhandle {\nrespond 404\n}\n}\n", false},
		{"a host inside", "http://*.hooks.test:PORT {\n@a host x.hooks.test\nhandle @a {\n" + block + "}\nhandle {\nrespond 404\n}\n}\nhttp://:PORT {\nrespond 404\n}\n", true},
		{"a named route", "&(hooks) {\n" + block + "}\nhttp://hooks.test:PORT {\ninvoke hooks\n}\nhttp://:PORT {\nrespond 404\n}\n", true},
		{"a login", "http://hooks.test:PORT {\nbasic_auth {\nbob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}\n" + block + "}\nhttp://:PORT {\nrespond 404\n}\n", false},
		{"a handler of others", "http://hooks.test:PORT {\nroute {\n" + block + "test_answer\n}\n}\nhttp://:PORT {\nrespond 404\n}\n", false},
		{"a matcher of the local address", "http://:PORT {\n@p vars {http.request.local.port} 1\nrespond @p 404\nrewrite * /{http.request.local.port}{uri}\n" + block + "respond 404\n}\n", false},
		{"nginx's semicolon", "http://:PORT {\n" + block + "respond 404;\n}\n", true},
		{"an answer 200", "http://:PORT {\n" + block + "respond hello 200\n}\n", true},
		{"an answer 204 for all others", "http://hooks.test:PORT {\n" + block + "respond 404\n}\nhttp://:PORT {\nrespond 204\n}\n", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			head, _, _ := strings.Cut(edgetest.Site(""), "http://:PORT {")
			found := findingsOf(t, "{\norder test_answer before respond\n"+strings.TrimPrefix(head, "{\n")+test.sites)
			if got := len(containing("and a notification among them is lost", found)) > 0; got != test.warns {
				t.Errorf("found %q", found)
			}
			// What is found is what Caddy does.
			e := edgetest.Start(t, "{\norder test_answer before respond\n"+strings.TrimPrefix(head, "{\n")+test.sites)
			lost := false
			for _, host := range []string{"hooks.test", "x.hooks.test", "other.test"} {
				for _, path := range []string{"/wrong", "/green-api/wrong", "/in/wrong"} {
					lost = lost || e.Send(http.MethodPost, "http://127.0.0.1:"+e.Port+path, strings.NewReader(edgetest.TextMessage), "Host", host).StatusCode/100 == 2
				}
			}
			if lost != test.warns {
				t.Errorf("a notification is lost: %t", lost)
			}
		})
	}
}

// fixLines are the lines that a fix quotes.
var fixLines = regexp.MustCompile(`'([^']*)'`)

// answerer is another module's handler, which answers everything.
type answerer struct{}

func (answerer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_answer", New: func() caddy.Module { return new(answerer) }}
}

func (answerer) ServeHTTP(w http.ResponseWriter, _ *http.Request, _ caddyhttp.Handler) error {
	w.WriteHeader(http.StatusTeapot)
	return nil
}

// TestEmpty200Fix: the site that the finding asks for can be loaded as it stands, and then nothing is found.
func TestEmpty200Fix(t *testing.T) {
	for name, site := range map[string]string{
		"a port":            "http://hooks.test:PORT {\n",
		"a port of a host":  "http://hooks.test:PORT {\nbind 127.0.0.1\n",
		"a port of several": "http://hooks.test:PORT {\nbind 127.0.0.1 [::1]\n",
	} {
		t.Run(name, func(t *testing.T) {
			head, _, _ := strings.Cut(edgetest.Site(""), "http://:PORT {")
			config := head + site + "green_api /green-api/webhook* {\n" + edgetest.Loopback + "}\nrespond 404\n}\n"
			found := containing("requests that no route matches", findingsOf(t, config))
			var record struct{ Fix string }
			if err := json.Unmarshal([]byte(found[0]), &record); err != nil {
				t.Fatal(err)
			}
			var lines []string
			for _, quoted := range fixLines.FindAllStringSubmatch(record.Fix, -1) {
				lines = append(lines, quoted[1])
			}
			if len(lines) < 4 || lines[0] != "respond 404" || lines[1] != "http://:8080 {" {
				t.Fatalf("fix %q", record.Fix)
			}
			if found := containing("requests that no route matches", findingsOf(t, config+strings.Join(lines[1:], "\n")+"\n")); found != nil {
				t.Errorf("still found with %q: %q", lines, found)
			}
		})
	}
}

// TestExactPath has sites of which some take one form of GREEN-API's URL only, and one is found.
func TestExactPath(t *testing.T) {
	const gate = "{\n" + edgetest.Loopback + "}\n"
	for _, test := range []struct {
		name, body string
		warns      string // the path; "" for none
	}{
		{"without a slash", "green_api /green-api/webhook " + gate, "/green-api/webhook"},
		{"with a slash", "green_api /green-api/webhook/ " + gate, "/green-api/webhook/"},
		{"upper case", "green_api /Hook " + gate, "/hook"},
		{"a final *", "green_api /green-api/webhook* " + gate, ""},
		{"no matcher", "green_api " + gate, ""},
		{"the root", "green_api / " + gate, ""},
		{"both", "@hook path /hook /hook/\ngreen_api @hook " + gate, ""},
		{"one and a folder", "@hook path /hook /hook/*\ngreen_api @hook " + gate, ""},
		{"one and others", "@hook path /hook /other*\ngreen_api @hook " + gate, "/hook"},
		{"one of a method", "@hook {\nmethod POST\npath /hook\n}\ngreen_api @hook " + gate, "/hook"},
		{"one that differs inside", "@hook path /hook /h*k/\ngreen_api @hook " + gate, ""},
		{"none that is a path", "@hook method POST\ngreen_api @hook " + gate, ""},
		{"handle", "handle /hook {\ngreen_api " + gate + "}\n", "/hook"},
		{"handle_path", "handle_path /hook {\ngreen_api " + gate + "}\n", "/hook"},
		{"handle with a *", "handle /hook* {\ngreen_api " + gate + "}\n", ""},
		{"exact inside a *", "handle /a/* {\ngreen_api /a/hook " + gate + "}\n", "/a/hook"},
		{"route", "route /hook {\ngreen_api " + gate + "}\n", "/hook"},
		{"the other is rewritten", "rewrite /hook/ /hook\ngreen_api /hook " + gate, ""},
		{"another handler's path", "respond /health 200\ngreen_api /hook* " + gate, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			head, _, _ := strings.Cut(edgetest.Site(""), "http://:PORT {")
			found := containing("does not reach it", findingsOf(t, head+"http://:PORT {\n"+test.body+"respond 404\n}\n"))
			missing := test.warns + "/"
			if without, had := strings.CutSuffix(test.warns, "/"); had {
				missing = without
			}
			if test.warns == "" && found != nil || test.warns != "" && (len(found) != 1 || !strings.Contains(found[0], "a block takes one exact path") ||
				!strings.Contains(found[0], `"path":"`+test.warns+`","missing":"`+missing+`"`)) {
				t.Errorf("found %q, want %q", found, test.warns)
			}
		})
	}
}

// TestBelowPath has sites of which some take only what is below a slash.
func TestBelowPath(t *testing.T) {
	const gate = "{\n" + edgetest.Loopback + "}\n"
	for _, test := range []struct {
		name, body string
		warns      string // the path; "" for none
	}{
		{"a * behind the slash", "green_api /green-api/webhook/* " + gate, "/green-api/webhook/*"},
		{"handle", "handle /hook/* {\ngreen_api " + gate + "}\n", "/hook/*"},
		{"handle_path", "handle_path /hook/* {\ngreen_api " + gate + "}\n", "/hook/*"},
		{"route in handle", "handle /hook/* {\nroute {\ngreen_api " + gate + "}\n}\n", "/hook/*"},
		{"and others", "@hook path /hook/* /other*\ngreen_api @hook " + gate, "/hook/*"},
		{"inside a folder", "handle /a/* {\ngreen_api /a/hook/* " + gate + "}\n", "/a/hook/*"},
		{"a folder of more", "handle /a/* {\ngreen_api /a/hook* " + gate + "}\n", ""},
		{"a folder of more, in a route", "handle_path /a/* {\nroute {\ngreen_api /hook* " + gate + "}\n}\n", ""},
		{"the path as well", "@hook path /hook /hook/*\ngreen_api @hook " + gate, ""},
		{"the path is rewritten", "rewrite /hook /hook/\ngreen_api /hook/* " + gate, ""},
		{"the root", "green_api /* " + gate, ""},
		{"more than one *", "green_api /*/hook/* " + gate, ""},
		{"another handler's path", "respond /health/* 200\ngreen_api /hook* " + gate, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			head, _, _ := strings.Cut(edgetest.Site(""), "http://:PORT {")
			found := containing("does not reach it", findingsOf(t, head+"http://:PORT {\n"+test.body+"respond 404\n}\n"))
			without := strings.TrimSuffix(test.warns, "/*")
			if test.warns == "" && found != nil || test.warns != "" && (len(found) != 1 || !strings.Contains(found[0], "a block takes what is below a slash only") || !strings.Contains(found[0],
				`"path":"`+test.warns+`","missing":"`+without+`","fix":"match with a final *, such as `+without+`*"`)) {
				t.Errorf("found %q, want %q", found, test.warns)
			}
		})
	}
}

// TestExamineLeavesNothing: a config whose provisioning writes to Caddy's storage leaves nothing there.
func TestExamineLeavesNothing(t *testing.T) {
	before := caddy.DefaultStorage.Path
	caddy.DefaultStorage.Path = t.TempDir()
	defer func() { caddy.DefaultStorage.Path = before }()
	text, err := edgetest.Adapt("https:// {\n\ttls internal\n\tgreen_api {\n\t\tauth {\n\t\t\ttoken x\n\t\t}\n\t}\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	if facts, err := examine(text); err != nil || len(facts.Blocks) != 1 {
		t.Fatalf("%+v, %v", facts, err)
	}
	left, err := os.ReadDir(caddy.DefaultStorage.Path)
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestExamineStorage: a config may need what its storage has, and there may be no place for another one, as in a
// container.
func TestExamineStorage(t *testing.T) {
	before := caddy.DefaultStorage.Path
	caddy.DefaultStorage.Path = t.TempDir()
	defer func() { caddy.DefaultStorage.Path = before }()
	server := httptest.NewTLSServer(nil)
	server.Close()
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	writeFile(t, filepath.Join(caddy.DefaultStorage.Path, "ca.pem"), string(certificate))
	text, err := edgetest.Adapt("http:// {\n\tgreen_api {\n\t\tauth {\n\t\t\ttoken x\n\t\t}\n\t\treverse_proxy https://127.0.0.1:1 {\n" +
		"\t\t\ttransport http {\n\t\t\t\ttls_trust_pool storage {\n\t\t\t\t\tkeys ca.pem\n\t\t\t\t}\n\t\t\t}\n\t\t}\n\t}\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none")} {
		t.Setenv("TMPDIR", place)
		if facts, err := examine(text); err != nil || len(facts.Blocks) != 1 {
			t.Errorf("%s: %v", place, err)
		}
	}
}
