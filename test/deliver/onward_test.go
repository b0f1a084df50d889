package deliver

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// A bystander answers its first request 503 and the next ones 200, and writes down what placeholders say, and what
// the handlers behind it answer.
type bystander struct {
	Texts []string `json:"texts,omitempty"`
}

var overheard struct {
	sync.Mutex
	texts []string
}

func init() {
	caddy.RegisterModule(bystander{})
	httpcaddyfile.RegisterHandlerDirective("test_bystander", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		h.Next()
		return &bystander{Texts: h.RemainingArgs()}, nil
	})
}

func (bystander) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.test_bystander", New: func() caddy.Module { return new(bystander) }}
}

func (m bystander) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	answer := httptest.NewRecorder()
	if err := next.ServeHTTP(answer, r); err != nil {
		return err
	}
	texts := []string{fmt.Sprint(answer.Body), r.Method, r.URL.String()}
	for _, text := range m.Texts {
		texts = append(texts, r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).ReplaceAll(text, ""))
	}
	overheard.Lock()
	defer overheard.Unlock()
	overheard.texts = append(overheard.texts, strings.Join(texts, "\n"))
	if len(overheard.texts) == 1 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	return nil
}

// behindTheGate are routes in which something depends on what was changed before. A route may have a
// part that stands before the gate.
var behindTheGate = []struct{ name, before, behind string }{
	{"handle_path, rewrite", "", "handle_path /green-api/* {\nrewrite * /hooks{uri}\nPROXY\n}"},
	{"uri", "", "uri strip_prefix /green-api\nuri replace hook HOOK\nuri query +a {path}\nrewrite /x{path}?{query}\nPROXY"},
	{"rewrite, twice", "", "rewrite /a{uri}\nrewrite /b{uri}\nPROXY"},
	{"method", "", "method PUT\nrequest_header X-Method {method}\nPROXY"},
	{"request_header", "", "request_header X-New set\nrequest_header X-Copy {header.X-New}\nrequest_header X-Path {path}-{path.0}\nPROXY"},
	{"header_up", "", "request_header X-New set\nrewrite /new{uri}\nreverse_proxy UP {\nheader_up X-Copy {header.X-New}\nheader_up X-Uri {uri}\n}"},
	{"request body", "", "request_header X-Body {http.request.body_base64}\nrequest_header X-Body-Again {http.request.body_base64}\nPROXY"},
	{"map behind", "", "handle_path /green-api/* {\nmap {path} {to} {\n/webhook right\ndefault wrong\n}\nrewrite /{to}\nPROXY\n}"},
	{"map before: path", "map {path} {to} {\n/webhook right\ndefault wrong\n}", "handle_path /green-api/* {\nrewrite /{to}\nPROXY\n}"},
	{"map before: the rest", "map {method}{header.X-New}{http.vars.new}{http.request.body} {to} {\n~^PUTsetset\\{.* right\ndefault wrong\n}", "method PUT\nrequest_header X-New set\nvars new set\nrewrite /{to}\nPROXY"},
	{"map before: matched behind", "map {http.regexp.name.1} {to} {\nwebhook right\ndefault wrong\n}", "@name path_regexp name /green-api/(.*)\nrewrite @name /{to}\nPROXY"},
	{"map before: the notification", "map {http.green_api.type} {to} {\nincomingMessageReceived right\n\"\" right\ndefault wrong\n}", "rewrite /{to}\nPROXY"},
	{"vars", "vars seen x", "vars seen {http.vars.seen}x\nrequest_header X-Seen {http.vars.seen}\nPROXY"},
	{"vars of one attempt only", "", "@seen vars {http.vars.seen} yes\nrequest_header @seen X-Seen yes\nvars seen yes\nPROXY"},
	{"expression", "", "handle_path /green-api/* {\n@hook expression `{path} == \"/webhook\"`\nrewrite @hook /right\nPROXY\n}"},
	{"vars matcher", "", "handle_path /green-api/* {\n@hook vars {path} /webhook\nrewrite @hook /right\nPROXY\n}"},
	{"path and header matchers", "", "request_header X-New set\n@new {\npath /green-api/*\nheader X-New set\n}\nrewrite @new /right\n@right path /right\nrequest_header @right X-Right yes\nPROXY"},
	{"path_regexp", "", "uri strip_prefix /green-api\n@hook path_regexp hook ^/(web.*)$\nrewrite @hook /{re.hook.1}/{http.regexp.hook.1}\nPROXY"},
	{"handle, in a group", "", "handle /green-api/* {\nrewrite /right\nPROXY\n}\nhandle {\nrewrite /wrong\nPROXY\n}"},
	{"try_files", "root FILES", "handle_path /green-api/* {\ntry_files {path}.txt {path} /wrong\nPROXY\n}"},
	{"file matcher", "root FILES", "handle_path /green-api/* {\n@there file {path}.txt\nrewrite @there /there{file_match.relative}\nPROXY\n}"},
	{"respond", "", "handle_path /green-api/* {\nrequest_header X-New set\nvars seen yes\ntest_bystander {path} {header.X-New} {http.vars.seen} {http.request.orig_uri.path} {http.shutting_down}\nrespond \"{method} {uri} {header.X-New} {http.vars.seen}\"\n}"},
	{"response header", "", "header X-Answer {path}\nrewrite /x{uri}\ntest_bystander {http.response.header.X-Answer}"},
	{"forward_auth", "forward_auth UP {\nuri /auth\n}", "handle_path /green-api/* {\nrequest_header X-Before {rp.upstream.hostport}\nPROXY\n}"},
	{"forward_auth, map", "map {path} {to} {\n/webhook right\ndefault wrong\n}\nforward_auth UP {\nuri /auth\n}", "handle_path /green-api/* {\nrewrite /{to}\nPROXY\n}"},
	{"environment", "", "request_header X-Home {env.XDG_DATA_HOME}\nPROXY"},
}

