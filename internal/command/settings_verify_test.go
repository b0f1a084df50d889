package command_test

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/api"
	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// verifiedEdge is an edge with many ways to its blocks, and the address of its admin API. TOKEN and
// webhookTok are the tokens of all; an instance with 2 at its end has one of its own.
func verifiedEdge(t *testing.T) (e *edgetest.Edge, admin string) {
	t.Helper()
	t.Setenv("GREEN_API_TEST_OTHER", webhookTok)
	gates := "ip_filter {\nallow 127.0.0.1\n}\nauth {\ntoken TOKEN {env.GREEN_API_TEST_OTHER} \"Basic ZGVtbzpkZW1v\"\ninstance 1101000002 demo-own-token\n}\nreverse_proxy 127.0.0.1:9\n"
	config, admin := edgetest.WithAdmin(t, edgetest.SiteWith("", `
	green_api /green-api/webhook* {
		name main
		`+gates+`
	}
	handle_path /below/* {
		green_api /hook* {
			name stripped
			`+gates+`
		}
	}
	@open host open.test
	handle @open {
		green_api {
			name open
			ip_filter {
				allow 127.0.0.1
			}
			auth off
			reverse_proxy 127.0.0.1:9
		}
	}
	handle /soon {
		green_api {
			name soon
			ip_filter {
				allow 127.0.0.1
			}
			auth {
				token demo-soon-token
				report_only
			}
			receive 1101000009 demo-api-token {
				api_url http://127.0.0.1:`+edgetest.FreePort(t)+`
			}
			reverse_proxy 127.0.0.1:9
		}
	}
	handle /old/* {
		reverse_proxy 127.0.0.1:9
	}
	respond 404
`))
	return edgetest.Start(t, strings.Replace(config, "http://:PORT {", "http://hooks.test:PORT, http://open.test:PORT {", 1)), admin
}

