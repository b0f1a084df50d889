package greenapi

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
	"github.com/greenapi-community/caddy-green-api/internal/proxy"
)

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
		{"dead_letter_after no duration", withAuth(`"deliver": {"dead_letter_after": "soon"}`), []string{`dead_letter_after: invalid value "soon"`}},
		{"dead_letter no number", withAuth(`"deliver": {"dead_letter": "never"}`), []string{`dead_letter: invalid value "never"`}},
		{"deduplicate negative", withAuth(`"deliver": {"deduplicate": -1}`), []string{"deliver: deduplicate: ", "is out of range"}},
		{"attempt_timeout negative", withAuth(`"deliver": {"attempt_timeout": -1}`), []string{"deliver: attempt_timeout: ", "is out of range"}},

		// reverse_proxy
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

// TestProxyConfig compares what a user writes as reverse_proxy with what is loaded.
func TestProxyConfig(t *testing.T) {
	const (
		policy    = `"load_balancing": {"selection_policy": {"policy": "green_api"}}`
		checks    = `"health_checks": {"passive": {"fail_duration": 5000000000, "max_fails": 3}}`
		keep      = `"keep_alive": {"idle_timeout": 4000000000}, "max_response_header_size": 65536`
		transport = `"transport": {"protocol": "green_api", "dial_timeout": 2000000000,` + keep + `}`
		upstreams = `"upstreams": [{"dial": "127.0.0.1:9001", "max_requests": 10}]`
	)
	for _, test := range []struct{ name, config, want string }{
		{"nothing", `{}`, `{` + policy + `,` + checks + `,` + transport + `}`},
		{"upstreams", `{` + upstreams + `}`, `{` + upstreams + `,` + policy + `,` + checks + `,` + transport + `}`},
		{
			"policy", `{"load_balancing": {"selection_policy": {"policy": "green_api", "by": "chat"}}}`,
			`{"load_balancing": {"selection_policy": {"policy": "green_api", "by": "chat"}},` + checks + `,` + transport + `}`,
		},
		{
			"stock policy", `{"load_balancing": {"selection_policy": {"policy": "random_choose", "choose": 2}}}`,
			`{"load_balancing": {"selection_policy": {"policy": "random_choose", "choose": 2}},` + checks + `,` + transport + `}`,
		},
		{
			"fail_duration", `{"health_checks": {"passive": {"fail_duration": "1m"}}}`,
			`{` + policy + `,"health_checks": {"passive": {"fail_duration": 60000000000, "max_fails": 3}},` + transport + `}`,
		},
		{
			"max_fails and the rest", `{"health_checks": {"passive": {"max_fails": 1, "unhealthy_status": [503], "unhealthy_latency": "1s", "unhealthy_request_count": 9}}}`,
			`{` + policy + `,"health_checks": {"passive": {"fail_duration": 5000000000, "max_fails": 1, "unhealthy_status": [503], "unhealthy_latency": 1000000000, "unhealthy_request_count": 9}},` + transport + `}`,
		},
		{
			"active checks", `{"health_checks": {"active": {"uri": "/health", "interval": "10s"}}}`,
			`{` + policy + `,"health_checks": {"active": {"uri": "/health", "interval": 10000000000}, "passive": {"fail_duration": 5000000000, "max_fails": 3}},` + transport + `}`,
		},
		{"dial_timeout", `{"transport": {"protocol": "http", "dial_timeout": "7s"}}`, `{` + policy + `,` + checks + `,"transport": {"protocol": "green_api", "dial_timeout": "7s",` + keep + `}}`},
		{"keep_alive", `{"transport": {"protocol": "http", "dial_timeout": 0, "keep_alive": {"enabled": false}}}`, `{` + policy + `,` + checks + `,"transport": {"protocol": "green_api", "dial_timeout": 0, "keep_alive": {"enabled": false, "idle_timeout": 4000000000}, "max_response_header_size": 65536}}`},
		{"keep_alive, its own time", `{"transport": {"protocol": "http", "dial_timeout": 0, "keep_alive": {"max_idle_conns": 100, "idle_timeout": "9s"}}}`, `{` + policy + `,` + checks + `,"transport": {"protocol": "green_api", "dial_timeout": 0, "keep_alive": {"max_idle_conns": 100, "idle_timeout": "9s"}, "max_response_header_size": 65536}}`},
		{"null", `{"transport": {"protocol": "http", "keep_alive": null, "tls": null}}`, `{` + policy + `,` + checks + `,"transport": {"protocol": "green_api", "tls": null, "dial_timeout": 2000000000,` + keep + `}}`},
		{"tls on", `{"transport": {"protocol": "http", "tls": {}}}`, `{` + policy + `,` + checks + `,"transport": {"protocol": "green_api", "tls": {"handshake_timeout": 5000000000}, "dial_timeout": 2000000000,` + keep + `}}`},
		{"tls_timeout", `{"transport": {"protocol": "http", "tls": {"handshake_timeout": "1s"}}}`, `{` + policy + `,` + checks + `,"transport": {"protocol": "green_api", "tls": {"handshake_timeout": "1s"}, "dial_timeout": 2000000000,` + keep + `}}`},
		{"dial_timeout off", `{"transport": {"protocol": "http", "dial_timeout": 0}}`, `{` + policy + `,` + checks + `,"transport": {"protocol": "green_api", "dial_timeout": 0,` + keep + `}}`},
		{
			"transport http", `{"transport": {"protocol": "http", "tls": {"server_name": "handler.example.com"}, "versions": ["1.1"]}}`,
			`{` + policy + `,` + checks + `,"transport": {"protocol": "green_api", "tls": {"server_name": "handler.example.com", "handshake_timeout": 5000000000}, "versions": ["1.1"], "dial_timeout": 2000000000,` + keep + `}}`,
		},
		{
			"another transport", `{"transport": {"protocol": "fastcgi", "root": "/srv"}}`,
			`{` + policy + `,` + checks + `,"transport": {"protocol": "fastcgi", "root": "/srv"}}`,
		},
		{
			"what has no default", `{"flush_interval": -1, "headers": {"request": {"delete": ["Authorization"]}}, "rewrite": {"uri": "/hook"}, ` +
				`"dynamic_upstreams": {"source": "a", "name": "example.com", "port": "80"}, "handle_response": [{"match": {"status_code": [5]}, "status_code": 503}]}`,
			`{"flush_interval": -1, "headers": {"request": {"delete": ["Authorization"]}}, "rewrite": {"uri": "/hook"}, ` +
				`"dynamic_upstreams": {"source": "a", "name": "example.com", "port": "80"}, "handle_response": [{"match": {"status_code": [5]}, "status_code": 503}],` +
				policy + `,` + checks + `,` + transport + `}`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			rp := new(reverseproxy.Handler)
			if err := json.Unmarshal([]byte(test.config), rp); err != nil {
				t.Fatal(err)
			}
			before, err := json.Marshal(rp)
			if err != nil {
				t.Fatal(err)
			}
			got, err := proxy.Config(rp)
			if err != nil {
				t.Fatal(err)
			}
			if !sameJSON(t, got, []byte(test.want)) {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			after, err := json.Marshal(rp)
			if err != nil {
				t.Fatal(err)
			}
			if string(after) != string(before) {
				t.Errorf("what the user wrote has changed:\n%s\n%s", before, after)
			}
		})
	}
}