// TestBehindTheGate: what stands behind green_api sees exactly what it would see without it, on every
// attempt.
func TestBehindTheGate(t *testing.T) {
	files := t.TempDir()
	if err := os.WriteFile(filepath.Join(files, "webhook.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range behindTheGate {
		t.Run(test.name, func(t *testing.T) {
			ask := func(gate string, answers ...string) (seen []string) {
				overheard.texts = nil
				up := edgetest.Script(t, answers...)
				config := "route {\n" + test.before + "\n" + gate + test.behind + "\n}\n"
				e := edgetest.Start(t, edgetest.SiteWith("order test_bystander before respond", strings.NewReplacer("PROXY", "reverse_proxy "+up.Address, "UP", up.Address, "FILES", files).Replace(config)))
				e.URL += "?q=1"
				e.Post(edgetest.TextMessage)
				for _, r := range up.Requests() {
					if r.Path != "/auth" {
						delete(r.Header, "X-Forwarded-Host")
						delete(r.Header, "X-Green-Api-Id") // which the gate adds
						seen = append(seen, strings.ReplaceAll(fmt.Sprintln(r.Method, r.Uri, r.Header, r.Body), up.Address, "UP"))
					}
				}
				return append(seen, overheard.texts...)
			}
			without := ask("", "200")
			if len(without) != 1 {
				t.Fatalf("without the gate, asked %d times", len(without))
			}
			if strings.Contains(without[0], "wrong") {
				t.Fatalf("the route is not right: %s", without[0])
			}
			answers := []string{"503", "200"}
			if strings.Contains(test.before, "forward_auth") {
				answers = slices.Insert(answers, 0, "200")
			}
			with := ask("green_api {\n"+edgetest.Loopback+"}\n", answers...)
			if len(with) != 2 {
				t.Errorf("with the gate, asked %d times", len(with))
			}
			for i, got := range with {
				if got != without[0] {
					t.Errorf("attempt %d\n%s\nwithout the gate\n%s", i+1, got, without[0])
				}
			}
		})
	}
}

// TestRequestID: all attempts, and the access log, have the one id of the request.
func TestRequestID(t *testing.T) {
	up := edgetest.Script(t, "503", "503", "200")
	e := edgetest.Start(t, edgetest.SiteWith("", "log\ngreen_api {\n"+edgetest.Loopback+"reverse_proxy "+up.Address+" {\nheader_up X-Request-Id {http.request.uuid}\n}\n}\n"))
	e.Post(edgetest.TextMessage)
	asked := up.Requests()
	id := asked[0].Header.Get("X-Request-Id")
	for i, r := range asked {
		if got := r.Header.Get("X-Request-Id"); got != id || len(id) != 36 {
			t.Errorf("attempt %d: %q, the first had %q", i+1, got, id)
		}
	}
	edgetest.Eventually(t, "the access log", func() bool { return strings.Contains(e.Logs.All(), `"uuid":"`+id+`"`) })
}

// TestBeforeTheGate: access logs show what the handlers behind green_api have set, as they would without it.
func TestBeforeTheGate(t *testing.T) {
	auth, up := edgetest.NewUpstream(t, 200, nil), edgetest.Script(t, "503", "200")
	gate := "green_api {\n" + edgetest.Loopback + "}\n"
	logs := "log\nlog_append upstream {rp.upstream.hostport}\nlog_append chosen {http.vars.chosen}\n"
	for _, test := range []struct{ name, site string }{
		{"the proxy in the block", "green_api {\n" + edgetest.Loopback + "reverse_proxy UP\n}\n"},
		{"a proxy behind it", gate + "reverse_proxy UP\n"},
		{"forward_auth before it", "route {\nforward_auth AUTH {\nuri /auth\n}\n" + gate + "reverse_proxy UP\n}\n"},
		{"vars", "route {\n" + gate + "vars chosen yes\nreverse_proxy UP\n}\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := edgetest.Start(t, edgetest.SiteWith("", strings.NewReplacer("UP", up.Address, "AUTH", auth.Address).Replace(logs+test.site)))
			e.Post(edgetest.TextMessage)
			chosen := `"chosen":null`
			if test.name == "vars" {
				chosen = `"chosen":"yes"`
			}
			edgetest.Eventually(t, "the access log", func() bool { return strings.Contains(e.Logs.All(), `"logger":"http.log.access`) })
			for line := range strings.Lines(e.Logs.All()) {
				if strings.Contains(line, `"logger":"http.log.access`) && (!strings.Contains(line, `"upstream":"`+up.Address+`"`) || !strings.Contains(line, chosen)) {
					t.Error(line)
				}
			}
		})
	}
}
