package command_test

import (
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/edgetest"
)

// TestAlertTest: one alert goes to each endpoint, with what that one gets in earnest, and each says how it went.
func TestAlertTest(t *testing.T) {
	t.Setenv("GREEN_API_TEST_KEY", "demo-alert-key")
	well, ill := edgetest.NewUpstream(t, 204, nil), edgetest.NewUpstream(t, 403, nil)
	gone := "127.0.0.1:" + edgetest.FreePort(t)
	alert := func(url string) string {
		return "alert " + url + " {\nheader X-Key {env.GREEN_API_TEST_KEY}\nbody `{\"why\": \"{alert.reason}\", \"said\": \"{alert.text}\"}`\n}\n"
	}
	config, admin := edgetest.WithAdmin(t, edgetest.Site(edgetest.Loopback))
	with := func(alerts ...string) string {
		return strings.Replace(config, "quarantine DIR\n", "quarantine DIR\n"+strings.Join(alerts, ""), 1)
	}
	e := edgetest.Start(t, config)
	for _, test := range []struct {
		name, config  string
		code          int
		text, json    string
		stderr        string
		toWell, toIll int
	}{
		{"none", config, 1, "", "", "caddy green-api alert test: the config that runs has no alert in it, so nobody is told of what goes wrong\n", 0, 0},
		{
			"well", with(alert(well.URL + "/{env.GREEN_API_TEST_KEY}")), 0,
			"alert 1  " + well.Address + "  taken\n", `{"alert":1,"endpoint":"` + well.Address + `","error":""}` + "\n", "", 1, 0,
		},
		{
			"all kinds", with(alert(ill.URL), alert(well.URL), alert("http://"+gone+"/hook")), 1,
			"alert 1  " + ill.Address + "  not taken: answer 403\nalert 2  " + well.Address + "  taken\nalert 3  " + gone + "  not taken: dial tcp " + gone + ": connect: connection refused\n",
			`{"alert":1,"endpoint":"` + ill.Address + `","error":"answer 403"}` + "\n" + `{"alert":2,"endpoint":"` + well.Address + `","error":""}` + "\n" +
				`{"alert":3,"endpoint":"` + gone + `","error":"dial tcp ` + gone + `: connect: connection refused"}` + "\n",
			"", 1, 1,
		},
	} {
		if err := e.Load(test.config); err != nil {
			t.Fatal(err)
		}
		atWell, atIll := len(well.Requests()), len(ill.Requests())
		stdout, stderr, code := runCommand(t, "", "", "green-api", "alert", "test", "--address", admin)
		if code != test.code || stdout != test.text || stderr != test.stderr {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", test.name, code, stdout, stderr)
		}
		if toWell, toIll := len(well.Requests())-atWell, len(ill.Requests())-atIll; toWell != test.toWell || toIll != test.toIll {
			t.Errorf("%s: %d and %d alerts", test.name, toWell, toIll)
		}
		if stdout, _, code := runCommand(t, "", "", "green-api", "alert", "test", "--address", admin, "--format", "json"); code != test.code || stdout != test.json {
			t.Errorf("%s: exit code %d, stdout %q", test.name, code, stdout)
		}
	}
	for _, got := range well.Requests() {
		if got.Header.Get("X-Key") != "demo-alert-key" || !strings.Contains(got.Body, `"why": "test", "said": "GREEN-API edge `) || !strings.Contains(got.Body, "nothing is wrong") {
			t.Errorf("told %+v", got)
		}
	}
	if records := len(e.Logs.Records(t)); records > 0 {
		t.Errorf("%d records, as if notifications had come", records)
	}
}

// TestAlertTestUnasked: a server that cannot be asked is not one whose alerts fail.
func TestAlertTestUnasked(t *testing.T) {
	nobody := "127.0.0.1:" + edgetest.FreePort(t)
	other := edgetest.NewUpstream(t, 200, nil)
	config, admin := edgetest.WithAdmin(t, "{\nadmin off\npersist_config off\nauto_https off\n}\nhttp://:PORT {\nbind 127.0.0.1\n}\n")
	edgetest.Start(t, config)
	for _, test := range []struct{ args, want string }{
		{"test --address " + nobody, "admin API on " + nobody},
		{"test --address " + admin, "the config that runs has no green_api in it"},
		{"test --format xml", "invalid --format"},
		{"test now", "unknown command"},
		{"tset", "unknown command"},
	} {
		stdout, stderr, code := runCommand(t, "", "", append([]string{"green-api", "alert"}, strings.Fields(test.args)...)...)
		if code != 2 || stdout != "" || !strings.HasPrefix(stderr, "caddy green-api alert") || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", test.args, code, stdout, stderr)
		}
	}
	if _, _, code := runCommand(t, "", "", "green-api", "alert", "test", "--address", other.Address); code != 1 {
		t.Errorf("a server that sends no alert: exit code %d", code)
	}
}