// TestFit: what an instance has in the console fits if a block takes it.
func TestFit(t *testing.T) {
	_, admin := verifiedEdge(t)
	const main = "https://hooks.test/green-api/webhook"
	for _, test := range []struct {
		instance, url, token string
		block                string
		findings             []api.Unfit
	}{
		{"1101000001", main, edgetest.Token, "main", nil},
		{"1101000001", main + "/", "Bearer " + edgetest.Token, "main", nil},
		{"1101000001", main, "bearer " + webhookTok, "main", nil},
		{"1101000001", main, "Basic ZGVtbzpkZW1v", "main", nil},
		{"1101000001", "https://HOOKS.test:8443/green-api/webhook?a=b", edgetest.Token, "main", nil},
		{"1101000001", main, "", "main", []api.Unfit{"no_token"}},
		{"1101000001", main, "demo-wrong-token", "main", []api.Unfit{"bad_token"}},
		{"1101000001", main, "two words", "main", []api.Unfit{"bad_token"}},
		{"1101000001", main, "ZGVtbzpkZW1v", "main", []api.Unfit{"bad_token"}},
		{"1101000001", main, "demo-own-token", "main", []api.Unfit{"instance_not_allowed"}},
		{"1101000002", main, edgetest.Token, "main", []api.Unfit{"instance_not_allowed"}},
		{"1101000002", main, "demo-own-token", "main", nil},
		{"01101000002", main, "demo-own-token", "main", nil},
		{"1101000001", "http://hooks.test/green-api/webhook", "", "main", []api.Unfit{api.HTTPURL, "no_token"}},
		{"1101000001", "https://hooks.test/below/hook", edgetest.Token, "stripped", nil},
		{"1101000001", "https://hooks.test/hook", edgetest.Token, "", []api.Unfit{api.NoBlock}},
		{"1101000001", "https://hooks.test/old/green-api/webhook", edgetest.Token, "", []api.Unfit{api.NoBlock}},
		{"1101000001", "https://elsewhere.test/green-api/webhook", edgetest.Token, "", []api.Unfit{api.NoBlock}},
		{"1101000001", "https://open.test", "", "open", nil},
		{"1101000001", "https://hooks.test/soon", edgetest.Token, "soon", []api.Unfit{"bad_token"}},
		{"1101000001", "", edgetest.Token, "", []api.Unfit{api.NoURL}},
		{"1101000001", "hooks.test/green-api/webhook", edgetest.Token, "", []api.Unfit{api.BadURL}},
		{"1101000001", "ftp://hooks.test/", edgetest.Token, "", []api.Unfit{api.BadURL}},
		{"1101000009", "", "", "soon", nil},
		{"1101000009", main, edgetest.Token, "soon", []api.Unfit{api.Received}},
	} {
		status, text := askFit(t, admin, url.Values{"instance": {test.instance}, "url": {test.url}, "token": {test.token}})
		if status != 200 {
			t.Fatalf("%+v: status %d: %s", test, status, text)
		}
		var got api.Fit
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if got.Instance != test.instance || got.Block != test.block || !slices.Equal(got.Findings, test.findings) || got.Findings == nil {
			t.Errorf("%+v: got %s", test, strings.TrimSpace(text))
		}
	}
	for body, want := range map[string]string{
		"": "instance: empty", "instance=1101000001&instance=1101000002": "instance: more than one", "instance=1101000001&webhookUrl=x": "unknown parameter; want instance, url and token",
		"%": "want parameters as in a query",
	} {
		response, err := edgetest.Client.Post("http://"+admin+"/green_api/fit", "", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if text := edgetest.ReaderText(t, response.Body); response.StatusCode != 400 || !strings.Contains(text, want) {
			t.Errorf("%q: status %d, %s", body, response.StatusCode, text)
		}
		response.Body.Close()
	}
}

// askFit asks whether settings fit.
func askFit(t *testing.T, admin string, settings url.Values) (status int, text string) {
	t.Helper()
	response, err := edgetest.Client.PostForm("http://"+admin+"/green_api/fit", settings)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode, edgetest.ReaderText(t, response.Body)
}

// TestSettingsVerify: the command reads the settings of each instance, and says whether they fit.
func TestSettingsVerify(t *testing.T) {
	e, admin := verifiedEdge(t)
	b := newSettingsBench(t)
	set := func(instance, api, url, token string) {
		b.set(instance, api, `{"webhookUrl":"`+url+`","webhookUrlToken":"`+token+`"}`)
	}
	set("1101000001", apiToken, "https://hooks.test/green-api/webhook/", webhookTok)
	set("1101000002", otherAPI, "http://user:secret@hooks.test/green-api/webhook", oldWebhook)
	file := b.file("1101000001 " + apiToken + "\n1101000002 " + otherAPI + "\n")

	stdout, stderr := b.run(0, "verify", "1101000001", "--address", admin)
	if stderr != "" {
		t.Errorf("stderr %q", stderr)
	}
	wantLines(t, stdout, "1101000001  fits, by block main")
	stdout, _ = b.run(0, "verify", "1101000001", "--address", admin, "--format", "json")
	wantLines(t, stdout, `{"instance":"1101000001","block":"main","findings":[],"error":""}`)

	stdout, _ = b.run(1, "verify", "--instances", file, "--address", admin)
	wantLines(
		t, stdout,
		"1101000001  fits, by block main",
		"1101000002  http_url: webhookUrl begins with http://, so its token and its messages can be read on the way; want https:// (http://REDACTED@hooks.test/green-api/webhook)",
		"1101000002  bad_token: webhookUrlToken is none of the tokens of the block's auth (http://REDACTED@hooks.test/green-api/webhook)",
	)
	stdout, _ = b.run(1, "verify", "--instances", file, "--address", admin, "--format", "json")
	wantLines(
		t, stdout,
		`{"instance":"1101000001","block":"main","findings":[],"error":""}`,
		`{"instance":"1101000002","block":"main","findings":["http_url","bad_token"],"error":""}`,
	)

	// An instance whose settings cannot be read hides nothing of the others.
	file = b.file("1101000001 demo-wrong-token\n1101000002 " + otherAPI + "\n")
	stdout, stderr = b.run(1, "verify", "--instances", file, "--address", admin)
	if strings.Count(stdout, "\n") != 2 || !strings.HasPrefix(stderr, "caddy green-api settings verify: instance 1101000001: ") {
		t.Errorf("stdout %q, stderr %q", stdout, stderr)
	}
	stdout, _ = b.run(1, "verify", "--instances", file, "--address", admin, "--format", "json")
	if !strings.HasPrefix(stdout, `{"instance":"1101000001","block":"","findings":[],"error":"`) || strings.HasPrefix(stdout, `{"instance":"1101000001","block":"","findings":[],"error":""`) {
		t.Errorf("stdout %q", stdout)
	}

	set("1101000001", apiToken, "", "")
	stdout, _ = b.run(1, "verify", "1101000001", "--address", admin)
	wantLines(t, stdout, "1101000001  no_url: webhookUrl is empty, so its notifications are not sent; set it, or have the edge 'receive' the instance")

	nobody := "127.0.0.1:" + edgetest.FreePort(t)
	for _, test := range []struct{ args, want string }{
		{"verify 1101000001 --address " + nobody, "admin API on " + nobody},
		{"verify 1101000001 --format xml", "invalid --format"},
		{"verify --address " + admin, "want the id of one instance"},
		{"verify 1101000001 --config /nonexistent/Caddyfile", "/nonexistent/Caddyfile"},
	} {
		if stdout, stderr := b.run(2, strings.Fields(test.args)...); stdout != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: stdout %q, stderr %q", test.args, stdout, stderr)
		}
	}
	if log := e.Logs.All(); strings.Contains(log, webhookTok) || strings.Contains(log, oldWebhook) {
		t.Error("a token is in the log")
	}
}