// TestProxyConfigOfBoth takes the same reverse_proxy as a Caddyfile and as JSON.
func TestProxyConfigOfBoth(t *testing.T) {
	text, err := edgetest.Adapt("http://:8080 {\ngreen_api {\nauth off\nreverse_proxy 127.0.0.1:9001 {\nmax_fails 5\n}\n}\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	var adapted struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes []struct {
						Handle []struct {
							ReverseProxy reverseproxy.Handler `json:"reverse_proxy"`
						} `json:"handle"`
					} `json:"routes"`
				} `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(text, &adapted); err != nil {
		t.Fatal(err)
	}
	fromCaddyfile, err := proxy.Config(&adapted.Apps.HTTP.Servers["srv0"].Routes[0].Handle[0].ReverseProxy)
	if err != nil {
		t.Fatal(err)
	}
	written := new(reverseproxy.Handler)
	if err := json.Unmarshal([]byte(`{"upstreams": [{"dial": "127.0.0.1:9001"}], "health_checks": {"passive": {"max_fails": 5}}}`), written); err != nil {
		t.Fatal(err)
	}
	fromJSON, err := proxy.Config(written)
	if err != nil {
		t.Fatal(err)
	}
	if !sameJSON(t, fromCaddyfile, fromJSON) {
		t.Errorf("Caddyfile %s\nJSON      %s", fromCaddyfile, fromJSON)
	}
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var left, right any
	if err := json.Unmarshal(a, &left); err != nil {
		t.Fatalf("%v: %s", err, a)
	}
	if err := json.Unmarshal(b, &right); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return reflect.DeepEqual(left, right)
}
